"""CSV files that people and other programs write, read as text: nothing is guessed, and every error states file, line and column.

The dialect is that of RFC 4180 with the variants that spreadsheets write: comma, semicolon, tab or vertical bar between
cells (or the one of a first line `sep=;`), cells in quotes with commas and line breaks, UTF-8 with or without a byte order
mark, UTF-16 with one, all three kinds of line ends, empty lines and empty cells after the last column.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssl_transfer.errors import SslTransferError
from ssl_transfer.texts import Texts

DELIMITERS = "\t;,|"  # of equally fit ones the first: semicolons before decimal commas
LONGEST_CELL = 100_000  # characters; a cell of a spreadsheet has at most 32,767
SAMPLED_RECORDS = 100  # for the choice of the delimiter
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
TEXT_FORMULA = re.compile(r'="([^"]*)"')  # what spreadsheets make of text that looks like a number
BLANKS = "\ufeff\u200b\u200c\u200d\u2060"  # invisible, and not blanks for str.strip
MAGIC = {
    b"PK\x03\x04": "an Excel workbook or another zip file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed by gzip",
    b"PAR1": "a parquet file",
    b"%PDF": "a PDF",
}


@dataclass(frozen=True)
class CsvTable:
    """The text of a CSV file. Cells are stripped of blanks and in Unicode normal form C.

    Attributes:
        path: Path of the file.
        delimiter: Character between the cells.
        cells: Name of each column in the order of the file -> text of each row; "" where there is none. Compact, see `Texts`.
        lines: Number of the line at which each row begins.
        notes: What was left out, for the user.
        error: Class of the errors that are raised.
    """

    path: Path
    delimiter: str
    cells: dict[str, Texts]
    lines: Sequence[int]
    notes: list[str]
    error: type[SslTransferError]

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.cells)

    def where(self, row: int, column: str | None = None) -> str:
        """The position of a row, or of one of its cells, as messages state it."""
        return f"{self.path} line {self.lines[row]}" + (f", column '{column}'" if column else "")

    def failure(self, row: int, column: str | None, message: str) -> SslTransferError:
        """An error about a row or one of its cells."""
        return self.error(f"{self.where(row, column)}: {message}")


def read_csv(path: str | Path, error: type[SslTransferError]) -> CsvTable:
    """Read a CSV file.

    Args:
        path: The file. Its first line that is not empty names the columns.
        error: Class of the errors that are raised.

    Raises:
        error: If the file cannot be read or is not text, a quote is not closed, a column has no name or the name of
            another, a row has more or fewer cells than there are columns, or there is no row.
    """
    path = Path(path)
    text = _text(path, error)
    stated = re.match(r"sep=(.)[ \t]*(?=\r|\n)", text, re.IGNORECASE)
    text = text[stated.end() :] if stated else text
    delimiter = stated[1] if stated else _delimiter(text)
    records = _records(text, delimiter, path, error)
    names_line, header = next(records, (0, []))
    if not header:
        raise error(f"{path}: is empty. Expected a line with the names of the columns, then a line for each row.")
    names = [tidy(name) for name in header]
    while not names[-1]:  # cells after the last column, as spreadsheets leave them
        names.pop()
    _check_names(names, f"{path} line {names_line}", error)
    lines, columns = array("q"), [Texts() for _ in names]
    for line, record in records:
        for column, cell in zip(columns, _row(record, names, delimiter, f"{path} line {line}", error), strict=True):
            column.append(cell)
        lines.append(line)
    if not lines:
        raise error(f"{path}: has a header and no rows.")
    named = {name: cells for name, cells in zip(names, columns, strict=True) if name}
    notes = [
        f"{path.name}: column {number} has no name and is left out"
        for number, (name, cells) in enumerate(zip(names, columns, strict=True), 1)
        if not name and any(cells) and not _counts(cells)
    ]
    return CsvTable(path, delimiter, named, lines, notes, error)


def tidy(text: str) -> str:
    """Text in Unicode normal form C, without blanks and invisible characters at its ends."""
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", text).strip().strip(BLANKS).strip()


def plain_name(name: str) -> str:
    """A column name without upper case, blanks and punctuation.

    Example:
        >>> plain_name("Patient_ID")
        'patientid'
    """
    return "".join(filter(str.isalnum, name.casefold()))


def shown(text: str, longest: int = 60) -> str:
    """Text for a message, in quotes, on one line and shortened."""
    text = " ".join(text.split())
    return f"'{text if len(text) <= longest else text[: longest - 1] + '…'}'"


def _text(path: Path, error: type[SslTransferError]) -> str:
    """Content of the file, decoded; line ends as they are."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}). Expected a CSV in UTF-8.") from None
    for mark, kind in MAGIC.items():
        if data.startswith(mark):
            raise error(f"{path}: is {kind}. Expected a CSV: save it as 'CSV UTF-8'.")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise error(
            f"{path} line {line}: is not {encoding.removesuffix('-sig').upper()} (byte 0x{data[problem.start]:02x}). "
            "Save it as 'CSV UTF-8', or convert it, for example: iconv -f CP1252 -t UTF-8."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise error(f"{path} line {line}: contains a NUL character. Expected text: save it as 'CSV UTF-8'.")
    return text


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module read cells that are too long, so that the message can name their column."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


class _BadRecord(Exception):
    """A record that the csv module cannot read: its first line, and the reason."""

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


def _parsed(text: str, delimiter: str, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line, and cells, of each record that is not empty."""
    reader = csv.reader(
        (match[0] for match in LINE.finditer(text)), delimiter=delimiter, strict=strict, skipinitialspace=True
    )
    line = 1
    try:
        with _long_cells():
            for record in reader:
                if any(map(str.strip, record)):
                    yield line, record
                line = reader.line_num + 1
    except csv.Error as problem:
        raise _BadRecord(line, str(problem)) from None


def _records(text: str, delimiter: str, path: Path, error: type[SslTransferError]) -> Iterator[tuple[int, list[str]]]:
    """`_parsed`, with errors for the user."""
    try:
        yield from _parsed(text, delimiter)
    except _BadRecord as problem:
        where = f"{path} line {problem.line}"
        if "unexpected end of data" in str(problem):
            raise error(f'{where}: a quote (") is opened here and never closed. Close it, or write it twice.') from None
        raise error(f"{where}: cannot be read as CSV ({problem}). Within a quoted cell, write a quote twice.") from None


def _delimiter(text: str) -> str:
    """The delimiter that divides the first line and, of several, most of the next lines into equally many cells."""

    def fitness(mark: str) -> tuple[bool, float, int]:
        widths = []
        try:
            for _, record in _parsed(text, mark, strict=False):
                widths.append(len(record))
                if len(widths) > SAMPLED_RECORDS:
                    break
        except _BadRecord:
            return False, 0, 0
        if not widths:
            return False, 0, 0
        return widths[0] > 1, sum(width == widths[0] for width in widths) / len(widths), widths[0]

    return max(DELIMITERS, key=fitness)


def _check_names(names: Sequence[str], where: str, error: type[SslTransferError]) -> None:
    """Refuse names that occur twice."""
    for number, name in enumerate(names):
        if name and name in names[:number]:
            raise error(
                f"{where}: the column {shown(name)} is there twice (columns {names.index(name) + 1} and {number + 1}). "
                "Rename or remove one of them."
            )


def _cell(text: str) -> str:
    """A cell without blanks around it; of a formula that is a text, the text."""
    text = tidy(text)
    formula = TEXT_FORMULA.fullmatch(text)
    return tidy(formula[1]) if formula else text


def _row(
    record: list[str], names: Sequence[str], delimiter: str, where: str, error: type[SslTransferError]
) -> list[str]:
    """The cells of a record, as many as there are columns."""
    cells = [_cell(text) for text in record]
    while len(cells) > len(names) and not cells[-1]:
        cells.pop()
    if len(cells) != len(names):
        mark = "a tab" if delimiter == "\t" else f"'{delimiter}'"
        advice = (
            f"Put cells that contain {mark} in quotes" if len(cells) > len(names) else "Add the cells that are missing"
        )
        raise error(
            f"{where}: {len(cells)} cells where the header has {len(names)}: {shown(delimiter.join(cells))}. {advice}."
        )
    if max(map(len, cells)) > LONGEST_CELL:
        column = max(range(len(cells)), key=lambda number: len(cells[number]))
        raise error(
            f"{where}, column '{names[column] or column + 1}': a cell of {len(cells[column]):,} characters; expected at most "
            f"{LONGEST_CELL:,}. Is a quote not closed?"
        )
    return cells


def _counts(cells: Sequence[str]) -> bool:
    """Whether the cells are 0, 1, 2, … or 1, 2, 3, …: an index that another program wrote."""
    return any(list(cells) == [str(start + row) for row in range(len(cells))] for start in (0, 1))


# Words for missing values

SPREADSHEET_ERRORS = frozenset({"#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"})  # #N/A is a missing value
MISSING = ("NA", "N/A", "n.a.", "#N/A", "<NA>", "NaN", "NaT", "None", "null", "?", ".", "-", "--", "–", "—")


def without_missing(values: Sequence[str], words: Sequence[str] = MISSING) -> tuple[list[str | None], Counter[str]]:
    """Replace empty cells, and words that mean "missing" in upper or lower case, by None.

    The word None is missing as Python writes it; `none` is a class. A dash is kept in a column that also contains `+`, the
    other result of a test.

    Args:
        values: Cells of a column.
        words: Words that mean "missing".

    Returns:
        The values, and how often each word occurs.

    Example:
        >>> without_missing(["a", "", "n/a"])
        (['a', None, None], Counter({'n/a': 1}))
    """
    present = Present(values, words)
    return list(present), present.found


class Present(Sequence["str | None"]):
    """The cells of a column without those that mean "missing", as `without_missing` describes; made when they are asked for.

    Attributes:
        found: How often each word for "missing" occurs.
    """

    def __init__(self, values: Sequence[str], words: Sequence[str] = MISSING):
        self._values = values
        absent = {word.casefold() for word in words if word != "None"}
        if "+" in values:
            absent -= {"-", "–", "—"}
        self.found = Counter(
            value for value in values if value.casefold() in absent or (value == "None" and value in words)
        )

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, row):
        value = self._values[row]
        return None if not value or value in self.found else value


# Numbers

INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
DECIMAL = re.compile(r"-?(?:(?:0|[1-9][0-9]*)?\.[0-9]+(?:[eE][+-]?[0-9]+)?|(?:0|[1-9][0-9]*)[eE][+-][0-9]+)")
DECIMAL_COMMA = re.compile(
    r"[-+\u2212]?(?:(?:[0-9]+|[0-9]{1,3}(?:[.' \u00a0\u202f][0-9]{3})+),[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+\.[0-9]+)"
)  # `60,5`, `1.060,5`, and `1,060.5`
NEARLY_NUMBER = re.compile(r"[-+\u2212]?(?:[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)? ?%?|inf|infinity)", re.IGNORECASE)
LARGEST_INTEGER = 2**53  # above it, not every integer is a float64


def is_integer(text: str) -> bool:
    """Whether text is an integer as programs print it, up to 2**53: `7`, and not `07`, `+7`, `1_000` or a 26-digit id."""
    return len(text) < 18 and INTEGER.fullmatch(text) is not None and abs(int(text)) <= LARGEST_INTEGER


def is_number(text: str) -> bool:
    """Whether text is a finite number as programs print it: `7`, `.5`, `1.50`, `1e-05`, and not `1e3`, which may be a name."""
    return is_integer(text) or (DECIMAL.fullmatch(text) is not None and abs(float(text)) != float("inf"))


def numbers(values: Sequence[str | None]) -> list[int | None] | list[float | None] | None:
    """The values as numbers: integers if all are, otherwise floats; None if one of them is not a number, or there is none.

    Example:
        >>> numbers(["7", None, "8"]), numbers(["7", "0.5"]), numbers(["7", "08"])
        ([7, None, 8], [7.0, 0.5], None)
    """
    convert: Callable | None = number_type(values)
    return None if convert is None else [None if value is None else convert(value) for value in values]


def number_type(values: Iterable[str | None]) -> type[int] | type[float] | None:
    """The type of the numbers of a column; see `numbers`."""
    kind: type[int] | type[float] | None = None
    for value in values:
        if value is None:
            continue
        if not is_number(value):
            return None
        kind = int if kind in (None, int) and is_integer(value) else float
    return kind
