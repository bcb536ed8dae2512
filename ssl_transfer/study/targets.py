"""Which pretraining for which target: every setting of a target with what its verdicts allow to take, and a summary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import numpy as np
import pandas as pd

from ssl_transfer.result import better
from ssl_transfer.study.headline import untrained
from ssl_transfer.study.standing import Standing
from ssl_transfer.study.statistics import minimal_detectable_effect
from ssl_transfer.study.table import CELL, SCRATCH
from ssl_transfer.study.wording import listed, measure

FEW = 4  # arms that a cell of the table names; of more it names those left out, if these are as few
ORDER = {"none": 0, "soft": 1, "hard": 2}


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
                "task": task, "metrics": listed(metrics), "several_metrics": len(metrics) > 1, "sentence": _sentence(rows),
                "rows": rows,
            }
        )  # fmt: skip
    return found


def _key(cell: Iterable) -> tuple[str, ...]:
    return tuple(map(str, cell))  # a NaN does not equal itself, its name does


def _row(cell: dict, pairs: pd.DataFrame, spreads: dict, random: Collection[str]) -> dict:
    standing, own = Standing.of(pairs), spreads[_key(cell.values())]
    take = standing.arms if standing.all_equivalent else standing.winners
    rest = [arm for arm in standing.arms if arm not in take]
    boundary = dict(zip(own["pretraining"], own["boundary"], strict=True))
    kinds = Counter(SCRATCH if arm in random else boundary[arm] for arm in take)
    means = own.set_index("pretraining")["mean"] * better(cell["metric"])
    trained = [arm for arm in take or standing.arms if arm not in random]
    best = means[trained or take].idxmax() if means[trained or take].notna().any() else None
    n_a, n_b = min(zip(pairs["n_a"], pairs["n_b"], strict=True), key=sum)
    return {
        **cell,
        "arms": len(standing.arms),
        "take": take,
        "any": standing.all_equivalent,
        "all_but": rest if len(take) > FEW and len(rest) <= FEW else None,
        "bond": standing.bond(take),
        "boundaries": sorted(kinds.items(), key=lambda item: ORDER.get(item[0], 4 if item[0] == SCRATCH else 3)),
        "checkpoint": standing.one_checkpoint,
        "across": _best_of(_against(best, pairs, boundary, random), means),
        "random": _best_of(_against(best, pairs, boundary, random, wanted=random), means)
        if best not in random
        else None,
        "n": f"{n_a} / {n_b}",
        "detects": minimal_detectable_effect(n_a, n_b) * math.sqrt(float(np.mean(np.square(own["sd"])))),
    }


def _against(
    best: str | None,
    pairs: pd.DataFrame,
    boundary: dict,
    random: Collection[str],
    wanted: Collection[str] | None = None,
) -> Iterator[dict]:
    """Evidence on `best` and each trained arm of another boundary that it was compared with, or each of those `wanted`."""
    for row in pairs[(pairs["a"] == best) | (pairs["b"] == best)].itertuples():
        other = row.b if row.a == best else row.a
        if other in wanted if wanted is not None else other not in random and boundary[other] != boundary[best]:
            yield _evidence(row, best, other, boundary[other])


def _evidence(row, best: str, other: str, boundary: str) -> dict:
    """A contrast turned so that `best` comes first; `verdict` is then of `best`, and `row` its place in the contrasts."""
    turned = row.a != best
    sign, turn = (-1, {"better": "worse", "worse": "better"}) if turned else (1, {})
    word, *rest = row.verdict.split(" ", 1)
    low, high = (-row.ci_high, -row.ci_low) if turned else (row.ci_low, row.ci_high)
    return {
        "row": row.Index, "best": best, "other": other, "boundary": boundary, "difference": sign * row.difference,
        "ci_low": low, "ci_high": high, "p_holm": row.p_holm, "verdict": " ".join([turn.get(word, word), *rest]),
    }  # fmt: skip


def _best_of(evidence: Iterator[dict], means: pd.Series) -> dict | None:
    """That on the other arm with the best mean."""
    return max(evidence, key=lambda one: np.nan_to_num(means[one["other"]], nan=-np.inf), default=None)


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
    elif n == 1:
        text = f"In the one setting there is, {listed([who for who, _ in parts])} stood unbeaten with a win."
    else:
        (first, count), *others = parts
        said = listed([f"{first} stood unbeaten with a win{count}", *(who + count for who, count in others)])
        text = f"Of {n} settings, {said}" + (f"; in {same} all arms are equivalent within the margin." if same else ".")
    against = Counter(row["random"]["verdict"].split(" ")[0] for row in rows if row["random"])
    if against:
        lost = f", worse in {against['worse']}" if against["worse"] else ""
        text += f" Against random initialisation the arm shown was better in {against['better']} of {against.total()}{lost}."
    return text
