"""Guidance: which pretraining to take, in sentences that claim no more than the verdicts do."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ssl_transfer.study.statistics import minimal_detectable_effect
from ssl_transfer.study.table import CELL, CLEAN, SCRATCH
from ssl_transfer.study.wording import measure, noisy, number, percent, whole, words


def answers(contrasts: pd.DataFrame, results: pd.DataFrame, primary: Mapping) -> list[dict]:
    """What the primary contrasts say: one answer per task, strategy and noise setting they were taken on.

    The answer is that of the runs without noise, unless `primary` names a noise setting.

    Args:
        contrasts: As `statistics.contrasts` returns them.
        results: As `statistics.summary` returns them.
        primary: As for `report.write_report`.

    Returns:
        Dicts of `where` (task, protocol, fraction, metric, noise), `advice` (what to take), `pairs` (contrasts as dicts)
        and `detects` (what the design can find). Empty if nothing was measured there.
    """
    chosen = contrasts[matches(contrasts, {**primary, **primary_noise(primary)})]
    found, axes = [], ["task", "strategy", "fraction", "noise", "noise_sigma"]
    clean = "without noise" if (contrasts["noise"] != CLEAN).any() else ""
    for setting, pairs in chosen.groupby(axes, dropna=False):
        task, strategy, fraction, noise, sigma = setting
        cell = {**primary, **dict(zip(axes, setting, strict=True))}
        protocol = " · ".join(filter(None, [words(primary["protocol"]), words(strategy)]))
        share = f"with {percent(fraction)} of the labelled patients" if percent(fraction) else ""
        parts = [words(task), protocol, share, measure(primary["metric"]), noisy(noise, sigma) or clean]
        where = ", ".join(filter(None, parts))
        spread = results.loc[matches(results, cell), "sd"]
        found.append(
            {
                "where": where,
                "advice": advice(pairs),
                "pairs": pairs.to_dict("records"),
                "detects": _detects(pairs, spread),
            }
        )
    return found


def advice(pairs: pd.DataFrame) -> str:
    """Which arm to take, in a sentence that claims no more than the verdicts do.

    Args:
        pairs: All contrasts of one cell.
    """
    arms = list(dict.fromkeys([*pairs["a"], *pairs["b"]]))
    beaten = {arm: set() for arm in arms}  # arm -> those it was better than
    equivalent = set()
    for row in pairs.itertuples():
        if row.verdict.startswith("better"):
            beaten[row.a].add(row.b)
        elif row.verdict.startswith("worse"):
            beaten[row.b].add(row.a)
        elif row.verdict.startswith("equivalent"):
            equivalent.add(frozenset((row.a, row.b)))
    decided = ~pairs["verdict"].str.startswith("not decided")
    one_checkpoint = (decided & (pairs["unit"] == "seed")).any()
    only = " This holds for the checkpoints compared, not for their recipes." if one_checkpoint else ""
    losers = set().union(*beaten.values())
    if not losers:
        return _undecided(arms, equivalent) + only
    unbeaten = [arm for arm in arms if arm not in losers]
    most = max((len(beaten[arm]) for arm in unbeaten), default=0)
    leaders = [arm for arm in unbeaten if len(beaten[arm]) == most > 0]
    if not leaders:
        return (
            f"Not decided: no arm stands unbeaten with a win of its own among {_list(arms)}; see the pairs below."
            + only
        )
    return _take(leaders, arms, beaten, equivalent) + only


def _undecided(arms: list[str], equivalent: set) -> str:
    if len(equivalent) == len(arms) * (len(arms) - 1) // 2:
        return f"Take any: {_list(arms)} are equivalent within the stated margin."
    text = f"Not decided: this design does not tell {_list(arms)} apart."
    return text + (" No pretraining was shown to be better than random initialisation." if SCRATCH in arms else "")


def _take(leaders: list[str], arms: list[str], beaten: dict, equivalent: set) -> str:
    behind = [arm for arm in arms if all(arm in beaten[leader] for leader in leaders)]
    rest = [arm for arm in arms if arm not in behind and arm not in leaders]
    same = [arm for arm in rest if all(frozenset((arm, leader)) in equivalent for leader in leaders)]
    open_ = [arm for arm in rest if arm not in same]
    start = "Do not pretrain: " if leaders == [SCRATCH] else "Take "
    text = start + _list(leaders, "or")
    if behind:
        text += f"{' was' if leaders == [SCRATCH] else ':'} better than {_list(behind)}"
    if same:
        text += f"; equivalent to {_list(same)} within the margin"
    if open_:
        each = " for each of them" if len(leaders) > 1 else ""
        text += f"; against {_list(open_)} the design does not decide{each}"
    if len(leaders) > 1:
        together = all(frozenset((x, y)) in equivalent for x in leaders for y in leaders if x != y)
        text += "; they are equivalent within the margin" if together else "; between them the design does not decide"
    return text + "."


def _list(arms: list[str], word: str = "and") -> str:
    names = ["random initialisation (scratch)" if arm == SCRATCH else arm for arm in arms]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _detects(pairs: pd.DataFrame, spread: pd.Series) -> str:
    n_a, n_b = min(zip(pairs["n_a"], pairs["n_b"], strict=True), key=sum)
    effect = minimal_detectable_effect(n_a, n_b)
    if math.isnan(effect):
        return f"With {n_a} against {n_b} no difference can be tested: each side needs two seeds at least, better four."
    pooled = math.sqrt(float(np.mean(np.square(spread)))) if len(spread) else math.nan
    absolute = f", here about {number(effect * pooled)}" if pooled > 0 else ""
    return (
        f"What this design can detect: with {n_a} against {n_b} seeds, 80 % power needs a true difference of "
        f"{effect:.2g} standard deviations{absolute}, and more after correction for several tests. "
        "A smaller difference may exist and stay undecided."
    )


def primary_noise(primary: Mapping) -> dict:
    """The noise setting of the headline: what `primary` names of `noise` and `noise_sigma`, else none."""
    named = {name: primary[name] for name in ("noise", "noise_sigma") if primary.get(name) is not None}
    return named or {"noise": CLEAN}


def matches(table: pd.DataFrame, cell: Mapping) -> np.ndarray:
    """Which rows of a table lie in a cell; what the cell leaves out or has as None, and names of no cell, are any.

    Args:
        table: With the columns that the cell names.
        cell: Columns of `CELL` and their values; others are not looked at.
    """
    keep = np.ones(len(table), bool)
    for name, value in cell.items():
        if name not in CELL or value is None:
            continue
        number_like = name in ("fraction", "noise_sigma")
        column = table[name].astype(float) if number_like else table[name]
        keep &= np.isclose(column, value, equal_nan=True) if number_like else (column == value).to_numpy(bool)
    return keep


def unequal_budget(arms: list[dict]) -> list[str]:
    """Warnings where pretrainings saw different numbers of images or steps: they do not differ in domain alone.

    Args:
        arms: As for `report.write_report`.
    """
    found = []
    for budget in ("images", "steps"):
        known = {a["name"]: a[budget] for a in arms if a["name"] != SCRATCH and a.get(budget) is not None}
        if len(set(known.values())) > 1:
            shares = ", ".join(f"{name} {whole(value)}" for name, value in known.items())
            found.append(f"Unequal budget: pretrainings differ in {budget} ({shares}), so not in domain alone.")
    return found
