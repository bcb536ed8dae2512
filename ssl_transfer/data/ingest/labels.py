"""Label tables: a CSV is joined to the images of a source by patient, series or file, before ids are hashed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.csv_table import MISSING, CsvTable, Present, read_csv, shown, tidy
from ssl_transfer.data.ingest.label_columns import LabelColumns, label_columns
from ssl_transfer.data.ingest.label_files import lost_zeros, match_files
from ssl_transfer.data.ingest.label_values import check_lengths, column_values
from ssl_transfer.data.readers.items import Selected
from ssl_transfer.data.readers.reader import Item, Refusal, named_file
from ssl_transfer.errors import LabelError
from ssl_transfer.texts import HashSet, Positions, Texts, hashes

MOST_EXAMPLES = 3


class LabelRows(Mapping[str, tuple[int, dict]]):
    """Line number and values of each key, in the order of the file. Memory: the bytes of the keys, and some forty a row.

    Args:
        keys: The keys, each once.
        rows: Row of each key among those of the columns, shape (n,).
        lines: Line number of each of those.
        columns: Values by column.
    """

    def __init__(self, keys: Texts, rows: np.ndarray, lines: Sequence[int], columns: Mapping[str, Sequence[Any]]):
        self.keys_in_order, self._rows, self._lines, self._columns = keys, rows, lines, columns
        self._positions: Positions | None = None

    def __len__(self) -> int:
        return len(self.keys_in_order)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys_in_order)

    def __getitem__(self, key: str) -> tuple[int, dict]:
        number = self.number(key)
        if number is None:
            raise KeyError(key)
        return self.line(number), self.content(number)

    def number(self, key: str) -> int | None:
        """Number of a key; None if it is not there."""
        if self._positions is None:  # tables of files do without it
            self._positions = Positions(self.keys_in_order)
        return next((number for number in self._positions.of(key) if self.keys_in_order[number] == key), None)

    def line(self, number: int) -> int:
        """Line of the file of a key, by its number."""
        return int(self._lines[int(self._rows[number])])

    def content(self, number: int) -> dict:
        """Values by column of a key, by its number."""
        row = int(self._rows[number])
        return {name: values[row] for name, values in self._columns.items()}


@dataclass(frozen=True)
class LabelTable:
    """The content of a CSV.

    Attributes:
        path: Path of the CSV.
        key: `patient`, `series` or `file`.
        columns: Names of the columns to join, as in the store.
        rows: Line number and values by column (None if missing), by key.
        notes: What was decided or left out, for the user.
    """

    path: Path
    key: str
    columns: list[str]
    rows: LabelRows
    notes: list[str] = field(default_factory=list)


def read_labels(
    path: str | Path,
    key: str | None = None,
    *,
    file_column: str | None = None,
    patient_column: str | None = None,
    label_column: str | None = None,
    missing: str | None = None,
) -> LabelTable:
    """Read a label CSV.

    Label, patient, series and split are text. Any other column is numbers if all its values are, and text otherwise.

    Args:
        path: The file, see `ssl_transfer.csv_table`.
        key: `patient`, `series` or `file`: the column that finds the images. None: `file` if there is one, otherwise the one
            of patient and series that there is.
        file_column: Column of the file names; None: the one that is called file, image, filename, path or the like.
        patient_column: Column of the patients; None: the one that is called patient, subject or the like.
        label_column: Column of the labels; None: the one that is called label, class, diagnosis, target or the like.
        missing: Words that mean "missing", separated by commas; None: `MISSING`.

    Raises:
        LabelError: If the file cannot be read, a column is missing or ambiguous, a key is missing or repeated with
            other values, a name is too long, a split is unknown, or decimals have a comma.
    """
    table = read_csv(path, LabelError)
    named = {"file": file_column, "patient": patient_column, "label": label_column}
    columns = label_columns(table, key, named)
    words = MISSING if missing is None else tuple(word.strip() for word in missing.split(","))
    notes = [*table.notes, *columns.notes]
    values = {name: column_values(table, name, column, words, notes) for name, column in columns.joined.items()}
    rows = _rows_by_key(table, columns, values, words, notes)
    return LabelTable(table.path, columns.key, list(columns.joined), rows, list(dict.fromkeys(notes)))


def _rows_by_key(
    table: CsvTable, columns: LabelColumns, values: dict[str, Sequence], words: Sequence[str], notes: list[str]
) -> LabelRows:
    """Line number and values of each key; rows that repeat another in every column are left out, with a note."""
    keys = Present(table.cells[columns.key_column], () if columns.key == "file" else words)
    check_lengths(table, columns.key_column, keys)
    for row, key in enumerate(keys):
        if key is None:
            found = table.cells[columns.key_column][row]
            means = f"{shown(found)} means missing (--missing)" if found else "the cell is empty"
            raise table.failure(row, columns.key_column, f"no {columns.key}: {means}. Fill it in or remove the line.")
    _, firsts, inverse = np.unique(hashes(keys), return_index=True, return_inverse=True)
    is_first = firsts[inverse] == np.arange(len(keys))
    for row in np.flatnonzero(~is_first).tolist():
        _check_repeated(table, columns.key, str(keys[row]), values, (int(firsts[inverse[row]]), row))
    if repeated := int((~is_first).sum()):
        notes.append(f"{table.path.name}: {repeated} rows repeat another one in every column")
    rows = np.flatnonzero(is_first)
    return LabelRows(Texts(str(keys[row]) for row in rows), rows, table.lines, values)


def _check_repeated(
    table: CsvTable, kind: str, key: str, values: Mapping[str, Sequence], rows: tuple[int, int]
) -> None:
    """Refuse a row that contradicts an earlier one of the same key."""
    first, second = rows
    advice = f" Rows are joined by {kind}; if each is of one image, name the column of files: --file-column NAME."
    for name, column in values.items():
        if column[first] != column[second]:
            raise table.failure(
                second,
                None,
                f"{shown(key)} is also in line {table.lines[first]}, there with {name} {shown(str(column[first]))}, here with "
                f"{shown(str(column[second]))}. Keep one of them; several findings go into one cell (a|b) or into a column each."
                + ("" if kind == "file" else advice),
            )


def join_labels(
    items: Sequence[Item], refused: Sequence[Refusal], table: LabelTable, max_unmatched: float = 0.1
) -> list[str]:
    """Add the columns of a table to the rows of `items`, in place.

    For images that are not in the table, these columns are null. Files are found as `match_files` describes.

    Args:
        items: Items of the source.
        refused: Refused files, which may also occur in the table.
        table: The label table.
        max_unmatched: Largest share of the table's rows that are not in the source.

    Returns:
        Warnings for the card.

    Raises:
        LabelError: If more rows are not in the source, a file name fits several files, or rows contradict each other.
    """
    warnings = list(table.notes)
    rows = _rows_of_items(items, refused, table, max_unmatched, warnings)
    empty = dict.fromkeys(table.columns)
    unnamed, unlabelled, first = 0, 0, []
    for item, row in zip(items, rows.tolist(), strict=True):
        if row < 0:
            unnamed, first = unnamed + 1, [*first, item.file][:MOST_EXAMPLES]
        values = empty if row < 0 else table.rows.content(row)
        unlabelled += "label" in table.columns and values["label"] is None
        item.row |= {n: v for n, v in values.items() if v is not None or n not in ("patient", "series")}
    if unnamed:
        count = f"{unnamed} of {len(items)} files are not in {table.path.name}"
        warnings.append(f"{count} ({_examples(first, unnamed)}): its columns are empty for them")
    if unlabelled > unnamed:
        warnings.append(f"{unlabelled} of {len(items)} files have no label in {table.path.name}")
    return warnings


def _key_of(file: str, row: dict, key: str) -> str | None:
    """The key of a file of the source: its path, or its patient or series."""
    if key == "file":
        return file
    return None if row.get(key) is None else tidy(str(row[key]))


def _rows_of_items(
    items: Sequence[Item], refused: Sequence[Refusal], table: LabelTable, max_unmatched: float, warnings: list[str]
) -> np.ndarray:
    """Number of the row of the table of each item, −1 where it has none, int64 (N,).

    Raises:
        LabelError: See `join_labels`.
    """
    if table.key == "file":
        return _rows_by_file(items, refused, table, max_unmatched, warnings)
    keys = [_key_of(entry.file, entry.row, table.key) for entry in refused]
    known = HashSet(chain(keys, (_key_of(item.file, item.row, table.key) for item in items)))
    found = np.fromiter((key in known for key in table.rows), bool, len(table.rows))
    names = (_key_of(item.file, item.row, table.key) for item in items)
    _check_unmatched(table, found, names, max_unmatched, warnings)
    numbers = (
        None if (key := _key_of(item.file, item.row, table.key)) is None else table.rows.number(key) for item in items
    )
    return np.fromiter((-1 if number is None else number for number in numbers), np.int64, len(items))


def _rows_by_file(
    items: Sequence[Item], refused: Sequence[Refusal], table: LabelTable, max_unmatched: float, warnings: list[str]
) -> np.ndarray:
    """`_rows_of_items` for a table of files; warnings say by which rule a file was found."""
    _, firsts, inverse = np.unique(hashes(item.file for item in items), return_index=True, return_inverse=True)
    order = np.argsort(firsts)  # a file of several volumes is several items
    files = Selected(items, firsts[order], lambda item: item.file)
    others = [file for file in dict.fromkeys(entry.file for entry in refused)]
    matches = match_files(table.rows.keys_in_order, files, others)
    for name, candidates in matches.ambiguous.items():
        raise LabelError(
            f"{table.path} line {table.rows[name][0]}: file {shown(name)} could be {candidates[0]} or {candidates[1]}. "
            "Give the path below the source."
        )
    for rule, (count, name, file) in matches.rules.items():
        warnings.append(
            f"{table.path.name}: {count} of {len(table.rows)} file names are found {rule}, for example "
            f"{named_file(shown(name))} as {named_file(file)}"
        )
    places = matches.files.places
    _check_unmatched(table, places >= 0, files, max_unmatched, warnings)
    rows = np.full(len(files) + len(others), -1, np.int64)
    for number in np.flatnonzero(places >= 0).tolist():
        place = int(places[number])
        if rows[place] < 0:
            rows[place] = number
        elif table.rows.content(number) != table.rows.content(int(rows[place])):
            key = table.rows.keys_in_order[number]
            raise LabelError(
                f"{table.path} line {table.rows.line(number)}: {shown(key)} is {matches.files[key]}, as in line "
                f"{table.rows.line(int(rows[place]))}, with other values. Keep one of them."
            )
    of_file = np.empty(len(firsts), np.int64)
    of_file[order] = rows[: len(files)]
    return of_file[inverse]


def _check_unmatched(
    table: LabelTable, found: np.ndarray, available: Iterable[str | None], most: float, warnings: list[str]
) -> None:
    """Warn of rows that are not in the source, or refuse them if there are too many.

    Args:
        table: The table.
        found: Whether each row is in the source, shape (n,).
        available: The keys of the source.
        most: The `--max-unmatched` option.
        warnings: The warning is added.
    """
    missing = np.flatnonzero(~found).tolist()
    if not missing:
        return
    keys, rows = table.rows.keys_in_order, table.rows
    share = len(missing) / len(rows)
    if share <= most:
        first = [f"line {rows.line(number)}: {shown(keys[number])}" for number in missing[:MOST_EXAMPLES]]
        examples = _examples(first, len(missing))
        warnings.append(f"{len(missing)} of {len(rows)} rows of {table.path.name} are not in the source ({examples})")
        return
    names = {name for name in available if name is not None}
    hint = lost_zeros(keys[missing[0]], names)
    has = f"{len(names)} {'files' if table.key == 'file' else table.key + ' ids'}"
    example = f", for example {shown(min(names))}" if names else ""
    advice = (
        f"Did a spreadsheet drop the zeros of '{hint}'? Format the column as text"
        if hint
        else "Remove or correct these lines"
    )
    raise LabelError(
        f"{table.path} line {rows.line(missing[0])}: {table.key} {shown(keys[missing[0]])} is not in the source, which has "
        f"{has}{example}. {len(missing)} of {len(rows)} rows ({share:.0%}) are not, more than {most:.0%}. {advice}, "
        "or raise --max-unmatched."
    )


def _examples(names: list[str], count: int) -> str:
    """The first names, marked for `named_file`, and how many of them all follow."""
    more = f" and {count - MOST_EXAMPLES} more" if count > MOST_EXAMPLES else ""
    return ", ".join(map(named_file, names[:MOST_EXAMPLES])) + more
