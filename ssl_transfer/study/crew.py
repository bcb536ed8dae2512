"""Where jobs of a study run: one after the other in this process, or several at once in worker processes."""

from __future__ import annotations

import os
import time
from collections.abc import Collection

from ssl_transfer.console import say
from ssl_transfer.environment import thread_count
from ssl_transfer.errors import Interrupted
from ssl_transfer.processes import CORES, WorkerEnd, Workers, free_memory, usable_cores
from ssl_transfer.run import claimed
from ssl_transfer.study.devices import claimable_gpus, claimed_gpus, machine_gpus
from ssl_transfer.study.job_state import job_file, write_failure
from ssl_transfer.study.performing import Outcome, Perform, attempt
from ssl_transfer.study.plan import Job, Plan
from ssl_transfer.study.worker import TARGET, Task, named

OPENMP = "OMP_NUM_THREADS"
THREADS = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")


def default_count(jobs: Collection[Job]) -> int:
    """Number of jobs to run at once on this machine.

    One per core, as far as each has the memory that the study's `resources` request, and not more than there are backbones.
    On a machine with GPUs, one for each set of GPUs that a job requests; one if none does, since they would share a GPU.
    """
    if not jobs:
        return 1
    gpus = max(job.resources["gpus"] for job in jobs)
    if machine_gpus():
        return max(1, len(claimable_gpus(gpus)) // gpus) if gpus else 1
    backbones = {(job.about.get("arm"), job.about.get("seed")) for job in jobs}
    memory = max(job.resources.get("memory_gb", 1) for job in jobs)
    return max(1, min(usable_cores(), len(backbones), int(free_memory() / 2**30 / memory)))


def threads_each(count: int) -> int:
    """Number of threads of each of several processes: `OMP_NUM_THREADS` if set, else its share of the cores."""
    stated = os.environ.get(OPENMP, "").partition(",")[0]
    return max(1, int(stated)) if stated.isdigit() else max(1, usable_cores() // count)


class InProcess:
    """Runs one job at a time in this process, which claims the GPUs for as long as the block runs.

    Args:
        plan: The plan of the study.
        perform: Runs the arguments of `ssl-transfer` in this process.
        jobs: The jobs that may come.

    Attributes:
        count: Number of jobs at once.
        threads: Number of threads of each.
    """

    count = 1

    def __init__(self, plan: Plan, perform: Perform, jobs: Collection[Job]):
        self.plan, self.perform, self.threads = plan, perform, thread_count()
        self._outcomes: list[tuple[Job, Outcome]] = []
        self._gpus = claimed_gpus(max((job.resources["gpus"] for job in jobs), default=0))

    def __enter__(self) -> InProcess:
        self._gpus.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._gpus.__exit__(None, None, None)

    def takes(self, job: Job) -> bool:
        """Whether a job can start now."""
        return not self._outcomes

    def start(self, job: Job, label: str) -> None:
        """Run a job to its end."""
        self._outcomes.append((job, attempt(self.plan.folder, job, self.perform)))

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The job that has ended, or nothing after some seconds."""
        ended, self._outcomes = self._outcomes, []
        if not ended:
            time.sleep(seconds)
        return ended


class InWorkers:
    """Runs several jobs at once, each in a worker process with its share of the cores.

    A job that requests GPUs runs in a worker that claims them before its first job and keeps them.

    Args:
        plan: The plan of the study.
        perform: Runs the arguments of `ssl-transfer`; a function of a module, which workers import.
        jobs: The jobs that may come.
        count: Number of jobs at once.

    Attributes:
        threads: Number of threads of each.

    Raises:
        RunError: If a job requests more GPUs than the machine has.
        ValueError: If workers cannot import `perform`.
    """

    def __init__(self, plan: Plan, perform: Perform, jobs: Collection[Job], count: int):
        self.plan, self.perform, self.count, self.threads = plan, named(perform), count, threads_each(count)
        self.gpus = max((job.resources["gpus"] for job in jobs), default=0)
        claimable = claimable_gpus(self.gpus) if self.gpus else []
        self.with_gpus = range(min(count, max(1, len(claimable) // self.gpus)) if claimable else count)
        self._running: dict[int, tuple[Job, float]] = {}  # worker -> job, start
        threads = {name: str(self.threads) for name in THREADS if name not in os.environ}
        environment = {**threads, OPENMP: str(self.threads), CORES: str(self.threads)}
        self._workers = Workers(count, TARGET, environment)

    def __enter__(self) -> InWorkers:
        self._workers.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._workers.__exit__(*exception)

    def takes(self, job: Job) -> bool:
        """Whether a worker is free for a job."""
        return self._worker(job) is not None

    def start(self, job: Job, label: str) -> None:
        """Give a job to a worker."""
        number = self._worker(job)
        if number is None:
            raise ValueError("no worker is free")
        gpus = self.gpus if number in self.with_gpus else 0
        self._workers.start(number, Task(self.plan.folder, job, self.perform, gpus, self.threads, label))
        self._running[number] = job, time.monotonic()

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Jobs that have ended, at the latest after some seconds.

        Raises:
            Interrupted: If this process or a worker was requested to stop.
        """
        ended = []
        for number, answer in self._workers.wait(seconds):
            job, started = self._running.pop(number)
            if answer == "stopped" or (isinstance(answer, WorkerEnd) and answer.stopped):
                self._workers.stop()
                continue
            ended.append((job, self._died(job, answer, started) if isinstance(answer, WorkerEnd) else answer))
        if self._workers.stopped:
            raise Interrupted(f"{self.plan.folder}: stopped; the next start goes on from here.")
        return ended

    def _worker(self, job: Job) -> int | None:
        """A free worker for a job; one without GPUs if it requests none and there is such a worker."""
        needs = job.resources["gpus"] > 0
        free = [number for number in self._workers.free if number in self.with_gpus or not needs]
        return (free[0] if needs else free[-1]) if free else None

    def _died(self, job: Job, end: WorkerEnd, started: float) -> Outcome:
        """Record the failure of a job whose worker ended, unless another process runs the job by now."""
        why = "Was there too little memory? Run fewer jobs at once (--jobs), or smaller batches." * (end.status == -9)
        error = f"its process {end} after {time.monotonic() - started:.0f} s. {why}".strip()
        with claimed(job_file(self.plan.folder, job, "lock"), wait=False) as acquired:
            if not acquired:
                return "busy"
            write_failure(self.plan.folder, job, error, "The process ended without a traceback.")
        say(f"failed: {job.title}: {error}")
        return "failed"


Crew = InProcess | InWorkers
