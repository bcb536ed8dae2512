"""Runs single jobs of a study in this process, and records how they end."""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from ssl_transfer.console import say
from ssl_transfer.errors import Interrupted, OutputError, RunError, UsageError
from ssl_transfer.processes import Command
from ssl_transfer.run import claimed
from ssl_transfer.study.devices import claimed_gpus
from ssl_transfer.study.job_state import is_done, is_whole, job_file, set_damaged_aside, write_failure, write_record
from ssl_transfer.study.plan import Job, Plan, external_id
from ssl_transfer.study.plan_checks import check_launch, check_outputs

LAST_LINES = 60  # of the output of a failed job, in its message

Perform = Callable[[list[str]], Any]  # runs the arguments of `ssl-transfer` in this process
Outcome = Literal["done", "failed", "busy"]  # busy: another process runs it


def attempt(folder: Path, job: Job, perform: Perform) -> Outcome:
    """Run a job unless it is done or another process runs it.

    Args:
        folder: Folder of the study.
        job: The job.
        perform: Runs the arguments of `ssl-transfer` in this process.

    Raises:
        Interrupted: If this process receives a signal to stop; the job keeps its checkpoint.
        OutputError: If the disk is full, or the folder cannot be written.
    """
    with claimed(job_file(folder, job, "lock"), wait=False) as acquired:
        if not acquired:
            return "busy"
        if is_whole(folder, job):
            return "done"
        try:
            _run_and_record(folder, job, perform)
        except (Interrupted, KeyboardInterrupt, OutputError):  # other jobs could not write either
            raise
        except Exception as error:
            say(f"failed: {job.title}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            return "failed"
        return "done"


def run_job(plan: Plan, job_id: str, perform: Perform) -> None:
    """Run one job, for another engine; wait if another process runs it already.

    Raises:
        UsageError: If the plan has no such job, or a job that it depends on is not done.
        Exception: Any error of the job, which is recorded.
    """
    job = next((job for job in plan.jobs if job.id == job_id), None)
    if job is None:
        raise UsageError(f"{plan.folder}/plan.json: no job {job_id}. Was the study planned again? Restart the engine.")
    check_outputs(plan.folder, [job])
    jobs = {planned.id: planned for planned in plan.jobs}
    for needed in job.inputs:
        if not is_done(plan, jobs[needed]):
            raise UsageError(f"job {job_id} ({job.title}) needs {needed} ({jobs[needed].title}), which is not done.")
    with claimed(job_file(plan.folder, job, "lock")):
        if not is_done(plan, job):
            with claimed_gpus(job.resources["gpus"]):
                _run_and_record(plan.folder, job, perform)


def _run_and_record(folder: Path, job: Job, perform: Perform) -> None:
    """Run a job's command and write its record; a failure is recorded and raised again."""
    started = time.monotonic()
    try:
        _check_external(job)
        set_damaged_aside(folder, job)
        if job.launched:
            check_launch(job)
            _launch(job)
        else:
            perform(job.words)
    except (Interrupted, KeyboardInterrupt):
        raise
    except Exception as error:
        with suppress(OutputError):  # of a full disk
            write_failure(folder, job, f"{type(error).__name__}: {error}", traceback.format_exc())
        raise
    write_record(folder, job, time.monotonic() - started)


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
