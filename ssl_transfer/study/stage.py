"""The operations on a study that `ssl-transfer study` offers: plan, run, status, report, and a single job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssl_transfer.console import say
from ssl_transfer.errors import RunError, UsageError
from ssl_transfer.paths import portable
from ssl_transfer.recipe import Overrides, find_recipe, validate
from ssl_transfer.run import read_json
from ssl_transfer.study import job_state
from ssl_transfer.study.costs import Costs
from ssl_transfer.study.design import StudyRecipe, load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.freeze import freeze as write_frozen
from ssl_transfer.study.freeze import warn_of_changes
from ssl_transfer.study.look_record import has_looks, stop_sentence
from ssl_transfer.study.performing import Perform, run_job
from ssl_transfer.study.plan import Job, Plan
from ssl_transfer.study.planning import plan_study

LISTED_FAILURES = 20


def planned(study: str | Path, overrides: Overrides = (), out: str | Path | None = None, *, write: bool = True) -> Plan:
    """The saved plan of a study's folder, or a new plan of a YAML.

    Args:
        study: A study's YAML, its name in `recipes/studies/`, or the folder of a planned study.
        overrides: Overrides of the YAML: `key=value` texts, or a mapping.
        out: Folder of the study; None: `studies/NAME`.
        write: Save the plan and its recipes and task cards.

    Raises:
        UsageError: If a planned study is given with overrides.
        RecipeError: If the YAML is invalid.
    """
    if saved := _saved(study, overrides):
        return saved
    recipe = load_study(find_recipe(study, "studies"), overrides)
    plan = plan_study(recipe, Path(portable(out or Path("studies") / recipe.name)), write=write)
    if write:
        plan.save()
    return plan


def opened(study: str | Path, overrides: Overrides = (), out: str | Path | None = None) -> Plan:
    """The saved plan of a study, given by its folder or its YAML; arguments as for `planned`.

    Raises:
        UsageError: If the study was not planned.
    """
    if saved := _saved(study, overrides):
        return saved
    recipe = load_study(find_recipe(study, "studies"), overrides)
    return Plan.load(out or Path("studies") / recipe.name)


def _saved(study: str | Path, overrides: Overrides) -> Plan | None:
    """The plan of a folder; None if `study` names a YAML."""
    path = Path(study)
    if not path.is_dir() and path.name != "plan.json":
        return None
    if overrides:
        raise UsageError(f"{path}: settings override a YAML, and this is a planned study.")
    saved = Plan.load(path)
    validate(StudyRecipe, saved.recipe, f"{saved.folder}/plan.json: recipe")
    return saved


def plan(
    study: str | Path,
    overrides: Overrides = (),
    out: str | Path | None = None,
    dry_run: bool = False,
    power: bool = False,
    pilot: str | Path | None = None,
    count: Callable[[Plan], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Plan a study and estimate its cost; of a study with looks, write the jobs of the next look to `targets.json`.

    Args:
        study, overrides, out: See `planned`.
        dry_run: Write nothing.
        power: Add `power`: what the gate and the primary contrasts can decide, see `power.StudyPower`.
        pilot: Folder of another study whose results give variance components, for `power`.
        count: Counts the operations of a plan whose jobs have not run, for `expected_flops`; None: they are not counted.
    """
    made = planned(study, overrides, out, write=not dry_run)
    warn_of_changes(made)
    answer = _costs(made)
    answer["plan"] = None if dry_run else str(made.folder / "plan.json")
    if has_looks(made) and not dry_run:
        answer |= _next(made)
    if count:
        answer["expected_flops"] = count(made)
    if power or pilot:
        from ssl_transfer.study.power import StudyPower

        answer["power"] = StudyPower(made, pilot).answer()
    return answer


def _next(plan: Plan) -> dict[str, Any]:
    """The next look of a study with looks, as another engine needs it."""
    from ssl_transfer.study.look_by_look import TARGETS, in_words, write_targets

    found = write_targets(plan)
    return {
        "looks": [in_words(decision) for decision in found.decisions],
        "next_jobs": len(found.jobs) + len(found.others),
        "targets": str(plan.folder / TARGETS),
    }


def _costs(made: Plan) -> dict[str, Any]:
    """Numbers of jobs and their estimated cost."""
    costs, states = Costs.recorded(made.folder), job_state.status(made).states
    whole = costs.estimate(made.jobs)
    remaining = costs.estimate(job for job in made.jobs if states[job.id] not in ("done", "not needed"))
    return {
        "study": made.name,
        "runs": sum(1 for _ in made.runs),
        "jobs": len(made.jobs),
        "by_stage": made.by_stage(),
        "pretrainings": len(made.arms),
        "hours": whole.hours,
        "gpu_hours": whole.gpu_hours,
        "disk_gb": whole.disk_gb,
        "flops": whole.flops,
        "hours_left": remaining.hours,
        "estimated_from_records": f"{whole.recorded:.0%} of the jobs",
    }


