"""Worker processes for decoding. Results are returned in order, and a bounded number of them is in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ssl_transfer.console import tracked
from ssl_transfer.processes import usable_cores, worker_processes

Item = TypeVar("Item")
Result = TypeVar("Result")

MEASURED = 200  # items that this process handles first, to measure the time per item
WORTH_SECONDS = (
    20.0  # worker processes are started if the remaining items would take longer, since their start takes seconds
)
CHUNK = 8  # items per message


def ordered(
    function: Callable[[Item], Result], items: Sequence[Item], label: str, workers: int | None = None
) -> Iterator[Result]:
    """Apply `function` to every item, in order, behind a progress bar.

    This process handles the first 200 items. If the remaining ones would take long, worker processes handle them.

    Args:
        function: Picklable function.
        items: Its arguments, one per call.
        label: Label of the progress bar.
        workers: Number of worker processes; None: one per core, at most 16; 1: none.

    Yields:
        One result per item. At most `4 * workers` chunks of 8 results are waiting at any time.
    """
    workers = workers or min(usable_cores(), 16)
    yield from tracked(_results(function, items, workers), label, len(items))


def _results(function: Callable, items: Sequence, workers: int) -> Iterator:
    seconds = 0.0
    for number, item in enumerate(items):
        if number == MEASURED and workers > 1 and seconds / number * (len(items) - number) > WORTH_SECONDS:
            yield from _pooled(function, items[number:], workers)
            return
        started = time.monotonic()
        result = function(item)
        seconds += time.monotonic() - started
        yield result


def _pooled(function: Callable, items: Sequence, workers: int) -> Iterator:
    with worker_processes(workers) as pool:
        waiting: deque = deque()
        for start in range(0, len(items), CHUNK):
            waiting.append(pool.submit(_each, function, items[start : start + CHUNK]))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _each(function: Callable, items: Sequence) -> list:
    return [function(item) for item in items]
