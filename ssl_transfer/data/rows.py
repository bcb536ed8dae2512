"""Rows on their way to `rows.parquet`: batches in files of their own, which are joined when the store is complete.

Memory holds at most one batch, whatever the number of images. The type of a column is known only when all its values
are: integers and floats become floats, other mixtures become text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow

BATCH = 1024  # rows that are held in memory
GROUP = 8192  # rows of a row group of `rows.parquet`, which are held in memory when it is written
LEADING = ("label", "patient", "series", "slice", "split", "pixel_digest")
FILE = "rows.parquet"


class RowBatches:
    """Appends rows to batch files `rows-00000.parquet …`, and joins them to `rows.parquet`.

    Args:
        folder: Folder of the batch files.
        batches: Number of batch files in it whose rows come first: those of an ingest that was interrupted. Others are deleted.
    """

    def __init__(self, folder: Path, batches: int = 0):
        self.folder = folder
        self._waiting: list[dict[str, Any]] = []
        for path in sorted(folder.glob("rows-*.parquet"))[batches:]:
            path.unlink()
        self.paths = sorted(folder.glob("rows-*.parquet"))
        self._flushed = sum(_n_rows(path) for path in self.paths)

    def __len__(self) -> int:
        return self._flushed + len(self._waiting)

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; columns that it lacks are null."""
        self._waiting.append(row)
        if len(self._waiting) >= BATCH:
            self.flush()

    def flush(self) -> int:
        """Write the rows that are held in memory; returns the number of batch files."""
        if self._waiting:
            import pyarrow.parquet as parquet

            path = self.folder / f"rows-{len(self.paths):05d}.parquet"
            parquet.write_table(_table(self._waiting), path)
            self.paths.append(path)
            self._flushed += len(self._waiting)
            self._waiting = []
        return len(self.paths)

    def at(self, name: str, position: int) -> Any:
        """The value of a column in one row; None if it is missing."""
        import pyarrow.parquet as parquet

        self.flush()
        for path in self.paths:
            count = _n_rows(path)
            if position < count:
                names = parquet.read_schema(path).names
                return parquet.read_table(path, columns=[name]).column(0)[position].as_py() if name in names else None
            position -= count
        raise IndexError(position)

    def values(self, name: str) -> Iterator[Any]:
        """The values of a column, in order; None where missing."""
        import pyarrow.parquet as parquet

        self.flush()
        for path in self.paths:
            if name in parquet.read_schema(path).names:
                values = parquet.read_table(path, columns=[name]).column(0).to_pylist()
                _release()
                yield from values
            else:
                yield from [None] * _n_rows(path)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as parquet

        self.flush()
        for path in self.paths:
            yield from parquet.read_table(path).to_pylist()

    def join(self, folder: Path, **columns: np.ndarray) -> Path:
        """Write `rows.parquet`.

        Args:
            folder: Folder to write it to.
            columns: Columns of text that are added, or replace those of the rows; each of shape (N,).

        Returns:
            Path of the file.
        """
        import pyarrow
        import pyarrow.parquet as parquet

        self.flush()
        schema = self._schema(columns)
        path, start = folder / FILE, 0
        waiting: list[pyarrow.Table] = []
        with parquet.ParquetWriter(path, schema) as file:
            for part in self.paths:
                table = parquet.read_table(part)
                table = table.drop_columns([name for name in columns if name in table.column_names])
                for name, values in columns.items():
                    taken = pyarrow.array(values[start : start + len(table)].tolist(), pyarrow.string())
                    table = table.append_column(name, taken)
                start += len(table)
                waiting.append(_as(table, schema))
                if sum(map(len, waiting)) >= GROUP:
                    file.write_table(pyarrow.concat_tables(waiting))
                    waiting = []
                _release()
            if waiting:
                file.write_table(pyarrow.concat_tables(waiting))
        return path

    def _schema(self, columns: Iterable[str]) -> pyarrow.Schema:
        """The columns of all batches, in the order of `LEADING` and of their first row, with types that hold all values."""
        import pyarrow
        import pyarrow.parquet as parquet

        types: dict[str, pyarrow.DataType] = {}
        for path in self.paths:
            for field in parquet.read_schema(path):
                types[field.name] = _common(types[field.name], field.type) if field.name in types else field.type
        types |= dict.fromkeys(columns, pyarrow.string())
        order = [*LEADING, *(name for name in types if name not in LEADING)]
        return pyarrow.schema([(name, types.get(name, pyarrow.null())) for name in order])


def content_digest(path: Path, identity: str) -> str:
    """Hash of all columns of `rows.parquet` but the file names, which does not depend on how the file is written.

    Args:
        path: The file.
        identity: Text that is hashed first.
    """
    import pyarrow.parquet as parquet

    digest = hashlib.blake2b(identity.encode(), digest_size=16)
    with parquet.ParquetFile(path) as file:
        for name in sorted(set(file.schema_arrow.names) - {"file"}):
            digest.update(name.encode())
            for batch in file.iter_batches(GROUP, columns=[name]):
                digest.update("".join(f"\x1f{value}" for value in batch.column(0).to_pylist()).encode())
            _release()
    return digest.hexdigest()


def _release() -> None:
    """Let Arrow return what it does not use: its pool keeps ten times of what is in use at most."""
    import pyarrow

    pyarrow.default_memory_pool().release_unused()


def _n_rows(path: Path) -> int:
    import pyarrow.parquet as parquet

    return parquet.read_metadata(path).num_rows


def _table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    """A table of rows that may have different columns; a column of mixed types becomes text."""
    import pyarrow

    names: dict[str, Any] = {}
    for row in rows:
        names |= row
    return pyarrow.table({name: _array([row.get(name) for row in rows]) for name in names})


def _array(values: list[Any]) -> pyarrow.Array:
    import pyarrow

    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):
        return pyarrow.array([None if value is None else str(value) for value in values], pyarrow.string())


def _common(one: pyarrow.DataType, other: pyarrow.DataType) -> pyarrow.DataType:
    """The type that holds the values of both."""
    import pyarrow
    from pyarrow import types

    if one == other or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if all(types.is_integer(kind) for kind in (one, other)):
        return pyarrow.int64()
    if all(types.is_integer(kind) or types.is_floating(kind) for kind in (one, other)):
        return pyarrow.float64()
    return pyarrow.string()


def _as(table: pyarrow.Table, schema: pyarrow.Schema) -> pyarrow.Table:
    """A table with the columns of a schema; columns that it lacks are null."""
    import pyarrow

    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pyarrow.nulls(len(table), field.type)
        for field in schema
    ]
    return pyarrow.table(columns, schema=schema)
