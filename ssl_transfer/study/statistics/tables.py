"""Tables over all cells of a tidy frame: contrasts of pretrainings and of strategies, and means with intervals.

What cannot be tested gives NaN, and NaN never decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.domains import DISTANCE
from ssl_transfer.errors import RunError, nearest
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.statistics.two_samples import (
    ALPHA,
    Samples,
    benjamini_hochberg,
    differences,
    hedges_g,
    holm,
    paired_test,
    tost,
    welch,
)
from ssl_transfer.study.table import CELL, SCRATCH, complete

CONTRAST_COLUMNS = [
    *CELL,
    "a",
    "b",
    "boundary_a",
    "boundary_b",
    "unit",
    "n_a",
    "n_b",
    "mean_a",
    "mean_b",
    "difference",
    "ci_low",
    "ci_high",
    "t",
    "df",
    "p_value",
    "p_holm",
    "p_tost",
    "hedges_g",
    "verdict",
    "g_low",
    "g_high",
    "p_bh",
    "n_paired",
    "p_paired",
    "holds_for",
]
SETTING = ["protocol", "task", "pretraining", "fraction", "noise", "noise_sigma", "metric"]  # strategies differ within
STRATEGY_COLUMNS = [
    *SETTING,
    "a",
    "b",
    "unit",
    "n",
    "mean_a",
    "mean_b",
    "difference",
    "ci_low",
    "ci_high",
    "t",
    "df",
    "p_value",
    "p_holm",
    "p_bh",
    "verdict",
    "holds_for",
]
SUMMARY_COLUMNS = [*CELL, "pretraining", "boundary", "unit", "n", "mean", "sd", "ci_low", "ci_high"]
FAMILY = ("protocol", "metric")
EQUIVALENT = ("equivalent", "equivalent and different")  # verdicts


def seed_units(frame: pd.DataFrame) -> pd.DataFrame:
    """The independent values of each arm in each cell.

    The unit is the pretraining seed: fine-tuning seeds are averaged within it, because they are not independent. An
    arm with a single pretraining seed (or none, such as public weights) has only its fine-tuning seeds.

    Args:
        frame: As for `contrasts`.

    Returns:
        One row per unit: the columns of `CELL`, pretraining, unit (`pretraining_seed` or `seed`), unit_seed (which
        one) and value (NaN where a run of the unit has no value).
    """
    return _units(complete(frame), [*CELL, "pretraining"])


def _units(frame: pd.DataFrame, within: list[str]) -> pd.DataFrame:
    """Units of a complete frame: the pretraining seeds where there are several within the columns named."""
    seeds = frame.groupby(within, dropna=False)["pretraining_seed"]
    several = (seeds.transform("nunique") > 1) & (seeds.transform("count") == seeds.transform("size"))
    frame = frame.assign(
        unit=np.where(several, "pretraining_seed", "seed"),
        unit_seed=frame["pretraining_seed"].where(several, frame["seed"]),
    )
    runs = frame.groupby([*CELL, "pretraining", "unit", "unit_seed"], dropna=False)["value"]
    return runs.mean().where(runs.count() == runs.size()).reset_index()


@dataclass(frozen=True)
class _Arms:
    """What is compared within each `group`: a row of `table` per arm, and the units behind them.

    Attributes:
        table: The columns that distinguish arms, and the unit of each.
        group: Of each row of the table, ascending.
        arm: Of each unit, as a row of the table; ascending.
        seed: Of each unit, as a code; −1 if unknown.
        value: Of each unit.
    """

    table: pd.DataFrame
    group: np.ndarray
    arm: np.ndarray
    seed: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, units: pd.DataFrame, within: list[str], names: list[str]) -> _Arms:
        """Arms distinguished, and ordered, by the columns `names`."""
        arms = units.groupby([*within, *names], dropna=False)
        table, arm = arms["unit"].first().reset_index(), arms.ngroup().to_numpy()
        order = np.argsort(arm, kind="stable")
        seed = pd.factorize(units["unit_seed"])[0]
        group = table.groupby(within, dropna=False).ngroup().to_numpy()
        return cls(table, group, arm[order], seed[order], units["value"].to_numpy(float)[order])

    def samples(self) -> Samples:
        return Samples.grouped(self.value, self.arm, len(self.table))

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Every pair within a group: the row of its first and of its second arm, in the order of rows."""
        row = np.arange(len(self.group))
        return _spans(row + 1, np.searchsorted(self.group, self.group, "right") - row - 1)

    def same_seeds(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Units that two arms have of the same seed: the pair's number, and the value on either side."""
        first = np.searchsorted(self.arm, a)
        pair, unit = _spans(first, np.searchsorted(self.arm, a, "right") - first)
        seeds = self.seed.max(initial=0) + 1
        key = np.where(self.seed < 0, -1, self.arm * seeds + self.seed)  # an unknown seed is not the same as another
        wanted = np.where(self.seed[unit] < 0, -2, b[pair] * seeds + self.seed[unit])
        order = np.argsort(key)
        candidate = order[np.minimum(np.searchsorted(key[order], wanted), len(order) - 1)]
        shared = key[candidate] == wanted
        return pair[shared], self.value[unit[shared]], self.value[candidate[shared]]


def _spans(first: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay out the ranges first[i] … first[i] + length[i] − 1: for each of their members i and the member."""
    owner = np.repeat(np.arange(len(length)), length)
    return owner, first[owner] + np.arange(len(owner)) - (np.cumsum(length) - length)[owner]


def _domain_arms(frame: pd.DataFrame, boundaries: Mapping[tuple[str, str], str] | None) -> _Arms:
    """Pretrainings within cells, with their boundary: the nearest source domain first, random initialisation last."""
    frame = complete(frame)
    recorded: Any = frame.groupby(["pretraining", "task"])["boundary"].first().to_dict()
    boundary_of = recorded if boundaries is None else boundaries
    units = _units(frame, [*CELL, "pretraining"])
    of_units = [boundary_of.get(key, "") for key in zip(units["pretraining"], units["task"], strict=True)]
    units = units.assign(boundary=pd.Series(of_units, units.index, dtype="object"))
    random_init = (units["pretraining"] == SCRATCH) | (units["boundary"] == SCRATCH)
    units["distance"] = units["boundary"].map(DISTANCE).fillna(3).where(~random_init, 4)
    return _Arms.of(units, CELL, ["distance", "pretraining", "boundary"])


def summary(frame: pd.DataFrame, boundaries: Mapping[tuple[str, str], str] | None = None) -> pd.DataFrame:
    """Mean, standard deviation (ddof 1) and 95 % t-interval over the units of each arm in each cell.

    Args:
        frame: As for `contrasts`.
        boundaries: As for `contrasts`.

    Returns:
        `SUMMARY_COLUMNS`, within a cell from the nearest source domain to random initialisation.
    """
    from scipy import special

    arms = _domain_arms(frame, boundaries)
    samples = arms.samples()
    n, mean, sd = samples.n, samples.mean, np.sqrt(samples.variance)
    half = special.stdtrit(n - 1.0, 1 - ALPHA / 2) * sd / np.sqrt(n)
    table = arms.table.assign(n=n, mean=mean, sd=sd, ci_low=mean - half, ci_high=mean + half)
    return table[SUMMARY_COLUMNS]


def contrasts(
    frame: pd.DataFrame,
    boundaries: Mapping[tuple[str, str], str] | None = None,
    margin: float | Mapping[str, float] | None = None,
    family: Sequence[str] = FAMILY,
    pairs: Collection[Collection[str]] | None = None,
) -> pd.DataFrame:
    """Compare pretrainings pairwise within each protocol, task, strategy, fraction, noise, sigma and metric.

    `a` is the arm nearer to the target domain (then by name; random initialisation, which is an arm of that name or of
    that boundary, last); difference = mean_a − mean_b. The unit is the pretraining seed. If a side has only one, the
    unit reads `seed`: that side contributes its fine-tuning seeds (a side with several pretraining seeds still
    contributes those), and `holds_for` reads "these two checkpoints"; else it is empty. Verdicts: `equivalent` if TOST
    at `margin` is below .05 (`equivalent and different` if Holm's p is too), else `better` or `worse` if Holm's p is
    below .05, else `not decided`. Whether more or less is better is given by `measures.metrics`.

    For information only, not used by the verdict: Hedges' g with its 95 % interval, Benjamini–Hochberg's p over the
    same family, and a paired t-test over the pretraining seeds that both sides have (n_paired; 0 if one side's unit
    is the fine-tuning seed).

    Args:
        frame: A tidy table (`study_table`); boundary and run_id may be missing, and without noise its two columns.
        boundaries: (pretraining, task) -> boundary; by default the frame's own.
        margin: Largest difference that counts as equivalent, in units of the metric, for all metrics or for each by
            name; without one nothing is ever equivalent.
        family: Columns of the result; Holm's correction runs over the pairs that share their values. By default over all
            tasks, strategies, fractions and noise settings of a protocol: every sigma adds its pairs to the
            family, and so raises the bar for all. Metrics are families of their own, `auroc_Mass` too.
        pairs: The pairs of pretrainings to compare, in either order; others do not count in a family. None: all.

    Returns:
        `CONTRAST_COLUMNS`, one row per pair.

    Raises:
        RunError: If a column is missing, a family names an unknown one, a cell holds one seed twice, noise has no sigma,
            a margin is not positive, or a pair is none.
    """
    _check_family(family, CONTRAST_COLUMNS)
    arms = _domain_arms(frame, boundaries)
    left, right = _chosen(arms, pairs)
    table = arms.table[CELL].take(left).reset_index(drop=True)
    for side, rows in (("a", left), ("b", right)):
        of_side = arms.table.take(rows).reset_index(drop=True)
        table[[side, f"boundary_{side}", f"unit_{side}"]] = of_side[["pretraining", "boundary", "unit"]]
    by_pretraining = (table["unit_a"] == "pretraining_seed") & (table["unit_b"] == "pretraining_seed")
    samples, margins = arms.samples(), _margins(margin, table["metric"])
    a, b = samples[left], samples[right]
    test, effect = welch(a, b), hedges_g(a, b)
    pair, of_a, of_b = arms.same_seeds(left, right)
    same = paired_test(differences(of_a, of_b, pair, len(left)))
    table = table.assign(
        unit=np.where(by_pretraining, "pretraining_seed", "seed"),
        **vars(test),
        p_tost=tost(a, b, margins),
        hedges_g=effect.g,
        g_low=effect.ci_low,
        g_high=effect.ci_high,
        n_paired=np.where(by_pretraining, same.n, 0),
        p_paired=np.where(by_pretraining, same.p_value, np.nan),
    )
    return _judged(table.reindex(columns=CONTRAST_COLUMNS), family, "these two checkpoints")


def _check_family(family: Sequence[str], columns: list[str]) -> None:
    for name in family:
        if name not in columns:
            raise RunError(f"statistics.family: contrasts have no column '{name}'.{nearest(name, columns)}")


def _chosen(arms: _Arms, pairs: Collection[Collection[str]] | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the arms on both sides of the requested pairs."""
    left, right = arms.pairs()
    if pairs is None:
        return left, right
    wanted = {frozenset(() if isinstance(pair, str) else pair) for pair in pairs}
    if wrong := [pair for pair in pairs if isinstance(pair, str) or len(set(pair)) != 2]:
        raise RunError(f"statistics.pairs: found {wrong[0]!r}, expected the names of two different pretrainings.")
    names = arms.table["pretraining"].to_numpy()
    keep = np.array([frozenset(pair) in wanted for pair in zip(names[left], names[right], strict=True)], bool)
    return left[keep], right[keep]


def _margins(margin: float | Mapping[str, float] | None, metrics: pd.Series) -> np.ndarray:
    """The margin of each row; NaN: none."""
    stated: dict[str | None, float] = {}
    if isinstance(margin, Mapping):
        stated.update(margin)
    elif margin is not None:
        stated[None] = margin
    for metric, value in stated.items():
        if not value > 0:
            of = f" of '{metric}'" if metric else ""
            raise RunError(f"statistics.margin{of}: found {value}, expected a positive number in units of the metric.")
    return np.array([stated.get(metric, stated.get(None, np.nan)) for metric in metrics], float)


def _judged(table: pd.DataFrame, family: Sequence[str], checkpoints: str) -> pd.DataFrame:
    """Add corrected p-values and verdicts; a verdict over fine-tuning seeds holds for `checkpoints` alone."""
    table["p_holm"], table["p_bh"] = _by_family(holm, table, family), _by_family(benjamini_hochberg, table, family)
    equivalent, different = table.get("p_tost", pd.Series(np.nan, table.index)) < ALPHA, table["p_holm"] < ALPHA
    signs = {metric: metric_sign(metric) for metric in table["metric"].unique()}
    improved = table["difference"] * table["metric"].map(signs).astype(float) > 0
    table["verdict"] = np.select(
        [equivalent & different, equivalent, different & improved, different],
        ["equivalent and different", "equivalent", "better", "worse"],
        "not decided",
    ).astype(object)
    table["holds_for"] = np.where(table["unit"] == "pretraining_seed", "", checkpoints).astype(object)
    return table


def _by_family(correct: Callable, table: pd.DataFrame, family: Sequence[str]) -> np.ndarray:
    number = table.groupby(list(family), dropna=False).ngroup().to_numpy() if family else np.zeros(len(table), int)
    order = np.argsort(number, kind="stable")
    p = table["p_value"].to_numpy(float)
    corrected = np.full(len(p), np.nan)
    for rows in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
        corrected[rows] = correct(p[rows])
    return corrected


def strategy_contrasts(frame: pd.DataFrame, family: Sequence[str] = FAMILY) -> pd.DataFrame:
    """Compare every two strategies of a protocol that start from the same backbones.

    Both adapt the same pretrainings, so the test is paired: over pretraining seeds (fine-tuning seeds averaged within)
    or, where the arm has one pretraining, over fine-tuning seeds, and `holds_for` then reads "this checkpoint".
    Only seeds that both strategies have are counted (`n`) and averaged. Protocols without strategies have no rows.

    Args:
        frame: As for `contrasts`.
        family: As for `contrasts`.

    Returns:
        `STRATEGY_COLUMNS`, one row per pair of strategies within each protocol, task, pretraining, fraction, noise,
        sigma and metric; a and b by name.

    Raises:
        RunError: As `contrasts`.
    """
    _check_family(family, STRATEGY_COLUMNS)
    frame = complete(frame)
    units = _units(frame[frame["strategy"] != ""], SETTING)
    arms = _Arms.of(units, SETTING, ["strategy"])
    left, right = arms.pairs()
    pair, of_a, of_b = arms.same_seeds(left, right)
    test = paired_test(differences(of_a, of_b, pair, len(left)))
    table = arms.table[[*SETTING, "unit"]].take(left).reset_index(drop=True)
    names = arms.table["strategy"].to_numpy()
    mean_a, mean_b = (Samples.grouped(values, pair, len(left)).mean for values in (of_a, of_b))
    table = table.assign(a=names[left], b=names[right], mean_a=mean_a, mean_b=mean_b, **vars(test))
    return _judged(table.reindex(columns=STRATEGY_COLUMNS), family, "this checkpoint")
