"""Child processes that end with this process, even if it is killed."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ssl_transfer.messages import mapped, new_memory, receive, send

SECONDS_BETWEEN_LOOKS = 0.5
GRACE_SECONDS = 30.0  # time that a stopped command has for its checkpoint, as torch's launcher allows
IDLE_SECONDS = 5.0  # for the end of a worker that has nothing to do
CORES = "SSL_TRANSFER_CORES"  # environment variable: number of cores that a process may use
STOPPING = ("SIGTERM", "SIGINT", "SIGHUP")
WORKER = (  # imports nothing before the paths are those of the parent
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ssl_transfer.processes import serve; serve(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))"
)


def end_with_parent(stop: Callable[[], None] | None = None) -> None:
    """End this process as soon as its parent has ended, even by SIGKILL. To be called first in a child process.

    Args:
        stop: Called when the parent has ended; the process is ended `GRACE_SECONDS` later. None: it is ended at once.
    """
    parent, parent_id = multiprocessing.parent_process(), os.getppid()

    def watch() -> None:
        if parent is not None:
            parent.join()
        while parent is None and os.getppid() == parent_id:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if stop is not None:
            stop()
            time.sleep(GRACE_SECONDS)
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
        self._previous = _handle_signals(self._stop)
        try:  # a session of its own: Ctrl-C reaches it through this process only
            self.process = subprocess.Popen(self.words, start_new_session=True, **self.options)
        except BaseException:
            _restore_signals(self._previous)
            raise
        if self.stopped:  # meanwhile
            self._terminate()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._end()
        finally:
            _restore_signals(self._previous)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped = True
        if hasattr(self, "process"):
            self._terminate()

    def _terminate(self) -> None:
        """Send SIGTERM to the program and all that it has started."""
        self._family |= _family(self.process.pid)
        _signal_all(self._family, signal.SIGTERM)

    def _end(self) -> None:
        """End what is left: at once if the program itself was left running, else after some time for a checkpoint."""
        running = self.process.poll() is None
        if running:
            self._terminate()
        _kill_after(self._family, 1.0 if running else GRACE_SECONDS)
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()


@dataclass(frozen=True)
class WorkerEnd:
    """The end of a worker during a task.

    Attributes:
        status: Exit status; negative: the number of the signal that ended it.
    """

    status: int

    @property
    def stopped(self) -> bool:
        """Whether it was requested to stop, by a signal such as SIGTERM."""
        numbers = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
        return -self.status in numbers or self.status - 128 in numbers

    def __str__(self) -> str:
        try:
            return f"was ended by {signal.Signals(-self.status).name}"
        except ValueError:
            return f"ended with status {self.status}"


class Workers:
    """Lasting worker processes that do one task after the other, each in the main thread of a Python of its own.

    A worker starts with its first task. For the time of the block SIGTERM, SIGINT and SIGHUP to this process become a SIGTERM
    to every worker, so that it may write a checkpoint; a second SIGINT raises `KeyboardInterrupt`. At the end of the block no
    worker is left, nor anything that one has started. A worker that ends during a task is replaced by the next task.

    Args:
        count: How many.
        target: `module:function`, called with each task; tasks and answers are picklable.
        environment: Variables of the workers, over those of this process.

    Attributes:
        stopped: Whether a signal has stopped them.
    """

    def __init__(self, count: int, target: str, environment: Mapping[str, str] | None = None):
        self.count, self.target, self.environment, self.stopped = count, target, dict(environment or {}), False
        self._workers: dict[int, _Worker] = {}
        self._busy: set[int] = set()
        self._family: set = set()

    def __enter__(self) -> Workers:
        self._previous = _handle_signals(self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        waits = self.stopped and kind is not KeyboardInterrupt
        try:
            self._end(GRACE_SECONDS + IDLE_SECONDS if waits else IDLE_SECONDS if kind is None else 1.0)
        finally:
            _restore_signals(self._previous)

    @property
    def free(self) -> list[int]:
        """Numbers of the workers without a task, ascending from 0."""
        return [number for number in range(self.count) if number not in self._busy]

    def warm(self, count: int) -> None:
        """Start the first workers, which takes them about a second, before there is a task for them."""
        for number in range(count):
            if number not in self._workers and not self.stopped:
                self._started(number)

    def start(self, number: int, task: Any) -> None:
        """Give a free worker a task."""
        worker = self._workers.get(number)
        try:
            send((worker or self._started(number)).connection, task)
        except OSError:  # it ended while it had nothing to do
            send(self._started(number).connection, task)
        self._busy.add(number)

    def wait(self, seconds: float) -> list[tuple[int, Any]]:
        """Wait until a worker has an answer, at most so many seconds.

        Returns:
            Number and answer of each worker that has one; the answer of a worker that ended is a `WorkerEnd`.
        """
        connections = {self._workers[number].connection: number for number in self._busy}
        if not connections:
            time.sleep(seconds)
        ready = multiprocessing.connection.wait(list(connections), seconds) if connections else []
        return [(connections[connection], self._answer(connections[connection])) for connection in ready]  # type: ignore[index]

    def _started(self, number: int) -> _Worker:
        self._workers[number] = worker = _Worker(self.target, {**os.environ, **self.environment})
        if self.stopped:  # meanwhile
            worker.process.terminate()
        return worker

    def _answer(self, number: int) -> Any:
        self._busy.remove(number)
        try:
            worker = self._workers[number]
            return receive(worker.connection, worker.shared)
        except (EOFError, OSError):
            return WorkerEnd(self._workers.pop(number).end())

    def kill(self, number: int) -> None:
        """End a worker that does not answer, and what it has started; the next task of this number starts another one."""
        self._busy.discard(number)
        worker = self._workers.pop(number)
        _kill_after(_family(worker.process.pid), 0)
        worker.connection.close()
        worker.process.wait()

    def stop(self) -> None:
        """Request all workers to stop. What they have started is their own business: they may need it for a checkpoint."""
        self.stopped = True
        self._note_families()
        for worker in list(self._workers.values()):
            worker.process.terminate()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop()

    def _note_families(self) -> None:
        """Remember what workers have started, which outlives those that are killed."""
        families = [_family(worker.process.pid) for worker in self._workers.values()]
        self._family = self._family.union(*families)

    def _end(self, seconds: float) -> None:
        """End all workers, and after some time whatever is left of them and of what they have started."""
        workers = list(self._workers.values())
        self._note_families()
        for worker in workers:
            worker.connection.close()
        for number in () if self.stopped else self._busy:
            self._workers[number].process.terminate()
        _kill_after(self._family, seconds)
        for worker in workers:
            worker.process.wait()
        self._workers.clear()
        self._busy.clear()


class _Worker:
    """A process that runs `serve`. It has a session of its own, so that Ctrl-C reaches it through its parent only."""

    def __init__(self, target: str, environment: Mapping[str, str]):
        self.connection, theirs = multiprocessing.Pipe()
        memory = new_memory()
        self.shared = mapped(memory)
        paths = json.dumps([path or os.getcwd() for path in sys.path])
        command = [sys.executable, "-c", WORKER, paths, str(theirs.fileno()), target, str(memory)]
        try:  # what it prints is for standard error: this process may owe an answer on standard output
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=2,
                env=environment,
                pass_fds=[theirs.fileno(), *([memory] if memory >= 0 else [])],
                start_new_session=True,
            )
        finally:
            theirs.close()
            if memory >= 0:
                os.close(memory)

    def end(self) -> int:
        """The exit status of a worker whose connection is closed."""
        try:
            return self.process.wait(IDLE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def serve(descriptor: int, target: str, memory: int) -> None:
    """Answer tasks until the connection is closed: what a worker of `Workers` does.

    Args:
        descriptor: File descriptor of the connection.
        target: `module:function`, called with each task.
        memory: File descriptor of the memory for the arrays of answers; −1: there is none.
    """
    os.set_inheritable(descriptor, False)
    shared = mapped(memory)
    if memory >= 0:
        os.close(memory)
    end_with_parent(_stop_alone)
    connection = multiprocessing.connection.Connection(descriptor)
    module, _, name = target.partition(":")
    importlib.import_module(module)
    while True:
        try:
            task = receive(connection)
        except (EOFError, OSError):
            return
        answer = getattr(importlib.import_module(module), name)(task)
        with suppress(OSError):  # nobody waits for it any more
            send(connection, answer, shared)


def _stop_alone() -> None:
    """Request this process to stop after its parent has ended. Nobody reads its messages any more."""
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os.kill(os.getpid(), signal.SIGTERM)


def _handle_signals(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Handle signals that request an end; returns the former handlers. Outside the main thread nothing is handled."""
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in STOPPING:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` ignores it
                previous[number] = signal.signal(number, handler)
    return previous


def _restore_signals(previous: Mapping[int, Any]) -> None:
    for number, handler in previous.items():
        signal.signal(number, handler)


def _family(pid: int) -> set:
    """A process and all that it has started, of psutil; empty if it has ended."""
    import psutil

    try:
        program = psutil.Process(pid)
        return {program, *program.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def _signal_all(family: set, number: int) -> None:
    import psutil

    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _kill_after(family: set, seconds: float) -> None:
    """Wait until processes have ended, and kill those that have not after some seconds, or if the wait is interrupted."""
    import psutil

    try:
        psutil.wait_procs(family, timeout=seconds)
    finally:
        _signal_all(family, signal.SIGKILL)


def usable_cores() -> int:
    """Number of cores that this process may use: `SSL_TRANSFER_CORES`, or those of its affinity and its container."""
    if (stated := os.environ.get(CORES, "")).isdigit():
        return max(1, int(stated))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return max(1, min(cores, -(-int(quota) // int(period)))) if quota.isdigit() else cores


def free_memory() -> int:
    """Memory that new processes may use, in bytes: of the machine and of the limit of its container."""
    import psutil

    free, limit, used = psutil.virtual_memory().available, _cgroup("memory.max"), _cgroup("memory.current")
    return min(free, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else free


def _cgroup(name: str) -> str:
    """A limit of the container that this process runs in; empty if there is none."""
    try:
        with open(f"/sys/fs/cgroup/{name}") as file:
            return file.read().strip()
    except OSError:
        return ""
