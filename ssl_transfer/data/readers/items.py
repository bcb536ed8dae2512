"""Items of a source: the first ones in memory, all others in a file, at eight bytes of memory each.

`Items` is a list of `Item`. Those in the file are decoded when they are asked for, and are changed as in a list:
`item.mask = path` or `item.row["label"] = "liver"` writes the record again.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from pathlib import Path
from typing import Any, overload

import numpy as np

from ssl_transfer.data.readers.reader import Item

FIELDS = tuple(field.name for field in fields(Item))
ROW = FIELDS.index("row")
STORED = tuple({"path": "_path", "mask": "_mask"}.get(name, name) for name in FIELDS)  # attributes of a stored item
IN_MEMORY = 10_000  # items that are not in the file: small sources need none
BUFFER = 2**18  # bytes that are written at once
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def stored_in(folder: Path) -> Iterator[None]:
    """Keep the files of all items that are listed within the block in a folder, and not in that of temporary files."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


class Records(Sequence[Any]):
    """Values in a file without a name, which the system deletes when it is closed. Memory: eight bytes a value.

    They are pickled, which is safe because nobody but this process can write to the file.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(dir=_folder.get())  # noqa: SIM115
        self._starts, self._end, self._buffer = array("q"), 0, bytearray()

    def __len__(self) -> int:
        return len(self._starts)

    def append(self, value: Any) -> None:
        """Add a value."""
        self._starts.append(self._write(value))

    def __getitem__(self, position: int) -> Any:
        start = self._starts[position]
        if start >= self._end - len(self._buffer):
            self._flush()
        length = int.from_bytes(os.pread(self._file.fileno(), 4, start), "little")
        return pickle.loads(os.pread(self._file.fileno(), length, start + 4))

    def __setitem__(self, position: int, value: Any) -> None:
        self._starts[position] = self._write(value)

    def _flush(self) -> None:
        start = self._end - len(self._buffer)
        while self._buffer:
            written = os.pwrite(self._file.fileno(), self._buffer, start)
            del self._buffer[:written]
            start += written

    def _write(self, value: Any) -> int:
        content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        start = self._end
        self._buffer += len(content).to_bytes(4, "little") + content
        self._end += 4 + len(content)
        if len(self._buffer) > BUFFER:
            self._flush()
        return start


class Items(Sequence[Item]):
    """A list of items, of which the first ones are in memory and the others in a file.

    Args:
        items: The first ones.
    """

    def __init__(self, items: Iterable[Item] = ()):
        self._head: list[Item] = []
        self._records: Records | None = None
        self.extend(items)

    @classmethod
    def of(cls, items: Sequence[Item]) -> Items:
        """Items of a list; those that are here already stay."""
        return items if isinstance(items, Items) else cls(items)

    def __len__(self) -> int:
        return len(self._head) + (len(self._records) if self._records else 0)

    def __iter__(self) -> Iterator[Item]:
        yield from self._head
        for position in range(len(self._records) if self._records else 0):
            yield StoredItem(self._records, position)  # type: ignore[arg-type]

    @overload
    def __getitem__(self, position: int) -> Item: ...

    @overload
    def __getitem__(self, position: slice) -> list[Item]: ...

    def __getitem__(self, position):
        if isinstance(position, slice):
            return [self[number] for number in range(*position.indices(len(self)))]
        if 0 <= position < len(self._head):
            return self._head[int(position)]
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position = int(position) % len(self)
        if position < len(self._head) or self._records is None:
            return self._head[position]
        return StoredItem(self._records, position - len(self._head))

    def append(self, item: Item) -> None:
        """Add an item."""
        if self._records is None and len(self._head) < IN_MEMORY:
            self._head.append(item)
            return
        if self._records is None:
            self._records = Records()
        self._records.append(record(item))

    def extend(self, items: Iterable[Item]) -> None:
        """Add items."""
        for item in items:
            self.append(item)


class Selected(Sequence[Any]):
    """A value of some items, read when it is asked for.

    Args:
        items: The items.
        positions: Which of them, shape (n,).
        value: What is taken of each.
    """

    def __init__(self, items: Sequence[Item], positions: Sequence[int] | np.ndarray, value: Callable[[Item], Any]):
        self.items, self.positions, self.value = items, positions, value

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number):
        if isinstance(number, slice):
            return Selected(self.items, self.positions[number], self.value)
        return self.value(self.items[int(self.positions[number])])


class Share(Sequence[Item]):
    """The first items of a list.

    Args:
        items: The list.
        end: How many.
    """

    def __init__(self, items: Sequence[Item], end: int):
        self.items, self.end = items, end

    def __len__(self) -> int:
        return self.end

    def __getitem__(self, position):
        if not 0 <= position < self.end:
            raise IndexError(position)
        return self.items[position]


class StoredItem(Item):
    """An item that is a copy of its record; a change is written to it."""

    __slots__ = ("_mask", "_path", "_position", "_records")

    def __init__(self, records: Records, position: int):
        values = records[position]
        for name, value in zip(STORED, values, strict=True):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        object.__setattr__(self, "_records", records)
        object.__setattr__(self, "_position", position)
        object.__setattr__(self, "row", _Row(self.row, records, position, values))

    def __setattr__(self, name: str, value: Any) -> None:
        row = value if name == "row" else self.row
        if name in ("path", "mask"):
            name, value = f"_{name}", None if value is None else str(value)
        object.__setattr__(self, name, value)
        values = record(self)
        object.__setattr__(self, "row", _Row(row, self._records, self._position, values))
        self._records[self._position] = values

    @property
    def path(self) -> Path:  # type: ignore[override]
        """Path of the file; made when it is asked for, since pathlib keeps the parts of every path in a table."""
        return Path(self._path)

    @property
    def mask(self) -> Path | None:  # type: ignore[override]
        """Path of the mask, or None."""
        return None if self._mask is None else Path(self._mask)

    def __reduce__(self):
        return Item, tuple(dict(self.row) if name == "row" else getattr(self, name) for name in FIELDS)


class _Row(dict):
    """The row of an item; a change is written to the record of the item.

    It knows the record and not the item, which knows it: two that know each other stay in memory until they are searched for.
    """

    __slots__ = ("_position", "_records", "_values")

    def __init__(self, row: dict, records: Records, position: int, values: tuple):
        super().__init__(row)
        self._records, self._position, self._values = records, position, values

    def _changed(self) -> None:
        self._values = (*self._values[:ROW], dict(self), *self._values[ROW + 1 :])
        self._records[self._position] = self._values

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._changed()

    def __ior__(self, other):
        super().update(other)
        return self  # the item assigns it

    def update(self, *others: Any, **values: Any) -> None:
        super().update(*others, **values)
        self._changed()

    def setdefault(self, key: str, default: Any = None) -> Any:
        value = super().setdefault(key, default)
        self._changed()
        return value

    def pop(self, *arguments: Any) -> Any:
        value = super().pop(*arguments)
        self._changed()
        return value

    def popitem(self) -> tuple:
        entry = super().popitem()
        self._changed()
        return entry

    def clear(self) -> None:
        super().clear()
        self._changed()

    def __reduce__(self):
        return dict, (dict(self),)


def record(item: Item) -> tuple:
    """The values of an item, in the order of its fields."""
    names = STORED if isinstance(item, StoredItem) else FIELDS
    return tuple([_plain(getattr(item, name)) for name in names])  # a list: Python keeps 2,000 tuples of generators


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.dtype):
        return value.str
    return dict(value) if isinstance(value, _Row) else value
