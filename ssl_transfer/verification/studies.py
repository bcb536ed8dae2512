"""Checks of a study: its plan, and the records of its jobs against their outputs and results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_transfer.records import damage
from ssl_transfer.result import EvalResult
from ssl_transfer.run import file_digest, read_json
from ssl_transfer.study.freeze import frozen_versions
from ssl_transfer.study.job_state import done_jobs, job_file, lost_files, status
from ssl_transfer.study.look_record import read_looks
from ssl_transfer.study.plan import Job, Plan
from ssl_transfer.study.plan_checks import check_outputs
from ssl_transfer.verification.findings import Findings

COORDINATES = ("protocol", "strategy", "fraction", "seed", "pretraining_seed")


def verify_study(folder: Path, findings: Findings, verify_artifact: Callable[[Path, Findings], None]) -> None:
    """Check a study: its plan, records, outputs, and each result against the run that it was planned for.

    Args:
        folder: Folder of the study.
        findings: Collects what is found.
        verify_artifact: Checks the output of a job.
    """
    with findings.reading(folder / "plan.json"):
        plan = Plan.load(folder)
        for read in (frozen_versions, read_looks):
            with findings.reading(folder):
                read(folder)
        with findings.reading(folder / "plan.json"):
            check_outputs(folder, plan.jobs)
        done, seen = done_jobs(plan), {}
        for job in plan.jobs:
            _verify_job(plan, job, findings, seen)
            if job.id in done and Path(job.output).exists():
                verify_artifact(Path(job.output), findings)
        counts = status(plan)
        states = ", ".join(f"{counts.count(state)} {state}" for state in dict.fromkeys(counts.states.values()))
        findings.fine(folder, f"study {plan.name}: {len(plan.jobs)} jobs: {states}")


def _verify_job(plan: Plan, job: Job, findings: Findings, seen: dict[str, Path]) -> None:
    """Check the record of a job and the results that it names.

    Args:
        seen: Run id -> path, of the results before.
    """
    path = job_file(plan.folder, job, "json")
    if not path.exists():
        return
    if problem := damage(path):
        findings.wrong(path, f"{problem}. `study run` does the job again.")
        return
    for lost in lost_files(plan.folder, job) or ():
        what = "is not the file that the record names" if lost.exists() else "is missing"
        findings.wrong(lost, f"{what}, and its job is recorded as done. `study run` does it again.")
    for name, entry in ((read_json(path) or {}).get("outputs") or {}).items():
        output = plan.folder / name
        if output.exists() and _digest(output) != entry.get("digest"):
            findings.wrong(output, "its digest is not that of the job's record: it was damaged or changed")
    for run in job.runs:
        if Path(run["result"]).exists():
            with findings.reading(Path(run["result"])):
                _verify_run(run, EvalResult.load(run["result"]), findings, seen)


def _digest(path: Path) -> str | None:
    try:
        return file_digest(path)
    except OSError:
        return None


def _verify_run(run: dict[str, Any], result: EvalResult, findings: Findings, seen: dict[str, Path]) -> None:
    path = Path(run["result"])
    found = {name: getattr(result, name) for name in COORDINATES} | {"task": result.task["name"]}
    for name, value in found.items():
        if run.get(name) not in (None, value):  # None: by default
            findings.wrong(path, f"is of {name} {value}, and was planned for {run[name]}")
    if result.run_id in seen:
        findings.wrong(path, f"has the run id of {seen[result.run_id]}: one of them is a copy")
    seen[result.run_id] = path
