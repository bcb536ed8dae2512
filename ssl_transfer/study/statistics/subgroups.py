"""Subgroups of a study: the mean score of each group of test cases, and the gap between the best and the worst group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.data.subgroups import NOT_STATED
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.result import EvalResult
from ssl_transfer.study.statistics.tables import summary
from ssl_transfer.study.table import CELL, COLUMNS, coordinates

ARM = [*CELL, "pretraining"]
BEYOND = 0.05  # p of a permutation test
OF_GROUP = {"store": "string", "column": "string", "group": "string", "patients": "Int64"}
OF_GROUP |= {"gap_by_chance": "float64", "p": "float64"}
SUBGROUP_COLUMNS = [
    "store",
    "column",
    *ARM,
    "groups",
    "worst",
    "worst_value",
    "best",
    "best_value",
    "gap",
    "ci_low",
    "ci_high",
]
SUBGROUP_COLUMNS += ["gap_by_chance", "beyond_chance", "runs", "n"]


def subgroup_runs(results: Iterable[EvalResult]) -> pd.DataFrame | None:
    """Tidy table of subgroups, a row per run, test, column and group with a score; None if no result has one.

    Args:
        results: Evaluation results.

    Returns:
        Columns of `COLUMNS`, of which `value` is the score of the group; `store` (name of the external store; empty: the own
        test), `column`, `group`, `patients`; and `gap_by_chance` and `p` of the run, test and column.
    """
    rows = [
        {
            **coordinates(result),
            "boundary": result.boundary,
            "run_id": result.run_id,
            "draw": result.draw,
            "metric": subgroups["metric"],
            "value": group["score"],
            "store": store,
            "column": column,
            "group": group["value"],
            "patients": group["patients"],
            "gap_by_chance": compared["gap_by_chance"],
            "p": compared["p"],
        }
        for result in results
        for store, subgroups in _of_tests(result)
        for column, compared in subgroups["columns"].items()
        for group in compared["groups"]
        if "score" in group
    ]
    types = {**COLUMNS, **OF_GROUP}
    return pd.DataFrame(rows, columns=list(types)).astype(types) if rows else None


def _of_tests(result: EvalResult) -> Iterator[tuple[str, dict[str, Any]]]:
    """The subgroups of the own test, and of each external test that has some, by the name of its store."""
    if result.subgroups:
        yield "", result.subgroups
    for store, test in result.external.items():
        if test.get("subgroups"):
            yield store, test["subgroups"]


def subgroup_gaps(runs: pd.DataFrame) -> pd.DataFrame:
    """The gap between the groups with the best and the worst mean, of each test of an arm in a cell, with its 95 % t-interval.

    The gap is paired within a run, below 0 where its worst group is not that of the means; the units of the interval are those
    of `summary`. Cases without a value are compared with no group.

    Args:
        runs: Of `subgroup_runs`.

    Returns:
        `SUBGROUP_COLUMNS`: `groups` (each with its mean), `gap` = best − worst in the direction of the metric, `gap_by_chance`
        (mean over runs of the 95 % quantile over permutations), and in how many of the `runs` p is at most .05
        (`beyond_chance`). Cells with fewer than two groups are left out.
    """
    rows = [_gap(of_arm) for _, of_arm in runs.groupby(["store", "column", *ARM], dropna=False, sort=False)]
    rows = [row for row in rows if row is not None]
    return pd.concat(rows, ignore_index=True)[SUBGROUP_COLUMNS] if rows else pd.DataFrame(columns=SUBGROUP_COLUMNS)


def _gap(of_arm: pd.DataFrame) -> pd.DataFrame | None:
    """The row of one test of an arm in one cell, grouped by one column."""
    compared = of_arm[of_arm["group"] != NOT_STATED].dropna(subset="p")
    means = compared.groupby("group")["value"].mean()
    if len(means) < 2:
        return None
    sign = metric_sign(of_arm["metric"].iloc[0])
    order = np.argsort(sign * means.to_numpy(), kind="stable")
    worst, best = means.index[order[0]], means.index[order[-1]]
    of_worst, of_best = (compared[compared["group"] == name].set_index("run_id") for name in (worst, best))
    gaps = sign * (of_best["value"] - of_worst["value"])
    gaps = summary(of_best.assign(value=gaps).dropna(subset="value").reset_index())
    runs = compared.drop_duplicates("run_id")
    return gaps.assign(
        store=of_arm["store"].iloc[0],
        column=of_arm["column"].iloc[0],
        groups=", ".join(f"{name} {mean:.3f}" for name, mean in means.items()),
        worst=worst,
        worst_value=means[worst],
        best=best,
        best_value=means[best],
        gap=gaps["mean"],
        gap_by_chance=runs["gap_by_chance"].mean(),
        beyond_chance=int((runs["p"] <= BEYOND).sum()),
        runs=len(runs),
    )
