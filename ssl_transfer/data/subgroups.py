"""The subgroup of each image by a column of its store: a word, a band of ages, or a range of numbers."""

from __future__ import annotations

import itertools

import numpy as np

from ssl_transfer.data.demographics import SEXES, age_band, are_ages, sex
from ssl_transfer.data.images import Images
from ssl_transfer.errors import TaskError

NOT_GROUPS = frozenset(  # columns that identify an image or its place
    ("patient", "study", "series", "slice", "volume", "split", "file", "pixel_digest", "mask_digest", "z_mm")
)
MOST_NUMBERS = 8  # distinct numbers that are groups by themselves; more are divided into thirds
SEVERAL = "several"  # of a case whose images are of different groups
NOT_STATED = "not stated"  # of cases without a value; it has a score and is compared with no group


def assert_columns(store: Images, columns: tuple[str, ...], where: str) -> None:
    """Refuse a column that the store lacks.

    Args:
        store: The store of a task.
        columns: Names of columns of its rows.
        where: The task card, for the message.

    Raises:
        TaskError: If there is none; the message has those that there are.
    """
    known = [name for name in store.columns if name not in NOT_GROUPS]
    for column in columns:
        if column not in store.columns:
            raise TaskError(
                f"{where}: subgroups: {store.path} has no column '{column}'. Its columns are {', '.join(known)}. Ingest again "
                "for those of DICOM headers, or join others with --labels."
            )


def subgroup_names(column: str, values: np.ndarray) -> np.ndarray:
    """The group of each value, as text; None where the value is missing.

    Words of a sex become M, F and O; numbers in a column called `age`, beside words too, become bands of five years; other
    numbers stay where there are at most eight different ones, and are divided into thirds where there are more.

    Args:
        column: Name of the column.
        values: Its values, shape (N,).

    Returns:
        Names, object (N,).

    Example:
        >>> subgroup_names("age", np.array([61, 93, None], object)).tolist(), subgroup_names("Sex", np.array(["male"])).tolist()
        (['60-64', '90+', None], ['M'])
    """
    import pandas  # planning a study reads task cards without it

    values = np.asarray(values, object)
    known = ~pandas.isna(values)
    names = np.full(len(values), None, object)
    if all(isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in values[known]):
        numbers = values[known].astype(float)
        names[known] = [age_band(number) for number in numbers] if are_ages(column, numbers) else _ranges(numbers)
        return names
    words = [str(value) for value in values[known]]
    years = pandas.to_numeric(np.array(words, object), errors="coerce")  # numbers beside a word are text in a store
    if are_ages(column, years[~np.isnan(years)]):
        words = [
            word if np.isnan(number) else str(age_band(float(number)))
            for word, number in zip(words, years, strict=True)
        ]
    are_sexes = all(word.strip().casefold() in SEXES for word in words)
    names[known] = [sex(word) for word in words] if are_sexes else words
    return names


def _ranges(numbers: np.ndarray) -> list[str]:
    """The numbers as text, or the third in which each lies."""
    if len(np.unique(numbers)) <= MOST_NUMBERS:
        return [f"{number:g}" for number in numbers]
    ends = np.quantile(numbers, [0, 1 / 3, 2 / 3, 1])
    thirds = [f"{first:.4g} to {last:.4g}" for first, last in itertools.pairwise(ends)]
    low, high = ends[1:3]
    return [thirds[int(number > low) + int(number > high)] for number in numbers]
