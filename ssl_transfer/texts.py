"""Many texts at a few bytes each: a source may have millions of files, and Python takes a hundred bytes for a name."""

from __future__ import annotations

import re
from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from operator import eq
from typing import Any, overload

import numpy as np


def is_missing(value: Any) -> bool:
    """Whether a value of a column is missing: None or NaN."""
    return value is None or value != value


def by_numbers(text: str) -> list[tuple[bool, float, str]]:
    """Sort key of a text: the numbers in it by size, before words.

    Example:
        >>> sorted(["10-14", "90+", "5-9", "none", "-2", "-3.5"], key=by_numbers)
        ['-3.5', '-2', '5-9', '10-14', '90+', 'none']
    """
    parts = re.findall(r"(?:^-)?\d+(?:\.\d+)?|\D+", text)
    return [(False, float(part), "") if part[-1].isdecimal() else (True, 0.0, part) for part in parts]


class Texts(Sequence[str]):
    """A list of texts in one block of memory: each takes its bytes and eight more.

    Example:
        >>> names = Texts(["a.png", "b.png"])
        >>> names[1], len(names)
        ('b.png', 2)
    """

    def __init__(self, texts: Iterable[str] = ()):
        self._bytes, self._ends = bytearray(), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text."""
        self._bytes += text.encode("utf-8", "surrogatepass")  # bytes of file names that are not UTF-8 are surrogates
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, position: int) -> str: ...

    @overload
    def __getitem__(self, position: slice) -> Texts: ...

    def __getitem__(self, position):
        if isinstance(position, slice):
            return Texts(self[number] for number in range(*position.indices(len(self))))
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position %= len(self)
        return self._bytes[self._ends[position] : self._ends[position + 1]].decode("utf-8", "surrogatepass")


class Values(Sequence[Any]):
    """A column whose values repeat: four bytes a row.

    Attributes:
        distinct: The different values, in the order of their first rows.
        codes: Position of each row's value among them, int32, shape (N,).
    """

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.distinct: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._codes = array("i")
        for value in values:
            self.append(value)

    def append(self, value: Any, count: int = 1) -> None:
        """Add rows of one value; NaN is None."""
        value = None if value != value else value
        number = self._numbers.setdefault(value, len(self.distinct))
        if number == len(self.distinct):
            self.distinct.append(value)
        self._codes.extend([number] * count)

    @property
    def codes(self) -> np.ndarray:
        return np.asarray(self._codes)

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, row):
        return self.distinct[self._codes[row]]

    def __iter__(self) -> Iterator[Any]:
        return (self.distinct[code] for code in self._codes)


class Words(Sequence["str | None"]):
    """A column of texts most of which differ: their bytes and nine more a row.

    Example:
        >>> list(Words(["P1", None]))
        ['P1', None]
    """

    def __init__(self, values: Iterable[str | None]):
        self._texts, self._known = Texts(), bytearray()
        for value in values:
            self._texts.append(value or "")
            self._known.append(value is not None)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, row):
        return self._texts[row] if self._known[row] else None


class Numbers(Sequence["int | float | None"]):
    """A column of numbers of one type: nine bytes a row.

    Example:
        >>> list(Numbers([1, None, 3], int))
        [1, None, 3]
    """

    def __init__(self, values: Iterable[int | float | None], kind: type):
        self._kind, self._values, self._known = kind, array("q" if kind is int else "d"), bytearray()
        for value in values:
            self._values.append(value or kind(0))
            self._known.append(value is not None)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, row):
        return self._values[row] if self._known[row] else None


def hashes(keys: Iterable[Hashable]) -> np.ndarray:
    """A 64-bit hash of each key, int64, shape (N,); it holds for this process. Of 10^6 keys two collide in one of 10^7 cases."""
    return np.fromiter(map(hash, keys), np.int64)


def distinct_pairs(codes: np.ndarray, others: np.ndarray, size: int) -> np.ndarray:
    """How many different values of `others` occur with each code below `size`, shape (size,)."""
    order = np.lexsort((others, codes))
    codes, others = codes[order], others[order]
    is_first = np.append(True, (codes[1:] != codes[:-1]) | (others[1:] != others[:-1]))[: len(codes)]
    return np.bincount(codes[is_first], minlength=size)


class HashSet:
    """A set of keys of which only hashes are kept: eight bytes a key.

    Example:
        >>> "a" in HashSet(["a", "b"]), len(HashSet(["a", "a"]))
        (True, 1)
    """

    def __init__(self, keys: Iterable[Hashable] = ()):
        self._sorted = np.unique(hashes(keys))

    @classmethod
    def repeated(cls, keys: Iterable[Hashable]) -> HashSet:
        """The keys that occur several times."""
        several = cls()
        values, counts = np.unique(hashes(keys), return_counts=True)
        several._sorted = values[counts > 1]
        return several

    def __len__(self) -> int:
        return len(self._sorted)

    def __contains__(self, key: Hashable) -> bool:
        wanted = hash(key)
        place = self._sorted.searchsorted(wanted)
        return bool(place < len(self._sorted) and self._sorted[place] == wanted)


class Positions:
    """The positions of keys in a list: sixteen bytes a key.

    Example:
        >>> Positions(["a", "b", "a"]).of("a")
        [0, 2]
    """

    def __init__(self, keys: Iterable[Hashable]):
        values = hashes(keys)
        self._order = np.argsort(values, kind="stable")
        self._sorted = values[self._order]

    def of(self, key: Hashable) -> list[int]:
        """Positions of a key, ascending. By the hash alone: compare the keys where a mistake would matter."""
        wanted = hash(key)
        first, last = self._sorted.searchsorted(wanted, "left"), self._sorted.searchsorted(wanted, "right")
        return self._order[first:last].tolist()


class Partition(Sequence[np.ndarray]):
    """The positions of equal keys in a list, by the order of their first ones: some twenty bytes a key.

    Args:
        keys: Integers, such as `hashes`, shape (N,).

    Attributes:
        numbers: Number of the part of each position, int32, shape (N,).

    Example:
        >>> [part.tolist() for part in Partition(np.array([7, 3, 7]))]
        [[0, 2], [1]]
    """

    def __init__(self, keys: np.ndarray):
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int32)
        rank[np.argsort(first)] = np.arange(len(first))
        self.numbers = rank[inverse]
        self._order = np.argsort(self.numbers, kind="stable")
        self._ends = np.cumsum(np.bincount(self.numbers, minlength=len(first)))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number):
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._order[self._ends[number - 1] if number else 0 : self._ends[number]]
