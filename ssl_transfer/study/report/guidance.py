"""Guidance: which pretraining to take, in sentences that claim no more than the verdicts do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from ssl_transfer.study.report.primary import STRATEGIES, matches, primary_noise
from ssl_transfer.study.report.wording import listed, measure, noisy, number, percent, whole, words
from ssl_transfer.study.statistics import Dominance, minimal_detectable_effect
from ssl_transfer.study.table import CLEAN, SCRATCH, random_init_arms

NAMED = 6  # arms that a list in a sentence names; of more it names one fewer and counts the rest
NAMED_OPEN = 4  # the same for those that nothing was decided about
AXES = ["task", "strategy", "fraction", "noise", "noise_sigma"]


def answers(
    contrasts: pd.DataFrame, results: pd.DataFrame, primaries: Sequence[Mapping], strategies: pd.DataFrame | None = None
) -> list[dict]:
    """What the primary contrasts say: one answer per task, strategy, fraction and noise setting they were taken on.

    The answer is that of the runs without noise, unless `primary` names a noise setting. A primary with `compare: strategies`
    is answered per pretraining instead: by which strategy to adapt it.

    Args:
        contrasts: As `statistics.contrasts` returns them.
        results: As `statistics.summary` returns them.
        primaries: As for `report.evidence.Evidence`; answered in their order, and no cell twice.
        strategies: As `statistics.strategy_contrasts` returns them.

    Returns:
        Dicts of `where` (task, protocol, fraction, metric, noise), `advice` (what to take), `lead` (its first words: the
        arms alone), `pairs` (contrasts as dicts, those of what to take first), `detects` (what the design can find) and
        `cell` (columns and values). Empty if nothing was measured there.
    """
    found = {}
    for one in primaries:
        if one.get("compare") == STRATEGIES:
            found |= _strategy_answers(one, strategies)
            continue
        chosen = contrasts[matches(contrasts, {**one, **primary_noise(one)})]
        for setting, pairs in chosen.groupby(AXES, dropna=False):
            cell = {**one, **dict(zip(AXES, setting, strict=True))}
            key = (one["protocol"], one["metric"], *map(str, setting))
            found.setdefault(key, _answer(cell, pairs, results, bool((contrasts["noise"] != CLEAN).any())))
    return list(found.values())


def _strategy_answers(primary: Mapping, strategies: pd.DataFrame | None) -> dict[tuple, dict]:
    """By which strategy to adapt each pretraining, for every task and fraction."""
    if strategies is None or strategies.empty:
        return {}
    found, wanted = (
        {},
        {**{key: value for key, value in primary.items() if key != "strategy"}, **primary_noise(primary)},
    )
    chosen = strategies[matches(strategies, wanted)].assign(boundary_a="", boundary_b="", strategy="")
    chosen = chosen.assign(n_a=chosen["n"], n_b=chosen["n"], a=chosen["a"].map(words), b=chosen["b"].map(words))
    for (task, arm, fraction), pairs in chosen.groupby(["task", "pretraining", "fraction"], dropna=False):
        share = f"with {percent(fraction)} of the labelled patients" if percent(fraction) else ""
        where = [words(task), f"{words(primary['protocol'])} of {arm}", share, measure(primary["metric"])]
        unit = "pretraining" if (pairs["unit"] == "pretraining_seed").all() else "fine-tuning"
        key = (STRATEGIES, primary["protocol"], primary["metric"], task, arm, str(fraction))
        found[key] = {
            "where": ", ".join(filter(None, where)),
            "advice": (said := advice(pairs)),
            "lead": said.partition(": better than")[0],
            "pairs": pairs.to_dict("records"),
            "cell": {**primary, "task": task, "fraction": fraction},
            "detects": f"Strategies start from the same backbones, so they are compared in pairs over {unit} seeds: "
            f"n = {pairs['n'].min()}.",
        }
    return found


def _answer(cell: Mapping, pairs: pd.DataFrame, results: pd.DataFrame, noise_exists: bool) -> dict:
    protocol = " · ".join(filter(None, [words(cell["protocol"]), words(cell["strategy"])]))
    share = f"with {percent(cell['fraction'])} of the labelled patients" if percent(cell["fraction"]) else ""
    noise = noisy(cell["noise"], cell["noise_sigma"]) or ("without noise" if noise_exists else "")
    leaders = Dominance.of(pairs).leaders
    others = ~(pairs["a"].isin(leaders) | pairs["b"].isin(leaders))
    return {
        "where": ", ".join(filter(None, [words(cell["task"]), protocol, share, measure(cell["metric"]), noise])),
        "advice": (said := advice(pairs)),
        "lead": said.partition(": better than")[0],
        "pairs": pairs.iloc[np.argsort(others, kind="stable")].to_dict("records"),
        "detects": _detects(pairs, results.loc[matches(results, cell), "sd"]),
        "cell": dict(cell),
    }


def advice(pairs: pd.DataFrame) -> str:
    """Which arm to take, in a sentence that claims no more than the verdicts do.

    Args:
        pairs: All contrasts of one cell.
    """
    standing, random = Dominance.of(pairs), random_init_arms(pairs)
    only = " This holds for the checkpoints compared, not for their recipes." if standing.one_checkpoint else ""
    if not standing.losers:
        return _undecided(standing, random) + only
    if not standing.leaders:
        names = _names(standing.arms, random)
        return f"Not decided: no arm stands unbeaten with a win of its own among {names}; see the pairs below." + only
    return _take(standing, random) + only


def _undecided(standing: Dominance, random: Collection[str]) -> str:
    if standing.all_equivalent:
        return f"Take any: {_names(standing.arms, random)} are equivalent within the stated margin."
    text = f"Not decided: this design does not tell {_names(standing.arms, random)} apart."
    some = random.intersection(standing.arms)
    return text + (" No pretraining was shown to be better than random initialisation." if some else "")


def _take(standing: Dominance, random: Collection[str]) -> str:
    leaders, beaten = standing.leaders, standing.beaten
    behind = [arm for arm in standing.arms if all(arm in beaten[leader] for leader in leaders)]
    rest = [arm for arm in standing.arms if arm not in behind and arm not in leaders]
    same = [arm for arm in rest if all(frozenset((arm, leader)) in standing.equivalent for leader in leaders)]
    apart = [arm for arm in rest if not any(frozenset((arm, leader)) in standing.compared for leader in leaders)]
    open_ = [arm for arm in rest if arm not in same and arm not in apart]
    none = set(leaders) <= set(random)
    text = ("Do not pretrain: " if none else "Take ") + _names(leaders, random, "or")
    if behind:
        text += f"{' was' if none else ':'} better than {_names(behind, random)}"
    if same:
        text += f"; equivalent to {_names(same, random, most=NAMED_OPEN)} within the margin"
    if open_:
        each = " for each of them" if len(leaders) > 1 else ""
        text += f"; against {_names(open_, random, most=NAMED_OPEN)} the design does not decide{each}"
    if apart:
        text += f"; not compared with {_names(apart, random, most=NAMED_OPEN)}"
    ends = {
        "equivalent": "; they are equivalent within the margin",
        "not compared": "; they were not compared",
        "not told apart": "; between them the design does not decide",
        "not told apart where compared": "; between those compared the design does not decide",
    }
    return text + ends.get(standing.bond(leaders), "") + "."


def _names(arms: Sequence[str], random: Collection[str], word: str = "and", most: int = NAMED) -> str:
    untrained_arms = [arm for arm in arms if arm in random]
    names = [arm for arm in arms if arm not in random]
    if untrained_arms:
        names.append(f"random initialisation ({', '.join(untrained_arms)})")
    return listed(names, word, most)


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


def unequal_budget(arms: list[dict]) -> list[str]:
    """Warnings where pretrainings saw different numbers of images or steps: they do not differ in domain alone.

    Args:
        arms: As for `report.evidence.Evidence`.
    """
    found = []
    for budget in ("images", "steps"):
        trained = [arm for arm in arms if SCRATCH not in (arm["name"], arm.get("boundary"))]
        known = {arm["name"]: arm[budget] for arm in trained if arm.get(budget) is not None}
        if len(set(known.values())) > 1:
            shares = ", ".join(f"{name} {whole(value)}" for name, value in known.items())
            found.append(f"Unequal budget: pretrainings differ in {budget} ({shares}), so not in domain alone.")
    return found
