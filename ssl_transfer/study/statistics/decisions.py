"""Decisions on the gate and the primary contrasts of a study, look by look as its seeds come in.

First the gate: pretrained against random initialisation. Then the primary contrasts, with Holm's rule over their number and
spent alpha over the looks. A contrast that is decided keeps its decision.

Every contrast has two null hypotheses: that there is no difference, and that the difference is at least the margin. Each of
the two forms a family over the primary contrasts, with a familywise error of at most .05: a contrast that is found different
raises the level of the others' tests for a difference, one that is found equivalent that of their tests for equivalence. If
equivalence raised both, two contrasts without a difference would be called different in up to 7.5 % of studies.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.declared import DeclaredContrast, Spending, Stated, of_metric
from ssl_transfer.study.statistics.contrast_units import CHECKPOINTS, STUDY, Units, contrast_units
from ssl_transfer.study.statistics.corrections import ALPHA
from ssl_transfer.study.statistics.look_tests import ContrastData, LookTests
from ssl_transfer.study.statistics.sequential import SPENDING, holm_levels
from ssl_transfer.study.statistics.verdicts import BETTER, NOT_DECIDED, confidence_beside, verdicts
from ssl_transfer.study.table import complete

GATE, PRIMARY = "gate", "primary"


@dataclass(frozen=True)
class Look:
    """A contrast at one look.

    Attributes:
        planned: Seeds at this look by the design.
        n_a: Units of side a; with pairs, equal to `n_b`.
        n_b: Units of side b.
        level: Nominal two-sided level of this look, for its p-value.
        level_tost: Level of the test of equivalence; that of `level` until a contrast of the family is decided.
        mean_a: Mean of side a.
        mean_b: Mean of side b.
        difference: mean_a − mean_b.
        ci_low: Lower end of the interval at `confidence`.
        ci_high: Upper end.
        t: Statistic.
        df: Degrees of freedom.
        p_value: Two-sided.
        p_tost: The larger p-value of two one-sided tests at the margin; NaN without a margin.
        confidence: Of the interval: 1 − level; if the look finds both sides equivalent, 1 − 2 · level_tost. See
            `verdicts.confidence_beside`.
    """

    planned: int
    n_a: int
    n_b: int
    level: float
    level_tost: float
    mean_a: float
    mean_b: float
    difference: float
    ci_low: float
    ci_high: float
    t: float
    df: float
    p_value: float
    p_tost: float
    confidence: float

    @property
    def error(self) -> float:
        """Standard error of the difference; NaN where no test is possible."""
        from scipy import special

        return (self.ci_high - self.ci_low) / 2 / float(special.stdtrit(self.df, (1 + self.confidence) / 2))

    @property
    def decides_at(self) -> float:
        """The level of the verdict: that of the test of equivalence where this look finds equivalence alone."""
        return self.level_tost if self.equivalent and not self.different else self.level

    @property
    def different(self) -> bool:
        """The two-sided p-value is at most the level."""
        return self.p_value <= self.level

    @property
    def equivalent(self) -> bool:
        """Both one-sided p-values are at most the level."""
        return self.p_tost <= self.level_tost


@dataclass(frozen=True)
class Decision:
    """What a declared contrast came to.

    Attributes:
        contrast: The contrast.
        family: `gate` or `primary`.
        verdict: `better`, `worse` (side a), `equivalent`, `equivalent and different` or `not decided`.
        looks: All looks up to now, oldest first; empty if none was reached.
        at: Index of the look that decided; where nothing is decided, of the latest; None without any.
        units: The values of both sides, those after the deciding look too.
        planned_looks: Seeds at each look of the design.
        levels: Level of each of these looks: of those up to now as they were, of later ones as the family stands now.
        level_tost: Level of the test of equivalence at the last of these looks.
        ungated: The verdict that the gate withholds; elsewhere the verdict.
        reason: Why there is no verdict, where the data alone do not say so; else empty.
        margin: Largest difference that counts as equivalent; NaN: none.
        units_at: The values of both sides at each look.
    """

    contrast: DeclaredContrast
    family: str
    verdict: str
    looks: tuple[Look, ...]
    at: int | None
    units: Units
    planned_looks: tuple[int, ...]
    ungated: str
    levels: tuple[float, ...] = ()
    level_tost: float = float("nan")
    reason: str = ""
    margin: float = float("nan")
    units_at: tuple[Units, ...] = ()

    @property
    def look(self) -> Look | None:
        """The look that decided, or the latest."""
        return None if self.at is None else self.looks[self.at]

    @property
    def is_constant(self) -> bool:
        """There are units enough for a test, but they do not vary, so that none is possible."""
        look = self.look
        return look is not None and min(look.n_a, look.n_b) > 1 and bool(np.isnan(look.p_value))

    @property
    def decided(self) -> bool:
        """There is a verdict."""
        return self.verdict != NOT_DECIDED

    @property
    def found(self) -> bool:
        """The data decide, whatever the gate says."""
        return self.ungated != NOT_DECIDED

    @property
    def at_last_look(self) -> bool:
        """No look is left."""
        return len(self.looks) == len(self.planned_looks)

    @property
    def settled(self) -> bool:
        """More seeds would not change it: it is decided, whatever the gate says, or at its last look."""
        return self.found or self.at_last_look

    @property
    def holds_for(self) -> str:
        """Empty, or what the verdict is limited to: the checkpoints of the sides whose units are not pretraining seeds."""
        fixed = sum(not several for several in self.units.by_pretraining.values())
        if "pretraining" not in self.contrast.a:  # strategies start from the same weights
            fixed = min(fixed, 1)
        return CHECKPOINTS[fixed]


def decide(
    frame: pd.DataFrame,
    gate: DeclaredContrast | None,
    primaries: Sequence[DeclaredContrast],
    *,
    looks: Sequence[int],
    spending: Spending = SPENDING,
    margin: Stated = None,
    seeds: Sequence[int] | None = None,
    pending: Mapping[str, Collection[int]] | None = None,
    shared_draws: bool = True,
    tests: int | None = None,
) -> list[Decision]:
    """Decide the gate and the primary contrasts on what is finished.

    Args:
        frame: A tidy table.
        gate: Pretrained (side a) against random initialisation (side b); no primary contrast is claimed unless a is better. None:
            without a gate.
        primaries: The primary contrasts.
        looks: Pretraining seeds at each look, ascending; one number is a study that looks once.
        spending: How alpha is shared among the looks.
        margin: Largest difference that counts as equivalent, for all metrics or for each by name; None: nothing is.
        seeds: Pretraining seeds in the order they are run; None: ascending.
        pending: Pretraining -> its seeds with runs still to come. A look waits for its seeds; a run that has failed is not
            waited for.
        shared_draws: Runs of equal (pretraining seed, evaluation seed) share their random draws, so that sides can be paired.
            False for results from elsewhere.
        tests: Number of primary contrasts that the design has; None: as many as are given.

    Returns:
        A decision for the gate, if there is one, and for each primary contrast, in their order.
    """
    data = _data(complete(frame), gate, primaries, looks, margin, seeds, pending or {}, shared_draws)
    return [
        _decision(outcome, 0)
        for family in _families(data, gate is not None, tuple(looks), spending, tests)
        for outcome in family
    ]


def decide_many(
    frame: pd.DataFrame,
    gate: DeclaredContrast | None,
    primaries: Sequence[DeclaredContrast],
    *,
    looks: Sequence[int],
    spending: Spending = SPENDING,
    margin: Stated = None,
    tests: int | None = None,
) -> pd.DataFrame:
    """Decide many studies of one design, for simulations; arguments as for `decide`.

    Args:
        frame: A tidy table with a column `study`, numbered from 0.
        gate, primaries, looks, spending, margin, tests: As for `decide`.

    Returns:
        One row per study and contrast: study, contrast (0 for the gate, if there is one), family, verdict, ungated, and, of the
        look that decided or the latest, look (its index), planned, n, level, difference and p_value. Without a look: −1 and NaN.
    """
    known = complete(frame, within=(STUDY,))
    data = _data(known, gate, primaries, looks, margin, None, {}, True, int(known[STUDY].max()) + 1)
    families = _families(data, gate is not None, tuple(looks), spending, tests)
    rows = [outcome.rows() for family in families for outcome in family]
    return pd.concat([table.assign(contrast=i) for i, table in enumerate(rows)], ignore_index=True)


def _data(
    frame: pd.DataFrame,
    gate: DeclaredContrast | None,
    primaries: Sequence[DeclaredContrast],
    looks: Sequence[int],
    margin: Stated,
    seeds: Sequence[int] | None,
    pending: Mapping[str, Collection[int]],
    shared_draws: bool,
    studies: int = 1,
) -> list[ContrastData]:
    to_come = {seed for of_arm in pending.values() for seed in of_arm if seed is not None}
    order = list(seeds) if seeds is not None else sorted({*frame["pretraining_seed"].dropna().unique(), *to_come})
    data = []
    for contrast in (gate, *primaries):
        if contrast is not None:
            awaited = _awaited(contrast, pending)
            units = contrast_units(frame, contrast, shared_draws, awaited - {None})
            highest = of_metric(margin, contrast.metric)
            highest = np.nan if highest is None else highest
            data.append(ContrastData(contrast, units, order, awaited, tuple(looks), highest, studies))
    return data


def _awaited(contrast: DeclaredContrast, pending: Mapping[str, Collection[int]]) -> set[int]:
    """Pretraining seeds that the pretrainings of a contrast still lack."""
    named = pending if contrast.pretrainings is None else contrast.pretrainings
    return {seed for name in named for seed in pending.get(name, ())}


class _Outcome:
    """What the looks of one contrast came to, of many studies: every array has an entry per study.

    Attributes:
        reached: Number of looks.
        at: Index of the look that decided; −1: none has.
        different: Found different at that look.
        equivalent: Found equivalent at that look.
        withheld: Reason why the gate withholds the verdict; empty where it does not.
        tests: The tests of each look.
        levels: Level and level of equivalence of each look, shape (looks, 2, studies).
        ahead: Level and level of equivalence of each look of the design as the family stands now, shape (2, studies, looks of the
            design).
    """

    def __init__(self, data: ContrastData, family: str):
        self.data, self.family, studies = data, family, data.studies
        self.reached = data.reached()
        self.tests = [data.test(look) for look in range(self.reached.max(initial=0))]
        self.at = np.full(studies, -1)
        self.different, self.equivalent = np.zeros(studies, bool), np.zeros(studies, bool)
        self.withheld = np.full(studies, "", object)
        self.levels = np.full((len(self.tests), 2, studies), np.nan)
        self.ahead = np.full((2, studies, len(data.looks)), np.nan)

    def look(self, step: int, levels: np.ndarray) -> None:
        """Take a look at levels, shape (2, studies): what it decides is kept, and so is the level of what it has decided."""
        here = (self.reached > step) & (self.at != step)
        self.levels[step] = np.where(here, levels, self.levels[step])
        tests = self.tests[step]
        different, equivalent = tests.p_value <= levels[0], tests.p_tost <= levels[1]
        new = here & (self.at < 0) & (different | equivalent)
        self.at[new], self.different[new], self.equivalent[new] = step, different[new], equivalent[new]

    def verdicts(self) -> np.ndarray:
        """The verdict of each study, whatever the gate says."""
        if not self.tests:
            return np.full(len(self.at), NOT_DECIDED, object)
        difference = np.stack([tests.difference for tests in self.tests])[self.at, np.arange(len(self.at))]
        better = difference * metric_sign(self.data.contrast.metric) > 0
        return verdicts(self.different, self.equivalent, better)

    def latest(self) -> np.ndarray:
        """Index of the look that decided, or of the latest; −1 without any."""
        return np.where(self.at >= 0, self.at, self.reached - 1)

    def rows(self) -> pd.DataFrame:
        """A row per study, see `decide_many`."""
        ungated, latest = self.verdicts(), self.latest()
        study = np.arange(len(latest))
        columns: dict[str, Any] = {"n": "n_a", "difference": "difference", "p_value": "p_value"}
        values = {
            name: np.stack([getattr(tests, field) for tests in self.tests])[latest, study] if self.tests else np.nan
            for name, field in columns.items()
        }
        level = self.levels[latest, 0, study] if self.tests else np.nan
        frame = pd.DataFrame(
            {
                "study": study,
                "family": self.family,
                "verdict": np.where(self.withheld == "", ungated, NOT_DECIDED),
                "ungated": ungated,
                "look": latest,
                "planned": np.asarray([*self.data.looks, -1])[latest],
                **values,
                "level": level,
            }
        )
        none = frame["look"] < 0
        frame.loc[none, ["n", "difference", "p_value", "level"]] = np.nan
        return frame


def _families(
    data: list[ContrastData], gated: bool, looks: tuple[int, ...], spending: Spending, tests: int | None
) -> tuple[list[_Outcome], list[_Outcome]]:
    """Outcomes of the gate, and of the primary contrasts behind it."""
    gates = _sequential(data[:gated], GATE, looks, spending, 1)
    primaries = _sequential(data[gated:], PRIMARY, looks, spending, max(tests or 0, len(data) - gated))
    for gate in gates:
        verdicts = gate.verdicts()
        for outcome in primaries:
            outcome.withheld = np.array([_withheld(verdict) for verdict in verdicts], object)
    return gates, primaries


def _withheld(gate: str) -> str:
    """Why a gate with this verdict withholds the primary contrasts; empty if it does not."""
    if gate == BETTER:
        return ""
    return "the gate is not passed" if gate == NOT_DECIDED else f"the gate is {gate}"


def _sequential(
    data: Sequence[ContrastData], family: str, planned: tuple[int, ...], spending: Spending, tests: int
) -> list[_Outcome]:
    """Holm's rule over the contrasts of a family, with spent alpha over the looks."""
    outcomes = [_Outcome(each, family) for each in data]
    if not outcomes:
        return []
    levels = {
        looks: np.array([holm_levels(ALPHA, tests, decided, looks, spending) for decided in range(tests)])
        for looks in {planned, *(each.looks for each in data)}
    }
    for step in range(max(len(outcome.tests) for outcome in outcomes)):
        before = None
        while before is None or not np.array_equal(before, _found(outcomes)):
            before = _found(outcomes)  # each decision raises the level of the others: look until nothing is decided
            count = np.minimum(before.sum(0), tests - 1)  # (different or equivalent, studies)
            for outcome in outcomes:
                if step < len(outcome.tests):
                    outcome.look(step, levels[outcome.data.looks][count, step])
    count = np.minimum(_found(outcomes).sum(0), tests - 1)
    for outcome in outcomes:
        outcome.ahead = levels[outcome.data.looks][count]
    return outcomes


