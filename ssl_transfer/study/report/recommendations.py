"""Recommendations: for every setting of a target, which pretrainings its verdicts recommend, with their evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.domains import DISTANCE
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.declared import Stated, of_metric
from ssl_transfer.study.report.guidance import few_seeds
from ssl_transfer.study.report.wording import JOIN, difference, listed, measure, units_used
from ssl_transfer.study.statistics import EXPLORATORY, Dominance, least_detectable
from ssl_transfer.study.table import CELL, SCRATCH, random_init_arms

FEW = 4  # arms that a table cell lists; with more, it lists the excluded arms if these are few


def recommendations(contrasts: pd.DataFrame, results: pd.DataFrame, margin: Stated = None) -> list[dict]:
    """One table per target: a row per protocol, strategy, fraction and noise setting.

    Recommended are the undominated arms: no other is better, and they are better than at least one. Means decide only which
    of these represents them in the two contrasts shown as evidence (of all arms, where none is recommended).

    Args:
        contrasts: At main metrics.
        results: `statistics.summary` of the same cells.
        margin: As for `statistics.contrasts`.

    Returns:
        Dicts of `task`, `metrics` (in words), `several_metrics`, `sentence` and `rows`. A row has the cell's columns, `arms`
        (how many), `take` (names of the recommended; all if `any` will do), `few_seeds` (see `guidance.few_seeds`), `all_but`
        (names in place of many), `bond` (what is known among several), `boundaries` (boundary, how many have it), `checkpoint`
        (holds for these weights alone), `across` and `random_init` (see `_comparison`; or None), `n` and `detects` (in units
        of the metric).
    """
    by_cell = {_key(cell): arms for cell, arms in results.groupby(CELL, dropna=False)}
    random_init, targets = random_init_arms(contrasts), []
    for task, of_task in contrasts.groupby("task", sort=False):
        cells = of_task.groupby([name for name in CELL if name != "task"], dropna=False)
        rows = [_row(dict(pairs.iloc[0][CELL]), pairs, by_cell, random_init, margin) for _, pairs in cells]
        metrics = [measure(metric) for metric in dict.fromkeys(of_task["metric"])]
        targets.append(
            {
                "task": task,
                "metrics": listed(metrics),
                "several_metrics": len(metrics) > 1,
                "sentence": _sentence(rows),
                "rows": rows,
            }
        )
    return targets


def _key(cell: Iterable) -> tuple[str, ...]:
    return tuple(map(str, cell))  # NaN does not equal itself, its name does


def _row(
    cell: dict, pairs: pd.DataFrame, by_cell: dict, random_init: Collection[str], margin: Stated
) -> dict[str, Any]:
    order, results = Dominance.of(pairs), by_cell[_key(cell.values())]
    take = order.arms if order.all_equivalent else order.winners
    rest = [arm for arm in order.arms if arm not in take]
    boundary = dict(zip(results["pretraining"], results["boundary"], strict=True))
    kinds = Counter(SCRATCH if arm in random_init else boundary[arm] for arm in take)
    means: Any = results.set_index("pretraining")["mean"] * metric_sign(cell["metric"])
    shown = means[[arm for arm in take or order.arms if arm not in random_init] or take]
    best: Any = shown.idxmax() if shown.notna().any() else None
    rows = [_comparison(row, best) for row in pairs[(pairs["a"] == best) | (pairs["b"] == best)].itertuples()]
    rows.sort(key=lambda row: -np.nan_to_num(means[row["other"]], nan=-np.inf))
    across = [row for row in rows if row["other"] not in random_init and row["boundary"] != boundary[best]]
    against = [row for row in rows if row["other"] in random_init and best not in random_init]
    row_of_fewest: Any = (pairs["n_a"] + pairs["n_b"]).idxmin()
    fewest: Any = pairs.loc[row_of_fewest]
    return {
        **cell,
        "arms": len(order.arms),
        "take": take,
        "any": order.all_equivalent,
        "few_seeds": few_seeds(pairs, of_metric(margin, cell["metric"])),
        "all_but": rest if len(take) > FEW and len(rest) <= FEW else None,
        "bond": order.bond(take),
        "boundaries": sorted(kinds.items(), key=lambda item: DISTANCE.get(item[0], 4 if item[0] == SCRATCH else 3)),
        "checkpoint": order.one_checkpoint,
        "across": next(iter(across), None),
        "random_init": next(iter(against), None),
        "n": units_used(fewest.n_a, fewest.n_b, fewest.test),
        "detects": least_detectable(pairs)[1],
    }


def _comparison(row, best: str) -> dict[str, Any]:
    """A contrast turned so that `best` comes first; `verdict` is then of `best`, and `row` its index in the contrasts."""
    turned = row.a != best
    other, boundary = (row.a, row.boundary_a) if turned else (row.b, row.boundary_b)
    low, high = (-row.ci_high, -row.ci_low) if turned else (row.ci_low, row.ci_high)
    return {
        "row": row.Index,
        "best": best,
        "other": other,
        "boundary": boundary,
        "p": row.p_bh if row.family == EXPLORATORY else row.p_holm,
        "level": row.level,
        "difference": -row.difference if turned else row.difference,
        "ci_low": low,
        "ci_high": high,
        "verdict": {"better": "worse", "worse": "better"}.get(row.verdict, row.verdict) if turned else row.verdict,
        "holds_for": row.holds_for,
        "name": difference(best, other),
        "alike": best.partition(JOIN)[2] == other.partition(JOIN)[2],
    }


def _sentence(rows: list[dict]) -> str:
    """In how many settings each arm is recommended, and in how many pretraining is better than random initialisation."""
    n, equivalent = len(rows), sum(row["any"] for row in rows)
    wins = Counter(arm for row in rows if not row["any"] for arm in row["take"]).most_common()
    if equivalent == n:
        text = "In every setting all arms are equivalent within the margin."
    elif not wins and not equivalent:
        text = f"In none of {n} settings is an arm recommended." if n > 1 else "No arm is recommended."
    elif n == 1:
        text = f"In the one setting, {listed([arm for arm, _ in wins])} {'are' if len(wins) > 1 else 'is'} recommended."
    else:
        text = f"Of {n} settings, " + _counted(wins, sum(not row["take"] for row in rows))
        text += f"; in {equivalent} all arms are equivalent within the margin." if equivalent else "."
    against = Counter(row["random_init"]["verdict"] for row in rows if row["random_init"])
    if against:
        lost = f", worse in {against['worse']}" if against["worse"] else ""
        text += (
            f" The arm shown is better than random initialisation in {against['better']} of {against.total()}{lost}."
        )
    return text


def _counted(wins: list[tuple[str, int]], none: int) -> str:
    """The arms recommended most often, and how often none was: `CT is recommended in 3, cells in 1 and no arm in 2`."""
    named = wins if len(wins) <= FEW + 1 else wins[:FEW]
    parts = [(arm, f" in {count}") for arm, count in named]
    parts += [(f"{len(wins) - len(named)} others", " in no more than that")] if len(wins) > len(named) else []
    parts += [("no arm", f" in {none}")] if none else []
    if not parts:
        return "none has a recommendation"
    (first, count), *others = parts
    return listed([f"{first} is recommended{count}", *(arm + count for arm, count in others)])
