"""State of a study's jobs: records, failures and locks in its folder `jobs/`.

A job is done if its record `jobs/ID.json` exists, which is written last and by rename, and the files that the record names are
whole. A job whose output was deleted, after all that needs it was done, stays done; one whose output is torn does not. The
process that runs a job holds its lock `jobs/ID.lock`. A failure leaves `jobs/ID.failed.json` with its traceback.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_transfer.console import say
from ssl_transfer.data.readers.reader import add_states, walk
from ssl_transfer.environment import thread_count
from ssl_transfer.errors import OutputError
from ssl_transfer.paths import without_user
from ssl_transfer.run import claimed, file_digest, read_json, write_json
from ssl_transfer.study.costs import folder_bytes, job_cost
from ssl_transfer.study.look_record import not_needed_jobs
from ssl_transfer.study.plan import Job, Plan

SCHEMA = 1
OF_CODE = ("Traceback", '  File "', "    ")  # lines of a traceback that are no message
RECORDS = {  # stage -> the file of its output that is written last
    "ingest": "card.json",
    "pretrain": "backbone/card.json",
    "features": "card.json",
    "tune": "tuning.json",
    "evaluate": "result.json",
    "rank": "rank.json",
}
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
    not_needed, done = not_needed_jobs(plan), done_jobs(plan)
    for job in plan.jobs:
        if job.id in done:
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
    """The record of a finished job: seconds, threads, GPUs, bytes, time; None if there is none that can be read."""
    content = read_json(job_file(plan.folder, job, "json"))
    return content if content and type(content.get("seconds")) in (int, float) else None


def failure(plan: Plan, job: Job) -> dict[str, Any] | None:
    """The last failure of a job that is not done: error, traceback, time; None if there is none."""
    content = read_json(job_file(plan.folder, job, "failed.json"))
    return content and {**content, "error": str(content.get("error"))}


def is_done(plan: Plan, job: Job) -> bool:
    """Whether a job has a record, and its files are whole."""
    return is_whole(plan.folder, job)


def is_whole(folder: Path, job: Job) -> bool:
    """Whether a job of the study in a folder has a record, and its files are whole."""
    return lost_files(folder, job) == []


def done_jobs(plan: Plan) -> set[str]:
    """Ids of the jobs that need not be run: those that are done, and those whose deleted output is not needed any more."""
    done: set[str] = set()
    waiting: set[str] = set()  # needed by jobs that are not done
    for job in reversed(plan.jobs):  # each before those that it depends on
        lost = lost_files(plan.folder, job)
        ends = bool(job.runs) or job.stage == "rank"
        deleted = bool(lost) and not ends and job.id not in waiting and not Path(job.output).exists()
        if lost == [] or deleted:
            done.add(job.id)
        else:
            waiting |= set(job.inputs)
    return done


def changed_sources(plan: Plan, done: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each source that is not what it was when a store of the study was made of it."""
    for job in plan.jobs:
        if job.stage == "ingest" and job.id in done and (made := record(plan, job)) is not None:
            for source, before in zip(_sources(job), made.get("source_files", []), strict=False):
                if _state(source) not in (before, None):
                    yield (
                        f"{source} has changed since {job.about['store']} was made of it ({made['time']}). Results are of what "
                        "it was. For what it is now, plan the study into another folder: --out"
                    )


def _sources(job: Job) -> list[Path]:
    """The source of an ingest, and its tables."""
    return [
        Path(word) for word in dict.fromkeys([job.words[1], *(each for each in job.words if each.endswith(".csv"))])
    ]


def _state(source: Path) -> str | None:
    """Hash of name, size and modification time of all files of a source, as ingest reads them; None if it is gone."""
    if not source.exists():
        return None
    digest = hashlib.blake2b(digest_size=8)
    add_states(digest, walk(source))
    return digest.hexdigest()


def lost_files(folder: Path, job: Job) -> list[Path] | None:
    """Files of a job which are missing, or whose size is not the recorded one; None if the job has no record."""
    content = read_json(job_file(folder, job, "json"))
    if content is None:
        return None
    recorded = content.get("outputs")
    if not isinstance(recorded, dict):  # of an earlier version
        return [path for path in map(Path, (run["result"] for run in job.runs)) if read_json(path) is None]
    return [
        path
        for name, entry in recorded.items()
        if _size(path := folder / name) != (entry.get("bytes") if isinstance(entry, dict) else None)
    ]


def output_files(job: Job) -> list[Path]:
    """The files that are written last by a job: its results, or the record of its artifact."""
    if job.runs:
        return [Path(run["result"]) for run in job.runs]
    return [Path(job.output) / RECORDS[job.stage]]


def set_damaged_aside(folder: Path, job: Job) -> None:
    """Rename what a job left that is torn or was changed, to `.NAME.damaged`, so that the job can write it again."""
    in_place = job.stage in ("evaluate", "tune")  # their folders also have files that another attempt continues from
    changed = {path.resolve() for path in (in_place and lost_files(folder, job)) or ()}
    for path in output_files(job):
        if path.exists() and (path.resolve() in changed or read_json(path) is None):
            damaged = path if in_place else path.parent
            aside = damaged.with_name(f".{damaged.name}.damaged")
            say(f"{path}: is damaged; {job.title} is done again. The damaged one is {aside}.")
            shutil.rmtree(aside, ignore_errors=True)
            damaged.replace(aside)
    job_file(folder, job, "json").unlink(missing_ok=True)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def is_running(plan: Plan, job: Job) -> bool:
    """Whether a process holds the lock of a job."""
    lock = job_file(plan.folder, job, "lock")
    if not lock.exists():
        return False
    try:
        with claimed(lock, wait=False) as free:
            return not free
    except OutputError:  # of a study that may only be read
        return False


def job_file(folder: Path, job: Job, suffix: str) -> Path:
    """Path of the record (`json`), failure (`failed.json`) or lock (`lock`) of a job of the study in a folder."""
    return folder / "jobs" / f"{job.id}.{suffix}"


def write_record(folder: Path, job: Job, seconds: float) -> None:
    """Write the record of a job that is done, with sizes and digests of its files, and forget its failure."""
    content = {
        "schema": SCHEMA,
        "kind": "record",
        "id": job.id,
        "stage": job.stage,
        "title": job.title,
        "seconds": round(seconds, 2),
        "threads": thread_count(),
        "cost": job.cost,
        "spent": job_cost(job, seconds).to_json(),
        "bytes": folder_bytes(job.output),
        "source_files": [_state(source) for source in _sources(job)] if job.stage == "ingest" else [],
        "outputs": {
            os.path.relpath(path, folder): {"bytes": path.stat().st_size, "digest": file_digest(path)}
            for path in output_files(job)
            if path.exists()
        },
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
