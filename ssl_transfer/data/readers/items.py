"""Items of a source in a file: eight bytes of memory each, however many there are.

`Items` is a list of `Item` whose records are in a temporary file and are decoded when they are asked for. An item is
changed as in a list: `item.mask = path` or `item.row["label"] = "liver"` writes its record again.
"""

from __future__ import annotations

import json
import os
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
PAIRS = ("size", "window", "depth")  # tuples, which JSON does not have
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


class Records:
    """JSON values in a file without a name, which the system deletes when it is closed. Memory: eight bytes a value.

    Args:
        dumps, loads: Convert a value to bytes and back. `pickle` can be used: nobody else can write to the file.
    """

    def __init__(self, dumps: Callable[[Any], bytes] | None = None, loads: Callable[[bytes], Any] = json.loads) -> None:
        self._dumps, self._loads = dumps or _as_json, loads
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
            self.flush()
        length = int.from_bytes(os.pread(self._file.fileno(), 4, start), "little")
        return self._loads(os.pread(self._file.fileno(), length, start + 4))

    def __setitem__(self, position: int, value: Any) -> None:
        self._starts[position] = self._write(value)

    def flush(self) -> None:
        """Write what is in memory to the file."""
        start = self._end - len(self._buffer)
        while self._buffer:
            written = os.pwrite(self._file.fileno(), self._buffer, start)
            del self._buffer[:written]
            start += written

    def keep(self, positions: Iterable[int]) -> None:
        """Remove all values but those at positions, and put these in their order."""
        starts = self._starts
        self._starts = array("q", (starts[position] for position in positions))

    def _write(self, value: Any) -> int:
        text = self._dumps(value)
        start = self._end
        self._buffer += len(text).to_bytes(4, "little") + text
        self._end += 4 + len(text)
        if len(self._buffer) > BUFFER:
            self.flush()
        return start


class Items(Sequence[Item]):
    """A list of items, in a file.

    Args:
        items: The first ones.
    """

    def __init__(self, items: Iterable[Item] = ()):
        self._records = Records()
        self.extend(items)

    @classmethod
    def of(cls, items: Sequence[Item]) -> Items:
        """Items in a file; those that are in one stay there."""
        return items if isinstance(items, Items) else cls(items)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, position: int) -> Item: ...

    @overload
    def __getitem__(self, position: slice) -> list[Item]: ...

    def __getitem__(self, position):
        if isinstance(position, slice):
            return [self[number] for number in range(*position.indices(len(self)))]
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position %= len(self)
        return StoredItem(self, position, self._records[position])

    def append(self, item: Item) -> None:
        """Add an item."""
        self._records.append(record(item))

    def extend(self, items: Iterable[Item]) -> None:
        """Add items."""
        for item in items:
            self.append(item)

    def keep(self, positions: Iterable[int]) -> None:
        """Remove all items but those at positions, and put these in their order."""
        self._records.keep(positions)

    def save(self, path: Path) -> None:
        """Write all items to a file, one JSON array in each line, which `load` reads."""
        with open(path, "w") as file:
            for position in range(len(self)):
                file.write(json.dumps(self._records[position], separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def load(cls, path: Path) -> Items:
        """Read what `save` has written."""
        items = cls()
        with open(path) as file:
            for line in file:
                items._records.append(json.loads(line))
        return items

    def replace(self, position: int, item: Item) -> None:
        """Write the record of an item again."""
        self._records[position] = record(item)


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

    __slots__ = ("_items", "_position")

    def __init__(self, items: Items, position: int, values: list):
        for name, value in zip(FIELDS, values, strict=True):
            object.__setattr__(self, name, tuple(value) if name in PAIRS and value is not None else value)
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "mask", None if self.mask is None else Path(self.mask))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        object.__setattr__(self, "_items", items)
        object.__setattr__(self, "_position", position)
        object.__setattr__(self, "row", _Row(self, self.row))

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, _Row(self, value) if name == "row" else value)
        self._items.replace(self._position, self)

    def __reduce__(self):
        return Item, tuple(dict(self.row) if name == "row" else getattr(self, name) for name in FIELDS)


class _Row(dict):
    """The row of an item; a change is written to the record of the item."""

    __slots__ = ("_item",)

    def __init__(self, item: StoredItem, row: dict):
        super().__init__(row)
        self._item = item

    def _changed(self) -> None:
        self._item._items.replace(self._item._position, self._item)

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


def record(item: Item) -> list:
    """The values of an item as JSON has them, in the order of its fields."""
    values: list[Any] = [getattr(item, name) for name in FIELDS]
    return [_plain(value) if isinstance(value, Path | np.dtype | np.generic) else value for value in values]


def _as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.dtype):
        return value.str
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"an item cannot hold {type(value).__name__} {value!r:.60}")
