"""Guidance: recommendations as sentences that follow from the verdicts of all pairs of arms in a cell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.study.declared import Stated, of_metric
from ssl_transfer.study.report.primary import primary_noise
from ssl_transfer.study.report.wording import (
    listed,
    measure,
    noisy,
    nominal,
    number,
    percent,
    random_initialisation,
    whole,
    words,
)
from ssl_transfer.study.statistics import Dominance, least_detectable
from ssl_transfer.study.table import CLEAN, SCRATCH, matches, random_init_arms

NAMED = 6  # most arms in a list of a sentence; longer lists end with a count
NAMED_UNDECIDED = 4  # the same for arms that are not shown to be better or worse
AXES = ["task", "strategy", "fraction", "noise", "noise_sigma"]


def answers(
    contrasts: pd.DataFrame, primaries: Sequence[Mapping[str, Any]], margin: Stated = None
) -> list[dict[str, Any]]:
    """Answer primary contrasts that no study has declared: one answer per task, strategy, fraction and noise setting.

    The answer is that of the runs without noise, unless a primary names a noise setting.

    Args:
        contrasts: As `statistics.contrasts` returns them.
        primaries: As for `report.evidence.Evidence`; answered in their order, and no cell twice.
        margin: As for `statistics.contrasts`: an open contrast with a larger estimate has too few seeds.

    Returns:
        Dicts of `where` (task, protocol, fraction, metric, noise), `advice` (what to take), `lead` (its first words: the
        arms alone), `pairs` (contrasts as dicts, those of what to take first), `detects` (what the design can detect) and
        `cell` (columns and values). Empty if nothing was measured there.
    """
    by_key = {}
    for primary in primaries:
        chosen = contrasts[matches(contrasts, {**primary, **primary_noise(primary)})]
        for setting, pairs in chosen.groupby(AXES, dropna=False):
            cell = {**primary, **dict(zip(AXES, setting, strict=True))}
            key = (primary["protocol"], primary["metric"], *map(str, setting))
            has_noise = bool((contrasts["noise"] != CLEAN).any())
            by_key.setdefault(key, _answer(cell, pairs, has_noise, of_metric(margin, primary["metric"])))
    return list(by_key.values())


def _answer(cell: Mapping[str, Any], pairs: pd.DataFrame, has_noise: bool, relevant: float | None) -> dict[str, Any]:
    protocol = " · ".join(filter(None, [words(cell["protocol"]), words(cell["strategy"])]))
    noise = noisy(cell["noise"], cell["noise_sigma"]) or ("without noise" if has_noise else "")
    where = [words(cell["task"]), protocol, _labels(cell["fraction"]), measure(cell["metric"]), noise]
    leaders = Dominance.of(pairs).leaders
    others = ~(pairs["a"].isin(leaders) | pairs["b"].isin(leaders))
    return {
        "where": ", ".join(filter(None, where)),
        "advice": (sentence := advice(pairs, relevant)),
        "lead": sentence.partition(": better than")[0],
        "pairs": pairs.iloc[np.argsort(others, kind="stable")].to_dict("records"),
        "detects": _detects(pairs),
        "cell": dict(cell),
    }


def _labels(fraction: float) -> str:
    return f"with {percent(fraction)} of the labelled patients" if percent(fraction) else ""


def advice(pairs: pd.DataFrame, relevant: float | None = None) -> str:
    """The recommended arms of a cell, as a sentence that follows from the verdicts.

    Args:
        pairs: All contrasts of one cell.
        relevant: The smallest relevant difference. An open contrast with a larger estimate has too few seeds; so has every open
            contrast where None is stated.
    """
    order, random_init = Dominance.of(pairs), random_init_arms(pairs)
    scope = " This holds for the weights compared, not for the way they were trained." if order.one_checkpoint else ""
    if not order.losers:
        return _undecided(order, random_init, few_seeds(pairs, relevant)) + scope
    if not order.leaders:
        names = _names(order.arms, random_init)
        return f"Not decided: among {names}, every arm that is better than another is worse than a third." + scope
    return _take(order, random_init) + scope


def few_seeds(pairs: pd.DataFrame, relevant: float | None) -> bool:
    """Whether the estimate of an open contrast is above the smallest relevant difference (None: any estimate is)."""
    still_open = pairs[pairs["verdict"] == "not decided"]
    return len(still_open) > 0 and (relevant is None or bool((still_open["difference"].abs() > relevant).any()))


def _undecided(order: Dominance, random_init: Collection[str], too_few: bool) -> str:
    names = _names(order.arms, random_init)
    if order.all_equivalent:
        return f"Take any: {names} are equivalent within the stated margin."
    if too_few:
        return f"Too few seeds to tell {names} apart."
    return f"Not decided: {names} are neither shown to differ nor all shown to be equivalent within the margin."


def _take(order: Dominance, random_init: Collection[str]) -> str:
    leaders = order.leaders
    behind = [arm for arm in order.arms if all(arm in order.beaten[leader] for leader in leaders)]
    rest = [arm for arm in order.arms if arm not in behind and arm not in leaders]
    equivalent = [arm for arm in rest if all(frozenset((arm, leader)) in order.equivalent for leader in leaders)]
    apart = [arm for arm in rest if not any(frozenset((arm, leader)) in order.compared for leader in leaders)]
    undecided = [arm for arm in rest if arm not in equivalent and arm not in apart]
    no_pretraining = set(leaders) <= set(random_init)
    text = ("Do not pretrain: " if no_pretraining else "Take ") + _names(leaders, random_init, "or")
    if behind:
        text += f"{' was' if no_pretraining else ':'} better than {_names(behind, random_init)}"
    if equivalent:
        text += f"; equivalent to {_names(equivalent, random_init, most=NAMED_UNDECIDED)} within the margin"
    if undecided:
        each = "each " if len(leaders) > 1 else ""
        text += f"; {each}not decided against {_names(undecided, random_init, most=NAMED_UNDECIDED)}"
    if apart:
        text += f"; not compared with {_names(apart, random_init, most=NAMED_UNDECIDED)}"
    bonds = {
        "equivalent": "; they are equivalent within the margin",
        "not compared": "; they were not compared",
        "not distinguished": "; this design does not distinguish between them",
        "not distinguished where compared": "; this design does not distinguish between those compared",
    }
    return text + bonds.get(order.bond(leaders), "") + "."


def _names(arms: Sequence[str], random_init: Collection[str], word: str = "and", most: int = NAMED) -> str:
    random_arms = [arm for arm in arms if arm in random_init]
    names = [arm for arm in arms if arm not in random_init]
    if random_arms:
        names.append(random_initialisation(random_arms))
    return listed(names, word, most)


def _detects(pairs: pd.DataFrame) -> str:
    """The smallest true difference that the design detects, in a sentence."""
    n_a, n_b = min(zip(pairs["n_a"], pairs["n_b"], strict=True), key=sum)
    if min(n_a, n_b) < 2:
        return f"With {n_a} against {n_b} seeds no difference can be tested: each side needs at least two, better four."
    paired = (pairs["test"] == "paired").all()
    effect, absolute = least_detectable(pairs)
    units = "standard deviations of paired differences" if paired else "standard deviations"
    about = f", here about {number(absolute)}" if absolute > 0 else ""
    return (
        f"Detectable difference: with {f'{n_a} pairs of' if paired else f'{n_a} against {n_b}'} seeds, 80 % power at the level "
        f"that decides ({nominal(pairs['level'].min())}) needs a true difference of {effect:.2g} {units}{about}. "
        "A smaller difference may exist and remain undecided."
    )


def unequal_budget(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings where pretrainings saw different numbers of images or steps: they differ in more than the domain.

    Args:
        arms: As for `report.evidence.Evidence`.
    """
    warnings = []
    for budget in ("images", "steps"):
        trained = [arm for arm in arms if SCRATCH not in (arm["name"], arm.get("boundary"))]
        budgets = {arm["name"]: arm[budget] for arm in trained if arm.get(budget) is not None}
        if len(set(budgets.values())) > 1:
            values = ", ".join(f"{name} {whole(value)}" for name, value in budgets.items())
            warnings.append(f"Unequal budget: pretrainings differ in {budget} ({values}), so not in domain alone.")
    return warnings
