"""Reading of many files, in order, with limits of time and memory for each.

Files that cannot harm are read by this process, as long as that takes less time than the start of others. Files for native
decoders are read by worker processes: a decoder that crashes, hangs or takes too much memory costs its file only. A bounded
number of results is in memory.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from ssl_transfer.console import tracked
from ssl_transfer.errors import Interrupted, SourceError, SslTransferError
from ssl_transfer.processes import Workers, usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

MEASURED = 50  # items that this process reads first, to measure the time per item
WORTH_SECONDS = 4.0  # workers are started if the remaining items would take longer, since their start takes a second
WARM_ITEMS = 1000  # from so many items on, workers are started while this process reads the first ones
WORTH_WARM = 0.5  # as `WORTH_SECONDS`, for workers that are started
QUICK_SECONDS = 0.05  # items that take longer on average are left to the workers, which wait while this process reads
MOST_TOGETHER = 4  # with more workers, this process has enough to do with their results
CHUNK = 16  # items per message
LOOK = 4  # results that are handed out between two looks for answers of workers
CHUNK_BYTES = 16 * 2**20  # pixels per message, if one item has less
MOST_WORKERS = 16
SECONDS = 60.0  # for one item
BYTES_PER_SECOND = 5e6  # of its pixels, in addition
AGAIN_SECONDS = 5.0  # after which a reader that catches every error is interrupted again
MEMORY = 2**30  # for one item, in bytes
# Blocks of so many bytes are mappings of their own, and four times as many free ones go back to the kernel (glibc's malloc):
KEPT_BYTES = 2**25  # for images, whose memory is kept for the next ones, since a page fault for every 4 kB takes long
LISTED_BYTES = 2**18  # for lists of files: the kernel moves those that grow, and they leave no holes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of its malloc.h
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES), "MALLOC_TRIM_THRESHOLD_": str(4 * KEPT_BYTES)}
COPIES = 12  # of its pixels, in addition: decoders and conversions hold several, of wider types
TARGET = f"{__name__}:perform"
_pool: ContextVar[Workers | None] = ContextVar("pool", default=None)


@contextmanager
def shared_workers(count: int | None) -> Iterator[Workers]:
    """Let all readings within the block use the same workers, which start when the first reading needs them.

    Args:
        count: How many; None: one per core, at most 16.
    """
    count = count or min(usable_cores(), MOST_WORKERS)
    lists_apart = _allocating(LISTED_BYTES, afterwards=KEPT_BYTES)  # lists that grow leave no holes
    with lists_apart, Workers(count, TARGET, {"OMP_NUM_THREADS": "1"} | ALLOCATOR) as pool:
        token = _pool.set(pool)
        try:
            yield pool
        finally:
            _pool.reset(token)


def freed_memory_kept() -> AbstractContextManager[None]:
    """Within the block, this process keeps the memory of freed images for the next ones, as workers do."""
    return _allocating(KEPT_BYTES, afterwards=LISTED_BYTES)


@contextmanager
def _allocating(least: int, afterwards: int) -> Iterator[None]:
    """Within the block, blocks of at least so many bytes are mappings of their own; `afterwards`, of other sizes."""
    _allocate_apart(least)
    try:
        yield
    finally:
        _allocate_apart(afterwards)


def _allocate_apart(least: int) -> None:
    """Set the least size of blocks that are mappings of their own in this process, where its malloc can."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, least)
        mallopt(M_TRIM_THRESHOLD, 4 * least)


def warm_workers(files: int) -> None:
    """Start the shared workers, if there are any, when so many files for native decoders are known that all will be needed."""
    if files == MEASURED and (pool := _pool.get()) is not None:
        pool.warm(pool.count)


def ordered(
    read: Callable[[Item], Result],
    items: Sequence[Item],
    label: str,
    workers: int | None = None,
    *,
    fail: Callable[[Item, str], Result] | None = None,
    pixel_bytes: Callable[[Item], int] = lambda item: 0,
    native: Callable[[Item], bool] = lambda item: False,
    worth_workers: bool = True,
    start: int = 0,
) -> Generator[Result, None, None]:
    """Read every item, in order, behind a progress bar.

    This process reads the first 50 items. Workers read all others if these would take long, and all from the first one that a
    native decoder reads.

    Args:
        read: What is done with each item; picklable.
        items: The items; any sequence.
        label: Label of the progress bar.
        workers: Number of worker processes, unless they are shared; None: one per core, at most 16.
        fail: Result of an item that crashes or exceeds its limits, from the item and the reason; None: such an item is an error.
        pixel_bytes: Size of the pixels of an item, which raises its limits.
        native: Whether a native decoder reads an item, which a damaged file may crash: a worker process reads it.
        worth_workers: Whether reading takes longer than moving the result between processes.
        start: Position of the first item to be read.

    Yields:
        One result per item. At most `4 * workers` messages of 16 items (or 16 MB) are waiting at any time.

    Raises:
        Interrupted: If a signal asks this process to stop.
        SourceError: If an item cannot be read and there is no `fail`.
    """
    reading = _Reading(read, fail or _refuse, pixel_bytes, native, worth_workers)
    shared = _pool.get()
    with nullcontext(shared) if shared is not None else shared_workers(workers) as pool:
        yield from tracked(_results(reading, items, pool, start), label, len(items) - start)


