"""`ssl-transfer study plan|run|status|report|job`: what each answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_transfer.console import say
from ssl_transfer.errors import RunError, UsageError
from ssl_transfer.recipe import find_recipe
from ssl_transfer.study.costs import Costs
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import STATES, Perform, failure, is_done, run_job, run_study, status
from ssl_transfer.study.plan import Job, Plan
from ssl_transfer.study.planning import plan_study

LISTED = 20  # failures that an answer shows


@dataclass(frozen=True)
class Doer:
    """Other verbs, in this process: `perform` does one, `check` refuses one whose settings are wrong."""

    perform: Perform
    check: Callable[[list[str]], None]


def study(options: argparse.Namespace, doer: Doer) -> dict[str, Any]:
    """Do one action of the verb."""
    if options.results:
        if options.action != "report":
            raise UsageError(f"study {options.action}: --results is for report.")
        from ssl_transfer.study.external_results import report_elsewhere

        return report_elsewhere(options)
    if options.study is None:
        raise UsageError(f"study {options.action}: expected a study's YAML, or its folder.")
    if options.action == "job":
        return _job(options, doer)
    plan = _plan(options)
    return {"plan": _planned, "run": _run, "status": _status, "report": _report}[options.action](plan, options, doer)


def _plan(options: argparse.Namespace) -> Plan:
    """The plan of a folder as it stands, or that of a YAML: made anew and written by `plan` and `run`."""
    if options.study.is_dir() or options.study.name == "plan.json":
        if options.overrides:
            raise UsageError(f"{options.study}: settings are laid over a YAML, and this is a planned study.")
        return Plan.load(options.study)
    recipe = load_study(find_recipe(options.study, "studies"), options.overrides)
    folder = options.out or Path("studies") / recipe.name
    if options.action in ("status", "report"):  # of what was planned, with whatever overrides
        return Plan.load(folder)
    plan = plan_study(recipe, folder, write=not options.dry_run)
    if not options.dry_run:
        plan.save()
    return plan


def _planned(plan: Plan, options: argparse.Namespace, doer: Doer) -> dict[str, Any]:
    everything, left = Costs.recorded(plan.folder), status(plan).states
    whole = everything.estimate(plan.jobs)
    todo = everything.estimate(job for job in plan.jobs if left[job.id] != "done")
    return {
        "study": plan.name,
        "runs": sum(1 for _ in plan.runs),
        "jobs": len(plan.jobs),
        "by_stage": plan.by_stage(),
        "pretrainings": len(plan.arms),
        "hours": whole.hours,
        "gpu_hours": whole.gpu_hours,
        "disk_gb": whole.disk_gb,
        "hours_left": todo.hours,
        "estimated_from_records": f"{whole.recorded:.0%} of the jobs",
        "plan": None if options.dry_run else str(plan.folder / "plan.json"),
    }


def _run(plan: Plan, options: argparse.Namespace, doer: Doer) -> dict[str, Any]:
    check(plan, doer)
    found = run_study(plan, doer.perform)
    answer = _counts(plan, found.states)
    if found.count("failed"):
        say(f"what failed, and where its traceback is: ssl-transfer study status {plan.folder}")
        first = answer["failures"][0]
        raise RunError(
            f"{plan.folder}: {found.count('failed')} jobs failed, {found.count('blocked')} need one of them; "
            f"{found.count('done')} are done. The first: {first['title']}: {first['error']}"
        )
    return answer


def check(plan: Plan, doer: Doer) -> None:
    """Refuse a study with a wrong setting now rather than in the middle of the night; one job of each kind is looked at."""
    kinds: dict[tuple, Job] = {}
    for job in plan.jobs:
        if not is_done(plan, job):
            settings = tuple(word for word in job.words if "=" in word and not word.startswith(("seed=", "fraction=")))
            kinds.setdefault((job.about.get("arm") if job.stage == "pretrain" else job.words[1], settings), job)
    for job in kinds.values():
        doer.check(job.words)


def _status(plan: Plan, options: argparse.Namespace, doer: Doer) -> dict[str, Any]:
    return standing(plan)


def standing(plan: Plan) -> dict[str, Any]:
    """How far a study has come, and how long the rest may take."""
    states = status(plan).states
    left = [job for job in plan.jobs if states[job.id] != "done"]
    return {**_counts(plan, states), "hours_left": Costs.recorded(plan.folder).estimate(left).hours}


def _counts(plan: Plan, states: dict[str, str]) -> dict[str, Any]:
    """How many jobs and runs stand where, and what failed."""
    by_stage: dict[str, dict[str, int]] = {}
    for job in plan.jobs:
        counts = by_stage.setdefault(job.stage, dict.fromkeys(STATES, 0))
        counts[states[job.id]] += 1
    failures = [
        {
            "id": job.id,
            "title": job.title,
            "error": found["error"],
            "traceback": str(plan.folder / "jobs" / f"{job.id}.failed.json"),
        }
        for job in plan.jobs
        if states[job.id] == "failed" and (found := failure(plan, job))
    ]
    return {
        "study": plan.name,
        **{state: sum(counts[state] for counts in by_stage.values()) for state in STATES},
        "by_stage": {stage: {state: n for state, n in counts.items() if n} for stage, counts in by_stage.items()},
        "runs": sum(1 for _ in plan.runs),
        "runs_done": sum(Path(run["result"]).exists() for run in plan.runs),
        "failures": failures[:LISTED],
    }


def _report(plan: Plan, options: argparse.Namespace, doer: Doer) -> dict[str, Any]:
    from ssl_transfer.study.gather import report_study

    return report_study(plan, options.out)


def _job(options: argparse.Namespace, doer: Doer) -> dict[str, Any]:
    if len(options.overrides) != 1:
        raise UsageError("study job: expected the study's folder and one job's id.")
    plan = Plan.load(options.study)
    run_job(plan, options.overrides[0], doer.perform)
    return {"job": options.overrides[0], "done": True}
