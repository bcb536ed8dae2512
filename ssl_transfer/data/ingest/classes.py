"""What splits are stratified by, and classes that are too small for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_transfer.data.store import SPLITS
from ssl_transfer.errors import SplitError, nearest
from ssl_transfer.texts import distinct_pairs, hashes, is_missing

MOST_VALUES = 10  # a column of numbers with more is divided into fifths
PARTS = 5
PLURALS = {"study": "studies", "series": "series"}
MOST_EXAMPLES = 5


def stratify_columns(stratify: str | None, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns that `--stratify` names.

    Args:
        stratify: A column, or several separated by commas; None: `label`.
        rows: Rows of the images.

    Raises:
        SplitError: If no row has such a column.
    """
    if stratify is None:
        return ["label"]
    known: set[str] = set()
    for row in rows:
        known.update(row)
    names = [stratify] if stratify in known else [name.strip() for name in stratify.split(",")]
    for name in names:
        if name not in known:
            raise SplitError(f"--stratify {stratify}: the images have no column '{name}'.{nearest(name, known)}")
    return names


def strata(columns: Sequence[Sequence[Any]]) -> list[str | None]:
    """The stratum of each row, from the values of its columns; numbers of many values are divided into fifths.

    Args:
        columns: Values of each column, shape (N,); None or NaN is missing.

    Returns:
        N texts, the same for rows with the same values; None where all values are missing.

    Example:
        >>> strata([["a", "a", None], [1, 2, None]])
        ['a, 1', 'a, 2', None]
    """
    texts = [_fifths(column) for column in columns]
    known: dict[tuple, str | None] = {}  # one text for all rows with the same values
    for row in zip(*texts, strict=True):
        if row not in known:
            known[row] = None if all(cell is None for cell in row) else ", ".join(map(str, row))
    return [known[row] for row in zip(*texts, strict=True)]


def _fifths(column: Sequence[Any]) -> list[str | None]:
    """Values as text; of numbers with many values, the fifth of the rows in which each lies."""
    present = [value for value in column if not is_missing(value)]
    numeric = all(isinstance(value, int | float | np.number) for value in present)
    if not numeric or len(set(present)) <= MOST_VALUES:
        return [None if is_missing(value) else str(value) for value in column]
    limits = np.quantile(present, np.arange(1, PARTS) / PARTS)
    return [None if is_missing(value) else str(int(np.searchsorted(limits, value))) for value in column]


def class_warnings(
    column: str, values: Iterable[Any], groups: Iterable[Any], splits: Sequence[str] | np.ndarray, unit: str
) -> list[str]:
    """Warn of classes that are not in every split, most often because they have fewer patients than there are splits.

    Args:
        column: Name of the column, for the message.
        values: Class of each row, shape (N,); None or NaN is missing.
        groups: Unit that is kept in one split (patient, …) of each row.
        splits: Split of each row.
        unit: Name of the unit, for the message.

    Returns:
        One warning, or none.
    """
    splits = np.asarray(splits)
    wanted = [split for split in SPLITS if (splits == split).any()]
    names: dict[str, int] = {}
    missing = -1
    codes = np.fromiter(
        (missing if is_missing(value) else names.setdefault(str(value), len(names)) for value in values), np.int32
    )
    present = codes >= 0
    members = distinct_pairs(codes[present], hashes(groups)[present], len(names))
    of_split = {split: np.bincount(codes[present & (splits == split)], minlength=len(names)) for split in wanted}
    lacking = {name: [s for s in wanted if not of_split[s][names[name]]] for name in sorted(names)}
    lacking = {name: absent for name, absent in lacking.items() if absent}
    if len(names) < 2 or not lacking:
        return []
    smallest = sorted(lacking, key=lambda name: (members[names[name]], name))
    examples = [
        f"'{name}' ({_count(int(members[names[name]]), unit)}; none in {' and '.join(lacking[name])})"
        for name in smallest
    ]
    more = f" and {len(examples) - MOST_EXAMPLES} more" if len(examples) > MOST_EXAMPLES else ""
    return [
        f"{len(lacking)} of {len(names)} classes of column '{column}' are not in every split: "
        f"{', '.join(examples[:MOST_EXAMPLES])}{more}. Metrics leave them out where they are missing; a class needs at least "
        f"{_count(len(wanted), unit)}"
    ]


def _count(number: int, unit: str) -> str:
    return f"{number} {unit if number == 1 else PLURALS.get(unit, f'{unit}s')}"
