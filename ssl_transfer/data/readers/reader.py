"""The interface of readers, which find and read files of one kind. `ingest` turns them into a store.

A reader works in two passes, so that an archive of any size never has to fit into memory: `scan` reads only headers and lists the
images in the order of the store; `read` decodes one item. Files that are refused are listed with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

REFUSAL_KINDS = ("unreadable", "not_an_image", "localizer", "filtered", "duplicate")


@dataclass(slots=True)
class Refusal:
    """A file that is not in the store, and why. Only `unreadable` counts towards `--max-refused`.

    Attributes:
        file: Path relative to the root of the source.
        kind: One of `REFUSAL_KINDS`.
        reason: Reason, for the user.
        row: Patient, study and series from the header, before pseudonymisation: a label table may contain them, and ingest
            replaces them in the file name.
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
        depth: Lowest and highest physical value that its stored bits can hold; None for floats.
        together: Name that the items of one volume share, whose intensities have one range; None: each item has its own.
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
        warnings: Warnings for the card.
    """

    items: list[Item]
    refused: list[Refusal]
    units: str
    domain: str = "unknown"
    classes: list[str] | None = None
    mask_classes: dict[int, str] = field(default_factory=dict)
    mask_dtype: np.dtype | None = None
    warnings: list[str] = field(default_factory=list)


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


def walk(root: Path) -> list[tuple[str, Path]]:
    """All files at or below `root`, sorted: name relative to the root (with `/`), and path."""
    if root.is_file():
        return [(root.name, root)]
    return sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*") if path.is_file())


def is_hidden(file: str) -> bool:
    """Whether a file or one of its folders is hidden, such as `.DS_Store`, `._x.png` or `.git/…`."""
    return any(part.startswith(".") for part in file.split("/"))