def run(
    study: str | Path,
    perform: Perform,
    check: Callable[[list[str]], None],
    overrides: Overrides = (),
    out: str | Path | None = None,
    jobs: int | None = 1,
) -> dict[str, Any]:
    """Plan a study and run every job that is not done; with looks, only the seeds that its primary contrasts need.

    Args:
        study, overrides, out: See `planned`.
        perform: Runs the arguments of a command in this process.
        check: Raises an error if the recipe or settings of a command are invalid.
        jobs: Number of jobs at once; see `run_plan`.

    Returns:
        Numbers of jobs and runs by state.

    Raises:
        RunError: If a job failed.
    """
    made = planned(study, overrides, out)
    warn_of_changes(made)
    check_settings(made, check)
    result = run_plan(made, perform, jobs=jobs, rounds=rounds_of(made))
    answer = _progress(made, result.states)
    if result.count("failed"):
        say(f"failures and their tracebacks: ssl-transfer study status {made.folder}")
        first = answer["failures"][0]
        raise RunError(
            f"{made.folder}: {result.count('failed')} jobs failed, {result.count('blocked')} need one of them; "
            f"{result.count('done')} are done. The first: {first['title']}: {first['error']}"
        )
    return answer


def rounds_of(plan: Plan) -> Iterator[list[str]] | None:
    """The rounds of a study that is run look by look, see `look_by_look.rounds`; None for any other."""
    if not has_looks(plan):
        return None
    from ssl_transfer.study.look_by_look import rounds

    return rounds(plan)


def check_settings(plan: Plan, check: Callable[[list[str]], None]) -> None:
    """Refuse a study with an invalid setting before its first job; one job of each kind is checked."""
    kinds: dict[tuple, Job] = {}
    done = job_state.done_jobs(plan)
    for job in plan.jobs:
        if job.id not in done:
            settings = tuple(word for word in job.words if "=" in word and not word.startswith(("seed=", "fraction=")))
            kinds.setdefault((job.about.get("arm") if job.stage == "pretrain" else job.words[1], settings), job)
    for job in kinds.values():
        check(job.words)


def status(study: str | Path, overrides: Overrides = (), out: str | Path | None = None) -> dict[str, Any]:
    """Numbers of jobs by state, failures, and the estimated remaining time; arguments as for `opened`."""
    made = opened(study, overrides, out)
    states = job_state.status(made).states
    remaining = [job for job in made.jobs if states[job.id] not in ("done", "not needed")]
    return {**_progress(made, states), "hours_left": Costs.recorded(made.folder).estimate(remaining).hours}


def report(
    study: str | Path, overrides: Overrides = (), out: str | Path | None = None, page: str | Path | None = None
) -> dict[str, Any]:
    """Write the report of the available results.

    Args:
        study, overrides: See `opened`.
        out: Folder of the report; None: the folder of the study. For a YAML, it is also the folder of the study.
        page: A Markdown page that is filled with its tables, figures and texts.
    """
    from ssl_transfer.study.gather import report_study

    answer = report_study(opened(study, overrides, out), out, page=page)
    if Path(study).is_absolute():  # the answer is read where the study was named
        answer["report"] = str(Path(answer["report"]).absolute())
    return answer


def extend(study: str | Path, overrides: Overrides = (), out: str | Path | None = None) -> dict[str, Any]:
    """What would decide the open contrasts of a study, see `extension.extension`; arguments as for `opened`."""
    from ssl_transfer.study.extension import extension

    return extension(opened(study, overrides, out))


def freeze(study: str | Path, overrides: Overrides = (), out: str | Path | None = None) -> dict[str, Any]:
    """Plan a study and write digest and date of its design, see `freeze.freeze`; arguments as for `planned`."""
    return write_frozen(planned(study, overrides, out))


def job(study: str | Path, job_id: str, perform: Perform) -> dict[str, Any]:
    """Run a job of a planned study, for another engine."""
    run_job(Plan.load(study), job_id, perform)
    return {"job": job_id, "done": True}


def _runs_done(plan: Plan, states: dict[str, str]) -> int:
    """Number of evaluations whose results are there."""
    runs = ((run, states[job.id] == "done") for job in plan.jobs for run in job.runs)
    return sum(done or read_json(Path(run["result"])) is not None for run, done in runs)


def _progress(plan: Plan, states: dict[str, str]) -> dict[str, Any]:
    """Numbers of jobs and runs by state, and failures."""
    by_stage: dict[str, dict[str, int]] = {}
    for job in plan.jobs:
        counts = by_stage.setdefault(job.stage, dict.fromkeys(job_state.STATES, 0))
        counts[states[job.id]] += 1
    failures = [
        {
            "id": job.id,
            "title": job.title,
            "error": failure["error"],
            "traceback": str(plan.folder / "jobs" / f"{job.id}.failed.json"),
        }
        for job in plan.jobs
        if states[job.id] == "failed" and (failure := job_state.failure(plan, job))
    ]
    return {
        "study": plan.name,
        **{state.replace(" ", "_"): sum(counts[state] for counts in by_stage.values()) for state in job_state.STATES},
        "by_stage": {stage: {state: n for state, n in counts.items() if n} for stage, counts in by_stage.items()},
        "runs": sum(1 for _ in plan.runs),
        "runs_done": _runs_done(plan, states),
        "failures": failures[:LISTED_FAILURES],
        **({"stopped": stop_sentence(plan.folder)} if has_looks(plan) else {}),
    }
