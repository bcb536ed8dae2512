"""Yes and no in words: the columns of a multi-label task as 0 and 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_transfer.csv_table import MISSING, tidy
from ssl_transfer.errors import TaskError
from ssl_transfer.texts import is_missing

PRESENT = ("1", "1.0", "true", "t", "yes", "y", "positive", "pos", "present", "+")
ABSENT = ("0", "0.0", "false", "f", "no", "n", "negative", "neg", "absent", "-")
UNKNOWN = ("", "-1", "-1.0", "uncertain", "unknown", "unclear", "indeterminate", "equivocal")
FIGURES = ("1", "1.0", "true", "0", "0.0", "false", "-1", "-1.0", "")  # the rest are words that are worth a message
MOST_EXAMPLES = 5


def truths(values: Sequence[Any], where: str) -> tuple[np.ndarray, dict[str, int]]:
    """Read a column of yes and no.

    Args:
        values: Numbers, booleans or words in upper or lower case, of `PRESENT`, `ABSENT`, `UNKNOWN` and
            `ssl_transfer.csv_table.MISSING`; None and NaN are unknown.
        where: Task and column, for messages.

    Returns:
        1, 0 or −1 (unknown) of each row, int64; and the value of each word that is not a figure.

    Raises:
        TaskError: If a value is something else.

    Example:
        >>> truths(["Positive", "neg", None], "task x, column 'Mass'")
        (array([ 1,  0, -1]), {'Positive': 1, 'neg': 0})
    """
    known = {word.casefold(): -1 for word in (*MISSING, *UNKNOWN) if word != "None"}  # `none` could be a no
    known |= dict.fromkeys(ABSENT, 0) | dict.fromkeys(PRESENT, 1)
    counts = Counter("" if is_missing(value) else tidy(str(value)) for value in values)
    if "+" not in counts:
        known["-"] = -1  # not a result but a blank
    odd = {word: count for word, count in counts.most_common() if word.casefold() not in known}
    if odd:
        examples = ", ".join(f"'{word}' ({count} rows)" for word, count in list(odd.items())[:MOST_EXAMPLES])
        more = f" and {len(odd) - MOST_EXAMPLES} other words" if len(odd) > MOST_EXAMPLES else ""
        raise TaskError(
            f"{where}: found {examples}{more}. Expected 0 or 1, or no/yes, false/true, negative/positive, absent/present; "
            "unknown is an empty cell, -1 or uncertain."
        )
    codes = {word: known[word.casefold()] for word in counts}
    words = {word: code for word, code in codes.items() if word.casefold() not in FIGURES}
    texts = ("" if is_missing(value) else tidy(str(value)) for value in values)
    return np.array([codes[text] for text in texts], np.int64), words
