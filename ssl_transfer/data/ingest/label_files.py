"""Which file of a source the rows of a CSV name: by its path, the end of its path, without extension, or in other letters."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ssl_transfer.data.readers.matching import IMAGE_SUFFIXES, VOLUME_SUFFIXES

EXTENSIONS = (
    *(*VOLUME_SUFFIXES[::-1], *IMAGE_SUFFIXES),  # the longer one of .nii.gz and .gz first
    *(".dcm", ".dicom", ".ima", ".mha", ".mhd", ".nrrd", ".jp2", ".webp", ".gif", ".npy", ".npz", ".svs"),
)


@dataclass
class FileMatches:
    """The files that names in a CSV stand for.

    Attributes:
        files: Name in the CSV -> file of the source.
        ambiguous: Name in the CSV -> files that it may stand for.
        rules: Rule by which names were found that are not the end of a path -> how many, and an example of name and file.
    """

    files: dict[str, str] = field(default_factory=dict)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    rules: dict[str, tuple[int, str, str]] = field(default_factory=dict)


def normal_path(name: str) -> str:
    """A path in Unicode normal form C, with `/` between folders and none at the start.

    Example:
        >>> normal_path(r".\\train\\a.png")
        'train/a.png'
    """
    name = name if name.isascii() else unicodedata.normalize("NFC", name)
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def without_extension(name: str) -> str:
    """A name without the extension of an image.

    Example:
        >>> without_extension("a/1.2.840.nii.gz")
        'a/1.2.840'
    """
    lower = name.lower()
    return next((name[: -len(end)] for end in EXTENSIONS if lower.endswith(end) and len(name) > len(end)), name)


def _either_case(name: str) -> str:
    return without_extension(name).casefold()


class _Index:
    """Files by their whole path and by every end of it, in one form."""

    def __init__(self, files: Iterable[str], form: Callable[[str], str]):
        self.form = form
        self.whole: dict[str, list[str]] = defaultdict(list)
        self.ends: dict[str, list[str]] = defaultdict(list)
        for file in files:
            path = form(normal_path(file))
            self.whole[path].append(file)
            for end in _ends(path):
                self.ends[end].append(file)

    def find(self, name: str) -> list[str]:
        """The files that a name may stand for: the same path; files whose path ends like it; files whose path is its end."""
        path = self.form(normal_path(name))
        files = self.whole.get(path) or self.ends.get(path)
        return files or next((self.whole[end] for end in _ends(path) if end in self.whole), [])


def _ends(path: str) -> list[str]:
    """The path without its first folder, first two folders, …"""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(1, len(parts))]


def match_files(names: Sequence[str], files: Sequence[str], refused: Sequence[str] = ()) -> FileMatches:
    """Find the file that each name of a CSV stands for.

    A rule is tried only for the names that those before it do not find: the path or an end of it; then without the extensions
    of images; then without regard to upper and lower case. A name may have more folders than the source, or fewer.

    Args:
        names: Names in the CSV, without repetition.
        files: Files that become images.
        refused: Other files of the source, which a CSV may also name.
    """
    matches, left = FileMatches(), list(names)
    exact: dict[str, list[str]] = defaultdict(list)
    for file in (*files, *refused):
        exact[normal_path(file)].append(file)
    for name in names:
        _record(matches, name, exact.get(normal_path(name), []), "")
    rules: list[tuple[str, Callable[[str], str], Sequence[str]]] = [
        ("by the end of the path", str, files),
        ("by the end of the path", str, refused),
        ("without the extension", without_extension, files),
        ("without regard to upper and lower case", _either_case, files),
        ("without the extension", without_extension, refused),
        ("without regard to upper and lower case", _either_case, refused),
    ]
    for rule, form, candidates in rules:
        left = [name for name in left if name not in matches.files and name not in matches.ambiguous]
        if not left:
            break
        index = _Index(candidates, form)
        for name in left:
            _record(matches, name, index.find(name), rule)
    return matches


def _record(matches: FileMatches, name: str, found: list[str], rule: str) -> None:
    """Enter what was found for a name, and how."""
    if len(found) > 1:
        matches.ambiguous[name] = found
    elif found:
        matches.files[name] = found[0]
        if not f"/{normal_path(found[0])}".endswith(f"/{normal_path(name)}"):
            count, first_name, first_file = matches.rules.get(rule, (0, name, found[0]))
            matches.rules[rule] = (count + 1, first_name, first_file)


def lost_zeros(name: str, candidates: Iterable[str]) -> str | None:
    """The only candidate that differs from a name by zeros in front of its number, or by `.0` after it, as spreadsheets do.

    Example:
        >>> lost_zeros("7.0", ["0007", "0008"])
        '0007'
    """
    alike = Counter()
    wanted = _number(name)
    for candidate in candidates if wanted is not None else ():
        if _number(candidate) == wanted:
            alike[candidate] += 1
    return next(iter(alike)) if len(alike) == 1 else None


def _number(name: str) -> str | None:
    """The digits of the last part of a path that is a number, without zeros in front and `.0` behind; None for other names."""
    digits = without_extension(name.rsplit("/", 1)[-1]).removesuffix(".0")
    return digits.lstrip("0") or "0" if digits.isdecimal() else None
