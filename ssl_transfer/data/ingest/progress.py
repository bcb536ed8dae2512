"""How far an ingest has come: a record beside its files, from which it goes on after it was interrupted.

The record names nobody: files are positions among the items of the scan, and texts have hashes in place of names and ids.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer import __version__
from ssl_transfer.console import warn
from ssl_transfer.data.card import SCHEMA
from ssl_transfer.data.partial import PROGRESS, PartialStore
from ssl_transfer.data.readers.reader import Item
from ssl_transfer.run import read_json, write_json

SECONDS_BETWEEN = 30.0  # of two records, and at least 20 times what the last one took
SHARE = 20
WRITER = f"ssl_transfer {__version__}, store schema {SCHEMA}"  # another release may decode or name images otherwise


@dataclass
class Progress:
    """The state of an ingest at its last record.

    Attributes:
        inputs: Digest of the inputs. Records of other inputs are not used.
        writer: Release that wrote the images. Records of other releases are not used: half of a store would be of each.
        items: Items that are done.
        images: Images in the shards.
        batches: Files with rows.
        mask_values: Mask values so far, without 0.
        refused: Files that were read and cannot be decoded: position among the items, and the reason as the card has it.
        copies: Files that repeat another one: position among the items, and that of the first one.
        replaced: Number of values that were not finite, by position among the items.
        seen: Position of the first file with each pair of SOPInstanceUID and pixels, by a hash of both, for uids that repeat.
    """

    inputs: str
    writer: str = WRITER
    items: int = 0
    images: int = 0
    batches: int = 0
    mask_values: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    replaced: dict[int, int] = field(default_factory=dict)

    @classmethod
    def load(cls, partial: PartialStore, begin: Progress) -> Progress:
        """Read the record of a folder; `begin` if there is none, or one of other inputs or, with a warning, another release."""
        content: dict[str, Any] = read_json(partial.folder / PROGRESS) or {}
        if content.get("inputs") != begin.inputs:
            return begin
        if content.get("writer") != begin.writer:
            warn(
                f"{partial.out}: {other_writer(content)} began this ingest, but this is {begin.writer}: it begins anew"
            )
            return begin
        return cls.of(content) or begin

    @classmethod
    def of(cls, content: dict[str, Any]) -> Progress | None:
        """The progress of a record; None if it is damaged."""
        try:
            pairs = {name: [(first, second) for first, second in content[name]] for name in ("refused", "copies")}
            replaced = {int(position): int(count) for position, count in content["replaced"].items()}
            fields: dict[str, Any] = content | pairs | {"replaced": replaced}
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def add_replaced(self, position: int, count: int) -> None:
        """Note that values of an item were not finite."""
        if count:
            self.replaced[position] = self.replaced.get(position, 0) + count

    def replaced_by_file(self, items: Sequence[Item]) -> dict[str, int]:
        """Number of values that were not finite, by the name of the file, sorted."""
        of_file: Counter[str] = Counter()
        for position, count in self.replaced.items():
            of_file[items[position].file] += count
        return dict(sorted(of_file.items()))

    def add_mask(self, mask: np.ndarray) -> None:
        """Note the values of a mask."""
        new = set(np.flatnonzero(np.bincount(mask.ravel())).tolist()) - {0, *self.mask_values}
        if new:
            self.mask_values = sorted({*self.mask_values, *new})

    def save(self, folder: Path) -> None:
        """Write the record."""
        write_json(folder / PROGRESS, asdict(self))


def other_writer(content: dict[str, Any]) -> str:
    """The release that wrote a record, for messages."""
    return str(content.get("writer", "an older release of ssl_transfer"))[:80]


class Pace:
    """When the next record is due."""

    def __init__(self) -> None:
        self._due = time.monotonic() + SECONDS_BETWEEN

    def is_due(self) -> bool:
        """Whether a record is due."""
        return time.monotonic() >= self._due

    def took(self, seconds: float) -> None:
        """State how long a record took, from now."""
        self._due = time.monotonic() + max(SECONDS_BETWEEN, SHARE * seconds)
