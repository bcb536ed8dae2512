"""Decisions on the gate and the primary contrasts of a study, look by look as its seeds come in.

The unit is the pretraining seed. Both sides of a contrast are averaged within it over evaluation seeds, label fractions and
targets, and compared in pairs. First the gate: pretrained against random initialisation. Then the primary contrasts, with
Holm's rule over their number and spent alpha over the looks. A contrast that is decided keeps its decision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.declared import DeclaredContrast, Spending
from ssl_transfer.study.statistics.sequential import holm_levels
from ssl_transfer.study.statistics.tables import CONTRAST_COLUMNS
from ssl_transfer.study.statistics.two_samples import ALPHA, Samples, differences, hedges_g, paired_test, tost, welch
from ssl_transfer.study.table import complete

GATE, PRIMARY = "gate", "primary"
BETTER = "better"
NOT_DECIDED = "not decided"
SPENDING = Spending()
LOOK_COLUMNS = ["n_a", "n_b", "mean_a", "mean_b", "difference", "ci_low", "ci_high", "t", "df", "p_value", "p_tost"]
CELL_COLUMNS = (
    "task",
    "fraction",
    "strategy",
    "pretraining",
)  # averaged within a pretraining seed, each with equal weight


@dataclass(frozen=True)
class Look:
    """A contrast at one look.

    Attributes:
        planned: Seeds at this look by the design.
        n_a: Units of side a; with pairs, equal to `n_b`.
        n_b: Units of side b.
        level: Nominal two-sided level of this look, for its p-values and its interval.
        mean_a: Mean of side a.
        mean_b: Mean of side b.
        difference: mean_a − mean_b.
        ci_low: Lower end of the interval at confidence 1 − level.
        ci_high: Upper end.
        t: Statistic.
        df: Degrees of freedom.
        p_value: Two-sided.
        p_tost: The larger p-value of two one-sided tests at the margin; NaN without a margin.
    """

    planned: int
    n_a: int
    n_b: int
    level: float
    mean_a: float
    mean_b: float
    difference: float
    ci_low: float
    ci_high: float
    t: float
    df: float
    p_value: float
    p_tost: float

    @property
    def different(self) -> bool:
        """The two-sided p-value is at most the level."""
        return self.p_value <= self.level

    @property
    def equivalent(self) -> bool:
        """Both one-sided p-values are at most the level."""
        return self.p_tost <= self.level


@dataclass(frozen=True)
class Units:
    """The independent values of both sides.

    Attributes:
        table: Paired: columns unit (pretraining or evaluation seed), a and b. Else: unit, side (`a` or `b`) and value.
        unit: `pretraining_seed` or `seed`.
        test: `paired` or `welch`.
        left_out: Runs of one side without a counterpart on the other, or without a value.
    """

    table: pd.DataFrame
    unit: str
    test: str
    left_out: int


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
        reason: Why there is no verdict, where the data alone do not say so; else empty.
    """

    contrast: DeclaredContrast
    family: str
    verdict: str
    looks: tuple[Look, ...]
    at: int | None
    units: Units
    planned_looks: tuple[int, ...]
    reason: str = ""

    @property
    def look(self) -> Look | None:
        """The look that decided, or the latest."""
        return None if self.at is None else self.looks[self.at]

    @property
    def decided(self) -> bool:
        """There is a verdict."""
        return self.verdict != NOT_DECIDED

    @property
    def at_last_look(self) -> bool:
        """No look is left."""
        return len(self.looks) == len(self.planned_looks)

    @property
    def holds_for(self) -> str:
        """Empty, or what the verdict is limited to."""
        return "" if self.units.unit == "pretraining_seed" else "these two checkpoints"


