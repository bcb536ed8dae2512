"""The engine of a study: it runs jobs, records them, and reports the state of each.

A job is done if and only if its record `jobs/ID.json` exists, which is written last and by rename. The process that runs a
job holds its lock, so several engines (this one, Snakemake, both) may work on one study. A failure leaves
`jobs/ID.failed.json` with its traceback and blocks only the jobs that depend on it.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_transfer.console import duration, say
from ssl_transfer.errors import Interrupted, RunError, UsageError
from ssl_transfer.processes import Command
from ssl_transfer.run import claimed, read_json, write_json
from ssl_transfer.study.costs import Costs, folder_bytes
from ssl_transfer.study.devices import claimed_gpus
from ssl_transfer.study.look_record import not_needed_jobs
from ssl_transfer.study.plan import Job, Plan, external_id
from ssl_transfer.study.planned_contrasts import with_inputs

SCHEMA = 1
LAST_LINES = 60  # of the output of a failed job, in its message
SECONDS_BETWEEN_LOOKS = 1.0  # at jobs of another engine
STATES = ("done", "running", "missing", "failed", "blocked", "not needed")

Perform = Callable[[list[str]], Any]  # runs the arguments of `ssl-transfer` in this process


@dataclass(frozen=True)
class Status:
    """Job id -> one of `STATES`. `blocked`: a job that it needs has failed. `not needed`: the study stopped before its seed."""

    states: dict[str, str]

    def count(self, state: str) -> int:
        """Number of jobs in a state."""
        return list(self.states.values()).count(state)


def status(plan: Plan) -> Status:
    """The state of every job, from its record, failure and lock."""
    states: dict[str, str] = {}
    not_needed = not_needed_jobs(plan)
    for job in plan.jobs:
        if is_done(plan, job):
            states[job.id] = "done"
        elif is_running(plan, job):
            states[job.id] = "running"
        elif job.id in not_needed:
            states[job.id] = "not needed"
        elif any(states[needed] in ("failed", "blocked") for needed in job.inputs):
            states[job.id] = "blocked"
        else:
            states[job.id] = "failed" if failure(plan, job) else "missing"
    return Status(states)


def record(plan: Plan, job: Job) -> dict[str, Any] | None:
    """The record of a finished job: seconds, host, GPUs, bytes, time; None if it is not done."""
    return read_json(_file(plan, job, "json"))


def failure(plan: Plan, job: Job) -> dict[str, Any] | None:
    """The last failure of a job that is not done: error, traceback, time; None if there is none."""
    return read_json(_file(plan, job, "failed.json"))


def is_done(plan: Plan, job: Job) -> bool:
    """Whether a job has a record."""
    return _file(plan, job, "json").exists()


def is_running(plan: Plan, job: Job) -> bool:
    """Whether a process holds the lock of a job."""
    lock = _file(plan, job, "lock")
    if not lock.exists():
        return False
    with claimed(lock, wait=False) as free:
        return not free


def run_plan(plan: Plan, perform: Perform, *, rounds: Iterable[Collection[str]] | None = None) -> Status:
    """Run every job that is not done, in order, in this process; continue after failures, and wait for other engines.

    Args:
        plan: The plan of the study.
        perform: Runs the arguments of `ssl-transfer` in this process.
        rounds: Sets of job ids. A set is run to its end, with all that it needs, before the next is requested, so that a
            generator can decide from the results which jobs come next. None: all jobs.

    Returns:
        The state of every job at the end.

    Raises:
        Interrupted: If this process receives a signal to stop; the running job keeps its checkpoint.
    """
    left = {job.id: job for job in plan.jobs if not is_done(plan, job)}
    with claimed_gpus(max((job.resources["gpus"] for job in left.values()), default=0)):
        failed: set[str] = set()
        for chosen in [list(left)] if rounds is None else rounds:
            needed = [job for job in with_inputs(plan, chosen) if job.id not in failed and not is_done(plan, job)]
            _run_all(plan, {job.id: job for job in needed}, perform, failed)
    return status(plan)


def _run_all(plan: Plan, left: dict[str, Job], perform: Perform, failed: set[str]) -> None:
    """Run the jobs that are left, removing each once it is done, failed or blocked; the latter two are added to `failed`."""
    progress = _TimeLeft(plan, left)
    while left:
        moved = False
        for job in list(left.values()):
            if not failed.isdisjoint(job.inputs):
                failed.add(job.id)
                del left[job.id]
            elif not any(needed in left for needed in job.inputs):
                outcome = _attempt(plan, job, perform, progress)
                if outcome != "busy":
                    moved = True
                    del left[job.id]
                if outcome == "failed":
                    failed.add(job.id)
        if left and not moved:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def run_job(plan: Plan, job_id: str, perform: Perform) -> None:
    """Run one job, for another engine; wait if another process runs it already.

    Raises:
        UsageError: If the plan has no such job, or a job that it depends on is not done.
        Exception: Any error of the job, which is recorded.
    """
    job = next((job for job in plan.jobs if job.id == job_id), None)
    if job is None:
        raise UsageError(f"{plan.folder}/plan.json: no job {job_id}. Was the study planned again? Restart the engine.")
    jobs = {planned.id: planned for planned in plan.jobs}
    for needed in job.inputs:
        if not is_done(plan, jobs[needed]):
            raise UsageError(f"job {job_id} ({job.title}) needs {needed} ({jobs[needed].title}), which is not done.")
    with claimed(_file(plan, job, "lock")):
        if not is_done(plan, job):
            with claimed_gpus(job.resources["gpus"]):
                _perform(plan, job, perform)


def _attempt(plan: Plan, job: Job, perform: Perform, progress: _TimeLeft) -> str:
    """`done`, `failed`, or `busy` if another process runs it."""
    with claimed(_file(plan, job, "lock"), wait=False) as acquired:
        if not acquired:
            return "busy"
        if is_done(plan, job):
            return "done"
        progress.begin(job)
        try:
            _perform(plan, job, perform)
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as error:
            say(f"failed: {job.title}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            return "failed"
        progress.end(job)
        return "done"


def _perform(plan: Plan, job: Job, perform: Perform) -> None:
    """Run a job's command and write its record; a failure is recorded and raised again."""
    started = time.monotonic()
    try:
        _check_external(job)
        if job.launched:
            _launch(job)
        else:
            perform(job.words)
    except (Interrupted, KeyboardInterrupt):
        raise
    except Exception as error:
        content = {
            "schema": SCHEMA,
            "kind": "failure",
            "id": job.id,
            "title": job.title,
            "command": job.command,
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
            "time": _now(),
        }
        write_json(_file(plan, job, "failed.json"), content)
        raise
    seconds = time.monotonic() - started
    write_json(
        _file(plan, job, "json"),
        {
            "schema": SCHEMA,
            "kind": "record",
            "id": job.id,
            "stage": job.stage,
            "title": job.title,
            "seconds": round(seconds, 2),
            "cost": job.cost,
            "bytes": folder_bytes(job.output),
            "host": platform.node(),
            "gpus": job.resources["gpus"],
            "time": _now(),
        },
    )
    _file(plan, job, "failed.json").unlink(missing_ok=True)


