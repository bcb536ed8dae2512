"""Label tables: a CSV is joined to the images of a source by patient, series or file, before ids are hashed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl_transfer.csv_table import (
    DECIMAL_COMMA,
    MISSING,
    CsvTable,
    is_number,
    numbers,
    read_csv,
    shown,
    tidy,
    without_missing,
)
from ssl_transfer.data.ingest.label_columns import LabelColumns, check_splits, label_columns
from ssl_transfer.data.ingest.label_files import lost_zeros, match_files
from ssl_transfer.data.readers.reader import Item, Refusal, named_file
from ssl_transfer.errors import LabelError

TEXT = ("label", "patient", "series", "split")  # columns that are never numbers
LONGEST_NAME = 1_000  # characters of a class, an id or a file name
MOST_EXAMPLES = 3
ODD_SHARE = 0.2  # a column of numbers with a smaller share of other words is mentioned


@dataclass(frozen=True)
class LabelTable:
    """The content of a CSV.

    Attributes:
        path: Path of the CSV.
        key: `patient`, `series` or `file`.
        columns: Names of the columns to join, as in the store.
        rows: Line number and values by column (None if missing), for each key.
        notes: What was decided or left out, for the user.
    """

    path: Path
    key: str
    columns: list[str]
    rows: dict[str, tuple[int, dict]]
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
    values = {name: _values(table, name, column, words, notes) for name, column in columns.joined.items()}
    rows = _rows_by_key(table, columns, values, words, notes)
    return LabelTable(table.path, columns.key, list(columns.joined), rows, list(dict.fromkeys(notes)))


def _values(table: CsvTable, name: str, column: str, words: Sequence[str], notes: list[str]) -> list:
    """The values of a column of the store; notes about words for missing values, and about classes that are nearly equal."""
    values, found = without_missing(table.cells[column], words)
    if found:
        counts = ", ".join(f"{shown(word)} ({count})" for word, count in found.most_common())
        notes.append(f"{table.path.name}: column {shown(column)}: read as missing: {counts} (--missing)")
    if name == "split":
        return check_splits(table, column, values)
    if name in TEXT:
        _check_lengths(table, column, values)
        return _classes(table, column, values, notes) if name == "label" else values
    _check_decimals(table, column, values)
    typed = numbers(values)
    if typed is None:
        _mention_odd_words(table, column, values, notes)
    return values if typed is None else typed


def _check_lengths(table: CsvTable, column: str, values: Sequence[str | None]) -> None:
    for row, value in enumerate(values):
        if value is not None and len(value) > LONGEST_NAME:
            raise table.failure(
                row, column, f"{len(value):,} characters ({shown(value)}); expected a name of at most {LONGEST_NAME:,}."
            )


def _check_decimals(table: CsvTable, column: str, values: Sequence[str | None]) -> None:
    """Refuse a column of numbers in which some have a decimal comma."""
    present = [(row, value) for row, value in enumerate(values) if value is not None]
    commas = [(row, value) for row, value in present if DECIMAL_COMMA.fullmatch(value)]
    if commas and all(DECIMAL_COMMA.fullmatch(value) or is_number(value) for _, value in present):
        row, value = commas[0]
        raise table.failure(
            row,
            column,
            f"found {shown(value)} ({len(commas)} such cells). Write decimals with a point ({value.replace(',', '.')}), and "
            "separate the items of a list by something else than a comma.",
        )


def _mention_odd_words(table: CsvTable, column: str, values: Sequence[str | None], notes: list[str]) -> None:
    """Note that a column of numbers is text because of a few words."""
    present = [(row, value) for row, value in enumerate(values) if value is not None]
    odd = [(row, value) for row, value in present if not is_number(value)]
    if odd and len(odd) < ODD_SHARE * len(present) and not all(re.fullmatch(r"[0-9_.]+", value) for _, value in odd):
        row, value = next((row, value) for row, value in odd if not re.fullmatch(r"[0-9_.]+", value))
        notes.append(
            f"{table.path.name}: column {shown(column)} stays text: {named_file(shown(value))} (line {table.lines[row]}) is not "
            "a number"
        )


def _classes(table: CsvTable, column: str, values: list[str | None], notes: list[str]) -> list[str | None]:
    """Labels in which `1` and `1.0` are one class; a note about other classes that are nearly equal."""
    present = {value for value in values if value is not None}
    whole = {value: value.partition(".")[0] for value in present if re.fullmatch(r"-?(0|[1-9][0-9]*)\.0+", value)}
    same = {value: short for value, short in whole.items() if short in present}
    if same:
        pairs = ", ".join(f"{shown(value)} is the class {shown(short)}" for value, short in sorted(same.items()))
        notes.append(f"{table.path.name}: column {shown(column)}: {pairs}")
    alike = defaultdict(set)
    for value in present - set(same):
        alike["".join(value.casefold().split()).lstrip("0")].add(value)
    for classes in sorted(sorted(group) for group in alike.values() if len(group) > 1):
        names = ", ".join(map(shown, classes))
        notes.append(f"{table.path.name}: column {shown(column)}: {names} are {len(classes)} classes. Is it one?")
    return [same.get(value, value) if value is not None else None for value in values]


def _rows_by_key(
    table: CsvTable, columns: LabelColumns, values: dict[str, list], words: Sequence[str], notes: list[str]
) -> dict[str, tuple[int, dict]]:
    """Line number and values of each key; rows that repeat another in every column are left out, with a note."""
    keys, _ = without_missing(table.cells[columns.key_column], () if columns.key == "file" else words)
    _check_lengths(table, columns.key_column, keys)
    rows: dict[str, tuple[int, dict]] = {}
    repeated = 0
    for row, key in enumerate(keys):
        if key is None:
            found = table.cells[columns.key_column][row]
            means = f"{shown(found)} means missing (--missing)" if found else "the cell is empty"
            raise table.failure(row, columns.key_column, f"no {columns.key}: {means}. Fill it in or remove the line.")
        content = {name: column[row] for name, column in values.items()}
        line, first = rows.setdefault(key, (table.lines[row], content))
        if first is not content:
            _check_repeated(table, row, key, line, first, content)
            repeated += 1
    if repeated:
        notes.append(f"{table.path.name}: {repeated} rows repeat another one in every column")
    return rows


def _check_repeated(table: CsvTable, row: int, key: str, line: int, first: dict, second: dict) -> None:
    """Refuse a row that contradicts an earlier one of the same key."""
    for name, value in first.items():
        if value != second[name]:
            raise table.failure(
                row,
                None,
                f"{shown(key)} is also in line {line}, there with {name} {shown(str(value))}, here with "
                f"{shown(str(second[name]))}. Keep one of them; several findings go into one cell (a|b) or into a column each.",
            )


def join_labels(
    items: Iterable[Item], refused: Iterable[Refusal], table: LabelTable, max_unmatched: float = 0.1
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
    items = list(items)
    warnings = list(table.notes)
    by_key = _by_key_of_source(items, list(refused), table, max_unmatched, warnings)
    empty = dict.fromkeys(table.columns)
    unnamed, unlabelled = [], 0
    for item in items:
        key = _key_of(item.file, item.row, table.key)
        if (values := by_key.get(key) if key is not None else None) is None:
            unnamed.append(item.file)
        values = empty if values is None else values
        unlabelled += "label" in table.columns and values["label"] is None
        kept = {name: value for name, value in values.items() if value is not None or name not in ("patient", "series")}
        item.row |= kept
    if unnamed:
        count = f"{len(unnamed)} of {len(items)} files are not in {table.path.name}"
        warnings.append(f"{count} ({_examples(unnamed)}): its columns are empty for them")
    if unlabelled > len(unnamed):
        warnings.append(f"{unlabelled} of {len(items)} files have no label in {table.path.name}")
    return warnings


def _key_of(file: str, row: dict, key: str) -> str | None:
    """The key of a file of the source: its path, or its patient or series."""
    if key == "file":
        return file
    return None if row.get(key) is None else tidy(str(row[key]))


def _by_key_of_source(
    items: Sequence[Item], refused: list[Refusal], table: LabelTable, max_unmatched: float, warnings: list[str]
) -> dict[str, dict]:
    """Values of the table by the keys of the source.

    Raises:
        LabelError: See `join_labels`.
    """
    names = [_key_of(entry.file, entry.row, table.key) for entry in items]
    others = [_key_of(entry.file, entry.row, table.key) for entry in refused]
    available = list(dict.fromkeys(name for name in names if name is not None))
    others = list(dict.fromkeys(name for name in others if name is not None))
    if table.key == "file":
        found = _files(table, available, others, warnings)
    else:
        found = {key: key for key in table.rows if key in {*available, *others}}
    _check_unmatched(table, found, available, max_unmatched, warnings)
    values: dict[str, dict] = {}
    lines: dict[str, int] = {}
    for key, name in found.items():
        line, row = table.rows[key]
        if values.setdefault(name, row) != row:
            raise LabelError(
                f"{table.path} line {line}: {shown(key)} is {name}, as in line {lines[name]}, with other values. "
                "Keep one of them."
            )
        lines.setdefault(name, line)
    return values


def _files(table: LabelTable, files: list[str], refused: list[str], warnings: list[str]) -> dict[str, str]:
    """File name in the table -> file of the source; warnings say by which rule."""
    matches = match_files(list(table.rows), files, refused)
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
    return matches.files


def _check_unmatched(
    table: LabelTable, found: dict[str, str], available: list[str], most: float, warnings: list[str]
) -> None:
    """Warn of rows that are not in the source, or refuse them if there are too many."""
    missing = [key for key in table.rows if key not in found]
    if not missing:
        return
    line = table.rows[missing[0]][0]
    share = len(missing) / len(table.rows)
    if share <= most:
        examples = _examples([f"line {table.rows[key][0]}: {shown(key)}" for key in missing])
        warnings.append(
            f"{len(missing)} of {len(table.rows)} rows of {table.path.name} are not in the source ({examples})"
        )
        return
    hint = lost_zeros(missing[0], available)
    has = f"{len(available)} {'files' if table.key == 'file' else table.key + ' ids'}"
    example = f", for example {shown(min(available))}" if available else ""
    advice = (
        f"Did a spreadsheet drop the zeros of '{hint}'? Format the column as text"
        if hint
        else "Remove or correct these lines"
    )
    raise LabelError(
        f"{table.path} line {line}: {table.key} {shown(missing[0])} is not in the source, which has {has}{example}. "
        f"{len(missing)} of {len(table.rows)} rows ({share:.0%}) are not, more than {most:.0%}. {advice}, "
        "or raise --max-unmatched."
    )


def _examples(names: list[str]) -> str:
    """The first names, marked for `named_file`, and how many follow."""
    more = f" and {len(names) - MOST_EXAMPLES} more" if len(names) > MOST_EXAMPLES else ""
    return ", ".join(map(named_file, names[:MOST_EXAMPLES])) + more