def decide(
    frame: pd.DataFrame,
    gate: DeclaredContrast | None,
    primaries: Sequence[DeclaredContrast],
    *,
    looks: Sequence[int],
    spending: Spending = SPENDING,
    margin: float | Mapping[str, float] | None = None,
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
    frame = complete(frame)
    order = list(seeds) if seeds is not None else sorted(frame["pretraining_seed"].dropna().unique())
    known = [contrast for contrast in (gate, *primaries) if contrast is not None]
    data = [
        _Contrast(each, contrast_units(frame, each, shared_draws), order, _awaited(each, pending or {}))
        for each in known
    ]
    margins = [_margin(margin, contrast.metric) for contrast in known]
    looks = tuple(looks)
    decisions: list[Decision] = []
    if gate is not None:
        decisions = _sequential([data[0]], [margins[0]], GATE, looks, spending, 1)
        data, margins = data[1:], margins[1:]
    decided = _sequential(data, margins, PRIMARY, looks, spending, max(tests or 0, len(data)))
    if gate is not None and decisions[0].verdict != BETTER:
        reason = f"the gate is {decisions[0].verdict}" if decisions[0].decided else "the gate is not passed"
        decided = [replace(decision, verdict=NOT_DECIDED, reason=reason) for decision in decided]
    return decisions + decided


def _awaited(contrast: DeclaredContrast, pending: Mapping[str, Collection[int]]) -> set[int]:
    """Pretraining seeds that the pretrainings of a contrast still lack."""
    named = {side["pretraining"] for side in (contrast.a, contrast.b) if "pretraining" in side}
    named |= set(contrast.on.get("pretraining", () if named else pending))
    return {seed for name in named for seed in pending.get(name, ())}


@dataclass(frozen=True)
class _Contrast:
    """A contrast with its units, and which pretraining seeds its looks wait for."""

    contrast: DeclaredContrast
    units: Units
    order: Sequence[int]
    pending: Collection[int]

    def reached(self, looks: Sequence[int]) -> int:
        """How many looks are reached: their seeds are there or failed, and they have some that the look before had not."""
        table = self.units.table
        if table.empty:
            return 0
        if self.units.unit == "seed":
            return 1 if not set(self.pending) else 0
        present, before, count = set(table["unit"]), 0, 0
        for look in looks:
            seeds = self.order[:look]
            if set(self.pending) & set(seeds) or not present & set(self.order[before:look]):
                break
            before, count = look, count + 1
        return count

    def test(self, planned: int, level: float, margin: float) -> Look:
        """The test on the units of the first `planned` seeds."""
        table, paired = self.units.table, self.units.test == "paired"
        if self.units.unit == "pretraining_seed":
            first = table["unit"].isin(self.order[:planned])
            table = (
                table[first] if paired else table[first | ((table["side"] == "b") & ~table["unit"].isin(self.order))]
            )
        if paired:
            a, b = table["a"].to_numpy(float), table["b"].to_numpy(float)
            return Look(planned, len(a), len(b), level, **_paired(a, b, level, margin))
        sides = {side: table.loc[table["side"] == side, "value"].to_numpy(float) for side in "ab"}
        result = vars(welch(sides["a"], sides["b"], 1 - level))
        return Look(planned=planned, level=level, **result, p_tost=tost(sides["a"], sides["b"], margin))


def _paired(a: np.ndarray, b: np.ndarray, level: float, margin: float) -> dict[str, float]:
    """Fields of `Look` by the paired t-test and by two one-sided paired tests at the margin."""
    from scipy import special

    samples: Samples = differences(a, b, np.zeros(len(a), int), 1)[0]
    test = vars(paired_test(samples, 1 - level))
    del test["n"]
    error = np.sqrt(samples.variance / len(a)) if samples.variance > 0 else np.nan
    nearest = (margin - abs(test["difference"])) / error
    means = {"mean_a": float(np.mean(a)) if len(a) else np.nan, "mean_b": float(np.mean(b)) if len(b) else np.nan}
    return {**means, **test, "p_tost": float(special.stdtr(len(a) - 1, -nearest))}


def _sequential(
    data: Sequence[_Contrast],
    margins: Sequence[float],
    family: str,
    planned: tuple[int, ...],
    spending: Spending,
    tests: int,
) -> list[Decision]:
    """Holm's rule over the contrasts of a family, with spent alpha over the looks."""
    looks: list[list[Look]] = [[] for _ in data]
    verdicts: dict[int, tuple[str, int]] = {}  # contrast -> verdict and index of the look
    reached = [min(each.reached(planned), len(planned)) for each in data]
    for step in range(max(reached, default=0)):
        fresh = [i for i in range(len(data)) if reached[i] > step]
        while True:  # until this look decides no more: each decision raises the level of the others
            level = holm_levels(ALPHA, tests, min(len(verdicts), tests - 1), planned, spending)[step]
            for i in fresh:
                if i not in verdicts or verdicts[i][1] < step:  # what this look has decided keeps its level
                    looks[i][step:] = [data[i].test(planned[step], level, margins[i])]
            open_ones = {i: _verdict(looks[i][step], data[i].contrast.metric) for i in fresh if i not in verdicts}
            decided = {i: (verdict, step) for i, verdict in open_ones.items() if verdict != NOT_DECIDED}
            if not decided:
                break
            verdicts |= decided
    return [
        Decision(
            contrast=each.contrast,
            family=family,
            verdict=verdicts[i][0] if i in verdicts else NOT_DECIDED,
            looks=tuple(looks[i]),
            at=verdicts[i][1] if i in verdicts else (len(looks[i]) - 1 if looks[i] else None),
            units=each.units,
            planned_looks=planned,
        )
        for i, each in enumerate(data)
    ]


def _verdict(look: Look, metric: str) -> str:
    if look.equivalent:
        return "equivalent and different" if look.different else "equivalent"
    if look.different:
        return BETTER if look.difference * metric_sign(metric) > 0 else "worse"
    return NOT_DECIDED


def _margin(margin: float | Mapping[str, float] | None, metric: str) -> float:
    stated = margin.get(metric) if isinstance(margin, Mapping) else margin
    return np.nan if stated is None else float(stated)


def contrast_units(frame: pd.DataFrame, contrast: DeclaredContrast, shared_draws: bool = True) -> Units:
    """The independent values of both sides of a contrast.

    With pretraining seeds on both sides, evaluations of equal (pretraining seed, evaluation seed) are paired; what one side
    lacks is left out on both. Pairs are averaged within each cell (target, fraction, …) of a pretraining seed, then over cells;
    a pretraining seed that lacks a whole cell is left out, because cells differ in level. Without pretraining seeds on one
    side (public weights), or without shared draws, each side has its own units.

    Args:
        frame: A complete tidy frame (`table.complete`).
        contrast: The contrast.
        shared_draws: As for `decide`.
    """
    runs = contrast.runs(frame)
    cells = [name for name in CELL_COLUMNS if name not in contrast.a]
    sides = _side(runs, contrast.a), _side(runs, contrast.b)
    if shared_draws and all(side["pretraining_seed"].notna().all() for side in sides):
        return _paired_units(*sides, cells)
    parts, unit, left_out = [], "pretraining_seed", 0
    for name, side in zip("ab", sides, strict=True):
        finite = side[side["value"].notna()]
        left_out += len(side) - len(finite)
        several = finite["pretraining_seed"].notna().all() and finite["pretraining_seed"].nunique() > 1
        unit = unit if several else "seed"
        values = _cell_means(finite, cells, "pretraining_seed" if several else "seed", ["value"])
        parts.append(values.assign(side=name))
    return Units(pd.concat(parts, ignore_index=True)[["unit", "side", "value"]], unit, "welch", left_out)


def _side(runs: pd.DataFrame, side: Mapping[str, Any]) -> pd.DataFrame:
    keep = np.ones(len(runs), bool)
    for column, value in side.items():
        keep &= (runs[column] == value).to_numpy(bool)
    return runs[keep]


def _paired_units(a: pd.DataFrame, b: pd.DataFrame, cells: list[str]) -> Units:
    keys = [*cells, "pretraining_seed", "seed"]
    columns = [*keys, "value"]
    both = (
        a[columns].rename(columns={"value": "a"}).merge(b[columns].rename(columns={"value": "b"}), how="outer", on=keys)
    )
    pairs = both.dropna(subset=["a", "b"])
    unit = "pretraining_seed" if pairs["pretraining_seed"].nunique() > 1 else "seed"
    table = _cell_means(pairs, cells, unit, ["a", "b"])
    left_out = int(both[["a", "b"]].notna().sum().sum()) - 2 * int(pairs[pairs[unit].isin(table["unit"])].shape[0])
    left_out += int(both[["a", "b"]].isna().all(axis=1).sum())
    return Units(table, unit, "paired", left_out)


def _cell_means(runs: pd.DataFrame, cells: list[str], unit: str, values: list[str]) -> pd.DataFrame:
    """Means of each unit over its cells, every cell with equal weight; units that lack a cell are left out."""
    by_cell = runs.groupby([*cells, unit], dropna=False)[values].mean().reset_index()
    whole = by_cell.groupby(unit).size()
    whole = whole[whole == by_cell[cells].drop_duplicates().shape[0]].index
    means = by_cell[by_cell[unit].isin(whole)].groupby(unit)[values].mean()
    return means.rename_axis("unit").reset_index()


def decision_rows(decisions: Sequence[Decision], boundaries: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Decisions as rows of `CONTRAST_COLUMNS`, for the table that also has all pairs of pretrainings.

    Several targets are joined by ` + `; several fractions leave that column empty. `p_holm` is the p-value in units in which
    .05 decides: p · .05 / level.

    Args:
        decisions: From `decide`; those without a look have no row.
        boundaries: (pretraining, task) -> boundary.
    """
    rows = [_row(decision, boundaries) for decision in decisions if decision.look is not None]
    return pd.DataFrame(rows, columns=CONTRAST_COLUMNS)


def _row(decision: Decision, boundaries: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    contrast, look = decision.contrast, decision.look
    assert look is not None
    sides = {"a": contrast.a, "b": contrast.b}
    strategies = contrast.on.get("strategy", ())
    effect = vars(hedges_g(*_values(decision.units)))
    row: dict[str, Any] = {
        "protocol": contrast.protocol,
        "task": " + ".join(contrast.tasks),
        "strategy": strategies[0] if len(strategies) == 1 else "",
        "fraction": contrast.fractions[0] if contrast.fractions and len(contrast.fractions) == 1 else np.nan,
        "noise": contrast.noise,
        "noise_sigma": contrast.noise_sigma or 0.0,
        "metric": contrast.metric,
        "a": contrast.name_a,
        "b": contrast.name_b,
        "unit": decision.units.unit,
        **{name: getattr(look, name) for name in LOOK_COLUMNS},
        "p_holm": min(1.0, look.p_value * ALPHA / look.level) if np.isfinite(look.p_value) else np.nan,
        "hedges_g": effect["g"],
        "g_low": effect["ci_low"],
        "g_high": effect["ci_high"],
        "verdict": decision.verdict,
        "test": decision.units.test,
        "family": decision.family,
        "level": look.level,
        "holds_for": decision.holds_for,
    }
    for side, columns in sides.items():
        of_side = {boundaries.get((columns.get("pretraining", ""), task), "") for task in contrast.tasks}
        row[f"boundary_{side}"] = of_side.pop() if len(of_side) == 1 else ""
    return row


def _values(units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Values of side a and of side b."""
    if units.test == "paired":
        return units.table["a"].to_numpy(float), units.table["b"].to_numpy(float)
    a, b = (units.table.loc[units.table["side"] == side, "value"].to_numpy(float) for side in "ab")
    return a, b
