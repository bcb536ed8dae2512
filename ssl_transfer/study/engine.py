"""The engine of a study: it runs jobs, several at once, and goes on after failures and interruptions.

The process that runs a job holds its lock, so several engines (this one, Snakemake, both) may work on one study. A failure
blocks only the jobs that depend on it. The state of each job is in `job_state`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator

from ssl_transfer.console import duration, say, warn
from ssl_transfer.study.costs import Costs
from ssl_transfer.study.crew import Crew, InProcess, InWorkers, default_count
from ssl_transfer.study.job_state import Status, changed_sources, done_jobs, is_done, is_running, status
from ssl_transfer.study.performing import Perform
from ssl_transfer.study.plan import Job, Plan
from ssl_transfer.study.plan_checks import check_outputs
from ssl_transfer.study.planned_contrasts import with_inputs

SECONDS_BETWEEN_LOOKS = 1.0  # at jobs of another engine


def run_plan(
    plan: Plan, perform: Perform, *, jobs: int | None = 1, rounds: Iterable[Collection[str]] | None = None
) -> Status:
    """Run every job that is not done; continue after failures, and wait for other engines.

    Jobs of the first pretraining seed come first, so that its arms can be compared early; among them those that most other
    work waits for.

    Args:
        plan: The plan of the study.
        perform: Runs the arguments of `ssl-transfer` in this process. With several jobs at once, workers import it.
        jobs: Number of jobs at once: 1 runs them in this process, more in worker processes; None: see `default_count`.
        rounds: Sets of job ids. A set is run to its end, with all that it needs, before the next is requested, so that a
            generator can decide from the results which jobs come next. None: all jobs.

    Returns:
        The state of every job at the end.

    Raises:
        Interrupted: If this process receives a signal to stop; running jobs keep their checkpoints.
        UsageError: If a job would write outside of the folder of the study.
        OutputError: If the disk is full, or the folder cannot be written.
    """
    check_outputs(plan.folder, plan.jobs)
    done = done_jobs(plan)
    for changed in changed_sources(plan, done):
        warn(changed)
    left = [job for job in plan.jobs if job.id not in done]
    count = min(default_count(left) if jobs is None else jobs, max(1, len(left)))
    with InWorkers(plan, perform, left, count) if count > 1 else InProcess(plan, perform, left) as crew:
        if count > 1:
            say(f"{count} jobs at once, {crew.threads} thread{'s' * (crew.threads > 1)} each")
        queue = _Queue(plan, crew, done)
        for chosen in [[job.id for job in left]] if rounds is None else rounds:
            queue.run(chosen)
    return status(plan)


class _Queue:
    """Gives jobs to a crew, in order.

    Args:
        plan: The plan of the study.
        crew: Runs the jobs.
        done: Ids of the jobs that are done.
    """

    def __init__(self, plan: Plan, crew: Crew, done: Collection[str]):
        self.plan, self.crew = plan, crew
        self.jobs = {job.id: job for job in plan.jobs}
        self.unfinished = self.jobs.keys() - done
        self.failed: set[str] = set()  # or blocked
        self.costs = Costs.recorded(plan.folder, crew.threads)
        self.order = list(self.jobs) if crew.count == 1 else _by_urgency(plan, self.costs)

    def run(self, chosen: Collection[str]) -> None:
        """Run jobs and all that they need, until each is done, failed or blocked."""
        needed = {job.id for job in with_inputs(self.plan, chosen)}
        self.left = {name: self.jobs[name] for name in self.order if name in needed and name in self.unfinished}
        self.running: dict[str, float] = {}  # job -> its start
        self.elsewhere: dict[str, float] = {}  # job that another engine runs -> time of the next look at it
        while self.left:
            for job in list(self._ready()):
                if self.crew.takes(job):
                    self._start(job)
            for job, outcome in self.crew.wait(SECONDS_BETWEEN_LOOKS) if self.left else ():
                self._end(job, outcome)

    def _ready(self) -> Iterator[Job]:
        """Jobs that can start now, in order; jobs that cannot start at all are dropped."""
        for job in list(self.left.values()):
            if not self.failed.isdisjoint(job.inputs):
                self._drop(job, failed=True)
                continue
            waits = job.id in self.running or any(needed in self.left for needed in job.inputs)
            if not waits and self.elsewhere.get(job.id, 0) <= time.monotonic():
                yield job

    def _start(self, job: Job) -> None:
        if is_done(self.plan, job):  # by another engine
            self._drop(job)
        elif is_running(self.plan, job):
            self.elsewhere[job.id] = time.monotonic() + SECONDS_BETWEEN_LOOKS
        else:
            number = f"{len(self.jobs) - len(self.unfinished) + len(self.running) + 1}/{len(self.jobs)}"
            say(f"[{number}, about {duration(self._seconds_left())} left] {job.title}")
            self.running[job.id] = time.monotonic()
            self.crew.start(job, f"[{number}] ")

    def _end(self, job: Job, outcome: str) -> None:
        seconds = time.monotonic() - self.running.pop(job.id)
        if outcome == "busy":
            self.elsewhere[job.id] = time.monotonic() + SECONDS_BETWEEN_LOOKS
            return
        self._drop(job, failed=outcome == "failed")
        if outcome == "done":
            self.costs.add(job.cost, seconds, 0, threads=self.crew.threads)

    def _drop(self, job: Job, *, failed: bool = False) -> None:
        """Remove a job that is finished, or cannot be."""
        del self.left[job.id]
        self.unfinished.discard(job.id)
        if failed:
            self.failed.add(job.id)

    def _seconds_left(self) -> float:
        """Estimated time until all jobs are done, from the jobs that are."""
        now = time.monotonic()
        spent = {name: now - started for name, started in self.running.items()}
        seconds = [self.costs.seconds(job) - spent.get(name, 0) for name, job in self.left.items()]
        return sum(max(0.0, each) for each in seconds) / self.crew.count


def _by_urgency(plan: Plan, costs: Costs) -> list[str]:
    """Ids of jobs by pretraining seed, in the order of the plan, and then by the time of the longest chain that begins with them.

    A job without a seed, such as an ingest, comes with the first seed that needs it.
    """
    seeds = list(dict.fromkeys(job.about["seed"] for job in plan.jobs if job.about.get("seed") is not None))
    first = {job.id: 0 if job.about.get("seed") is None else seeds.index(job.about["seed"]) for job in plan.jobs}
    seconds: dict[str, float] = dict.fromkeys(first, 0.0)
    needed_by: dict[str, int] = {}
    for job in reversed(plan.jobs):  # each before those that it depends on
        first[job.id] = needed_by.get(job.id, first[job.id])
        seconds[job.id] += costs.seconds(job)
        for needed in job.inputs:
            needed_by[needed] = min(needed_by.get(needed, len(seeds)), first[job.id])
            seconds[needed] = max(seconds[needed], seconds[job.id])
    return sorted(first, key=lambda name: (first[name], -seconds[name]))