def _found(outcomes: Sequence[_Outcome]) -> np.ndarray:
    """Whether each contrast is found different, and whether equivalent: shape (contrasts, 2, studies)."""
    return np.stack([[outcome.different, outcome.equivalent] for outcome in outcomes])


def _decision(outcome: _Outcome, study: int) -> Decision:
    """The decision of one study."""
    data, latest = outcome.data, int(outcome.latest()[study])
    ungated, withheld = str(outcome.verdicts()[study]), outcome.withheld[study]
    looks = [
        _look(data.looks[step], outcome.tests[step], outcome.levels[step], study)
        for step in range(outcome.reached[study])
    ]
    return Decision(
        contrast=data.contrast,
        family=outcome.family,
        verdict=NOT_DECIDED if withheld else ungated,
        looks=tuple(looks),
        at=None if latest < 0 else latest,
        units=data.units,
        planned_looks=data.looks,
        ungated=ungated,
        levels=(*(look.level for look in looks), *map(float, outcome.ahead[0, study, len(looks) :])),
        level_tost=looks[-1].level_tost if len(looks) == len(data.looks) else float(outcome.ahead[1, study, -1]),
        reason=withheld,
        margin=data.margin,
        units_at=tuple(replace(data.units, table=data.units.table[data.at(step)]) for step in range(len(looks))),
    )


def _look(planned: int, tests: LookTests, levels: np.ndarray, study: int) -> Look:
    confidence = confidence_beside(tests.p_value <= levels[0], tests.p_tost <= levels[1], *levels)
    low, high = tests.test.interval(confidence)
    values = {
        **{
            name: getattr(tests, name) for name in ("n_a", "n_b", "mean_a", "mean_b", "difference", "p_value", "p_tost")
        },
        **{name: getattr(tests.test, name) for name in ("t", "df")},
        "ci_low": low,
        "ci_high": high,
        "level": levels[0],
        "level_tost": levels[1],
        "confidence": confidence,
    }
    return Look(planned=planned, **{name: np.asarray(value)[study].item() for name, value in values.items()})
