"""Corrections for many tests: corrected p-values, and the level at which each test of a family is decided.

A family may have more tests than p-values: those that are planned and not finished. They count as if their p were 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ALPHA = 0.05  # of a family


def holm(p_values: Sequence[float] | np.ndarray, tests: int | None = None) -> np.ndarray:
    """Correct p-values for their number by Holm's step-down rule; a NaN stays NaN.

    Bounds the chance of even one false rejection in the family. The tests hold it and `benjamini_hochberg` against
    statsmodels' `multipletests`, which collects garbage at every call: 60 ms a family.

    Args:
        p_values: Of the tests that are finished, shape (n,).
        tests: Number of tests of the family. Fewer than there are p-values, or None: those that are not NaN.

    References:
        Holm 1979, https://www.jstor.org/stable/4615733.
    """
    p, order, m = _sorted(p_values, tests)
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * (m - np.arange(len(order)))), 1)
    return corrected


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray, tests: int | None = None) -> np.ndarray:
    """Correct p-values by Benjamini and Hochberg's step-up rule; a NaN stays NaN.

    Bounds the expected share of false ones among the rejections, which is less than `holm` promises. Arguments as for
    `holm`.

    References:
        Benjamini and Hochberg 1995, https://doi.org/10.1111/j.2517-6161.1995.tb02031.x.
    """
    p, order, m = _sorted(p_values, tests)
    order = order[::-1]
    corrected = np.full(p.shape, np.nan)
    share = m / np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.minimum.accumulate(p[order] * share), 1)
    return corrected


def holm_decisions(
    p_values: Sequence[float] | np.ndarray, tests: int | None = None, alpha: float = ALPHA
) -> tuple[np.ndarray, np.ndarray]:
    """Which tests Holm's rule rejects, and the level at which it decides each.

    Args:
        p_values: As for `holm`.
        tests: As for `holm`.
        alpha: Of the family.

    Returns:
        Rejected, bool, and level, both of shape (n,). The level is alpha / (tests − number rejected before it); a test that is
        not rejected, or has no p-value, is open at alpha / (tests − all rejected).

    Example:
        >>> rejected, level = holm_decisions([0.001, 0.5, 0.02], tests=5)
        >>> rejected.tolist(), level.tolist()
        ([True, False, False], [0.01, 0.0125, 0.0125])
    """
    p, order, m = _sorted(p_values, tests)
    rejected = holm(p, m) <= alpha  # False for NaN
    first = order[: rejected.sum()]
    level = np.full(p.shape, alpha / max(m - len(first), 1))
    level[first] = alpha / (m - np.arange(len(first)))
    return rejected, level


def benjamini_hochberg_decisions(
    p_values: Sequence[float] | np.ndarray, tests: int | None = None, alpha: float = ALPHA
) -> tuple[np.ndarray, np.ndarray]:
    """Which tests Benjamini and Hochberg's rule rejects, and the level at which it decides each.

    Args:
        p_values: As for `holm`.
        tests: As for `holm`.
        alpha: Bound on the expected share of false rejections.

    Returns:
        Rejected, bool, and level, both of shape (n,). The level of all is alpha · max(number rejected, 1) / tests: intervals at
        this level around the rejected ones miss the truth in a share of alpha at most (Benjamini and Yekutieli).

    References:
        Benjamini and Yekutieli 2005, https://doi.org/10.1198/016214504000001907.
    """
    p, _, m = _sorted(p_values, tests)
    rejected = benjamini_hochberg(p, m) <= alpha
    return rejected, np.full(p.shape, alpha * max(rejected.sum(), 1) / max(m, 1))


def _sorted(p_values: Sequence[float] | np.ndarray, tests: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """The p-values, the positions of those that are not NaN from small to large, and the number of tests."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]  # NaN sorts last
    return p, order, max(tests or 0, len(order))
