"""Tidy tables that other programs or people wrote: text of a CSV to numbers, or a message with the line and the column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_transfer.cards import TRIVIAL
from ssl_transfer.csv_table import MISSING, CsvTable, numbers, plain_name, read_csv, shown, without_missing
from ssl_transfer.errors import UsageError, nearest
from ssl_transfer.study.declared import CELL
from ssl_transfer.study.statistics.boundaries import KINDS

NEEDED = ("protocol", "pretraining", "task", "metric", "value")
OPTIONAL = ("strategy", "fraction", "pretraining_seed", "seed", "boundary", "draw")
WHOLE = ("pretraining_seed", "seed", "draw")
REAL = ("fraction", "noise_sigma", "value")
SEEDS = ("pretraining_seed", "seed")
SYNONYMS = {
    "pretraining": ("arm", "backbone", "model"),
    "task": ("target", "dataset"),
    "value": ("score", "result"),
    "seed": ("run", "repeat", "repetition"),
}
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
WHOLE_NUMBER = re.compile(r"([^0-9]*?)(-?[0-9]+)(?:\.0+)?")  # with the letters in front of it, as in `s0`
LARGEST = 2**63 - 1


def read_tidy(path: str | Path, domains: str | Path | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Read a tidy table that another tool made.

    Column names may differ in upper case, blanks and punctuation, and a few synonyms are known. Read are also shares in percent
    (`70%`), seeds with letters in front of them (`s0`), and decimal commas in a file whose cells are not separated by commas.

    Args:
        path: CSV with the columns protocol, pretraining, task, strategy, fraction, pretraining_seed, seed, metric, value; also
            boundary, noise, noise_sigma and draw where there are such.
        domains: CSV with pretraining, task and boundary; None: the table's own boundaries, if any.

    Returns:
        The table, and notes about what was not read literally.

    Raises:
        UsageError: If a file is missing or not readable, a column is missing, a value cannot be meant, or two rows are
            values of the same run.
    """
    table = read_csv(path, UsageError)
    notes = list(table.notes)
    columns = _columns(table, (*NEEDED, *OPTIONAL, "noise", "noise_sigma"), NEEDED, notes)
    frame = pd.DataFrame({name: _values(table, name, column, columns, notes) for name, column in columns.items()})
    for name in set(OPTIONAL) - set(frame):
        frame[name] = None
    frame = frame.astype({**dict.fromkeys(WHOLE, "Int64"), **{name: "float64" for name in REAL if name in frame}})
    _check_repeated(table, frame)
    if (absent := frame["value"].isna()).any():
        first = table.where(int(absent.to_numpy().argmax()), columns["value"])
        notes.append(
            f"{absent.sum()} of {len(frame)} values are missing (first: {first}): paired tests leave these runs out, and "
            "Welch’s tests of their arms are not decided"
        )
    if domains is not None:
        boundaries = _boundaries(domains, notes)
        pairs = zip(frame["pretraining"], frame["task"], strict=True)
        frame["boundary"] = pd.Series([boundaries.get(pair) for pair in pairs], index=frame.index, dtype="object")
    return frame, notes


def _columns(table: CsvTable, known: Sequence[str], needed: Sequence[str], notes: list[str]) -> dict[str, str]:
    """Name of each column of the tidy table -> column of the CSV; other columns keep their names."""
    columns: dict[str, str] = {}
    for name in known:
        free = [column for column in table.columns if column not in columns.values()]
        alike = [column for column in free if plain_name(column) == plain_name(name)]
        alike = alike or [column for column in free if plain_name(column) in SYNONYMS.get(name, ())]
        column = name if name in free else alike[0] if len(alike) == 1 else None
        if column is None:
            continue
        columns[name] = column
        if column != name:
            notes.append(f"{table.path.name}: column {shown(column)} is read as {name}")
    if missing := [name for name in needed if name not in columns]:
        hint = nearest(missing[0], table.columns)
        raise UsageError(
            f"{table.path}: no column {', '.join(missing)}; expected at least {', '.join(needed)}. Found: "
            f"{', '.join(map(shown, table.columns))}.{hint if 'mean' in hint else ''}"
        )
    rest = [column for column in table.columns if column not in columns.values() and column not in columns]
    return columns | {column: column for column in rest}


def _values(table: CsvTable, name: str, column: str, columns: dict[str, str], notes: list[str]) -> pd.Series:
    """The values of a column, as numbers where it is one of numbers."""
    words = () if name in NEEDED and name not in REAL else MISSING
    values, _ = without_missing(table.cells[column], words)
    if name in WHOLE:
        return pd.Series(_whole(table, column, values, notes), dtype="Int64")
    if name in REAL:
        groups = table.cells[columns["metric"]] if name == "value" else [""] * len(table)
        real = _real(table, column, values, groups, notes)
        if name == "fraction":
            _check_fractions(table, column, values, real)
        return pd.Series(real, dtype="float64")
    if name in NEEDED and None in values:
        raise table.failure(values.index(None), column, "the cell is empty. Every row needs it.")
    if name == "boundary":
        _check_boundaries(table, column, values)
    typed = None if name in (*NEEDED, *OPTIONAL, "noise") else numbers(values)
    return pd.Series(values, dtype="object") if typed is None else pd.Series(typed)


