"""Claims: what a decision on a declared contrast allows to be said, as a sentence with its numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.declared import DeclaredContrast, Stated, of_metric
from ssl_transfer.study.report.wording import (
    JOIN,
    confidence,
    listed,
    measure,
    noisy,
    nominal,
    number,
    p_equals,
    percent,
    random_initialisation,
    words,
)
from ssl_transfer.study.statistics import Decision, Look
from ssl_transfer.study.statistics.contrast_units import CHECKPOINTS
from ssl_transfer.study.statistics.verdicts import BETTER, BOTH, WITHIN_MARGIN
from ssl_transfer.study.table import SCRATCH

CONSTANT = "values do not vary"


@dataclass(frozen=True)
class Claim:
    """A sentence on a contrast in two parts: what is claimed, and the numbers.

    Attributes:
        text: The claim, without a full stop.
        numbers: Effect, interval that agrees with the verdict, level and look, p, n and df; empty before the first look.
        scope: What the claim is limited to, as a sentence; empty: nothing but the design.
    """

    text: str
    numbers: str = ""
    scope: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text[:1].upper() + self.text[1:])

    def __str__(self) -> str:
        return f"{self.text} {self.numbers}".strip() + "." + (f" {self.scope}" if self.scope else "")


@dataclass(frozen=True, kw_only=True, eq=False)
class Terms:
    """What the words of claims depend on.

    Attributes:
        runs: The complete tidy frame.
        margin: Largest difference that counts as equivalent.
        relevant: The smallest difference worth detecting; where none is stated, the margin.
        random_init: Names of the arms that are random initialisation.
    """

    runs: pd.DataFrame
    margin: Stated = None
    relevant: Stated = None
    random_init: Collection[str] = field(default=(SCRATCH,))

    def side(self, side: Mapping[str, str]) -> str:
        """A side of a contrast in words."""
        return JOIN.join(words(name) if key == "strategy" else self._arm(name) for key, name in side.items())

    def sides(self, contrast: DeclaredContrast) -> tuple[str, str]:
        """Both sides in words."""
        return self.side(contrast.a), self.side(contrast.b)

    def _arm(self, name: str) -> str:
        if name not in self.random_init:
            return name
        return random_initialisation([] if name == SCRATCH else [name])

    def setting(self, contrast: DeclaredContrast) -> str:
        """The runs that a contrast is about: `body region (linear probe with 10 % of the labels, balanced accuracy)`."""
        tasks = [words(task) for task in contrast.tasks]
        target = "no target" if not tasks else tasks[0] if len(tasks) == 1 else f"{listed(tasks)}, averaged"
        protocol = JOIN.join([words(contrast.protocol), *self._labels(contrast, "strategy")])
        with_labels = self._with_labels(contrast)
        parts = [
            protocol + (f" {with_labels}" if with_labels else ""),
            measure(contrast.metric),
            noisy(contrast.noise, contrast.noise_sigma),
            listed(of) if (of := self._labels(contrast, "pretraining")) else "",
        ]
        return f"{target} ({', '.join(filter(None, parts))})"

    def _labels(self, contrast: DeclaredContrast, column: str) -> list[str]:
        values = contrast.on.get(column, ())
        return [words(value) if column == "strategy" else self._arm(value) for value in values]

    def _with_labels(self, contrast: DeclaredContrast) -> str:
        """The label fractions, those of the runs where the contrast states none."""
        stated = contrast.fractions or contrast.runs(self.runs)["fraction"].dropna().unique()
        shares = [percent(float(fraction)) for fraction in sorted(stated)]
        if not shares or shares == ["100 %"]:
            return "with all labels" if shares else ""
        return f"with {listed(shares)} of the labels" + (", averaged" if len(shares) > 1 else "")

    def relevant_for(self, metric: str) -> float | None:
        """The smallest difference worth detecting; None: neither it nor a margin is stated."""
        relevant = of_metric(self.relevant, metric)
        return of_metric(self.margin, metric) if relevant is None else relevant

    def is_large(self, decision: Decision) -> bool:
        """Whether the estimate of an open contrast is above the smallest relevant difference; without one, any is."""
        look, relevant = decision.look, self.relevant_for(decision.contrast.metric)
        return relevant is None or look is None or not abs(look.difference) <= relevant

    def within_margin(self, metric: str) -> str:
        """`within ±0.02`."""
        return f"within ±{of_metric(self.margin, metric):g}"


def claim(decision: Decision, terms: Terms, *, names_setting: bool = True) -> Claim:
    """The sentence that a decision allows: it claims no more than the verdict, and too few seeds are named as such.

    Args:
        decision: The decision.
        terms: What the words depend on.
        names_setting: Whether the sentence says for which target, protocol and labels.
    """
    contrast, look = decision.contrast, decision.look
    a, b = terms.sides(contrast)
    setting = f" for {terms.setting(contrast)}" if names_setting else ""
    if look is None:
        return Claim(f"No look yet at {a} against {b}{setting}: {_awaited(decision)}")
    scope = f"This holds for {decision.holds_for}, not for their recipes." if decision.holds_for else ""
    if decision.holds_for == CHECKPOINTS[1]:
        checkpoint = b if decision.units.by_pretraining["a"] else a
        scope = f"This holds for {decision.holds_for} of {checkpoint}, not for its recipe."
    if decision.reason:
        return Claim(f"Nothing is claimed on {a} against {b}{setting}: {decision.reason}", numbers(decision), scope)
    if not decision.decided:
        return Claim(_open(decision, terms, a, b, setting), numbers(decision), scope)
    if decision.verdict in WITHIN_MARGIN:
        text = f"{a} and {b} are equivalent {terms.within_margin(contrast.metric)}{setting}"
        if decision.verdict == BOTH:
            ahead, behind = (a, b) if look.difference * metric_sign(contrast.metric) > 0 else (b, a)
            text += f", though {ahead} is better than {behind}"
        return Claim(text, numbers(decision), scope)
    winner, loser = (a, b) if decision.verdict == BETTER else (b, a)
    return Claim(f"{winner} is better than {loser}{setting} by", numbers(decision, from_winner=True), scope)


def _open(decision: Decision, terms: Terms, a: str, b: str, setting: str) -> str:
    look = decision.look
    assert look is not None  # an open contrast without a look has a claim of its own
    if math.isnan(look.p_value):
        sides = f"test of {a} against {b}{setting}"
        return f"No {sides}: {CONSTANT}" if decision.is_constant else f"Too few seeds for a {sides}"
    return f"{undecided(terms, decision.contrast.metric, a, [b], terms.is_large(decision))}{setting}"


def undecided(terms: Terms, metric: str, a: str, others: Sequence[str], large: bool) -> str:
    """What an open contrast is called: too few seeds where the estimate is large, else neither different nor equivalent."""
    against = listed(others, "or")
    if large:
        return f"Too few seeds to tell whether {a} is better or worse than {against}"
    if of_metric(terms.margin, metric) is None:
        return f"Not decided whether {a} differs from {against}"
    return f"Not decided whether {a} differs from {against} or is equivalent {terms.within_margin(metric)}"


def _awaited(decision: Decision) -> str:
    """How many seeds the first look needs, and how many there are."""
    present = len(decision.units.table) if decision.units.test == "paired" else None
    planned = decision.planned_looks[0] if decision.planned_looks else None
    finished = "" if present is None else f", {present} {'pair is' if present == 1 else 'pairs are'} finished"
    return f"the first look is at {planned} pretraining seeds{finished}"


def numbers(decision: Decision, *, from_winner: bool = False) -> str:
    """Effect, interval, level and look, p, n and df of the look that decided, or of the latest.

    Args:
        decision: With a look.
        from_winner: The difference is that of the better side less the other; else of side a less side b, in parentheses.
    """
    look = decision.look
    assert look is not None
    turn = -1 if from_winner and decision.verdict == "worse" else 1
    low, high = sorted((turn * look.ci_low, turn * look.ci_high))
    interval = "" if math.isnan(low) else f" [{number(low, True)}, {number(high, True)}]"
    effect = f"{number(turn * look.difference, True)}{interval}"
    text = f"{effect}{_level(decision, look)}{of_looks(decision)}, {_p(decision, look)}, {units_of(decision)}"
    return text if from_winner else f"({text})"


def of_looks(decision: Decision) -> str:
    """` (look 4 of 5)`; empty for a study that looks once."""
    if len(decision.planned_looks) < 2 or decision.at is None:
        return ""
    return f" (look {decision.at + 1} of {len(decision.planned_looks)})"


def _level(decision: Decision, look: Look) -> str:
    """The level that decides, and the confidence of an interval at another one."""
    if decision.ungated in WITHIN_MARGIN:
        return f", {confidence(1 - look.confidence)} interval, at level {nominal(look.level_tost)}"
    return f" at level {nominal(look.level)}"


def _p(decision: Decision, look: Look) -> str:
    """The p-value behind the verdict; of an open contrast that looks equivalent, also why it is not."""
    tost = f"{p_equals(look.p_tost)} (two one-sided tests"
    if decision.ungated == BOTH:
        at = f" at level {nominal(look.level)}" if look.level != look.level_tost else ""
        return f"{tost}) and {p_equals(look.p_value)} (difference{at})"
    if decision.ungated in WITHIN_MARGIN:
        return f"{tost})"
    within = max(-look.ci_low, look.ci_high) <= decision.margin  # False without a margin, or without an interval
    if not decision.found and within:
        return f"{p_equals(look.p_value)}, equivalence {tost} at level {nominal(look.level_tost)})"
    return p_equals(look.p_value)


def units_of(decision: Decision) -> str:
    """How many units of which kind, and degrees of freedom: `n = 12 pairs of pretraining seeds, df 11`."""
    look, units = decision.look, decision.units
    assert look is not None  # units are counted at a look
    kinds = ["pretraining seeds" if units.by_pretraining[side] else "evaluation seeds" for side in "ab"]
    paired = units.test == "paired"
    n = f"{look.n_a} pairs of {kinds[0]}" if paired else f"{look.n_a} {kinds[0]} and {look.n_b} {kinds[1]}"
    df = "" if math.isnan(look.df) else f", df {look.df:.{0 if float(look.df).is_integer() else 1}f}"
    return f"n = {n}{df}"
