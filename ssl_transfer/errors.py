"""Every way in which a user's input can be wrong.

A message says where, what was found, what was expected, and what to do. The command line prints it
as `StoreError: …` without a traceback and exits with status 2. Anything that is not one of
these is a defect of ours: it keeps its traceback and exits with status 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SslTransferError(Exception):
    """The user's input is wrong; the message is for the user."""


class UsageError(SslTransferError):
    """The command line itself: an unknown verb's option, a folder that is taken."""


class RecipeError(SslTransferError):
    """A recipe or an override: unknown key, wrong type, impossible combination."""


class SourceError(SslTransferError):
    """Files that should become a store: none found, too many unreadable."""


class LabelError(SslTransferError):
    """A label CSV: missing column, unknown patient, repeated key."""


class SplitError(SslTransferError):
    """Splits or label fractions that cannot be drawn, or that share patients."""


class StoreError(SslTransferError):
    """A path that is no store, a damaged store, or one that does not fit the purpose."""


class TaskError(SslTransferError):
    """A task card: missing store, unknown target column, unknown metric."""


class BackboneError(SslTransferError):
    """A backbone that cannot be found, built or loaded."""


class ScoreError(SslTransferError, ValueError):
    """Features, labels or probabilities that no transferability score can be computed from."""


class UnreachableError(BackboneError):
    """Public weights that exist and cannot be fetched."""


class RunError(SslTransferError):
    """A run that cannot start or go on: corrupt checkpoint, wrong world size, a loss that is NaN."""


class Interrupted(Exception):
    """A run was asked to stop (SIGTERM), wrote its checkpoint, and can go on later."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known word nearest to `word`, or a list of the known words.

    Example:
        >>> nearest("temprature", ["temperature", "projection_dim"])
        " Did you mean 'temperature'?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(known)}." if known else ""
