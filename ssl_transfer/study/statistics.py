"""Is the difference between two pretrainings more than the luck of their seeds?

Pure functions, numbers and frames in, numbers and frames out; scipy and statsmodels do the arithmetic. Every
standard deviation has ddof = 1. What cannot be tested (fewer than two seeds on a side, or no spread on either) gives
NaN, and NaN never decides anything.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ssl_transfer.errors import RunError, nearest
from ssl_transfer.result import better
from ssl_transfer.study.table import CELL, SCRATCH, complete

ALPHA = 0.05
CONTRAST_COLUMNS = [
    *CELL, "a", "b", "boundary_a", "boundary_b", "unit", "n_a", "n_b", "mean_a", "mean_b", "difference", "ci_low",
    "ci_high", "t", "df", "p_value", "p_holm", "p_tost", "hedges_g", "verdict",
]  # fmt: skip
SUMMARY_COLUMNS = [*CELL, "pretraining", "boundary", "unit", "n", "mean", "sd", "ci_low", "ci_high"]
NEARNESS = {"none": 0, "soft": 1, "hard": 2}  # of a source domain to the target; anything else lies behind these


@dataclass(frozen=True)
class Welch:
    """Welch's t-test of mean_a − mean_b; `df` is Welch–Satterthwaite's, `p_value` two-sided."""

    n_a: int
    n_b: int
    mean_a: float
    mean_b: float
    difference: float
    ci_low: float
    ci_high: float
    t: float
    df: float
    p_value: float


def welch(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Welch:
    """Compare two means without assuming equal variances.

    Args:
        a: One value per unit, shape (n_a,).
        b: One value per unit, shape (n_b,).
        confidence: Of the interval around the difference.

    Returns:
        The test. With fewer than two values on a side, with a NaN among the values, or with no spread on either side
        (up to rounding), interval, t, df and p are NaN: seeds that never differ say nothing about seeds not drawn.
    """
    from scipy import stats

    a, b = np.asarray(a, float), np.asarray(b, float)
    means = (_mean(a), _mean(b))
    low = high = t = df = p = math.nan
    if _testable(a, b):
        with warnings.catch_warnings():  # scipy warns of a side without spread, which `_testable` has weighed already
            warnings.simplefilter("ignore", RuntimeWarning)
            test = stats.ttest_ind(a, b, equal_var=False)
        low, high = test.confidence_interval(confidence)
        t, df, p = test.statistic, test.df, test.pvalue
    return Welch(len(a), len(b), *means, means[0] - means[1], *(float(x) for x in (low, high, t, df, p)))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _testable(a: np.ndarray, b: np.ndarray) -> bool:
    return min(len(a), len(b)) >= 2 and bool(np.isfinite([*a, *b]).all()) and (_spreads(a) or _spreads(b))


def _spreads(values: np.ndarray) -> bool:
    """False if the values are equal up to rounding: means of equal runs differ in their last bits."""
    return bool(np.ptp(values) > 1e-12 * np.abs(values).max())


@dataclass(frozen=True)
class Effect:
    """A standardised difference with its interval."""

    g: float
    ci_low: float
    ci_high: float


def hedges_g(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Effect:
    """Standardise the difference mean_a − mean_b by the pooled standard deviation, corrected for small n.

    The interval inverts the noncentral t distribution (exact for equal variances; a normal approximation is far
    too narrow at four seeds) and carries the same correction. NaN where `welch` gives NaN.

    References:
        Hedges 1981, https://doi.org/10.3102/10769986006002107.
    """
    from scipy import special

    a, b = np.asarray(a, float), np.asarray(b, float)
    if not _testable(a, b):
        return Effect(math.nan, math.nan, math.nan)
    df, scale = len(a) + len(b) - 2, math.sqrt(1 / len(a) + 1 / len(b))
    correction = math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2)
    pooled = math.sqrt(((len(a) - 1) * np.var(a, ddof=1) + (len(b) - 1) * np.var(b, ddof=1)) / df)
    t = (_mean(a) - _mean(b)) / (pooled * scale)
    tail = (1 - confidence) / 2
    bounds = [special.nctdtrinc(df, p, t) for p in (1 - tail, tail)]
    return Effect(*(float(correction * scale * x) for x in (t, *bounds)))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p-values for their number by Holm's step-down rule; a NaN stays NaN and does not count.

    The tests hold it against statsmodels' `multipletests`, which collects garbage at every call: 60 ms a family.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN sorts last
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return corrected


def tost(a: np.ndarray, b: np.ndarray, margin: float) -> float:
    """Test whether mean_a − mean_b lies within ±margin: two one-sided Welch tests; the larger p is returned.

    A small p supports equivalence. NaN where `welch` gives NaN.
    """
    from statsmodels.stats.weightstats import ttost_ind

    a, b = np.asarray(a, float), np.asarray(b, float)
    if not _testable(a, b):
        return math.nan
    return float(ttost_ind(a, b, -margin, margin, usevar="unequal")[0])


def minimal_detectable_effect(n_a: int, n_b: int, power: float = 0.8, alpha: float = ALPHA) -> float:
    """The smallest true difference, in standard deviations, that a two-sided t-test finds with this power.

    For equal variances and before any correction for the number of tests; significance with the wrong sign is not
    counted as found. NaN with fewer than two units on a side.

    Example:
        >>> round(minimal_detectable_effect(4, 4), 2)
        2.38
    """
    from scipy import special, stats

    if min(n_a, n_b) < 2:
        return math.nan
    df = n_a + n_b - 2
    noncentrality = special.nctdtrinc(df, 1 - power, stats.t.ppf(1 - alpha / 2, df))
    return float(noncentrality * math.sqrt(1 / n_a + 1 / n_b))


def seed_units(frame: pd.DataFrame) -> pd.DataFrame:
    """The independent values of each arm in each cell.

    The unit is the pretraining seed: fine-tuning seeds are averaged within it, since they share its luck. An
    arm with a single pretraining seed (or none, such as public weights) has only its fine-tuning seeds.

    Args:
        frame: As for `contrasts`.

    Returns:
        One row per unit: the columns of `CELL`, pretraining, unit (`pretraining_seed` or `seed`) and value (NaN
        where a run of the unit has no value).
    """
    frame = complete(frame)
    arm = [*CELL, "pretraining"]
    own = frame.groupby(arm, dropna=False)["pretraining_seed"]
    several = (own.transform("nunique") > 1) & (own.transform("count") == own.transform("size"))
    frame["unit"] = np.where(several, "pretraining_seed", "seed")
    frame["one"] = frame["pretraining_seed"].where(several, frame["seed"])
    runs = frame.groupby([*arm, "unit", "one"], dropna=False)["value"]
    values = runs.mean().where(runs.count() == runs.size())
    return values.reset_index().drop(columns="one")


def summary(frame: pd.DataFrame, boundaries: Mapping[tuple[str, str], str] | None = None) -> pd.DataFrame:
    """Mean, standard deviation (ddof 1) and 95 % t-interval over the units of each arm in each cell.

    Args:
        frame: As for `contrasts`.
        boundaries: As for `contrasts`.

    Returns:
        `SUMMARY_COLUMNS`, within a cell from the nearest source domain to random initialisation.
    """
    from scipy import stats

    rows = []
    for cell, arms in _cells(frame, boundaries):
        for arm, (boundary, values, unit) in arms.items():
            mean, n = _mean(values), len(values)
            sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
            reach = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * sd / math.sqrt(n) if n > 1 else math.nan
            rows.append((*cell, arm, boundary, unit, n, mean, sd, mean - reach, mean + reach))
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def contrasts(
    frame: pd.DataFrame,
    boundaries: Mapping[tuple[str, str], str] | None = None,
    margin: float | None = None,
    family: Sequence[str] = ("protocol", "metric"),
) -> pd.DataFrame:
    """Compare every pair of pretrainings within each protocol, task, strategy, fraction, noise, sigma and metric.

    `a` is the arm nearer to the target domain (then by name; random initialisation last); difference = mean_a − mean_b.
    The unit is the pretraining seed. If a side has only one, the unit reads `seed`: that side contributes its
    fine-tuning seeds (a side with several pretraining seeds still contributes those), and the verdict says
    that it holds "for these two checkpoints". Verdicts: `equivalent` if TOST at `margin` is below .05 (`equivalent and
    different` if Holm's p is too), else `better` or `worse` if Holm's p is below .05, else `not decided`. Which sign
    is the better one says `result.better`: less of an error, a calibration error or a distance.

    Args:
        frame: A tidy table (`study_table`); boundary and run_id may be missing, and without noise its two columns.
        boundaries: (pretraining, task) -> boundary; by default the frame's own.
        margin: Largest difference that counts as equivalent, in units of the metric; None: nothing is ever equivalent.
        family: Columns of the result; Holm's correction runs over the pairs that share their values. By default over all
            tasks, strategies, fractions and noise settings of a protocol: every sigma adds its pairs to the
            family, and so raises the bar for all. Metrics are families of their own, `auroc_Mass` too.

    Returns:
        `CONTRAST_COLUMNS`, one row per pair.

    Raises:
        RunError: If a column is missing, a family names an unknown one, a cell holds one seed twice, or noise has no sigma.
    """
    for name in family:
        if name not in CONTRAST_COLUMNS:
            raise RunError(f"statistics.family: contrasts have no column '{name}'.{nearest(name, CONTRAST_COLUMNS)}")
    if margin is not None and not margin > 0:
        raise RunError(f"statistics.margin: found {margin}, expected a positive number in units of the metric.")
    rows = [
        (*cell, a, b, *_compare(arms[a], arms[b], margin))
        for cell, arms in _cells(frame, boundaries)
        for a, b in itertools.combinations(arms, 2)
    ]
    untested = [name for name in CONTRAST_COLUMNS if name not in ("p_holm", "verdict")]
    table = pd.DataFrame(rows, columns=untested).assign(p_holm=math.nan, verdict="")
    for _, tests in table.groupby(list(family), dropna=False) if family else [((), table)]:
        table.loc[tests.index, "p_holm"] = holm(tests["p_value"])
    table["verdict"] = [_verdict(row) for row in table.itertuples()]
    return table[CONTRAST_COLUMNS]


def _compare(side_a: tuple, side_b: tuple, margin: float | None) -> tuple:
    (boundary_a, a, unit_a), (boundary_b, b, unit_b) = side_a, side_b
    unit = "pretraining_seed" if unit_a == unit_b == "pretraining_seed" else "seed"
    test = welch(a, b)
    p_tost = math.nan if margin is None else tost(a, b, margin)
    return (
        boundary_a, boundary_b, unit, test.n_a, test.n_b, test.mean_a, test.mean_b, test.difference, test.ci_low,
        test.ci_high, test.t, test.df, test.p_value, p_tost, hedges_g(a, b).g,
    )  # fmt: skip


def _verdict(row) -> str:
    different = row.p_holm < ALPHA
    if row.p_tost < ALPHA:
        verdict = "equivalent and different" if different else "equivalent"
    elif different:
        verdict = "better" if row.difference * better(row.metric) > 0 else "worse"
    else:
        verdict = "not decided"
    return verdict if row.unit == "pretraining_seed" else f"{verdict} (for these two checkpoints)"


def _cells(frame: pd.DataFrame, boundaries: Mapping[tuple[str, str], str] | None):
    """Yield each cell's key and its arms, nearest first: name -> (boundary, values, unit)."""
    if boundaries is None:
        boundaries = complete(frame).groupby(["pretraining", "task"])["boundary"].first().to_dict()
    for cell, units in seed_units(frame).groupby(CELL, dropna=False):
        task, arms = cell[CELL.index("task")], {}
        for arm, own in units.groupby("pretraining"):
            arms[arm] = (boundaries.get((arm, task), ""), own["value"].to_numpy(float), own["unit"].iloc[0])
        yield cell, dict(sorted(arms.items(), key=lambda item: _place(item[0], item[1][0])))


def _place(arm: str, boundary: str) -> tuple:
    return arm == SCRATCH, NEARNESS.get(boundary, 3), arm
