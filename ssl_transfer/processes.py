"""Child processes that end with this process, even if it is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

SECONDS_BETWEEN_LOOKS = 0.5
GRACE_SECONDS = 30.0  # time that a stopped command has for its checkpoint, as torch's launcher allows
STOPPING = ("SIGTERM", "SIGINT", "SIGHUP")


def end_with_parent() -> None:
    """End this process as soon as its parent has ended, even by SIGKILL. To be called first in a child process."""
    parent, parent_id = multiprocessing.parent_process(), os.getppid()

    def watch() -> None:
        if parent is not None:
            parent.join()
        while parent is None and os.getppid() == parent_id:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()


@contextmanager
def worker_processes(
    count: int, start: Callable[..., None] | None = None, arguments: tuple = ()
) -> Iterator[ProcessPoolExecutor]:
    """Worker processes for the duration of a block. They end with the block or with this process; if the block raises, at once.

    Args:
        count: Number of processes. They are spawned, since forked processes would inherit threads and locks.
        start: Function that each process calls first; picklable.
        arguments: Arguments of `start`.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start_worker, (start, arguments))
    try:
        yield pool
    except BaseException:  # their results are not needed any more
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(start: Callable[..., None] | None, arguments: tuple) -> None:
    end_with_parent()
    if start is not None:
        start(*arguments)


class Command:
    """A running command and all processes that it starts, such as `accelerate launch`.

    Within its block, SIGTERM, SIGINT and SIGHUP to this process are passed on as SIGTERM to every process of the command, so that
    it can write its checkpoint; a second SIGINT raises `KeyboardInterrupt`. At the end of the block, remaining processes of the
    command are ended.

    Args:
        words: Program and arguments.
        options: Options of `subprocess.Popen`.

    Attributes:
        process: Process of the program.
        stopped: Whether a signal has stopped the command.
    """

    process: subprocess.Popen

    def __init__(self, words: Sequence[str], **options: Any):
        self.words, self.options, self.stopped = words, options, False
        self._family: set = set()

    def __enter__(self) -> Command:
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for name in STOPPING:
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` ignores it
                    self._previous[number] = signal.signal(number, self._stop)
        try:  # a session of its own: Ctrl-C reaches it through this process only
            self.process = subprocess.Popen(self.words, start_new_session=True, **self.options)
        except BaseException:
            self._restore_signals()
            raise
        if self.stopped:  # meanwhile
            self._terminate()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._end()
        finally:
            self._restore_signals()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped = True
        if hasattr(self, "process"):
            self._terminate()

    def _terminate(self) -> None:
        """Send SIGTERM to the program and all that it has started."""
        import psutil

        try:
            program = psutil.Process(self.process.pid)
            self._family |= {program, *program.children(recursive=True)}
        except psutil.NoSuchProcess:
            pass
        for process in self._family:
            try:
                process.terminate()
            except psutil.NoSuchProcess:
                continue

    def _end(self) -> None:
        """End what is left: at once if the program itself was left running, else after some time for a checkpoint."""
        import psutil

        running = self.process.poll() is None
        if running:
            self._terminate()
        _, alive = psutil.wait_procs(self._family, timeout=1.0 if running else GRACE_SECONDS)
        for process in alive:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()

    def _restore_signals(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
