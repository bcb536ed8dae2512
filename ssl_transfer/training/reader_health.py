"""Reader processes that hang or were killed: the run ends with their names, and does not wait for them forever."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data._utils.signal_handling import _remove_worker_pids

from ssl_transfer.console import warn
from ssl_transfer.errors import RunError

LOOK_SECONDS = 10  # between two looks at readers that deliver nothing
IDLE_LOOKS = 4  # without any work of any reader; looks, not seconds, since the whole run may have been suspended
DISK_LOOKS = 60  # while one of them waits for a disk or a network storage
TIMED_OUT = re.compile(r"DataLoader timed out")
ENDED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (is killed by signal: \w+|exited)")


def delivered(items: Any) -> Iterator[Any]:
    """Yield the batches of an iterator of torch's DataLoader with worker processes and a timeout of `LOOK_SECONDS`.

    Raises:
        RunError: If no reader works any more and none has delivered a batch.
    """
    readers = _Readers(items)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except RuntimeError as error:
            if not TIMED_OUT.search(str(error)):
                raise
            readers.look()
            continue
        readers.work()
        yield item


class _Readers:
    """Watches whether reader processes work.

    Args:
        items: Iterator of a DataLoader.
    """

    def __init__(self, items: Any):
        self._items, self._processes = items, items._workers
        self.work()

    def work(self) -> None:
        """Note that a batch was delivered."""
        self._idle, self._cpu = 0, self._cpu_time()

    def look(self) -> None:
        """Raise an error if no reader has worked for too long."""
        if (cpu := self._cpu_time()) > self._cpu:
            self._idle, self._cpu = 0, cpu
            return
        self._idle += 1
        states = {process.pid: _state(process.pid) for process in self._processes}
        seconds = self._idle * LOOK_SECONDS
        if self._idle < (DISK_LOOKS if "D" in states.values() else IDLE_LOOKS):
            warn(f"no batch for {seconds} s; reader processes: {_listed(states)}.")
            return
        self._kill()
        raise RunError(
            f"no batch for {seconds} s, and no reader process does anything: {_listed(states)}. Is the storage of the store "
            "reachable? The same command continues from the last checkpoint; train.workers=0 reads in the process of the model."
        )

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
