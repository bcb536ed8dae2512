"""Targets that are not classes: columns of a store as grades, numbers, or survival times with events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_transfer.console import say
from ssl_transfer.csv_table import MISSING, tidy
from ssl_transfer.data.truths import truths
from ssl_transfer.errors import TaskError, nearest
from ssl_transfer.texts import is_missing

MOST_EXAMPLES = 5
STRATA = 5  # of a number: fifths of the images


def numbers(values: np.ndarray, where: str) -> np.ndarray:
    """A column of numbers, float64 (N,); NaN where a cell is empty, NaN, or a word for a missing value.

    Raises:
        TaskError: If a cell is something else, or infinite.
    """
    missing = {word.casefold() for word in (*MISSING, "")}
    texts = ["" if is_missing(value) else tidy(str(value)) for value in values.tolist()]
    read, odd = {}, Counter()
    for text, count in Counter(texts).items():
        try:
            read[text] = np.nan if text.casefold() in missing else float(text)
        except ValueError:
            read[text] = np.inf
        if np.isinf(read[text]):
            odd[text] = count
    if odd:
        examples = ", ".join(f"'{word}' ({count} rows)" for word, count in odd.most_common(MOST_EXAMPLES))
        raise TaskError(f"{where}: found {examples}. Expected numbers, such as 61.5; unknown is an empty cell.")
    return np.array([read[text] for text in texts], float)


def grades(values: np.ndarray, order: Sequence[str] | None, where: str) -> tuple[list[str], np.ndarray]:
    """A column of ordered classes.

    Args:
        values: Grades, of the column, (N,).
        order: Names of the grades, the lowest first; None: the column holds numbers, in ascending order.
        where: Task and column, for messages.

    Returns:
        Names of the grades, and the grade of each row, int64; −1 where it is unknown.

    Raises:
        TaskError: If a grade is not in the order, or there is no order and the grades are words.
    """
    texts = [grade_name(value) for value in values.tolist()]
    counts = Counter(texts)
    del counts[""]
    if order is None:
        try:
            order = sorted(counts, key=float)
        except ValueError:
            raise TaskError(
                f"{where}: its grades are words: {', '.join(sorted(counts)[:MOST_EXAMPLES])}. State their order in the card, "
                "the lowest first, such as `order: [none, mild, severe]`."
            ) from None
    for name, count in counts.items():
        if name not in order:
            raise TaskError(
                f"{where}: found '{name}' ({count} rows), which `order` does not have.{nearest(name, order)}"
            )
    present = [name for name in order if name in counts]
    if len(present) < 2:
        raise TaskError(f"{where}: has {len(present)} grade(s); 2 are needed.")
    if absent := [name for name in order if name not in counts]:
        say(
            f"{where}: no image of grade {', '.join(absent)}: it is left out, and distances over it stay those of the order."
        )
    codes = {name: code for code, name in enumerate(present)}
    return present, np.array([codes.get(text, -1) for text in texts], np.int64)


def survival(times: np.ndarray, events: np.ndarray, where: str, names: Sequence[str]) -> np.ndarray:
    """Columns of survival times and events.

    Args:
        times: Time to the event or to the end of the observation, 0 or above, in any unit, (N,).
        events: Whether the event was observed: 1 and 0, or yes and no (see `truths`), (N,).
        where: Task, for messages.
        names: Names of both columns.

    Returns:
        Time and event (1 or 0), float64 (N, 2); NaN in both where either is unknown.

    Raises:
        TaskError: If a time is negative or no number, or an event is neither yes nor no.
    """
    time = numbers(times, f"{where}: column '{names[0]}'")
    if negative := int((time < 0).sum()):
        raise TaskError(
            f"{where}: column '{names[0]}': {negative} times are below 0. Expected times since the image was taken."
        )
    codes, words = truths(events.tolist(), f"{where}: column '{names[1]}'")
    if words:
        meaning = {1: "an event", 0: "none", -1: "unknown"}
        say(
            f"{where}: column '{names[1]}': "
            + ", ".join(f"'{word}' is {meaning[code]}" for word, code in words.items())
        )
    known = ~np.isnan(time) & (codes >= 0)
    return np.where(known[:, None], np.stack([time, codes], 1), np.nan)


def grade_name(value: Any) -> str:
    """A grade as text, 2 for 2.0; empty if it is missing."""
    if is_missing(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def strata_of(values: np.ndarray) -> np.ndarray:
    """The fifth of the known numbers that each number is in, int64 (N,); 0 also where it is unknown."""
    known = values[np.isfinite(values)]
    edges = np.quantile(known, np.arange(1, STRATA) / STRATA) if len(known) else []
    return np.searchsorted(np.unique(edges), np.nan_to_num(values, nan=-np.inf), "left")
