"""The runs that a study plans, as a tidy table without values: they say how many tests a family has before all runs are done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ssl_transfer.recipe.evaluation import NoiseSection
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.table import class_metrics, noise_setting

COORDINATES = ("protocol", "pretraining", "task", "strategy", "fraction", "pretraining_seed", "seed")


def planned_runs(plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """All evaluations of a study and their metrics, for `statistics.contrasts`; controls are left out.

    The metrics of a target and protocol are those of its finished runs. Where there are none, they are the target's main metric
    and the metrics that the protocol has on other targets, but those of single classes.

    Args:
        plan: The plan of the study.
        frame: The tidy table of its results.
    """
    metrics = _metrics(plan, frame)
    rows = []
    for job in plan.jobs:
        noise = _noise(job.command)
        for run in job.runs:
            if run.get("control") is None:
                shared = {**{name: run[name] for name in COORDINATES}, **noise}
                rows += [{**shared, "metric": metric} for metric in metrics[run["task"], run["protocol"]]]
    names = [*COORDINATES, "noise", "noise_sigma", "metric"]
    return pd.DataFrame(rows, columns=names).astype({"pretraining_seed": "Int64", "seed": "Int64"})


def _metrics(plan: Plan, frame: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """(task, protocol) -> metrics."""
    measured: dict[tuple[str, str], list[str]] = {}
    by_protocol: dict[str, dict[str, None]] = {}
    for task, protocol, metric in frame[["task", "protocol", "metric"]].drop_duplicates().itertuples(index=False):
        measured.setdefault((task, protocol), []).append(metric)
        by_protocol.setdefault(protocol, {})[metric] = None
    found = {}
    for run in plan.runs:
        key = run["task"], run["protocol"]
        if key not in found:
            elsewhere = by_protocol.get(run["protocol"], {})
            main = plan.tasks[run["task"]]["metric"]
            expected = dict.fromkeys([main, *(name for name in elsewhere if name not in class_metrics(elsewhere))])
            found[key] = measured.get(key) or list(expected)
    return found


def _noise(command: Sequence[str]) -> dict[str, Any]:
    """The columns `noise` and `noise_sigma` of the runs of a command."""
    words = (word.partition("=")[::2] for word in command if word.startswith("noise."))
    stated = NoiseSection.model_validate({name.removeprefix("noise."): value for name, value in words})
    return noise_setting(stated.model_dump())
