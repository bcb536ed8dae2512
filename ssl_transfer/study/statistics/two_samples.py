"""Tests for two arms with a handful of values each: difference, significance, effect size, equivalence and power.

A test takes two samples and answers in numbers, or takes `Samples`, many pairs at once, and answers in arrays. Every
variance has ddof = 1. What cannot be tested (fewer than two values on a side, a NaN among them, no variance on either)
gives NaN, and NaN never decides anything: equal seeds carry no information about other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_transfer.errors import RunError

ALPHA = 0.05
MOST_SEEDS = 10_000  # per side: beyond this `seeds_needed` stops looking


@dataclass(frozen=True)
class Samples:
    """What the tests need of samples: three arrays with an entry per sample, or three numbers for one sample.

    Attributes:
        n: Values in it.
        mean: NaN if there is none.
        variance: NaN with fewer than two values or a value that is not finite; 0 if all are equal up to rounding, as
            means of equal runs are.
    """

    n: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray | Samples) -> Samples:
        """One sample from its values, shape (n,); what is `Samples` already stays."""
        if isinstance(values, Samples):
            return values
        values = np.asarray(values, float)
        return cls.grouped(values, np.zeros(len(values), int), 1)[0]

    @classmethod
    def grouped(cls, values: np.ndarray, sample: np.ndarray, count: int, size: np.ndarray | None = None) -> Samples:
        """Many samples.

        Args:
            values: All their values, shape (N,).
            sample: Which sample each belongs to: 0 … count − 1, shape (N,).
            count: How many samples there are.
            size: How large the numbers are that a value was computed from, which says what rounding is; by default its
                own size. Shape (N,).
        """
        values = np.asarray(values, float)
        n = np.bincount(sample, minlength=count)
        with np.errstate(invalid="ignore", divide="ignore"):  # empty samples, infinite values
            mean = np.bincount(sample, values, count) / n
            squares = np.bincount(sample, np.square(values - mean[sample]), count)
            low, high, most = np.full(count, np.inf), np.full(count, -np.inf), np.zeros(count)
            np.minimum.at(low, sample, values)
            np.maximum.at(high, sample, values)
            np.maximum.at(most, sample, np.abs(values if size is None else size))
            variance = np.where(high - low > 1e-12 * most, squares / (n - 1), 0.0)
        return cls(n, mean, np.where((n > 1) & np.isfinite(squares), variance, np.nan))

    def __getitem__(self, which: Any) -> Samples:
        return Samples(self.n[which], self.mean[which], self.variance[which])


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


def welch(a: np.ndarray | Samples, b: np.ndarray | Samples, confidence: float = 0.95) -> Welch:
    """Compare two means without assuming equal variances.

    Args:
        a: One value per unit, shape (n_a,), or `Samples`.
        b: One value per unit, shape (n_b,), or as many `Samples`.
        confidence: Level of the interval around the difference.

    Returns:
        The test; its fields are arrays for `Samples`. Interval, t, df and p are NaN where nothing can be tested.
    """
    from scipy import special

    a, b = Samples.of(a), Samples.of(b)
    difference, (error, df) = a.mean - b.mean, _standard_error(a, b)
    t, reach = difference / error, special.stdtrit(df, (1 + confidence) / 2) * error
    p = 2 * special.stdtr(df, -np.abs(t))
    return Welch(*_plain(a.n, b.n, a.mean, b.mean, difference, difference - reach, difference + reach, t, df, p))


def _standard_error(a: Samples, b: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Of the difference of means, with Welch–Satterthwaite's degrees of freedom."""
    n_a, n_b = _testable_n(a, b)
    squared = a.variance / n_a + b.variance / n_b
    share = a.variance / n_a / squared
    return np.sqrt(squared), 1 / (share**2 / (n_a - 1) + (1 - share) ** 2 / (n_b - 1))


def _testable_n(a: Samples, b: Samples) -> tuple[np.ndarray, np.ndarray]:
    """How many values each side has, NaN where nothing can be tested: all that is computed from it is NaN then too."""
    testable = a.variance + b.variance > 0  # False for NaN
    return np.where(testable, a.n, np.nan)[()], np.where(testable, b.n, np.nan)[()]


def _plain(*values: np.ndarray) -> list:
    """Python numbers for one pair, arrays for many."""
    return [np.asarray(value).item() if np.ndim(value) == 0 else value for value in values]


@dataclass(frozen=True)
class Effect:
    """A standardised difference with its interval."""

    g: float
    ci_low: float
    ci_high: float


def hedges_g(a: np.ndarray | Samples, b: np.ndarray | Samples, confidence: float = 0.95) -> Effect:
    """Standardise the difference mean_a − mean_b by the pooled standard deviation, corrected for small n.

    The interval inverts the noncentral t distribution (exact for equal variances; a normal approximation is far
    too narrow at four seeds) and carries the same correction. Arguments, arrays and NaN as for `welch`.

    References:
        Hedges 1981, https://doi.org/10.3102/10769986006002107.
    """
    from scipy import special

    a, b = Samples.of(a), Samples.of(b)
    n_a, n_b = _testable_n(a, b)
    df, scale = n_a + n_b - 2, np.sqrt(1 / n_a + 1 / n_b)
    correction = np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / np.sqrt(df / 2)
    pooled = np.sqrt(((n_a - 1) * a.variance + (n_b - 1) * b.variance) / df)
    t = (a.mean - b.mean) / (pooled * scale)
    tail = (1 - confidence) / 2
    bounds = (noncentrality(df, p, t) for p in (1 - tail, tail))
    return Effect(*_plain(*(correction * scale * x for x in (t, *bounds))))


