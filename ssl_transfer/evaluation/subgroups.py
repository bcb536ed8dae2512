"""Subgroups: the metrics of an evaluation for each group of test cases, the worst group, and the gap between groups.

Groups are those of a column of the store, such as sex, age or scanner. A gap between the best and the worst of several groups is
above zero by chance alone, so it comes with the gap that groups have if their values are exchanged between patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas

from ssl_transfer.data.splits import permuted_labels
from ssl_transfer.data.subgroups import NOT_STATED, SEVERAL, subgroup_names
from ssl_transfer.evaluation.contamination import case_positions
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult
from ssl_transfer.measures.case_predictions import LABEL, CasePredictions
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.measures.resampling import draw_counts, patient_intervals, percentile_interval
from ssl_transfer.texts import by_numbers

FEWEST_PATIENTS = 10  # of a group; with fewer, no number is given
MOST_GROUPS = 20  # of a column, the largest ones
PERMUTATIONS = 200
LEVEL = 0.95  # quantile of the gaps by chance
GAP = ("worst", "best", "gap", "gap_interval", "gap_by_chance", "p")  # keys of a column


def subgroup_metrics(context: EvalContext, measured: ProtocolResult) -> dict[str, Any] | None:
    """The test metrics of every subgroup that the task card names.

    Args:
        context: Input of the protocol, or of its test on an external store.
        measured: Its result.

    Returns:
        `metric` (of the task), `fewest_patients`, and `columns`: column -> what `compare_groups` returns. None if the card names
        no column that the store has.
    """
    task, rows = context.task, context.rows["test"]
    named = [column for column in task.card.subgroups or () if column in task.store.columns]
    if not named:
        return None
    cases = CasePredictions(measured.predictions, replace(task.scoring, temperature=measured.temperature))
    positions = case_positions(task, rows, measured.predictions)
    columns = {}
    for column in named:
        names = subgroup_names(column, task.store.column(column)[rows])
        of_case = {case: _one(names[images]) for case, images in positions.items()}
        groups = np.array([of_case[case] for case in cases.cases.tolist()], object)
        options = task.card.metric, tuple(measured.test), context.recipe.resamples, context.draw
        columns[column] = compare_groups(cases, groups, *options)
    return {"metric": task.card.metric, "fewest_patients": FEWEST_PATIENTS, "columns": columns}


def compare_groups(
    cases: CasePredictions, groups: np.ndarray, metric: str, names: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    """Metrics of every group, and the gap between the best and the worst one.

    The gap is compared with that of `PERMUTATIONS` permutations of the groups between patients. A gap beyond chance says that
    the groups differ, not why: they may differ in how hard their cases are.

    Args:
        cases: Predictions of N rows.
        groups: Group of each row, (N,); None: not stated.
        metric: The metric by which groups are compared.
        names: Metrics of a group.
        resamples: Bootstrap samples of the patients; 0: no intervals.
        seed: Fixes the samples and the permutations.

    Returns:
        `groups`: for each its `value`, `cases` and `patients`; and its `metrics`, the `score` (in the metric), its `interval` and
        the classes that it is `without`, or the `reason` why there are none. `left_out`: number of further groups, which are
        smaller. `worst` and `best`: groups; `gap`: between their scores, at least 0; `gap_interval`: its bootstrap interval over
        patients, for these two groups; `gap_by_chance`: 95 % quantile of the gap over permutations; `p`: share of permutations
        with a gap of at least this size. These are None where fewer than two groups have a score.
    """
    sizes = pandas.Series(groups, dtype=object).value_counts()
    shown = sorted(map(str, sizes.index[:MOST_GROUPS]), key=by_numbers)
    entries = [_entry(cases, groups == value, value, metric, names, resamples, seed) for value in shown]
    missing = np.array([value is None for value in groups])
    if missing.any():
        entries.append(_entry(cases, missing, NOT_STATED, metric, names, resamples, seed))
    scored = [entry["value"] for entry in entries if "metrics" in entry and entry["value"] in shown]
    gap: dict[str, Any] = dict.fromkeys(GAP)
    if len(scored) > 1:
        gap = _gap(cases, groups, scored, metric, resamples, seed)
    return {"groups": entries, "left_out": len(sizes) - len(shown), **gap}


def _one(names: np.ndarray) -> str | None:
    """The group of a case: that of its images, `several` if they differ, None if no image has one."""
    distinct = {name for name in names.tolist() if name is not None}
    return distinct.pop() if len(distinct) == 1 else SEVERAL if distinct else None


def _entry(
    cases: CasePredictions, member: np.ndarray, value: str, metric: str, names: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    """Metrics of one group, or the reason why there are none."""
    of_group = replace(cases, table=cases.table[member])
    patients = len(np.unique(of_group.patients))
    entry: dict[str, Any] = {"value": value, "cases": len(np.unique(of_group.cases)), "patients": patients}
    if patients < FEWEST_PATIENTS:
        return entry | {
            "reason": f"{patients} {'patient' if patients == 1 else 'patients'}, fewer than {FEWEST_PATIENTS}"
        }
    classes = cases.kind in ("multiclass", "ordinal")
    labels = [set(table[LABEL].astype(str)) if classes else set() for table in (of_group.table, cases.table)]
    if len(labels[0]) == 1:
        return entry | {"reason": f"all its cases are {labels[0].pop()}"}
    values = of_group.metrics(np.ones((len(of_group.table), 1)))
    if not np.isfinite(values[metric][0]):
        return entry | {"reason": f"{metric} is undefined for its cases"}
    intervals = patient_intervals(
        lambda weights: {metric: of_group.metric(metric, weights)}, of_group.patients, resamples, seed
    )
    if absent := [name for name in cases.classes if name in labels[1] - labels[0]]:
        entry["without"] = absent
    return entry | {
        "metrics": {name: _finite(values[name][0]) for name in names if name in values},
        "score": _finite(values[metric][0]),
        "interval": intervals.get(metric),
    }


def _gap(
    cases: CasePredictions, groups: np.ndarray, scored: Sequence[str], metric: str, resamples: int, seed: int
) -> dict[str, Any]:
    """The gap between the best and the worst of some groups, its interval, and what it is by chance."""
    member = (groups == np.array(scored, object)[:, None]).astype(float)  # (K, N)
    scores = metric_sign(metric) * cases.metric(metric, member.T)
    order = np.argsort(scores, kind="stable")
    worst, best = order[0], order[-1]
    gap = scores[best] - scores[worst]
    found = {"worst": scored[worst], "best": scored[best], "gap": _finite(float(gap)), **dict.fromkeys(GAP[3:])}
    if not resamples:
        return found
    codes, differences = np.unique(cases.patients, return_inverse=True)[1], []
    for counts in draw_counts(codes, resamples, seed):
        of_best, of_worst = (cases.metric(metric, counts.T * member[[group]].T) for group in (best, worst))
        differences.append(metric_sign(metric) * (of_best - of_worst))
    low, high = percentile_interval(np.concatenate(differences))
    by_chance = _gaps_by_chance(cases, groups, scored, metric, seed)
    return found | {
        "gap_interval": None if np.isnan(low) else [low, high],
        "gap_by_chance": _finite(float(np.quantile(by_chance, LEVEL))) if len(by_chance) else None,
        "p": float((1 + (by_chance >= gap).sum()) / (1 + len(by_chance))),
    }


def _gaps_by_chance(
    cases: CasePredictions, groups: np.ndarray, scored: Sequence[str], metric: str, seed: int
) -> np.ndarray:
    """Gaps between the best and the worst group after permuting the groups between patients, at most (PERMUTATIONS,)."""
    kept = np.flatnonzero(np.isin(groups.astype(str), scored))
    codes = pandas.Categorical(groups[kept], categories=list(scored)).codes
    permuted = np.full((len(groups), PERMUTATIONS), -1)
    for number in range(PERMUTATIONS):
        permuted[kept, number] = permuted_labels(codes, cases.patients[kept], (seed, number))
    scores = np.stack([cases.metric(metric, (permuted == code).astype(float)) for code in range(len(scored))])
    scores = scores[:, np.isfinite(scores).all(0)]
    return np.ptp(scores, axis=0)


def _finite(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
