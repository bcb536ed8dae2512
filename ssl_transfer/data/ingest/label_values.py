"""The values of a label table's column: text, numbers or classes, what is missing, and what is refused or mentioned."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from ssl_transfer.csv_table import (
    DECIMAL_COMMA,
    NEARLY_NUMBER,
    SPREADSHEET_ERRORS,
    CsvTable,
    Present,
    is_number,
    number_type,
    plain_name,
    shown,
)
from ssl_transfer.data.demographics import AGES, OLDEST, are_ages, sex
from ssl_transfer.data.ingest.label_columns import check_splits
from ssl_transfer.data.readers.reader import named_file
from ssl_transfer.texts import Numbers, Values, Words

SEX = ("sex", "gender", "patientsex", "patientgender")  # names of a column, without upper case, blanks and punctuation
TEXT = ("label", "patient", "series", "split")  # columns that are never numbers
LONGEST_NAME = 1_000  # characters of a class, an id or a file name
ODD_SHARE = 0.2  # a column of numbers with a smaller share of other words is mentioned


def column_values(table: CsvTable, name: str, column: str, words: Sequence[str], notes: list[str]) -> Sequence:
    """The values of a column of the store; notes about words for missing values, and about classes that are nearly equal."""
    values = Present(table.cells[column], words)
    if values.found:
        counts = ", ".join(f"{shown(word)} ({count})" for word, count in values.found.most_common())
        notes.append(f"{table.path.name}: column {shown(column)}: read as missing: {counts} (--missing)")
    _check_errors(table, column, values)
    if name == "split":
        return Values(check_splits(table, column, values))
    if plain_name(name) in SEX and (spelled := _sexes(table, column, values, notes)):
        return spelled
    if name in TEXT:
        check_lengths(table, column, values)
        return Values(_classes(table, column, values, notes)) if name == "label" else Words(values)
    _check_decimals(table, column, values)
    kind = number_type(values)
    if kind is not None:
        _mention_old_ages(table, column, values, notes)
        return Numbers((None if value is None else kind(value) for value in values), kind)
    _mention_odd_words(table, column, values, notes)
    return Values(values)


def _sexes(table: CsvTable, column: str, values: Sequence[str | None], notes: list[str]) -> Values | None:
    """The values as M, F and O, as DICOM has them, if all are words of a sex; None otherwise."""
    spelled = {word: sex(word) for word in set(values) if word is not None}
    if not spelled or None in spelled.values():
        return None
    if pairs := ", ".join(f"{shown(word)} is {code}" for word, code in sorted(spelled.items()) if word != code):
        notes.append(f"{table.path.name}: column {shown(column)}: {pairs}")
    return Values(None if value is None else spelled[value] for value in values)


def _mention_old_ages(table: CsvTable, column: str, values: Sequence[str | None], notes: list[str]) -> None:
    """Note ages that a store of DICOM files joins, because they identify a person more than others do."""
    numbers = [float(value) for value in values if value is not None] if plain_name(column) in AGES else []
    if are_ages(column, numbers) and (old := sum(number >= OLDEST for number in numbers)):
        notes.append(
            f"{table.path.name}: column {shown(column)}: {old} ages of {OLDEST} or more are stored as they are, because a task "
            f"may predict them. Subgroups and the explorer join them as {OLDEST}+; to join them in the store, write bands such "
            f"as 85-89 and {OLDEST}+ into the column"
        )


def check_lengths(table: CsvTable, column: str, values: Sequence[str | None]) -> None:
    """Refuse names that are too long: of classes, ids and files.

    Raises:
        LabelError: If one has more than `LONGEST_NAME` characters.
    """
    for row, value in enumerate(values):
        if value is not None and len(value) > LONGEST_NAME:
            raise table.failure(
                row, column, f"{len(value):,} characters ({shown(value)}); expected a name of at most {LONGEST_NAME:,}."
            )


def _check_errors(table: CsvTable, column: str, values: Sequence[str | None]) -> None:
    """Refuse the errors that a spreadsheet writes in place of a result."""
    for row, value in enumerate(values):
        if value is not None and value in SPREADSHEET_ERRORS:
            raise table.failure(
                row,
                column,
                f"found {value}, the error of a formula. Correct it in the spreadsheet, or read it as missing: "
                f'--missing "{value}"',
            )


def _check_decimals(table: CsvTable, column: str, values: Sequence[str | None]) -> None:
    """Refuse a column of numbers in which some have a decimal comma."""
    count, first = 0, 0
    for row, value in enumerate(values):
        if value is None:
            continue
        if DECIMAL_COMMA.fullmatch(value):
            count, first = count + 1, first if count else row
        elif not is_number(value):
            return
    if count:
        value = str(values[first])
        raise table.failure(
            first,
            column,
            f"found {shown(value)} ({count} such cells). Write decimals with a point ({_with_point(value)}) and "
            "nothing between thousands, and separate the items of a list by something else than a comma.",
        )


def _with_point(number: str) -> str:
    """A number with a comma as programs print it: the last mark divides the decimals."""
    whole, _, decimals = re.split(r"([.,])(?=[0-9]*$)", number.replace("\u2212", "-"), maxsplit=1)
    return f"{re.sub('[^0-9-]', '', whole)}.{decimals}"


def _mention_odd_words(table: CsvTable, column: str, values: Sequence[str | None], notes: list[str]) -> None:
    """Note that a column of numbers is text because of a few words, or because of how all are written: `+1`, `5%`."""
    present, odd, nearly = 0, 0, 0
    first: tuple[int, str] | None = None  # row and word that does not look like a number
    for row, value in enumerate(values):
        present += value is not None
        nearly += value is not None and NEARLY_NUMBER.fullmatch(value) is not None
        if value is not None and not is_number(value):
            odd += 1
            if first is None and not re.fullmatch(r"[0-9_.]+|[0-9]+[eE][0-9]+", value):
                first = row, value
    if first is not None and (odd < ODD_SHARE * present or nearly == present):
        row, value = first
        notes.append(
            f"{table.path.name}: column {shown(column)} stays text: {named_file(shown(value))} (line {table.lines[row]}) is not "
            "a number"
        )


def _classes(table: CsvTable, column: str, values: Sequence[str | None], notes: list[str]) -> Iterator[str | None]:
    """Labels in which `1` and `1.0` are one class; a note about other classes that are nearly equal."""
    present = {value for value in values if value is not None}
    whole = {value: value.partition(".")[0] for value in present if re.fullmatch(r"-?(0|[1-9][0-9]*)\.0+", value)}
    same = {value: short for value, short in whole.items() if short in present}
    if same:
        pairs = ", ".join(f"{shown(value)} is the class {shown(short)}" for value, short in sorted(same.items()))
        notes.append(f"{table.path.name}: column {shown(column)}: {pairs}")
    alike = defaultdict(set)
    for value in present - set(same):
        short = "".join(value.casefold().split()).lstrip("0")
        alike[short.rstrip("0").rstrip(".") if re.fullmatch(r"-?[0-9]*\.[0-9]+", short) else short].add(value)
    for classes in sorted(sorted(group) for group in alike.values() if len(group) > 1):
        names = ", ".join(map(shown, classes))
        notes.append(f"{table.path.name}: column {shown(column)}: {names} are {len(classes)} classes. Is it one?")
    return (same.get(value, value) if value is not None else None for value in values)