def noncentrality(df: np.ndarray | float, p: float, t: np.ndarray) -> np.ndarray:
    """The noncentrality at which Student's t with `df` degrees of freedom is below `t` with probability `p`.

    scipy inverts the distribution up to |t| = 100; beyond, where it loses digits and then never returns (seen at
    5·10⁵), the statistic is t·√(χ²/df) plus a standard normal too small to count beyond its second order.
    """
    from scipy import special

    small = np.abs(t) <= 100
    chi = np.sqrt(special.chdtri(df, np.where(t > 0, p, 1 - p)) / df)
    with np.errstate(divide="ignore", invalid="ignore"):  # t of 0, which is not far
        far = t * chi - ((df - 1) / chi - df * chi) / (2 * t)
    return np.where(small, special.nctdtrinc(df, p, np.where(small, t, np.nan)), far)[()]


def tost(a: np.ndarray | Samples, b: np.ndarray | Samples, margin: float | np.ndarray) -> float:
    """Test whether mean_a − mean_b lies within ±margin: two one-sided Welch tests; the larger p is returned.

    A small p supports equivalence. Arguments and arrays as for `welch`; NaN also where the margin is.
    """
    from scipy import special

    a, b = Samples.of(a), Samples.of(b)
    difference, (error, df) = a.mean - b.mean, _standard_error(a, b)
    below, above = ((-margin - difference) / error, (difference - margin) / error)
    return _plain(np.maximum(special.stdtr(df, below), special.stdtr(df, above)))[0]


@dataclass(frozen=True)
class Paired:
    """A paired t-test: Student's t of `n` differences a − b against 0; `p_value` two-sided."""

    n: int
    difference: float
    ci_low: float
    ci_high: float
    t: float
    df: float
    p_value: float


def paired(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Paired:
    """Compare two arms whose values belong together: value i of both has the same seed.

    Args:
        a: One value per seed, shape (n,).
        b: One value per seed in the same order, shape (n,).
        confidence: Level of the interval around the mean difference.

    Raises:
        RunError: If the sides have different numbers of values.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise RunError(f"paired test: found {len(a)} values against {len(b)}, expected one of each seed on both sides.")
    return paired_test(differences(a, b, np.zeros(len(a), int), 1)[0], confidence)


def differences(a: np.ndarray, b: np.ndarray, pair: np.ndarray, count: int) -> Samples:
    """Samples of differences a − b for `paired_test`; `pair` says which of `count` samples each belongs to."""
    return Samples.grouped(a - b, pair, count, np.maximum(np.abs(a), np.abs(b)))


def paired_test(samples: Samples, confidence: float = 0.95) -> Paired:
    """The paired test for one sample of `differences`, or for many."""
    from scipy import special

    n = np.where(samples.variance > 0, samples.n, np.nan)[()]
    error, df = np.sqrt(samples.variance / n), n - 1
    t, reach = samples.mean / error, special.stdtrit(df, (1 + confidence) / 2) * error
    p = 2 * special.stdtr(df, -np.abs(t))
    return Paired(*_plain(samples.n, samples.mean, samples.mean - reach, samples.mean + reach, t, df, p))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p-values for their number by Holm's step-down rule; a NaN stays NaN and does not count.

    Bounds the chance of even one false rejection in the family. The tests hold it and `benjamini_hochberg` against
    statsmodels' `multipletests`, which collects garbage at every call: 60 ms a family.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN sorts last
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return corrected


def benjamini_hochberg(p_values: Sequence[float]) -> np.ndarray:
    """Correct p-values by Benjamini and Hochberg's step-up rule; a NaN stays NaN and does not count.

    Bounds the expected share of false ones among the rejections, which is less than `holm` promises.

    References:
        Benjamini and Hochberg 1995, https://doi.org/10.1111/j.2517-6161.1995.tb02031.x.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.isfinite(p).sum()][::-1]
    corrected = np.full(p.shape, np.nan)
    share = len(order) / np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.minimum.accumulate(p[order] * share), 1)
    return corrected


def minimal_detectable_effect(n_a: int, n_b: int, power: float = 0.8, alpha: float = ALPHA) -> float:
    """The smallest true difference, in standard deviations, that a two-sided t-test finds with this power.

    For equal variances and before any correction for the number of tests; significance with the wrong sign is not
    counted as detected. NaN with fewer than two units on a side.

    Example:
        >>> round(minimal_detectable_effect(4, 4), 2)
        2.38
    """
    from scipy import special

    if min(n_a, n_b) < 2:
        return math.nan
    df = n_a + n_b - 2
    return float(noncentrality(df, 1 - power, special.stdtrit(df, 1 - alpha / 2)) * math.sqrt(1 / n_a + 1 / n_b))


def seeds_needed(effect_sd: float, power: float = 0.8, alpha: float = ALPHA) -> int | None:
    """The fewest seeds per side with which `minimal_detectable_effect` is no larger than an effect.

    Args:
        effect_sd: True difference in standard deviations of one arm; the sign does not matter.
        power: Chance to find it.
        alpha: Level of the two-sided test.

    Returns:
        At least 2; None if `MOST_SEEDS` do not suffice, as for an effect of 0 or NaN.

    Example:
        >>> seeds_needed(1.0)
        17
    """
    few, many = 1, MOST_SEEDS
    if not minimal_detectable_effect(many, many, power, alpha) <= abs(effect_sd):
        return None
    while many - few > 1:  # `many` suffices, `few` do not
        middle = (few + many) // 2
        enough = minimal_detectable_effect(middle, middle, power, alpha) <= abs(effect_sd)
        few, many = (few, middle) if enough else (middle, many)
    return many
