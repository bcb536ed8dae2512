"""The interface of readers, which find and read files of one kind. `ingest` turns them into a store.

A reader works in two passes, so that an archive of any size never has to fit into memory: `scan` reads only headers and lists the
images in the order of the store; `read` decodes one item. Files that are refused are listed with a reason.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, overload

import numpy as np

from ssl_transfer.texts import Texts

REFUSAL_KINDS = ("unreadable", "not_an_image", "localizer", "filtered", "duplicate")
UNDER_WAY = (
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
    ".download",
    ".tmp",
    ".aria2",
)  # of browsers and copy programs
RSYNC = re.compile(
    r"\.(.+\.(dcm|dicom|ima|nii|gz|png|jpe?g|tiff?|bmp|npz))\.[A-Za-z0-9]{6}", re.IGNORECASE
)  # .scan.dcm.Xy12Zq
NAME_BEGINS, NAME_ENDS = "\u2068", "\u2069"  # Unicode's isolates: invisible, and made for foreign names in a text
MARKED = re.compile(f"{NAME_BEGINS}([^{NAME_ENDS}]*){NAME_ENDS}")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(slots=True)
class Refusal:
    """A file that is not in the store, and why. Only `unreadable` counts towards `--max-refused`.

    Attributes:
        file: Path relative to the root of the source.
        kind: One of `REFUSAL_KINDS`.
        reason: Reason, for the user.
        row: Patient, study and series from the header, before pseudonymisation: a label table may contain them, and ingest
            hashes them in the reason.
    """

    file: str
    kind: str
    reason: str
    row: dict = field(default_factory=dict)


class Unreadable(Exception):
    """An item cannot be decoded; the message becomes the reason of the refusal."""


@dataclass(slots=True)
class Item:
    """One file (or array), which contains `n_images` images according to its header.

    Attributes:
        file: Name shown to the user: the path relative to the root of the source.
        path: Path of the file.
        n_images: Number of images that `read` yields.
        size: Height and width of the images.
        channels: 1 or 3.
        dtype: Dtype of the physical values that `read` yields.
        row: Columns that its images share: patient, study, series, label, split, modality, … Ids are raw; ingest hashes them.
            Missing keys are unknown.
        mask: Path of its mask, or None.
        uid: Id that copies of the same image share (SOPInstanceUID), or None.
        window: Lowest and highest physical value of the VOI window that the file states, or None.
        windows: That of each image in the file, where they differ; None: `window` is that of all.
        depth: Lowest and highest physical value that its stored bits can hold; None for floats.
        native: Whether a native decoder reads it, which a damaged file may crash or hang: a process of its own decodes it.
        together: Name that items share whose intensities are on one scale, such as the slices of a volume and the time points of
            a series; column `volume` tells its volumes apart. None: each item is on its own.
        pixels: Where and how its pixels are stored, for a reader that then need not parse the header again; None: it does.
        plan: Of an item of several images, in the order of the store: the number of each image in the file, and the columns that
            the images do not share. None: the reader decides as it reads.
    """

    file: str
    path: Path
    n_images: int
    size: tuple[int, int]
    channels: int
    dtype: np.dtype
    row: dict
    mask: Path | None = None
    uid: str | None = None
    window: tuple[float, float] | None = None
    depth: tuple[float, float] | None = None
    together: str | None = None
    native: bool = False
    pixels: Any = None
    plan: list[tuple[int, dict]] | None = None
    windows: tuple[tuple[float, float] | None, ...] | None = None


@dataclass(slots=True)
class Scan:
    """The result of a scan.

    Attributes:
        items: Items in the order of the store (grouped by series, sorted by position).
        refused: Files that cannot be read, are not images, or were filtered out.
        units: Units of a grey store of these items: `hu`, `display` or `stored`.
        domain: Domain in the notation of `Domain`, or `unknown`.
        classes: Class names in their order; None if the source has no such order.
        mask_classes: Name of each mask value.
        mask_dtype: Dtype of the masks; None if the items have none.
        mask_ignore: Mask value of the pixels that are ignored; None: no pixel is ignored.
        warnings: Warnings for the card.
        patient_per_file: Whether each file whose patient is unknown counts as a patient (volumes); otherwise its patient stays
            unknown.
    """

    items: Sequence[Item]
    refused: list[Refusal]
    units: str
    domain: str = "unknown"
    classes: list[str] | None = None
    mask_classes: dict[int, str] = field(default_factory=dict)
    mask_dtype: np.dtype | None = None
    mask_ignore: int | None = None
    warnings: list[str] = field(default_factory=list)
    patient_per_file: bool = False


class Reader(Protocol):
    """A reader of one kind of files. Its attributes are plain values, so that it can be pickled for worker processes.

    Attributes:
        suffixes: Suffixes of its files, in lower case, with the dot.
        magic: Pairs (offset, bytes) that identify files without a known suffix.
        reads_folders: Whether it reads all files below a folder; otherwise it reads a single file.
        worth_workers: Whether decoding takes longer than moving the result between processes.
    """

    suffixes: ClassVar[tuple[str, ...]]
    magic: ClassVar[tuple[tuple[int, bytes], ...]]
    reads_folders: ClassVar[bool]
    worth_workers: ClassVar[bool]

    def __init__(self, *root: Any, **options: Any) -> None:
        """Create a reader. Its keyword-only parameters are the options of `ingest` that it uses."""
        ...

    def scan(self) -> Scan:
        """Read the headers of all files."""
        ...

    def read(self, item: Item) -> Iterator[tuple[np.ndarray, dict, np.ndarray | None]]:
        """Decode one item.

        Yields:
            For each of the `n_images` images: the image (C, H, W) of the item's dtype in physical units; columns that the
            images of the item do not share (`slice`, `z_mm`, …); and the mask (H, W) or None.

        Raises:
            Unreadable: If the pixels cannot be decoded.
        """
        ...


class Files(Sequence[tuple[str, Path]]):
    """The files at or below a folder, sorted by name: pairs of name and path. Memory: the bytes of a name, and eight more.

    Attributes:
        root: The folder that names are relative to.
        refused: Entries that cannot be read as files, and why.
    """

    def __init__(self, root: Path, names: Sequence[str], refused: Sequence[Refusal] = ()):
        self.root, self._names, self.refused = root, names, list(refused)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> tuple[str, Path]: ...

    @overload
    def __getitem__(self, index: slice) -> Files: ...

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Files(self.root, self._names[index])
        name = self._names[int(index)]
        return printable(name), self.root / name


def add_states(digest: hashlib.blake2b, files: Iterable[tuple[str, Path]]) -> None:
    """Add name, size and modification time of files to a hash; those that have vanished since are left out."""
    for name, path in files:
        with suppress(OSError):
            status = path.stat()
            digest.update(f"{name}|{status.st_size}|{status.st_mtime_ns}\n".encode())


def walk(root: Path) -> Files:
    """All files at or below `root`: every name is a file, or is among the `refused`.

    Folders that are links are followed, each folder once: a link that leads back, or to a folder that is read elsewhere, is
    refused. Also refused are folders that may not be read, links without a target, files of a transfer that is not finished, and
    what is no file (sockets, named pipes, devices). Names that are not UTF-8 are shown with backslash escapes.
    """
    root = Path(root)
    if not root.is_dir():
        special = root.exists() and not root.is_file()
        refused = [Refusal(root.name, "not_an_image", "no file: a socket, a named pipe or a device")] if special else []
        return Files(root.parent, [] if special else [root.name], refused)
    walking = _Walk(root)
    walking.below("")
    followed = bool(walking.links)
    while walking.links:  # the folder itself comes before links to it
        walking.follow(heapq.heappop(walking.links))
    if followed:
        walking.names = Texts(sorted(walking.names))
    walking.refused.sort(key=lambda refusal: refusal.file)
    return Files(root, walking.names, walking.refused)


class _Walk:
    """A walk through a folder, without recursion.

    Attributes:
        names: Files found so far, relative to the root; sorted, but for those behind links.
        links: Linked folders that are still to be followed (a heap).
        refused: Entries that cannot be read.
    """

    def __init__(self, root: Path):
        self.root = os.fspath(root)
        self.names = Texts()
        self.links: list[str] = []
        self.refused: list[Refusal] = []
        self._read: dict[tuple[int, int], str] = {}  # device and inode of a folder -> its name

    def below(self, folder: str) -> None:
        """Read a folder and all folders in it, in the order of the paths."""
        reading = [iter(self._entries(folder))]
        begins = [f"{folder}/" if folder else ""]
        while reading:
            entry = next(reading[-1], None)
            if entry is None:
                reading.pop()
                begins.pop()
            elif entry.endswith("/"):
                begins.append(begins[-1] + entry)
                reading.append(iter(self._entries(begins[-1][:-1])))
            else:
                self.names.append(begins[-1] + entry)

    def _entries(self, folder: str) -> list[str]:
        """Files and folders in a folder, sorted as the paths below it are; names of folders end with a slash."""
        try:
            status = os.stat(self._path(folder))
            first = self._read.setdefault((status.st_dev, status.st_ino), folder)
            if first != folder:
                same = named_file(printable(first)) if first else "the source"
                self._refuse(folder, "duplicate", f"the same folder as {same}")
                return []
            with os.scandir(self._path(folder)) as entries:
                kept = (self._kept(f"{folder}/{entry.name}" if folder else entry.name, entry) for entry in entries)
                return sorted(filter(None, kept))
        except OSError as error:
            self._refuse(folder, "unreadable", f"this folder cannot be read: {error.strerror}")
            return []

    def follow(self, link: str) -> None:
        """Read the folder that a link leads to, unless it is read already or contains the source."""
        target = os.path.realpath(self._path(link))
        source = os.path.realpath(self.root)
        if os.path.commonpath([target, source]) == target:
            self._refuse(link, "duplicate", "a link to a folder that contains the source, which would never end")
            return
        self.below(link)

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name) if name else self.root

    def _kept(self, name: str, entry: os.DirEntry) -> str | None:
        """The name of an entry if it is a file to be read, or a folder in its place; None for others."""
        if entry.is_symlink():
            return self._kept_link(name, entry)
        if entry.is_dir(follow_symlinks=False):
            return f"{entry.name}/"
        if entry.is_file(follow_symlinks=False):
            return self._kept_file(name, entry.name)
        self._refuse(name, "not_an_image", "no file: a socket, a named pipe or a device")
        return None

    def _kept_link(self, name: str, entry: os.DirEntry) -> str | None:
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            annexed = "/annex/objects/" in os.readlink(entry.path)
            missing = "its content is not here (git-annex): run `datalad get` or `git annex get`"
            reason = missing if annexed else f"a link whose target cannot be read: {error.strerror}"
            self._refuse(name, "unreadable", reason)
            return None
        if stat.S_ISREG(mode):
            return self._kept_file(name, entry.name)
        if stat.S_ISDIR(mode):
            heapq.heappush(self.links, name)
        else:
            self._refuse(name, "not_an_image", "a link to a socket, a named pipe or a device")
        return None

    def _kept_file(self, name: str, base: str) -> str | None:
        if base.lower().endswith(UNDER_WAY) or RSYNC.fullmatch(base):
            self.refused.append(Refusal(printable(name), "unreadable", "its transfer is not finished, by its name"))
            return None
        return base

    def _refuse(self, name: str, kind: str, reason: str) -> None:
        shown = printable(name) or "."
        self.refused.append(Refusal(shown, "not_an_image" if is_hidden(name) else kind, reason))


def refused_entries(files: Files) -> list[str]:
    """Warnings about entries that could not be read as files: how many for each reason, with an example."""
    groups: dict[str, list[str]] = {}
    for refusal in files.refused:
        if refusal.kind != "not_an_image":
            groups.setdefault(f"{refusal.kind}: {refusal.reason.partition(':')[0]}", []).append(refusal.file)
    return [
        f"{len(names)} entries were not read, for example {named_file(names[0])}: {reason.partition(': ')[2]}"
        if len(names) > 1
        else f"{named_file(names[0])} was not read: {reason.partition(': ')[2]}"
        for reason, names in groups.items()
    ]


def missing_content(file: str, path: Path) -> Refusal | None:
    """Why a file has nothing to read: it is gone, its folder is locked, or it is empty; None if it has content."""
    try:
        empty = os.stat(path).st_size == 0
    except OSError as error:
        return Refusal(file, "unreadable", f"it cannot be opened: {error.strerror}")
    return Refusal(file, "unreadable", "the file is empty (0 bytes)") if empty else None


def printable(name: str) -> str:
    """A name as it is shown and stored: bytes that are not UTF-8, and control characters, as backslash escapes.

    Example:
        >>> printable("R\\udce9my.png")
        'R\\\\xe9my.png'
    """
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), name)


def named_file(file: str) -> str:
    """The name of a file in a warning or a reason: marked, so that the card gets its hash and the user the name.

    Names that are put into a text in any other way may reach the card.
    """
    return f"{NAME_BEGINS}{file}{NAME_ENDS}"


def shown(text: str) -> str:
    """A warning or reason as the user sees it, with the names of its files."""
    return text.replace(NAME_BEGINS, "").replace(NAME_ENDS, "")


def marked_names(text: str) -> list[str]:
    """The names that are marked in a text; see `named_file`."""
    return MARKED.findall(text)


def renamed(text: str, names: Mapping[str, str]) -> str:
    """A text in which marked names are replaced, if there is another name for them."""
    return MARKED.sub(lambda match: named_file(names.get(match[1], match[1])), text)


def is_hidden(file: str) -> bool:
    """Whether a file or one of its folders is hidden, such as `.DS_Store`, `._x.png` or `.git/…`."""
    return any(part.startswith(".") for part in file.split("/"))