def _refuse(item: Any, reason: str) -> Any:
    raise SourceError(f"{item}: {reason}.")


@dataclass(frozen=True)
class _Reading(Generic[Item, Result]):
    """What is done with each item; see `ordered`."""

    read: Callable[[Item], Result]
    fail: Callable[[Item, str], Result]
    pixel_bytes: Callable[[Item], int]
    native: Callable[[Item], bool]
    worth_workers: bool

    def seconds(self, *items: Item) -> float:
        """The time that an item, or several together, may take."""
        return SECONDS + sum(map(self.pixel_bytes, items)) / BYTES_PER_SECOND

    def memory(self, item: Item) -> int:
        """The memory in bytes that an item may take."""
        return MEMORY + COPIES * self.pixel_bytes(item)


def _results(reading: _Reading[Item, Result], items: Sequence[Item], pool: Workers, start: int) -> Iterator[Result]:
    spent, began = 0.0, start
    parallel, worth = reading.worth_workers and pool.count > 1, WORTH_SECONDS
    if parallel and len(items) - start >= WARM_ITEMS:
        pool.warm(pool.count - (pool.count <= MOST_TOGETHER))
        worth = WORTH_WARM
    for position in range(start, len(items)):
        item, done = items[position], position - began
        slow = parallel and done >= MEASURED and spent / done * (len(items) - position) > worth
        if slow or reading.native(item):
            quick = done > 0 and spent / done <= QUICK_SECONDS
            yield from _Pooled(reading, items, pool, position, takes_part=quick and parallel).results()
            return
        _check(pool)
        started = time.monotonic()
        result = _limited(reading.read, item, reading.seconds(item), reading.memory(item))
        spent += time.monotonic() - started
        yield reading.fail(item, result.reason) if isinstance(result, _Failure) else result


def _check(pool: Workers) -> None:
    if pool.stopped:
        raise Interrupted("stopped by a signal")


@dataclass(frozen=True)
class _Failure:
    """Why an item has no result."""

    reason: str


@dataclass
class _Chunk:
    """Items that one message contains.

    Attributes:
        start: Position of the first one.
        items: The items.
        deadline: Time at which the worker is killed.
    """

    start: int
    items: list
    deadline: float = 0.0


