"""Tests for two arms with a handful of values each: difference, significance, effect size and equivalence.

Every test takes either the values of two arms and returns numbers, or `Samples` (many pairs of arms at once) and returns
arrays. All variances have ddof = 1. A test that is not possible (fewer than two values on a side, a NaN, or no variance:
equal values carry no information about other seeds) gives NaN, and NaN never decides anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_transfer.errors import RunError
from ssl_transfer.study.statistics.detectable import noncentrality


@dataclass(frozen=True)
class Samples:
    """Sufficient statistics of samples: three arrays with an entry per sample, or three numbers for one sample.

    Attributes:
        n: Number of values.
        mean: NaN without values.
        variance: With ddof 1. NaN with fewer than two values, or if one is not finite; 0 if all are equal up to rounding
            (means of equal runs differ in their last digits).
    """

    n: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray | Samples) -> Samples:
        """One sample from its values, shape (n,); `Samples` are returned as they are."""
        if isinstance(values, Samples):
            return values
        values = np.asarray(values, float)
        return cls.grouped(values, np.zeros(len(values), int), 1)[0]

    @classmethod
    def grouped(cls, values: np.ndarray, sample: np.ndarray, count: int, size: np.ndarray | None = None) -> Samples:
        """Many samples.

        Args:
            values: The values of all samples, shape (N,).
            sample: The sample that each value belongs to: 0 … count − 1, shape (N,).
            count: Number of samples.
            size: Magnitude of the numbers that each value was computed from, for the rounding error of the variance; None:
                the magnitude of the value. Shape (N,).
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
class Difference:
    """An estimated difference of means, of which Student's t with `df` degrees of freedom is (value − truth) / error.

    Attributes:
        value: mean_a − mean_b; a number or an array.
        error: Its standard error; NaN where no test is possible.
        df: Degrees of freedom.
    """

    value: np.ndarray
    error: np.ndarray
    df: np.ndarray

    @property
    def t(self) -> np.ndarray:
        """The test statistic against 0."""
        return self.value / self.error

    @property
    def p_value(self) -> np.ndarray:
        """Two-sided p-value against 0."""
        from scipy import special

        return 2 * special.stdtr(self.df, -np.abs(self.t))

    def interval(self, confidence: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of the two-sided confidence interval."""
        from scipy import special

        half = special.stdtrit(self.df, (1 + confidence) / 2) * self.error
        return self.value - half, self.value + half

    def p_tost(self, margin: float | np.ndarray) -> np.ndarray:
        """The p-value of equivalence: the larger one of two one-sided tests, against −margin and against +margin."""
        from scipy import special

        below, above = (-margin - self.value) / self.error, (self.value - margin) / self.error
        return np.maximum(special.stdtr(self.df, below), special.stdtr(self.df, above))

    def where(self, keep: np.ndarray, other: Difference) -> Difference:
        """These differences where `keep`, else those of `other`; arrays of one shape."""
        return Difference(
            *(np.where(keep, mine, its) for mine, its in zip(vars(self).values(), vars(other).values(), strict=True))
        )


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
        The test; its fields are arrays for `Samples`. Interval, t, df and p are NaN where no test is possible.
    """
    a, b = Samples.of(a), Samples.of(b)
    test = welch_difference(a, b)
    ends = test.interval(confidence)
    return Welch(*_plain(a.n, b.n, a.mean, b.mean, test.value, *ends, test.t, test.df, test.p_value))


def welch_difference(a: Samples, b: Samples) -> Difference:
    """mean_a − mean_b of independent samples, with Welch–Satterthwaite's degrees of freedom."""
    n_a, n_b = _testable_n(a, b)
    squared = a.variance / n_a + b.variance / n_b
    share = a.variance / n_a / squared
    df = 1 / (share**2 / (n_a - 1) + (1 - share) ** 2 / (n_b - 1))
    return Difference(a.mean - b.mean, np.sqrt(squared), df)


def _testable_n(a: Samples, b: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of values of both sides; NaN where no test is possible, so that all that is computed from them is NaN too."""
    testable = a.variance + b.variance > 0  # False for NaN
    return np.where(testable, a.n, np.nan)[()], np.where(testable, b.n, np.nan)[()]


def _plain(*values: np.ndarray) -> list:
    """Python numbers for one pair, arrays for many."""
    return [np.asarray(value).item() if np.ndim(value) == 0 else value for value in values]


def tost(a: np.ndarray | Samples, b: np.ndarray | Samples, margin: float | np.ndarray) -> float:
    """Test whether mean_a − mean_b lies within ±margin: two one-sided Welch tests; the larger p is returned.

    A small p supports equivalence. Arguments and arrays as for `welch`; NaN also where the margin is.
    """
    return _plain(welch_difference(Samples.of(a), Samples.of(b)).p_tost(margin))[0]


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
    """Samples of the differences a − b, for `paired_test`; `pair` is the sample (0 … count − 1) of each."""
    return Samples.grouped(a - b, pair, count, np.maximum(np.abs(a), np.abs(b)))


def paired_test(samples: Samples, confidence: float = 0.95) -> Paired:
    """The paired test for one sample of `differences`, or for many."""
    test = paired_difference(samples)
    ends = test.interval(confidence)
    return Paired(*_plain(samples.n, test.value, *ends, test.t, test.df, test.p_value))


def paired_difference(samples: Samples) -> Difference:
    """The mean of `differences`, with n − 1 degrees of freedom."""
    n = np.where(samples.variance > 0, samples.n, np.nan)[()]
    return Difference(samples.mean, np.sqrt(samples.variance / n), n - 1)


@dataclass(frozen=True)
class Effect:
    """A standardised difference with its interval."""

    g: float
    ci_low: float
    ci_high: float


def hedges_g(a: np.ndarray | Samples, b: np.ndarray | Samples, confidence: float | np.ndarray = 0.95) -> Effect:
    """Standardise the difference mean_a − mean_b by the pooled standard deviation, corrected for small n.

    The interval inverts the noncentral t distribution (exact for equal variances; a normal approximation is far
    too narrow at four seeds) and carries the same correction. Arguments, arrays and NaN as for `welch`.

    References:
        Hedges 1981, https://doi.org/10.3102/10769986006002107.
    """
    a, b = Samples.of(a), Samples.of(b)
    n_a, n_b = _testable_n(a, b)
    df, scale = n_a + n_b - 2, np.sqrt(1 / n_a + 1 / n_b)
    pooled = np.sqrt(((n_a - 1) * a.variance + (n_b - 1) * b.variance) / df)
    return _effect((a.mean - b.mean) / (pooled * scale), df, scale, confidence)


def paired_hedges_g(a: Samples, b: Samples, pairs: Samples, confidence: float | np.ndarray = 0.95) -> Effect:
    """Standardise a paired difference by the standard deviation within arms, √((variance_a + variance_b) / 2).

    It is on the scale of `hedges_g`, whatever the correlation of the pairs. The interval is that of Student's t of the
    differences, so that it holds 0 exactly if the paired test is not significant.

    Args:
        a: Units of side a that have a partner.
        b: Their partners.
        pairs: Their `differences`.
        confidence: Level of the interval.

    References:
        Algina and Keselman 2003, https://doi.org/10.1177/0013164403256358.
    """
    test = paired_difference(pairs)
    with np.errstate(divide="ignore", invalid="ignore"):  # arms without variance
        scale = test.error / np.sqrt((a.variance + b.variance) / 2)
    return _effect(test.t, test.df, np.where(np.isfinite(scale), scale, np.nan)[()], confidence)


def _effect(t: np.ndarray, df: np.ndarray, scale: np.ndarray, confidence: float | np.ndarray) -> Effect:
    """t · scale and its interval, with Hedges' correction for the bias of a standard deviation of few values.

    NaN with one degree of freedom, for which no unbiased estimate exists.
    """
    from scipy import special

    df = np.where(np.asarray(df) > 1, df, np.nan)[()]
    correction = np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / np.sqrt(df / 2)
    tail = (1 - confidence) / 2
    bounds = (noncentrality(df, p, t) for p in (1 - tail, tail))
    return Effect(*_plain(*(correction * scale * x for x in (t, *bounds))))
