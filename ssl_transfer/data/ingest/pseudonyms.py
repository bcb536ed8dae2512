"""Pseudonyms: keyed hashes in place of ids, names, dates and file names, so that no artifact names a person.

A patient has the same hash in every store, so that overlaps between stores can be found. Short ids can be guessed by trying all
of them: for real hospital data, set SSL_TRANSFER_PATIENT_KEY to a secret of your own.
"""

from __future__ import annotations

import hmac
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from ssl_transfer.data.readers.matching import suffix
from ssl_transfer.data.readers.reader import MARKED, Item, Refusal, named_file

KEY_VARIABLE = "SSL_TRANSFER_PATIENT_KEY"
DEFAULT_KEY = "ssl_transfer"
HASHED = ("patient", "study", "series")
SHORTEST_IN_TEXT = 3  # characters; shorter ids occur in texts by chance
MOST_WORDS = 8  # of a file name within a warning
SUFFIXES = frozenset(  # anything else behind a dot may be a part of a name
    f".{word}"
    for word in (
        *("dcm", "dicom", "ima", "nii", "nii.gz", "gz", "png", "jpg", "jpeg", "tif", "tiff", "bmp", "gif", "webp"),
        *("npz", "npy", "mat", "h5", "hdf5", "mha", "mhd", "nrrd", "img", "hdr", "raw", "svs", "ndpi", "bval", "bvec"),
        *("csv", "tsv", "txt", "json", "xml", "yaml", "yml", "md", "html", "pdf", "doc", "docx", "xls", "xlsx", "log"),
        *(
            "zip",
            "tar",
            "7z",
            "ini",
            "db",
            "part",
            "partial",
            "filepart",
            "crdownload",
            "download",
            "tmp",
            "aria2",
            "exe",
        ),
    )
)
WORDS_OF_MESSAGES = re.compile(
    "bids|brats|dicom|nifti|(file|folder|image|label|mask|patient|pixel|scan|slice|split|value|volume)s?|series|source|study|"
    "test|train|val",
    re.IGNORECASE,
)  # also names of files and folders
FEWEST_DIGITS = 5  # numbers with fewer occur in texts by chance
PATHS = re.compile(
    r"[^\s'\"<>(),:;]*[^\s'\"<>(),:;.]\.(?:dcm|dicom|ima|nii|nii\.gz|png|jpe?g|tiff?|bmp|npz|csv)\b", re.IGNORECASE
)
STARTS, ENDS = re.compile(r"(?:^|(?<=[\s'\"(=:,]))(?=\S)"), re.compile(r"(?<=\S)(?=$|[\s'\"),:;.])")


def pseudonym(kind: str, value: str) -> str:
    """Hash an id: the first 16 hex digits of HMAC-SHA256.

    Args:
        kind: `patient`, `study`, `series` or `file`; equal ids of different kinds give different hashes.
        value: The raw id. Ids of patients, studies and series that differ only in their Unicode form (`ü` in one or two
            characters) are equal.
    """
    if kind != "file" and not value.isascii():
        value = unicodedata.normalize("NFC", value)
    return _hashed(os.environ.get(KEY_VARIABLE) or DEFAULT_KEY, kind, value)


@lru_cache(maxsize=64)  # slices of a series have the same ids
def _hashed(key: str, kind: str, value: str) -> str:
    return hmac.digest(key.encode(), f"{kind}\0{value}".encode("utf-8", "surrogateescape"), "sha256").hex()[:16]


def key_digest() -> str:
    """A name for the key in use, which does not reveal it: 8 hex digits. Hashes of ids can be compared where it is the same."""
    return pseudonym("key", "")[:8]


def file_pseudonym(file: str) -> str:
    """The hash that stands for a file in the column `file` of a store: of its path below the source, and its suffix.

    Args:
        file: Path below the source, with `/`; for a source of one file its name, or the name of the image in it.

    Example:
        >>> file_pseudonym("Doe_Jane_19700101/scan.1.nii.gz")[16:]
        '.nii.gz'
    """
    ending = suffix(file)
    return pseudonym("file", file) + (ending if ending in SUFFIXES else "")


def has_own_key() -> bool:
    """Whether hashes are made with a key of the user's own."""
    return bool(os.environ.get(KEY_VARIABLE))


