"""What a study declares, resolved for its plan, and what is decided of it on the results there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ssl_transfer.study.arms import compared
from ssl_transfer.study.comparisons import Comparisons, Contrast, Statistics, looks_of
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.statistics import Decision, decide

OVER = ("done", "failed", "blocked")  # states of jobs that a look does not wait for


def study_comparisons(plan: Plan, frame: pd.DataFrame) -> Comparisons:
    """The declared contrasts, resolved by the metrics and boundaries of the results; before there are any, by the plan.

    Args:
        plan: The plan of the study.
        frame: The tidy table of its results.
    """
    targets = {(run["task"], run["protocol"]): [plan.tasks[run["task"]]["metric"]] for run in plan.runs}
    for (task, protocol), runs in frame.groupby(["task", "protocol"], sort=False):
        measured = dict.fromkeys(runs["metric"])
        main = [name for name in targets.get((task, protocol), []) if name in measured]
        targets[task, protocol] = list(dict.fromkeys([*main, *measured]))
    statistics = Statistics.model_validate(plan.recipe["statistics"])
    pairs = statistics.pairs or compared(plan.arms)
    return Comparisons(statistics, plan.arms, pairs, targets, boundaries(frame))


def boundaries(frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(pretraining, task) -> boundary, from the results."""
    known = frame.dropna(subset=["boundary"]).groupby(["pretraining", "task"])["boundary"].first()
    return {(str(arm), str(task)): str(boundary) for (arm, task), boundary in known.items()}


def study_decisions(plan: Plan, frame: pd.DataFrame, states: Mapping[str, str]) -> list[Decision]:
    """The gate and the primary contrasts, decided on the results.

    Args:
        plan: The plan of the study.
        frame: The tidy table of its results.
        states: Job -> state, as `engine.status` returns them; seeds of jobs still to come are waited for.
    """
    comparisons = study_comparisons(plan, frame)
    seeds = planned_seeds(plan)
    statistics, primaries = comparisons.statistics, comparisons.primaries()
    return decide(
        frame,
        comparisons.gate(),
        primaries,
        looks=looks_of(statistics, seeds),
        spending=statistics.spent,
        margin=statistics.margin,
        seeds=seeds,
        pending=pending_seeds(plan, states),
    )


def planned_seeds(plan: Plan) -> list[int]:
    """Pretraining seeds of all arms, in the order in which they are run."""
    return list(dict.fromkeys(seed for arm in plan.arms for seed in arm["seeds"] if seed is not None))


def pending_seeds(plan: Plan, states: Mapping[str, str]) -> dict[str, set[int]]:
    """Pretraining -> its seeds with evaluations still to come; controls are not waited for."""
    pending: dict[str, set[int]] = {}
    for job in plan.jobs:
        if any("control" not in run for run in job.runs) and states[job.id] not in OVER:
            pending.setdefault(job.about["arm"], set()).add(job.about["seed"])
    return pending


def primary_cells(contrast: Contrast) -> dict[str, Any]:
    """The columns of the tidy table that a stated contrast names, for the figures and tables that show the same runs."""
    cells = {
        "protocol": contrast.protocol,
        "metric": contrast.metric,
        "fraction": contrast.fractions,
        "task": contrast.on.task,
        "strategy": contrast.on.strategy,
        "noise": contrast.noise,
        "noise_sigma": contrast.noise_sigma,
    }
    return {name: value for name, value in cells.items() if value is not None}
