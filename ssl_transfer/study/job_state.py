"""State of a study's jobs: records, failures and locks in its folder `jobs/`.

A job is done if and only if its record `jobs/ID.json` exists, which is written last and by rename. The process that runs a
job holds its lock `jobs/ID.lock`. A failure leaves `jobs/ID.failed.json` with its traceback.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_transfer.environment import thread_count
from ssl_transfer.paths import without_user
from ssl_transfer.run import claimed, read_json, write_json
from ssl_transfer.study.costs import folder_bytes
from ssl_transfer.study.look_record import not_needed_jobs
from ssl_transfer.study.plan import Job, Plan

SCHEMA = 1
OF_CODE = ("Traceback", '  File "', "    ")  # lines of a traceback that are no message
STATES = ("done", "running", "missing", "failed", "blocked", "not needed")


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
    """The record of a finished job: seconds, threads, GPUs, bytes, time; None if it is not done."""
    return read_json(job_file(plan.folder, job, "json"))


def failure(plan: Plan, job: Job) -> dict[str, Any] | None:
    """The last failure of a job that is not done: error, traceback, time; None if there is none."""
    return read_json(job_file(plan.folder, job, "failed.json"))


def is_done(plan: Plan, job: Job) -> bool:
    """Whether a job has a record."""
    return job_file(plan.folder, job, "json").exists()


def is_running(plan: Plan, job: Job) -> bool:
    """Whether a process holds the lock of a job."""
    lock = job_file(plan.folder, job, "lock")
    if not lock.exists():
        return False
    with claimed(lock, wait=False) as free:
        return not free


def job_file(folder: Path, job: Job, suffix: str) -> Path:
    """Path of the record (`json`), failure (`failed.json`) or lock (`lock`) of a job of the study in a folder."""
    return folder / "jobs" / f"{job.id}.{suffix}"


def write_record(folder: Path, job: Job, seconds: float) -> None:
    """Write the record of a job that is done, and forget its failure."""
    content = {
        "schema": SCHEMA,
        "kind": "record",
        "id": job.id,
        "stage": job.stage,
        "title": job.title,
        "seconds": round(seconds, 2),
        "threads": thread_count(),
        "cost": job.cost,
        "bytes": folder_bytes(job.output),
        "gpus": job.resources["gpus"],
        "time": _now(),
    }
    write_json(job_file(folder, job, "json"), content)
    job_file(folder, job, "failed.json").unlink(missing_ok=True)


def write_failure(folder: Path, job: Job, error: str, traceback: str) -> None:
    """Write the failure of a job, without names: of the user, and of the files that an ingest failed at."""
    error, traceback = without_user(error), without_user(traceback)
    if job.stage == "ingest":
        kind = error.partition(":")[0]
        error = f"{kind}: its message may name persons, so it is not stored. To see it: {shlex.join(job.command)}"
        traceback = "\n".join(line for line in traceback.splitlines() if line.startswith(OF_CODE))
    content = {
        "schema": SCHEMA,
        "kind": "failure",
        "id": job.id,
        "title": job.title,
        "command": job.command,
        "error": error,
        "traceback": traceback,
        "time": _now(),
    }
    write_json(job_file(folder, job, "failed.json"), content)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
