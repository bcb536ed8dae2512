"""Tables over all cells of a tidy frame: contrasts of pretrainings and of strategies, and means with intervals.

What cannot be tested gives NaN, and NaN never decides anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.errors import RunError
from ssl_transfer.study.declared import Stated, of_metric
from ssl_transfer.study.statistics.contrast_units import CHECKPOINTS
from ssl_transfer.study.statistics.corrections import ALPHA
from ssl_transfer.study.statistics.families import FAMILY, Families, Selectors
from ssl_transfer.study.statistics.two_samples import (
    Difference,
    hedges_g,
    paired_difference,
    paired_hedges_g,
    welch_difference,
)
from ssl_transfer.study.statistics.units import Arms, domain_arms
from ssl_transfer.study.table import CELL, complete, known_boundaries

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
    "test",
    "family",
    "level",
    "holds_for",
    "g_low",
    "g_high",
    "p_bh",
    "n_paired",
    "p_paired",
    "unpaired_a",
    "unpaired_b",
    "missing_a",
    "missing_b",
    "confidence",
]
PLANNED_COLUMNS = [
    *CELL,
    "a",
    "b",
    "boundary_a",
    "boundary_b",
]  # known before the study runs: families are made of them
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
    "family",
    "level",
    "holds_for",
]
SUMMARY_COLUMNS = [*CELL, "pretraining", "boundary", "unit", "n", "mean", "sd", "ci_low", "ci_high"]


def summary(frame: pd.DataFrame, boundaries: Mapping[tuple[str, str], str] | None = None) -> pd.DataFrame:
    """Mean, standard deviation (ddof 1) and 95 % t-interval over the units of each arm in each cell.

    Args:
        frame: As for `contrasts`.
        boundaries: As for `contrasts`.

    Returns:
        `SUMMARY_COLUMNS`, within a cell from the nearest source domain to random initialisation.
    """
    from scipy import special

    arms = domain_arms(frame, boundaries)
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
    *,
    shared_draws: bool = True,
    main_metrics: Mapping[tuple[str, str], str] | None = None,
    secondary: Selectors | None = None,
    exploratory: Selectors | None = None,
    planned: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Compare pretrainings pairwise within each protocol, task, strategy, fraction, noise, sigma and metric.

    `a` is the arm nearer to the target domain (then by name; random initialisation, which is an arm of that name or of
    that boundary, last); difference = mean_a − mean_b.

    Tests. `paired`: two arms with pretraining seeds, or two without (public weights), are compared over the runs of the same
    pretraining seed and evaluation seed that both have, since these had the same label subset, head and order. Evaluation
    seeds are averaged within the pretraining seed, which is the `unit`; if both share a single pretraining seed, or have none,
    the unit is the evaluation seed, and `holds_for` reads "these two checkpoints". `welch`: where one side alone has no
    pretraining seeds, or draws are not shared. A side then contributes its pretraining seeds if it has several, else its
    evaluation seeds; `unit` as before, and `holds_for` reads "this checkpoint" if one side has pretraining seeds.

    Verdicts, at the `level` of the row (see `families.Families.decide`): `equivalent` if the test of equivalence within
    `margin` (TOST) rejects, `equivalent and different` if that of a difference does too, `better` or `worse` if only that of
    a difference does, else `not decided`. Intervals, of Hedges' g too, have the `confidence` of the row: 1 − level, of an
    equivalence 1 − 2 · level, so that they agree with the verdict. Whether more or less is better is given by
    `measures.metrics`.

    Args:
        frame: A tidy table (`study_table`); boundary and run_id may be missing, and without noise its two columns.
        boundaries: (pretraining, task) -> boundary; None: the frame's own.
        margin: Largest difference that counts as equivalent, in units of the metric, for all metrics or for each by
            name; None: nothing is equivalent.
        family: Columns of `PLANNED_COLUMNS`; p-values are corrected over the pairs that share their values, by default over all
            tasks, strategies and noise settings of a protocol, metric and fraction. Every sigma adds its pairs to the family.
            Metrics are families of their own, `auroc_Mass` too.
        pairs: The pairs of pretrainings to compare, in either order; others do not count in a family. None: all.
        shared_draws: Whether two arms had the same label subset, head and order at the same seeds. False for results whose
            seeds are mere numbers: all tests are `welch`.
        main_metrics: (task, protocol) -> its main metric: contrasts of other metrics are exploratory unless `secondary` or
            `exploratory` say otherwise. None: all are secondary.
        secondary: Selectors of the secondary contrasts, see `families.Families`.
        exploratory: Selectors of the exploratory contrasts.
        planned: All runs of the study, finished or not (columns of the frame but the value): a family has as many tests as
            were planned. None: as many as are finished.

    Returns:
        `CONTRAST_COLUMNS`, one row per pair. n_a and n_b are the units used, and unpaired_a and unpaired_b the runs that were
        left out of a paired test because the other side lacks them. missing_a and missing_b are runs without a value: a paired
        test leaves them out, and Welch's gives NaN. n_paired and p_paired: pairs over pretraining seeds, for information where
        the test is `welch`.

    Raises:
        RunError: If a column is missing, a family names an unknown one, a cell holds one seed twice, noise has no sigma,
            a margin is not positive, or a pair is none.
    """
    families = Families(columns=family, main_metrics=main_metrics, secondary=secondary, exploratory=exploratory)
    families.check(PLANNED_COLUMNS)
    arms = domain_arms(frame, boundaries)
    left, right = _chosen(arms, pairs)
    test = _Tests.of(arms, left, right, shared_draws)
    table = _sides(arms, left, right).assign(**test.columns(), p_tost=np.nan)
    table["p_tost"] = test.difference.p_tost(_margins(margin, table["metric"]))
    tests = None if planned is None else _planned_tests(planned, frame, boundaries, pairs, shared_draws)
    table = families.decide(table, tests)
    confidence = table["confidence"].to_numpy()
    low, high = test.difference.interval(confidence)
    table = table.assign(ci_low=low, ci_high=high, **test.effect(confidence))
    table["holds_for"] = _scope(test.checkpoints)
    return table.reindex(columns=CONTRAST_COLUMNS)


