"""Which pretraining for which target: every setting of a target with what its verdicts allow to take, and a summary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

from ssl_transfer.domains import DISTANCE
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.report.dominance import Dominance
from ssl_transfer.study.report.headline import untrained
from ssl_transfer.study.report.wording import JOIN, difference, listed, measure
from ssl_transfer.study.statistics import minimal_detectable_effect
from ssl_transfer.study.table import CELL, SCRATCH

FEW = 4  # arms that a cell of the table names; of more it names those left out, if these are as few


def by_target(contrasts: pd.DataFrame, results: pd.DataFrame) -> list[dict]:
    """One table per target: a row per protocol, strategy, fraction and noise setting.

    What to take are the arms that stand unbeaten with a win of their own. Means decide nothing but which of these
    stands for them in the two contrasts that are shown as evidence (if there are none: which of all arms).

    Args:
        contrasts: At main metrics.
        results: `statistics.summary` of the same cells.

    Returns:
        Dicts of `task`, `metrics` (in words), `several_metrics`, `sentence` and `rows`. A row has the cell's columns, `arms`
        (how many), `take` (names; all if `any` will do), `all_but` (names in place of many), `bond` (what is known among
        several), `boundaries` (boundary, how many have it), `checkpoint` (holds for the checkpoints alone), `across` and
        `random` (see `_evidence`; or None), `n` and `detects` (in units of the metric).
    """
    spreads = {_key(cell): own for cell, own in results.groupby(CELL, dropna=False)}
    random, found = untrained(contrasts), []
    for task, own in contrasts.groupby("task", sort=False):
        cells = own.groupby([name for name in CELL if name != "task"], dropna=False)
        rows = [_row(dict(pairs.iloc[0][CELL]), pairs, spreads, random) for _, pairs in cells]
        metrics = [measure(metric) for metric in dict.fromkeys(own["metric"])]
        found.append(
            {
                "task": task,
                "metrics": listed(metrics),
                "several_metrics": len(metrics) > 1,
                "sentence": _sentence(rows),
                "rows": rows,
            }
        )
    return found


def _key(cell: Iterable) -> tuple[str, ...]:
    return tuple(map(str, cell))  # a NaN does not equal itself, its name does


def _row(cell: dict, pairs: pd.DataFrame, spreads: dict, random: Collection[str]) -> dict:
    standing, own = Dominance.of(pairs), spreads[_key(cell.values())]
    take = standing.arms if standing.all_equivalent else standing.winners
    rest = [arm for arm in standing.arms if arm not in take]
    boundary = dict(zip(own["pretraining"], own["boundary"], strict=True))
    kinds = Counter(SCRATCH if arm in random else boundary[arm] for arm in take)
    means = own.set_index("pretraining")["mean"] * metric_sign(cell["metric"])
    shown = means[[arm for arm in take or standing.arms if arm not in random] or take]
    best = shown.idxmax() if shown.notna().any() else None
    evidence = [_evidence(row, best) for row in pairs[(pairs["a"] == best) | (pairs["b"] == best)].itertuples()]
    evidence.sort(key=lambda one: -np.nan_to_num(means[one["other"]], nan=-np.inf))
    across = [one for one in evidence if one["other"] not in random and one["boundary"] != boundary[best]]
    against = [one for one in evidence if one["other"] in random and best not in random]
    n_a, n_b = min(zip(pairs["n_a"], pairs["n_b"], strict=True), key=sum)
    return {
        **cell,
        "arms": len(standing.arms),
        "take": take,
        "any": standing.all_equivalent,
        "all_but": rest if len(take) > FEW and len(rest) <= FEW else None,
        "bond": standing.bond(take),
        "boundaries": sorted(kinds.items(), key=lambda item: DISTANCE.get(item[0], 4 if item[0] == SCRATCH else 3)),
        "checkpoint": standing.one_checkpoint,
        "across": next(iter(across), None),
        "random": next(iter(against), None),
        "n": f"{n_a} / {n_b}",
        "detects": minimal_detectable_effect(n_a, n_b) * math.sqrt(float(np.mean(np.square(own["sd"])))),
    }


def _evidence(row, best: str) -> dict:
    """A contrast turned so that `best` comes first; `verdict` is then of `best`, and `row` its place in the contrasts."""
    turned = row.a != best
    other, boundary = (row.a, row.boundary_a) if turned else (row.b, row.boundary_b)
    low, high = (-row.ci_high, -row.ci_low) if turned else (row.ci_low, row.ci_high)
    verdict = {"better": "worse", "worse": "better"}.get(row.verdict, row.verdict) if turned else row.verdict
    return {
        "row": row.Index,
        "best": best,
        "other": other,
        "boundary": boundary,
        "p_holm": row.p_holm,
        "difference": -row.difference if turned else row.difference,
        "ci_low": low,
        "ci_high": high,
        "verdict": verdict,
        "holds_for": row.holds_for,
        "name": difference(best, other),
        "alike": best.partition(JOIN)[2] == other.partition(JOIN)[2],
    }


def _sentence(rows: list[dict]) -> str:
    """How often which arms stood unbeaten, and how often pretraining was shown to pay."""
    n, same = len(rows), sum(row["any"] for row in rows)
    wins = Counter(arm for row in rows if not row["any"] for arm in row["take"]).most_common()
    named = wins if len(wins) <= FEW + 1 else wins[:FEW]
    parts = [(arm, f" in {count}") for arm, count in named]
    parts += [(f"{len(wins) - len(named)} others", " in no more than that")] if len(wins) > len(named) else []
    parts += [("no arm", f" in {none}")] if (none := sum(not row["take"] for row in rows)) else []
    if same == n:
        text = "In every setting all arms are equivalent within the margin."
    elif not wins and not same:
        text = (
            f"In none of {n} settings did an arm stand unbeaten with a win."
            if n > 1
            else "No arm stood unbeaten with a win."
        )
    elif n == 1:
        text = f"In the one setting there is, {listed([who for who, _ in parts])} stood unbeaten with a win."
    else:
        (first, count), *others = parts
        said = listed([f"{first} stood unbeaten with a win{count}", *(who + count for who, count in others)])
        text = f"Of {n} settings, {said}" + (f"; in {same} all arms are equivalent within the margin." if same else ".")
    against = Counter(row["random"]["verdict"] for row in rows if row["random"])
    if against:
        lost = f", worse in {against['worse']}" if against["worse"] else ""
        text += f" Against random initialisation the arm shown was better in {against['better']} of {against.total()}{lost}."
    return text