class Pseudonyms:
    """Hashes what identifies persons in the rows, file names and texts of a source.

    Args:
        root: The source; its path is removed from texts.
        columns: Kind of hash of each further column that identifies persons (see `identifying_columns`).
        keep_paths: Whether file names stay as they are.
        others: Further names that texts must not contain, such as that of the label table.
    """

    def __init__(
        self, root: Path, columns: Mapping[str, str] = {}, *, keep_paths: bool = False, others: Iterable[str] = ()
    ):
        self.columns = {**{name: name for name in HASHED}, **columns}
        self.keep_paths = keep_paths
        paths = [os.fspath(root), os.path.abspath(root), os.path.realpath(root), *others]
        self._others = sorted({path for path in paths if len(path) >= SHORTEST_IN_TEXT}, key=len, reverse=True)

    def row(self, row: dict) -> dict:
        """Return a row in which identifying columns are hashed."""
        return {
            column: pseudonym(self.columns[column], str(value))
            if column in self.columns and value is not None
            else value
            for column, value in row.items()
        }

    def file(self, file: str) -> str:
        """The name of a file as it is stored."""
        return file if self.keep_paths else file_pseudonym(file)

    def reason(self, refusal: Refusal, path: Path | None = None) -> str:
        """A reason as it is stored: without names of files, and with hashes of the ids in the header."""
        ids = {str(refusal.row[kind]): kind for kind in reversed(HASHED) if refusal.row.get(kind) is not None}
        replaced = {raw: pseudonym(kind, raw) for raw, kind in ids.items() if len(raw) >= SHORTEST_IN_TEXT}
        if not self.keep_paths:
            base = refusal.file.rpartition("/")[2]
            names = (refusal.file, base) if path is None else (str(path), refusal.file, base)
            replaced |= {name: self.file(refusal.file) for name in names if not _is_plain(name)}
        return self._without_paths(_replaced(self._unmarked(refusal.reason), replaced))

    def revealed(self, reason: str, item: Item) -> str:
        """A stored reason as the user sees it: with the names of the item's own files, marked, and the ids of its header."""
        raw = {pseudonym(kind, str(item.row[kind])): str(item.row[kind]) for kind in HASHED if item.row.get(kind)}
        if not self.keep_paths:
            files = [item.file, str(item.path), *((item.mask.name, str(item.mask)) if item.mask else ())]
            raw |= {self.file(name): named_file(name) for name in reversed(files)}
        return _replaced(reason, raw)

    def warnings(self, warnings: Iterable[str], entries: Iterable[Item | Refusal]) -> list[str]:
        """Warnings as they are stored: without names of files and folders, and with hashes of ids.

        Args:
            warnings: Texts, in which names should be marked (see `named_file`).
            entries: All files of the source: names that are not marked are replaced, too.
        """
        texts = [self._unmarked(warning) for warning in warnings]
        spans = {span for text in texts for span in _spans(text)}
        found: dict[str, str] = {}
        for entry in entries if spans else ():
            for kind, name, stands_for in self._names(entry):
                if name in spans:
                    found[name] = self.file(stands_for) if kind == "file" else pseudonym(kind, stands_for)
        return [self._without_paths(_replaced(text, found)) for text in texts]

    def _names(self, entry: Item | Refusal) -> Iterable[tuple[str, str, str]]:
        """What may name a person in a warning about a file: its kind, the name, and what is hashed in its place."""
        for kind in HASHED:
            raw = str(entry.row.get(kind) or "")
            if len(raw) >= (FEWEST_DIGITS if raw.isdigit() else SHORTEST_IN_TEXT):
                yield kind, raw, raw
        if self.keep_paths:
            return
        folders, _, base = entry.file.rpartition("/")
        for name, stands_for in ((entry.file, entry.file), (base, entry.file), (folders, folders)):
            if not _is_plain(name) and name != entry.row.get("label"):
                yield "file", name, stands_for
        for part in (*folders.split("/"), base.partition(".")[0]):
            if _may_name(part) and part != entry.row.get("label"):
                yield "file", part, part

    def _unmarked(self, text: str) -> str:
        return MARKED.sub(lambda match: self.file(match[1]), text)

    def _without_paths(self, text: str) -> str:
        if self.keep_paths:
            return text
        for other in self._others:
            text = text.replace(other, pseudonym("file", other))
        return PATHS.sub(lambda match: match[0] if _is_hash(match[0]) else file_pseudonym(match[0]), text)


def _may_name(part: str) -> bool:
    """Whether a part of a path may name a person, and is no word that messages contain anyway."""
    return not _is_plain(part) and not part.islower()


def _is_plain(name: str) -> bool:
    """Whether a name is empty, a short number or a word, as messages contain them anyway."""
    shortest = FEWEST_DIGITS if name.isdigit() else SHORTEST_IN_TEXT
    return len(name) < shortest or WORDS_OF_MESSAGES.fullmatch(name) is not None


def _is_hash(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{16}(\.\w+)*", name) is not None


def _replaced(text: str, replacements: Mapping[str, str]) -> str:
    """Replace each key of `replacements`, the longest first; those of digits and letters only where they are whole words."""
    if not replacements:
        return text
    longest_first = "|".join(re.escape(raw) for raw in sorted(replacements, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{longest_first})(?!\w)", lambda match: replacements[match[0]], text)


def _spans(text: str) -> Iterable[str]:
    """Every run of one to `MOST_WORDS` words, with and without the marks around them."""
    starts, ends = [m.start() for m in STARTS.finditer(text)], [m.start() for m in ENDS.finditer(text)]
    for start in starts:
        for end in [end for end in ends if end > start][: 2 * MOST_WORDS]:
            yield text[start:end]
