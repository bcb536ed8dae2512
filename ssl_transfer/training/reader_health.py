"""Reader processes that hang or were killed: the run ends with their names, and does not wait for them forever."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch._C import _remove_worker_pids

from ssl_transfer.console import warn
from ssl_transfer.errors import RunError

LOOK_SECONDS = 8.0  # between two looks at the readers
IDLE_LOOKS = 4  # without any work of any reader; looks, not seconds, since the whole run may have been suspended
DISK_LOOKS = 75  # while one of them waits for a disk or a network storage
ENDED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (is killed by signal: \w+|exited)")


def delivered(items: Any) -> Iterator[Any]:
    """Yield the batches of an iterator of torch's DataLoader with worker processes.

    Raises:
        RunError: If no reader works any more and none has delivered a batch.
    """
    watch = _Watch(items)
    try:
        while True:
            watch.waits = True
            try:
                item = next(items)
            except StopIteration:
                return
            except (EOFError, OSError, RuntimeError) as error:
                if watch.verdict:
                    raise RunError(watch.verdict) from error
                raise
            watch.waits = False
            yield item
    finally:
        watch.end()


class _Watch:
    """Looks from a thread whether readers work while the run waits for a batch, and ends them if they hang.

    A time-out of the DataLoader would not do: the run may be in the middle of a batch that a reader hands over.

    Args:
        items: Iterator of a DataLoader.

    Attributes:
        waits: Whether the run waits for a batch.
        verdict: Why the readers were ended, a sentence; empty while they work.
    """

    def __init__(self, items: Any):
        self.waits, self.verdict = False, ""
        self._items, self._processes, self._ended = items, list(items._workers), threading.Event()
        threading.Thread(target=self._look_again, name="reader_health", daemon=True).start()

    def end(self) -> None:
        """Look no longer."""
        self._ended.set()

    def _look_again(self) -> None:
        idle, before = 0, -1
        while not self._ended.wait(LOOK_SECONDS):
            cpu = self._cpu_time()
            idle = idle + 1 if self.waits and cpu == before else 0
            before = cpu
            if idle and self._hang(idle):
                self._kill()
                return

    def _hang(self, idle: int) -> bool:
        """Whether readers have not worked for too long; if not yet, this is printed."""
        states = {process.pid: _state(process.pid) for process in self._processes}
        seconds = idle * LOOK_SECONDS
        if idle < (DISK_LOOKS if "D" in states.values() else IDLE_LOOKS):
            warn(f"no batch for {seconds:.0f} s; reader processes: {_listed(states)}.")
            return False
        self.verdict = (
            f"no batch for {seconds:.0f} s, and no reader process does anything: {_listed(states)}. Is the storage of the store "
            "reachable? The same command continues from the last checkpoint; train.workers=0 reads in the process of the model."
        )
        return True

    def _kill(self) -> None:
        """End the readers. They ignore SIGTERM, so that Python would wait; torch would report each of them as a failure."""
        _remove_worker_pids(id(self._items))
        self._items._worker_pids_set = False
        for process in self._processes:
            process.kill()

    def _cpu_time(self) -> int:
        return sum(_cpu_ticks(process.pid) for process in self._processes)


@contextmanager
def named_reader_failures(folder: Path) -> Iterator[None]:
    """Report a reader process that was killed within the block as one sentence.

    Raises:
        RunError: If there was one.
    """
    try:
        yield
    except RuntimeError as error:
        if not (found := ENDED.search(str(error))):
            raise
        raise RunError(
            f"{folder}: reader process {found[1]} {found[2]}. Was there too little memory? The same command continues from the "
            "last checkpoint; train.workers=0 needs less memory."
        ) from error


def _listed(states: dict[int, str]) -> str:
    words = {"T": "stopped", "D": "waits for a disk", "S": "sleeps", "R": "runs", "": "has ended", "Z": "has ended"}
    return ", ".join(f"{pid} {words.get(state, state)}" for pid, state in states.items())


def _state(pid: int) -> str:
    """State of a process, a letter of `/proc`; empty if it has ended or the system has none."""
    return _stat(pid)[:1]


def _cpu_ticks(pid: int) -> int:
    """Time that a process has computed, in ticks of the system."""
    fields = _stat(pid).split()
    return int(fields[11]) + int(fields[12]) if len(fields) > 12 else 0


def _stat(pid: int) -> str:
    """The fields of `/proc/PID/stat` behind the name of the program."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    except OSError:
        return ""
