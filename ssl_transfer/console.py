"""Messages and progress bars of a running stage, on standard error.

Standard output is for the answer (`--json` prints one object there and nothing else).
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # surrogates: bytes of a name that are not UTF-8
SECONDS_BETWEEN_LINES = 10.0  # without a terminal: at most one line in so many seconds
_label = ""  # in front of every line


def is_main_process() -> bool:
    """True on rank 0 of a distributed launch, and everywhere else."""
    return int(os.environ.get("RANK", "0")) == 0


def label_lines(label: str) -> None:
    """Print a label in front of every line from now on, and no progress bars: other processes share the terminal."""
    global _label
    _label = label


def printable(text: str) -> str:
    """A text without control characters but line breaks and tabs: names in files from others may hold commands of a terminal.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a�[2Jb'
    """
    return CONTROL.sub("\ufffd", text)


def say(message: str) -> None:
    """Print one line for the user (rank 0 only)."""
    if is_main_process():
        sys.stderr.write(f"{_label}{printable(message)}\n")  # in one piece: other processes may write, too
        sys.stderr.flush()


def warn(message: str) -> None:
    """Print one warning line for the user (rank 0 only)."""
    say(f"warning: {message}")


class Progress:
    """A progress bar over a known number of steps; without a terminal, plain lines."""

    def __init__(self, label: str, total: int, done: int = 0):
        self.label, self.total, self.done, self._first = label, total, done, done
        self._started = self._printed = time.monotonic()
        self._bar = None

    def __enter__(self) -> Progress:
        if is_main_process() and sys.stderr.isatty() and not _label:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[message]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, message="")
        return self

    def update(self, message: str = "", steps: int = 1) -> None:
        """Move on by `steps`; `message` is shown behind the bar."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, message=message)
        elif time.monotonic() - self._printed > SECONDS_BETWEEN_LINES or self.done == self.total:
            self._printed = time.monotonic()
            rate = (self.done - self._first) / max(self._printed - self._started, 1e-9)
            left = (self.total - self.done) / max(rate, 1e-9)
            say(f"{self.label}: {self.done}/{self.total}, {left:.0f} s left  {message}".rstrip())

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def stage(label: str, on_end: Callable[[float], None] = lambda seconds: None) -> Iterator[None]:
    """Print that a stage begins and how long it took; `on_end` receives the seconds."""
    say(f"{label} …")
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    say(f"{label}: {seconds:.1f} s")
    on_end(seconds)


def tracked(items: Iterable, label: str, total: int) -> Iterator:
    """Iterate over `items` behind a progress bar."""
    with Progress(label, total) as progress:
        for item in items:
            yield item
            progress.update()


def duration(seconds: float) -> str:
    """A duration as text: 0.8 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"
