"""Readers: how files of one kind are found and read. `ingest` turns any of them into a store.

A reader works in two passes, so that an archive of any size is never held in memory: `scan` looks at headers
alone and promises images in store order; `read` decodes one item. Both list the files that they refuse, with a reason.
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
        file: Path relative to the source's root.
        kind: One of `REFUSAL_KINDS`.
        reason: For the user.
        row: The raw patient, study and series where the header has them: a label table may name them, and ingest replaces
            them in the file's name by pseudonyms.
    """

    file: str
    kind: str
    reason: str
    row: dict = field(default_factory=dict)


class Unreadable(Exception):
    """Raised by `read` when an item cannot be decoded; the message becomes the refusal's reason."""


@dataclass(slots=True)
class Item:
    """One file (or array) that yields `n_images` images, as its header promises.

    Attributes:
        file: Name shown to the user: the path relative to the source's root.
        path: Where to read it.
        n_images: Images that `read` yields.
        size: Height and width of each.
        channels: 1 or 3.
        dtype: Of the physical values that `read` yields.
        row: Columns shared by its images: patient, study, series, label, split, modality, … (raw ids; ingest hashes
            them). A key that is absent is unknown.
        mask: Where its mask lies, or None.
        uid: An identity that two copies of one image share (SOPInstanceUID), or None.
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


@dataclass(slots=True)
class Scan:
    """What a reader found.

    Attributes:
        items: In store order (series together, sorted by position).
        refused: Files that cannot be read, are not images, or were filtered out.
        units: `hu`, `display` or `stored`: what a grey store of these items would hold.
        domain: As `Domain` writes it, or `unknown`.
        classes: Class names in their order, or None if labels have none.
        mask_classes: Mask value -> name.
        mask_dtype: Of the masks, or None if the items have none.
        warnings: For the card.
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
    """A kind of files. Instances hold plain options only, so that they can be pickled for worker processes.

    Attributes:
        suffixes: Of its files, in lower case, with the dot.
        magic: (offset, bytes) that files without a known suffix begin with.
        reads_folders: Whether it reads all files below a folder; otherwise a single file.
        worth_workers: Whether decoding costs more than moving the result between processes.
    """

    suffixes: ClassVar[tuple[str, ...]]
    magic: ClassVar[tuple[tuple[int, bytes], ...]]
    reads_folders: ClassVar[bool]
    worth_workers: ClassVar[bool]

    def __init__(self, *root: Any, **options: Any) -> None:
        """The root, and the options of `ingest` that the reader takes as keyword-only parameters."""
        ...

    def scan(self) -> Scan:
        """Look at every file's header."""
        ...

    def read(self, item: Item) -> Iterator[tuple[np.ndarray, dict, np.ndarray | None]]:
        """Decode one item.

        Yields:
            `n_images` times: image (C, H, W) of the item's dtype in physical units; the columns of its row that are its
            own (`slice`, `z_mm`, …); its mask (H, W) or None.

        Raises:
            Unreadable: If the pixels cannot be decoded.
        """
        ...


def walk(root: Path) -> list[tuple[str, Path]]:
    """Every file at or below `root`, sorted: (name relative to the root, with `/`; path)."""
    if root.is_file():
        return [(root.name, root)]
    return sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*") if path.is_file())


def is_hidden(file: str) -> bool:
    """True for `.DS_Store`, `._x.png`, `.git/…`: never an image."""
    return any(part.startswith(".") for part in file.split("/"))