def _launch(job: Job) -> None:
    """Run a command of several processes; a signal to stop is passed on, so that it writes its checkpoint.

    Raises:
        Interrupted: If it was stopped by a signal.
        RunError: If it fails; the message ends with its last lines.
    """
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *job.command[1:]]  # of this environment
    last: deque[str] = deque(maxlen=LAST_LINES)
    with Command(command, stderr=subprocess.PIPE, text=True, errors="replace") as launched:
        for line in launched.process.stderr or ():
            sys.stderr.write(line)
            last.append(line)
        status = launched.process.wait()
    if launched.stopped:
        raise Interrupted(f"{job.title}: stopped; the next start goes on from its checkpoint.")
    if status:
        raise RunError(f"{job.title}: its launcher ended with status {status}. Its last lines:\n{''.join(last)}")


class _TimeLeft:
    """Prints which job is next and estimates the remaining time, from the jobs that are done."""

    def __init__(self, plan: Plan, left: Mapping[str, Job]):
        self.costs, self.total, self.left = Costs.recorded(plan.folder), len(plan.jobs), left

    def begin(self, job: Job) -> None:
        """Print the start of a job."""
        seconds = sum(self.costs.seconds(waiting) for waiting in self.left.values())
        say(f"[{self.total - len(self.left) + 1}/{self.total}, about {duration(seconds)} left] {job.title}")
        self.started = time.monotonic()

    def end(self, job: Job) -> None:
        """Record the end of a job."""
        self.costs.add(job.cost, time.monotonic() - self.started, 0)


def _file(plan: Plan, job: Job, suffix: str) -> Path:
    return plan.folder / "jobs" / f"{job.id}.{suffix}"


def _check_external(job: Job) -> None:
    """Refuse inputs that changed after planning, since the job's id and folder belong to the old ones.

    Raises:
        UsageError: If a store or backbone has another id.
    """
    for spec, planned in job.external.items():
        if planned and (present := external_id(spec)) != planned:
            raise UsageError(
                f"{spec}: was {planned} when the study was planned, and is {present or 'gone'} now. Plan the study again."
            )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
