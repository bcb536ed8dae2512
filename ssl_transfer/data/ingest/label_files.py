"""Which file of a source the rows of a CSV name: by its path, the end of its path, without extension, or in other letters."""

from __future__ import annotations

import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ssl_transfer.data.readers.matching import IMAGE_SUFFIXES, VOLUME_SUFFIXES
from ssl_transfer.texts import Positions

EXTENSIONS = (
    *(*VOLUME_SUFFIXES[::-1], *IMAGE_SUFFIXES),  # the longer one of .nii.gz and .gz first
    *(".dcm", ".dicom", ".ima", ".mha", ".mhd", ".nrrd", ".jp2", ".webp", ".gif", ".npy", ".npz", ".svs"),
)


class Found(Mapping[str, str]):
    """Name in the CSV -> file of the source.

    Args:
        names: Names in the CSV.
        files: Files of the source: images, then refused ones.

    Attributes:
        places: Position of the file of each name, −1 where there is none, int64 (n,).
    """

    def __init__(self, names: Sequence[str], files: Sequence[str]):
        self.names, self.sources, self.places = names, files, np.full(len(names), -1, np.int64)
        self._positions: Positions | None = None

    def __iter__(self) -> Iterator[str]:
        return (self.names[int(number)] for number in np.flatnonzero(self.places >= 0))

    def __len__(self) -> int:
        return int((self.places >= 0).sum())

    def __getitem__(self, name: str) -> str:
        if self._positions is None:  # they are rarely needed
            self._positions = Positions(self.names)
        for number in self._positions.of(name):
            if self.names[number] == name and self.places[number] >= 0:
                return self.sources[int(self.places[number])]
        raise KeyError(name)


class _Joined(Sequence[str]):
    """Images, then refused files."""

    def __init__(self, files: Sequence[str], refused: Sequence[str]):
        self.files, self.refused = files, refused

    def __len__(self) -> int:
        return len(self.files) + len(self.refused)

    def __getitem__(self, position):
        beyond = position - len(self.files)
        return self.refused[beyond] if beyond >= 0 else self.files[position]


@dataclass
class FileMatches:
    """The files that names in a CSV stand for.

    Attributes:
        files: Name in the CSV -> file of the source.
        ambiguous: Name in the CSV -> files that it may stand for.
        rules: Rule by which names were found that are not the end of a path -> how many, and an example of name and file.
    """

    files: Found
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
    """Files by their whole path and by every end of it, in one form. Memory: sixteen bytes for each part of a path."""

    def __init__(self, files: Sequence[str], form: Callable[[str], str]):
        self.form = form
        self.whole = Positions(form(normal_path(file)) for file in files)
        owners = array("q")

        def ends() -> Iterator[str]:
            for position, file in enumerate(files):
                for end in _ends(form(normal_path(file))):
                    owners.append(position)
                    yield end

        self._ends = Positions(ends())
        self._owners = owners

    def find(self, name: str) -> list[int]:
        """Positions of the files that a name may stand for: the same path; paths that end like it; paths that are its end."""
        path = self.form(normal_path(name))
        found = self.whole.of(path) or [self._owners[number] for number in self._ends.of(path)]
        return found or next((whole for end in _ends(path) if (whole := self.whole.of(end))), [])


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
    everything = _Joined(files, refused)
    matches = FileMatches(Found(names, everything))
    exact = Positions(normal_path(file) for file in everything)
    for number, name in enumerate(names):
        _record(matches, number, exact.of(normal_path(name)), "")
    del exact
    rules: list[tuple[str, Callable[[str], str], Sequence[str]]] = [
        ("by the end of the path", str, files),
        ("by the end of the path", str, refused),
        ("without the extension", without_extension, files),
        ("without regard to upper and lower case", _either_case, files),
        ("without the extension", without_extension, refused),
        ("without regard to upper and lower case", _either_case, refused),
    ]
    for rule, form, candidates in rules:
        left: list[int] = [
            n for n in np.flatnonzero(matches.files.places < 0).tolist() if names[n] not in matches.ambiguous
        ]
        if not left:
            break
        index, first = _Index(candidates, form), 0 if candidates is files else len(files)
        for number in left:
            _record(matches, number, [first + position for position in index.find(names[number])], rule)
    return matches


def _record(matches: FileMatches, number: int, found: list[int], rule: str) -> None:
    """Enter what was found for a name, and how."""
    name, sources = matches.files.names[number], matches.files.sources
    if len(found) > 1:
        matches.ambiguous[name] = [sources[position] for position in found]
    elif found:
        matches.files.places[number] = found[0]
        file = sources[found[0]]
        if not f"/{normal_path(file)}".endswith(f"/{normal_path(name)}"):
            count, first_name, first_file = matches.rules.get(rule, (0, name, file))
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