def _whole(table: CsvTable, column: str, values: Sequence[str | None], notes: list[str]) -> list[int | None]:
    """Seeds: whole numbers, all with the same letters in front of them, if any."""
    found = [None if value is None else WHOLE_NUMBER.fullmatch(value) for value in values]
    prefixes = {match[1] for match in found if match}
    for row, (value, match) in enumerate(zip(values, found, strict=True)):
        if value is not None and (match is None or len(prefixes) > 1 or abs(int(match[2][:20])) > LARGEST):
            among = (
                f" ({' and '.join(map(shown, sorted(prefixes)))} stand before numbers)"
                if match and len(prefixes) > 1
                else ""
            )
            raise table.failure(row, column, f"found {shown(value)}{among}. Expected a whole number, such as 0, 1, 2.")
    if prefixes - {""}:
        example = next(value for value in values if value is not None)
        notes.append(f"{table.path.name}: column {shown(column)}: {shown(example)} is read as a number")
    return [None if match is None else int(match[2]) for match in found]


def _real(
    table: CsvTable, column: str, values: Sequence[str | None], groups: Sequence[str], notes: list[str]
) -> list[float | None]:
    """Real numbers. Of a metric either all values are in percent, or none is."""
    present = [value for value in values if value is not None]
    comma = (
        table.delimiter != "," and any("," in value for value in present) and not any("." in value for value in present)
    )
    in_percent: dict[str, bool] = {}
    real: list[float | None] = []
    for row, (value, group) in enumerate(zip(values, groups, strict=True)):
        number = None if value is None else _number(value.replace(",", ".", 1) if comma else value)
        if value is not None and number is None:
            raise table.failure(row, column, f"found {shown(value)}. {_advice(value)}")
        if value is not None and in_percent.setdefault(group, "%" in value) != ("%" in value):
            others = "not in percent" if "%" in value else "in percent"
            raise table.failure(row, column, f"found {shown(value)}, but values before it are {others}.")
        real.append(number)
    where = f"{table.path.name}: column {shown(column)}"
    if percent := [value for value in present if "%" in value]:
        notes.append(f"{where}: values in percent are divided by 100 ({shown(percent[0])})")
    if comma:
        notes.append(f"{where}: commas are decimal points")
    return real


def _number(text: str) -> float | None:
    """A finite number, or one in percent; None if it is something else."""
    digits = text.removesuffix("%").rstrip()
    if not NUMBER.fullmatch(digits) or abs(float(digits)) == float("inf"):
        return None
    return float(Decimal(digits) / 100) if text.endswith("%") else float(digits)


def _advice(value: str) -> str:
    if "," in value:
        return "Write decimals with a point (0.7), and thousands without a mark."
    if value.casefold().lstrip("+-") in ("inf", "infinity"):
        return "Leave the cell empty if the metric is not defined."
    return "Expected a number, such as 0.7; an empty cell if it is missing."


def _check_fractions(table: CsvTable, column: str, values: Sequence[str | None], real: Sequence[float | None]) -> None:
    for row, fraction in enumerate(real):
        if fraction is not None and not 0 < fraction <= 1:
            raise table.failure(
                row, column, f"found {shown(str(values[row]))}. Expected a share above 0 up to 1, or 10%."
            )


def _check_boundaries(table: CsvTable, column: str, values: Sequence[str | None]) -> None:
    for row, value in enumerate(values):
        if value is not None and value not in (known := [*KINDS, TRIVIAL]):
            raise table.failure(row, column, f"found {shown(value)}.{nearest(value, known)}")


def _check_repeated(table: CsvTable, frame: pd.DataFrame) -> None:
    """Refuse two values of one run."""
    run = [name for name in (*CELL, "pretraining", *SEEDS) if name in frame]
    twice = frame.duplicated(run)
    if not twice.any():
        return
    row = int(twice.to_numpy().argmax())
    first = int((frame[run].astype(str) == frame[run].astype(str).iloc[row]).all(axis=1).to_numpy().argmax())
    same: dict[str, Any] = {name: value for name, value in frame[run].iloc[row].items() if pd.notna(value)}
    setting = ", ".join(f"{name} {value}" for name, value in same.items())
    if frame[list(SEEDS)].isna().all(axis=None):
        advice = (
            "There is no column seed or pretraining_seed, or it is empty. Add one that numbers the runs of an arm: "
            "pretraining_seed if each run has its own pretraining, seed if only the evaluation was repeated"
        )
    else:
        advice = "Expected one row for each run; other recipes need another name of their pretraining"
    raise UsageError(f"{table.where(row)}: repeats line {table.lines[first]} ({setting}). {advice}.")


def _boundaries(path: str | Path, notes: list[str]) -> dict[tuple[str, str], str]:
    """(pretraining, task) -> boundary."""
    needed = ("pretraining", "task", "boundary")
    table = read_csv(path, UsageError)
    columns = _columns(table, needed, needed, notes)
    values = {name: list(_values(table, name, columns[name], columns, notes)) for name in needed}
    boundaries: dict[tuple[str, str], str] = {}
    for row, (arm, task, boundary) in enumerate(zip(*values.values(), strict=True)):
        if boundaries.setdefault((arm, task), boundary) != boundary:
            raise table.failure(row, columns["boundary"], f"{arm} and {task} have another boundary in an earlier line.")
    return boundaries
