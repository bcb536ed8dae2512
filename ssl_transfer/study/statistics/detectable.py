"""The differences that a design can detect, and the seeds that a difference needs, by the noncentral t distribution."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ssl_transfer.study.statistics.corrections import ALPHA

POWER = 0.8
MOST_SEEDS = 10_000  # per side: beyond this no number of seeds is searched


def minimal_detectable_effect(n_a: int, n_b: int, power: float = POWER, alpha: float = ALPHA) -> float:
    """The smallest true difference, in standard deviations of one arm, that a two-sided t-test finds with this power.

    For two independent arms of equal variances. Significance with the wrong sign is not counted as detected. NaN with fewer
    than two units on a side.

    Args:
        n_a: Units of one side.
        n_b: Units of the other.
        power: Chance to find the difference.
        alpha: Level of the test.

    Example:
        >>> round(minimal_detectable_effect(4, 4), 2)
        2.38
    """
    if min(n_a, n_b) < 2:
        return math.nan
    return _detectable(n_a + n_b - 2, math.sqrt(1 / n_a + 1 / n_b), power, alpha)


def paired_detectable_effect(n: int, power: float = POWER, alpha: float = ALPHA) -> float:
    """The smallest true mean difference, in standard deviations of the differences, that a paired t-test finds.

    Args:
        n: Number of pairs.
        power: Chance to find the difference.
        alpha: Level of the test, two-sided.

    Returns:
        NaN with fewer than two pairs.

    Example:
        >>> round(paired_detectable_effect(4), 2)
        2.13
    """
    return _detectable(n - 1, 1 / math.sqrt(n), power, alpha) if n > 1 else math.nan


def _detectable(df: float, scale: float, power: float, alpha: float) -> float:
    from scipy import special

    return float(noncentrality(df, 1 - power, special.stdtrit(df, 1 - alpha / 2)) * scale)


def seeds_needed(effect_sd: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
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
    return fewest(lambda n: minimal_detectable_effect(n, n, power, alpha), effect_sd)


def paired_seeds_needed(effect_sd: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """The fewest pairs with which `paired_detectable_effect` is no larger than an effect.

    Args:
        effect_sd: True mean difference in standard deviations of the differences; the sign does not matter.
        power: Chance to find it.
        alpha: Level of the two-sided test.

    Returns:
        At least 2; None if `MOST_SEEDS` do not suffice, as for an effect of 0 or NaN.

    Example:
        >>> paired_seeds_needed(1.0)
        10
    """
    return fewest(lambda n: paired_detectable_effect(n, power, alpha), effect_sd)


def equivalence_pairs_needed(margin_sd: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """The fewest pairs with which two one-sided t-tests find sides equivalent that do not differ.

    They do if the mean difference is within margin − t(1 − alpha) standard errors; its distribution is taken as Student's.

    Args:
        margin_sd: Margin in standard deviations of the differences.
        power: Chance to find them equivalent.
        alpha: Level of each one-sided test.

    Returns:
        At least 2; None if `MOST_SEEDS` do not suffice.

    Example:
        >>> equivalence_pairs_needed(1.0)
        11
    """
    from scipy import special

    def reaches(n: int) -> float:
        quantiles = special.stdtrit(n - 1, [1 - alpha, (1 + power) / 2])
        return float(quantiles.sum() / math.sqrt(n)) if n > 1 else math.nan

    return fewest(reaches, margin_sd)


def fewest(detects: Callable[[int], float], effect: float) -> int | None:
    """The smallest n with detects(n) ≤ |effect|, by bisection; `detects` falls with n."""
    few, many = 1, MOST_SEEDS
    if not detects(many) <= abs(effect):
        return None
    while many - few > 1:  # `many` suffices, `few` do not
        middle = (few + many) // 2
        few, many = (few, middle) if detects(middle) <= abs(effect) else (middle, many)
    return many


def noncentrality(df: np.ndarray | float, p: np.ndarray | float, t: np.ndarray) -> np.ndarray:
    """The noncentrality at which Student's t with `df` degrees of freedom is below `t` with probability `p`.

    scipy inverts the distribution up to |t| = 100. Beyond, where it loses digits and then never returns (seen at
    5·10⁵), an expansion is used: the noncentrality is t·√(χ²/df) plus a standard normal, which matters to second order only.
    """
    from scipy import special

    small = np.abs(t) <= 100
    chi = np.sqrt(special.chdtri(df, np.where(t > 0, p, 1 - p)) / df)
    with np.errstate(divide="ignore", invalid="ignore"):  # t of 0, which is not far
        far = t * chi - ((df - 1) / chi - df * chi) / (2 * t)
    return np.where(small, special.nctdtrinc(df, p, np.where(small, t, np.nan)), far)[()]
