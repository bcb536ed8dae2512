"""CSV files whose cells a spreadsheet shows as text and never runs as formulas."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

FORMULA = re.compile(r"^[\t\r\n ]*[=+\-@|%]")  # what a spreadsheet takes for a formula or a call
NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


def plain_cell(value: Any) -> Any:
    """A cell of a CSV file: text that a spreadsheet would run gets an apostrophe in front; numbers stay.

    Source: OWASP, CSV injection, https://owasp.org/www-community/attacks/CSV_Injection.

    Example:
        >>> plain_cell("=HYPERLINK(A1)"), plain_cell("liver"), plain_cell("-1.5")
        ("'=HYPERLINK(A1)", 'liver', '-1.5')
    """
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.match(value):
        return f"'{value}"
    return value


def write_csv(table: pandas.DataFrame, path: str | os.PathLike) -> None:
    """Write a table as CSV, without its index, whole or not at all."""
    table = table.copy()
    table.columns = [plain_cell(name) for name in table.columns]
    for position, kind in enumerate(table.dtypes):
        if str(kind) in ("object", "string", "str", "category"):
            cells: Any = table.iloc[:, position].astype(object).map(plain_cell)
            table.isetitem(position, cells)
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        table.to_csv(unfinished, index=False)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
