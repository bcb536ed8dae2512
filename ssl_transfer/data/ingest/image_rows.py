"""The columns of all images from which splits and classes are decided: four to nine bytes a value."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ssl_transfer.data.ingest.pseudonyms import HASHED, Pseudonyms
from ssl_transfer.data.readers.reader import Item
from ssl_transfer.data.rows import RowBatches
from ssl_transfer.texts import Values

UNITS = HASHED  # patient, study, series: what is kept together in a split, the first one that is known


class Pseudonymous(Sequence[str | None]):
    """A column of pseudonyms, which are numbers of 64 bits: nine bytes a row.

    Attributes:
        numbers: The numbers, 0 where unknown, uint64, shape (N,).
        known: Whether each is known, bool, shape (N,).
    """

    def __init__(self) -> None:
        self._numbers, self._known = array("Q"), bytearray()

    def append(self, value: str | None, count: int = 1) -> None:
        """Add rows of one pseudonym."""
        self._numbers.extend([int(value, 16) if value else 0] * count)
        self._known += bytes([bool(value)]) * count

    @property
    def numbers(self) -> np.ndarray:
        return np.asarray(self._numbers)

    @property
    def known(self) -> np.ndarray:
        return np.frombuffer(bytes(self._known), bool)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, row):
        return f"{self._numbers[row]:016x}" if self._known[row] else None


class ImageRows:
    """Patient, study, series, label, split and what else splits are stratified by, of every image.

    Args:
        names: Names of the columns.
    """

    def __init__(self, names: Iterable[str]):
        self.columns: dict[str, Values | Pseudonymous] = {
            name: Pseudonymous() if name in UNITS else Values() for name in dict.fromkeys((*UNITS, *names))
        }

    @classmethod
    def expected(cls, items: Iterable[Item], names: Iterable[str], pseudonyms: Pseudonyms) -> ImageRows:
        """The rows of items that are not read yet."""
        rows = cls(names)
        before, hashed = None, {}
        for item in items:
            raw = {name: item.row.get(name) for name in rows.columns}
            if raw != before:
                before, hashed = raw, pseudonyms.row(raw)
            for name, column in rows.columns.items():
                column.append(hashed[name], item.n_images)
        return rows

    @classmethod
    def written(cls, batches: RowBatches, names: Iterable[str]) -> ImageRows:
        """The rows of images that are written."""
        rows = cls(names)
        for name, column in rows.columns.items():
            for value in batches.values(name):
                column.append(value)
        return rows

    def __len__(self) -> int:
        return len(self.columns["patient"])

    def __getitem__(self, name: str) -> Values:
        column = self.columns[name]
        assert isinstance(column, Values)
        return column

    def ids(self, unit: str) -> Pseudonymous:
        """The column of a unit."""
        column = self.columns[unit]
        assert isinstance(column, Pseudonymous)
        return column

    def units(self) -> dict[str, int]:
        """How many images are kept together by each unit; `image`: nothing is known of them."""
        left, counts = np.ones(len(self), bool), {}
        for unit in UNITS:
            known = self.ids(unit).known
            counts[unit] = int((left & known).sum())
            left &= ~known
        return counts | {"image": int(left.sum())}

    def labels(self) -> set[str]:
        """The labels, as text."""
        return {str(label) for label in self["label"].distinct if label is not None}


class Groups(Iterable[str]):
    """What keeps each image in one split: its patient, or what is known in place of it.

    Args:
        rows: The rows.
        batches: Has the digests of the pixels, where nothing else tells images apart.
    """

    def __init__(self, rows: ImageRows, batches: RowBatches | None = None):
        self.rows, self.batches = rows, batches

    def __iter__(self) -> Iterator[str | None]:
        digests = iter(()) if self.batches is None else self.batches.values("pixel_digest")
        units = [self.rows.ids(unit) for unit in UNITS]
        for row in range(len(self.rows)):
            digest = next(digests, None)
            yield next((name for unit in units if (name := unit[row])), digest)
