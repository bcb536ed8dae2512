"""A process of a training that does not answer: what its others say of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_transfer.errors import RunError

TIMED_OUT = ("timed out", "timeout")  # in messages of gloo and NCCL, and of the store of processes


@contextmanager
def named_timeouts(folder: Path, minutes: float) -> Iterator[None]:
    """Raise a `RunError` in place of torch's error after waiting so many minutes for another process.

    On GPUs, NCCL's watchdog may end the process before.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in TIMED_OUT):
            raise
        raise RunError(
            f"{folder}: another process did not answer for {minutes:g} minutes: it has ended, hangs at its storage (see its "
            f"messages), or measures for longer. If it needs longer: train.longest_wait_minutes={2 * minutes:g}. The same "
            "command continues from the latest checkpoint."
        ) from error
