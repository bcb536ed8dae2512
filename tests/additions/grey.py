"""A new source: folders of text files that hold a matrix of grey values each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ssl_transfer.data.readers.reader import Item, Scan, walk


class GreyReader:
    """Reads files `PATIENT_LABEL_NUMBER.grey`."""

    suffixes = (".grey",)
    magic = ()
    reads_folders = True
    worth_workers = False

    def __init__(self, root: Path):
        self.root = Path(root)

    def scan(self) -> Scan:
        """One item per file."""
        items = []
        for file, path in walk(self.root):
            patient, label, _ = path.stem.split("_")
            row = {"patient": patient, "label": label}
            items.append(Item(file, path, 1, np.loadtxt(path).shape, 1, np.dtype(np.uint8), row))
        return Scan(items, [], "display")

    def read(self, item: Item) -> Iterator[tuple[np.ndarray, dict, np.ndarray | None]]:
        """Decode one file."""
        yield np.loadtxt(item.path).astype(np.uint8)[None], {}, None
