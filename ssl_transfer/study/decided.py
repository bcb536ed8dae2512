"""What is decided of a study's gate and primary contrasts on the results there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ssl_transfer.study.comparisons import Contrast, looks_of
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.planned_contrasts import planned_seeds, study_comparisons
from ssl_transfer.study.statistics import Decision, decide

OVER = ("done", "failed", "blocked")  # states of jobs that a look does not wait for


def study_decisions(plan: Plan, frame: pd.DataFrame, states: Mapping[str, str]) -> list[Decision]:
    """The gate and the primary contrasts, decided on the results.

    Args:
        plan: The plan of the study.
        frame: The tidy table of its results.
        states: Job -> state, as `job_state.status` returns them; seeds of jobs still to come are waited for.
    """
    comparisons = study_comparisons(plan, frame)
    statistics, gate, primaries = comparisons.statistics, comparisons.gate(), comparisons.primaries()
    seeds = planned_seeds(plan, [gate, *primaries])
    return decide(
        frame,
        gate,
        primaries,
        looks=looks_of(statistics, seeds),
        spending=statistics.spent,
        margin=statistics.margin,
        seeds=seeds,
        pending=pending_seeds(plan, states),
    )


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
