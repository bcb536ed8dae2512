"""The entry point: runs one verb and prints its answer."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ssl_transfer.cli.parser import parse
from ssl_transfer.cli.verbs import VERBS
from ssl_transfer.console import is_main_process, printable, say
from ssl_transfer.errors import Interrupted, SslTransferError, UsageError

STOPPED = "What was finished is kept; the same command continues from there."
LACKS_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "std::bad_alloc")


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a verb as Ctrl-C does: temporary files are removed."""


def main(words: list[str] | None = None) -> int:
    """Run one verb.

    Args:
        words: Name and arguments of the verb; None: the arguments of the process.

    Returns:
        Exit status: 0 done; 2 the input is wrong, or an output cannot be written; 130 and 143 stopped by Ctrl-C and SIGTERM; 1
        anything else.
    """
    options = None
    try:
        with _sigterm_as_interrupt():
            options = parse(sys.argv[1:] if words is None else words, VERBS)
            if (out := getattr(options, "out", None)) and out.exists() and not out.is_dir():
                raise UsageError(f"--out {out}: this is a file, expected a folder. Give another --out.")
            answer = VERBS[options.verb].run(options)
            if is_main_process():
                text = VERBS[options.verb].as_text
                _show(json.dumps(answer, default=str) if options.json else printable(text(answer)))
            return VERBS[options.verb].status(answer)
    except SslTransferError as error:
        return _refused(f"{type(error).__name__}: {error}")
    except Interrupted as interruption:
        say(str(interruption))
        return interruption.status
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        say(f"stopped by {'SIGTERM' if terminated else 'Ctrl-C'}. {STOPPED}")
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
    except Exception as error:
        if limit := _limit(error, options):
            return _refused(limit)
        traceback.print_exc()
        return 1


def _show(text: str) -> None:
    """Print an answer; a reader that has seen enough, such as `head`, is no failure."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at exit


def _refused(message: str) -> int:
    if is_main_process():
        print(printable(message), file=sys.stderr)
    return 2


def _limit(error: Exception, options: argparse.Namespace | None) -> str:
    """The limit of the machine that an error comes from, in a sentence; empty if it is a defect of this package."""
    from ssl_transfer.writing import KEPT, write_failure

    out = getattr(options, "out", None)
    if reason := write_failure(error, out):
        where = getattr(error, "filename", None) or out or "the output"
        return f"OutputError: {where}: cannot be written: {reason}. {KEPT}"
    text = str(error).lower()
    if isinstance(error, MemoryError) or "outofmemory" in type(error).__name__.lower() or _any(LACKS_MEMORY, text):
        return (
            f"RunError: there is too little memory for this: {' '.join(str(error).split())[:200] or 'MemoryError'}. Choose "
            f"smaller images, batches or networks, or fewer processes. {STOPPED}"
        )
    return ""


def _any(parts: tuple[str, ...], text: str) -> bool:
    return any(part in text for part in parts)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Raise `Terminated` at SIGTERM within the block; outside of the main thread nothing is changed."""

    def stop(number: int, frame: Any) -> None:
        raise Terminated

    try:
        previous = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