class _Pooled(Generic[Item, Result]):
    """Reads items by worker processes.

    A message whose worker crashes or takes too long is sent again item by item, which finds the item that is the cause.

    Items that no native decoder reads, and that take little time, are also read by this process while it would wait, in place of
    the last of few workers: their results need not be moved.
    """

    def __init__(
        self, reading: _Reading[Item, Result], items: Sequence[Item], pool: Workers, start: int, *, takes_part: bool
    ):
        self.reading, self.items, self.pool, self.next = reading, items, pool, start
        self.takes_part = takes_part and 1 < pool.count <= MOST_TOGETHER
        self.yielded = start
        self.again: deque[_Chunk] = deque()
        self.running: dict[int, _Chunk] = {}
        self.finished: dict[int, list] = {}  # results by the position of their first item
        self.own: tuple[_Chunk, list] | None = None  # what this process reads, and its results so far

    def results(self) -> Iterator[Result]:
        """Yield one result per item."""
        with tempfile.NamedTemporaryFile(prefix="ssl_transfer_reading_") as file:
            pickle.dump(self.reading.read, file)
            file.flush()
            try:
                yield from self._results(file.name)
            finally:  # others may share the workers
                for number in self.running:
                    self.pool.kill(number)

    def _results(self, path: str) -> Iterator[Result]:
        while self.yielded < len(self.items):
            _check(self.pool)
            self._send(path)
            self._receive(wait=not self._read_own())
            while self.yielded in self.finished:
                results = self.finished.pop(self.yielded)
                for number, result in enumerate(results):
                    yield result
                    if number % LOOK == LOOK - 1:  # writing a result takes time, and a worker may be done
                        self._receive(wait=False)
                        self._send(path)
                self.yielded += len(results)

    def _is_full(self) -> bool:
        """Whether so many results are waiting that no more items are read."""
        return len(self.running) + len(self.finished) >= 4 * self.pool.count

    def _is_for_this_process(self) -> bool:
        """Whether this process reads the next item, or its message, in place of the last one of several workers."""
        is_next = self.takes_part and self.next < len(self.items)
        return self.own is not None or (is_next and not self.reading.native(self.items[self.next]))

    def _read_own(self) -> bool:
        """Read one item in this process; returns whether it has."""
        if self.own is None:
            chunk = self._next_chunk() if self._is_for_this_process() and not self._is_full() else None
            if chunk is None:
                return False
            if any(map(self.reading.native, chunk.items)):
                self.again.append(chunk)
                return False
            self.own = chunk, []
        chunk, results = self.own
        item = chunk.items[len(results)]
        result = _limited(self.reading.read, item, self.reading.seconds(item), self.reading.memory(item))
        results.append(self.reading.fail(item, result.reason) if isinstance(result, _Failure) else result)
        if len(results) == len(chunk.items):
            self.finished[chunk.start], self.own = results, None
        return True

    def _send(self, path: str) -> None:
        """Give every free worker a message, unless too many results are waiting."""
        for number in self.pool.free:
            is_spare = number == self.pool.count - 1 and self._is_for_this_process()
            if self.pool.stopped or (
                (is_spare or self._is_full()) and not self.again
            ):  # others wait for what is sent again
                return
            chunk = self.again.popleft() if self.again else self._next_chunk()
            if chunk is None:
                return
            chunk.deadline = time.monotonic() + self.reading.seconds(*chunk.items)
            memory = [self.reading.memory(item) for item in chunk.items]
            self.pool.start(number, (path, chunk.items, memory))
            self.running[number] = chunk

    def _next_chunk(self) -> _Chunk | None:
        chunk, size = _Chunk(self.next, []), 0
        while self.next < len(self.items) and len(chunk.items) < CHUNK:
            item = self.items[self.next]
            size += self.reading.pixel_bytes(item)
            if chunk.items and size > CHUNK_BYTES:
                break
            chunk.items.append(item)
            self.next += 1
        return chunk if chunk.items else None

    def _receive(self, wait: bool = True) -> None:
        """Take the answers that are there, and end workers that have taken too long."""
        if not self.running:
            return
        now = time.monotonic()
        soonest = min(chunk.deadline for chunk in self.running.values())
        for number, answer in self.pool.wait(min(1.0, max(0.0, soonest - now)) if wait else 0):
            chunk = self.running.pop(number)
            if isinstance(answer, list):
                self.finished[chunk.start] = [
                    self.reading.fail(item, result.reason) if isinstance(result, _Failure) else result
                    for item, result in zip(chunk.items, answer, strict=True)
                ]
            elif isinstance(answer, SslTransferError):
                raise answer
            else:
                self._failed(chunk, f"its decoder crashed: the process {answer}")
        for number, chunk in [(n, c) for n, c in self.running.items() if time.monotonic() > c.deadline]:
            self.pool.kill(number)
            del self.running[number]
            self._failed(chunk, f"reading it took longer than {self.reading.seconds(chunk.items[0]):.0f} s")

    def _failed(self, chunk: _Chunk, reason: str) -> None:
        if len(chunk.items) == 1:
            self.finished[chunk.start] = [self.reading.fail(chunk.items[0], reason)]
        elif not self.pool.stopped:
            self.again.extend(_Chunk(chunk.start + number, [item]) for number, item in enumerate(chunk.items))


def perform(task: tuple[str, list, list[int]]) -> Any:
    """Read items: what a worker does.

    Args:
        task: Path of the pickled function, the items, and the memory that each may take.

    Returns:
        A list of results, or an error of the user's input, which ends the ingest.
    """
    path, items, memory = task
    try:
        return [_limited(_function(path), item, None, most) for item, most in zip(items, memory, strict=True)]
    except SslTransferError as error:
        return error


@lru_cache(maxsize=1)
def _function(path: str) -> Callable:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # of decoders that crash
    sys.modules.setdefault("requests", None)  # type: ignore[arg-type]  # pydicom imports it for downloads, which takes 0.1 s
    return pickle.loads(Path(path).read_bytes())  # this program's own file


def _limited(function: Callable, item: Any, seconds: float | None, memory: int) -> Any:
    """Read an item within limits; a `_Failure` if it exceeds them or raises an error."""
    try:
        with _memory_limit(memory), _time_limit(seconds):
            return function(item)
    except SslTransferError:
        raise
    except MemoryError:
        return _Failure(f"reading it takes more than {memory / 2**30:.1f} GB of memory")
    except TimeoutError:
        return _Failure(f"reading it took longer than {seconds or 0:.0f} s")
    except Exception as error:  # a damaged file may provoke any error in a reader
        return _Failure(f"reading it failed: {type(error).__name__}: {str(error)[:200]}")


@lru_cache(maxsize=1)
def _statm(process: int) -> int:
    """The file in which Linux states the memory of this process, opened once: a forked process opens its own."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def _memory_limit(memory: int) -> Iterator[None]:
    """Let this process take so many more bytes within the block, where the system can limit it."""
    try:
        pages = int(os.pread(_statm(os.getpid()), 32, 0).split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        most = pages * resource.getpagesize() + memory
        lower = most if before[0] == resource.RLIM_INFINITY else min(most, before[0])
        resource.setrlimit(resource.RLIMIT_AS, (lower, before[1]))
    except (OSError, ValueError):  # not Linux
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `TimeoutError` in Python code that takes longer; native code is not interrupted. None: no limit."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
