"""Errors of the user's input.

A message states where the error is, what was found, what was expected, and what to do. The command line prints it
as `StoreError: …` without a traceback and exits with status 2. Any other exception is a defect of this package: it
keeps its traceback, and the exit status is 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SslTransferError(Exception):
    """The user's input is wrong; the message is for the user."""


class UsageError(SslTransferError):
    """The command line: an unknown option, a folder that holds something else."""


class RecipeError(SslTransferError):
    """A recipe or an override: unknown key, wrong type, impossible combination."""


class SourceError(SslTransferError):
    """Source files of a store: none found, or too many unreadable."""


class LabelError(SslTransferError):
    """A label CSV: missing column, unknown patient, repeated key."""


class SplitError(SslTransferError):
    """Splits or label fractions that cannot be drawn, or that share patients."""


class StoreError(SslTransferError):
    """A path that is not a store, a damaged store, or one that does not fit the purpose."""


class TaskError(SslTransferError):
    """A task card: missing store, unknown target column, unknown metric."""


class BackboneError(SslTransferError):
    """A backbone that cannot be found, built or loaded."""


class ScoreError(SslTransferError, ValueError):
    """Features, labels or probabilities that no transferability score can be computed from."""


class UnreachableError(BackboneError):
    """Public weights that exist and cannot be downloaded."""


class RunError(SslTransferError):
    """A run that cannot start or resume: corrupt checkpoint, wrong world size, a loss that is NaN."""


class OutputError(SslTransferError):
    """A path that cannot be written: a full disk, no permission, a read-only file system, another process that writes it."""


class Interrupted(Exception):
    """A run received a signal to stop, wrote its checkpoint, and can be resumed.

    Args:
        message: For the user.
        status: Exit status of the command: 128 and the number of the signal.
    """

    def __init__(self, message: str, status: int = 143):
        super().__init__(message)
        self.status = status


LISTED = 60  # candidates in a message


def nearest(word: str, candidates: Iterable[str]) -> str:
    """The hint " Did you mean 'x'?" for the candidate nearest to `word`, or a list of all if none is near.

    Example:
        >>> nearest("temprature", ["temperature", "projection_dim"])
        " Did you mean 'temperature'?"
    """
    candidates = sorted(candidates)
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    more = f", … ({len(candidates)})" if len(candidates) > LISTED else ""
    return f" Known: {', '.join(candidates[:LISTED])}{more}." if candidates else ""