def _sides(arms: Arms, left: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """Cell, names and boundaries of pairs of arms."""
    table = arms.table[CELL].take(left).reset_index(drop=True)
    for side, rows in (("a", left), ("b", right)):
        of_side = arms.table.take(rows).reset_index(drop=True)
        table[[side, f"boundary_{side}"]] = of_side[["pretraining", "boundary"]]
    return table


def _scope(checkpoints: np.ndarray) -> np.ndarray:
    """What verdicts hold for, in words, by their number of checkpoints."""
    return np.array(CHECKPOINTS, object)[checkpoints]


class _Tests:
    """The tests of many pairs of arms: paired where they share runs, Welch's elsewhere.

    Attributes:
        paired: Whether each pair of arms is compared in pairs.
        difference: The tests.
    """

    def __init__(self, arms: Arms, left: np.ndarray, right: np.ndarray, paired: np.ndarray):
        self.arms, self.left, self.right, self.paired = arms, left, right, paired
        units, samples = arms.shared(left, right), arms.samples()
        self.runs, self.by_seed = units.runs, units.by_seed
        self.shared_a, self.shared_b, self.pairs = units.samples()
        self.all_a, self.all_b = samples[left], samples[right]
        self.paired_difference = paired_difference(self.pairs)
        self.difference: Difference = self.paired_difference.where(paired, welch_difference(self.all_a, self.all_b))

    @classmethod
    def of(cls, arms: Arms, left: np.ndarray, right: np.ndarray, shared_draws: bool) -> _Tests:
        same = arms.trained[left] & arms.trained[right] | arms.public[left] & arms.public[right]
        return cls(arms, left, right, same & shared_draws)

    @property
    def by_pretraining(self) -> np.ndarray:
        """Whether pretraining seeds are the unit of both sides."""
        return self.checkpoints == 0

    @property
    def checkpoints(self) -> np.ndarray:
        """Number of sides whose units are not pretraining seeds."""
        single = (self.arms.table["unit"] != "pretraining_seed").to_numpy(int)
        return np.where(self.paired, 2 * self.by_seed, single[self.left] + single[self.right])

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of `CONTRAST_COLUMNS` that do not depend on the level."""
        paired, difference = self.paired, self.difference
        sides = {"a": (self.left, self.shared_a, self.all_a), "b": (self.right, self.shared_b, self.all_b)}
        columns = {
            "test": np.where(paired, "paired", "welch").astype(object),
            "unit": np.where(self.by_pretraining, "pretraining_seed", "seed").astype(object),
            "difference": difference.value,
            "t": difference.t,
            "df": difference.df,
            "p_value": difference.p_value,
            "n_paired": np.where(self.by_pretraining | paired, self.pairs.n, 0),
            "p_paired": np.where(self.by_pretraining | paired, self.paired_difference.p_value, np.nan),
        }
        for side, (rows, shared, every) in sides.items():
            columns[f"n_{side}"] = np.where(paired, shared.n, every.n)
            columns[f"mean_{side}"] = np.where(paired, shared.mean, every.mean)
            columns[f"unpaired_{side}"] = np.where(paired, self.arms.valued()[rows] - self.runs, 0)
            columns[f"missing_{side}"] = self.arms.missing()[rows]
        return columns

    def effect(self, confidence: np.ndarray) -> dict[str, np.ndarray]:
        """Hedges' g of each test, with its interval: the columns hedges_g, g_low and g_high."""
        values = np.full((3, len(self.left)), np.nan)
        p, w = self.paired, ~self.paired
        pairs = paired_hedges_g(self.shared_a[p], self.shared_b[p], self.pairs[p], confidence[p])
        values[:, p] = list(vars(pairs).values())
        values[:, w] = list(vars(hedges_g(self.all_a[w], self.all_b[w], confidence[w])).values())
        return dict(zip(("hedges_g", "g_low", "g_high"), values, strict=True))

    def possible(self) -> np.ndarray:
        """Whether both sides have two units."""
        return np.where(self.paired, self.pairs.n, np.minimum(self.all_a.n, self.all_b.n)) > 1


def _planned_tests(
    planned: pd.DataFrame,
    frame: pd.DataFrame,
    boundaries: Mapping[tuple[str, str], str] | None,
    pairs: Collection[Collection[str]] | None,
    shared_draws: bool,
) -> pd.DataFrame:
    """The contrasts of a finished study that can be tested: `PLANNED_COLUMNS`."""
    if boundaries is None:
        boundaries = known_boundaries(complete(frame))
    arms = domain_arms(planned.assign(value=1.0), boundaries)
    left, right = _chosen(arms, pairs)
    possible = _Tests.of(arms, left, right, shared_draws).possible()
    return _sides(arms, left[possible], right[possible])


def _chosen(arms: Arms, pairs: Collection[Collection[str]] | None) -> tuple[np.ndarray, np.ndarray]:
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


def _margins(margin: Stated, metrics: pd.Series) -> np.ndarray:
    """The margin of each row; NaN: none."""
    for metric, value in (margin if isinstance(margin, Mapping) else {"": margin}).items():
        if value is not None and not value > 0:
            of = f" of '{metric}'" if metric else ""
            raise RunError(f"statistics.margin{of}: found {value}, expected a positive number in units of the metric.")
    return np.array([of_metric(margin, metric) for metric in metrics], float)  # None becomes NaN


def strategy_contrasts(
    frame: pd.DataFrame,
    family: Sequence[str] = FAMILY,
    *,
    main_metrics: Mapping[tuple[str, str], str] | None = None,
    secondary: Selectors | None = None,
    exploratory: Selectors | None = None,
    planned: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Compare every two strategies of a protocol that start from the same backbones.

    Both adapt the same pretrainings, so the test is paired over pretraining seeds (evaluation seeds that both have averaged
    within) or, where the arm has one pretraining, over evaluation seeds, and `holds_for` then reads "this checkpoint".
    Only seeds that both strategies have are counted (`n`) and averaged. Protocols without strategies have no rows.

    Args:
        frame: As for `contrasts`.
        family: As for `contrasts`, of the columns of `SETTING`, a and b.
        main_metrics: As for `contrasts`.
        secondary: As for `contrasts`.
        exploratory: As for `contrasts`.
        planned: As for `contrasts`.

    Returns:
        `STRATEGY_COLUMNS`, one row per pair of strategies within each protocol, task, pretraining, fraction, noise,
        sigma and metric; a and b by name.

    Raises:
        RunError: As `contrasts`.
    """
    chosen = [selectors and [_settings(selector) for selector in selectors] for selectors in (secondary, exploratory)]
    families = Families(columns=family, main_metrics=main_metrics, secondary=chosen[0], exploratory=chosen[1])
    families.check([*SETTING, "a", "b"])
    test = _strategy_tests(frame)
    table = _strategies(test).assign(p_tost=np.nan)
    tests = None
    if planned is not None:
        whole = _strategy_tests(planned.assign(value=1.0))
        tests = _strategies(whole)[whole.possible()]
    table = families.decide(table.assign(n=test.pairs.n, **test.columns()), tests)
    low, high = test.difference.interval(1 - table["level"].to_numpy())
    table = table.assign(ci_low=low, ci_high=high, holds_for=_scope(test.checkpoints // 2))
    return table.reindex(columns=STRATEGY_COLUMNS)


def _settings(selector: Mapping[str, Any]) -> dict[str, Any]:
    """A selector without the strategy: a contrast of strategies has two of them."""
    return {name: value for name, value in selector.items() if name != "strategy"}


def _strategy_tests(frame: pd.DataFrame) -> _Tests:
    """Paired tests of all strategies of the same backbones."""
    frame = complete(frame)
    arms = Arms.of(frame[frame["strategy"] != ""], SETTING, ["strategy"])
    left, right = arms.pairs()
    return _Tests(arms, left, right, np.ones(len(left), bool))


def _strategies(test: _Tests) -> pd.DataFrame:
    """Setting and names of pairs of strategies; `strategy` is empty, since a contrast is of two."""
    names = test.arms.table["strategy"].to_numpy()
    table = test.arms.table[SETTING].take(test.left).reset_index(drop=True)
    return table.assign(a=names[test.left], b=names[test.right], strategy="")
