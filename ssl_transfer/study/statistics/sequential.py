"""Looks at a growing study: the level of each look, so that all looks together keep alpha.

A study that looks at its results several times, and stops once they decide, rejects more true null hypotheses than one that
looks once: 13 % in place of 5 % over looks at 4, 8, 12 and 16 seeds. A spending function shares alpha among the looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ssl_transfer.errors import RunError
from ssl_transfer.study.declared import Spending

PATHS = 2**21  # simulated studies behind the levels: a level at which 1 in 1,000 stops is then known to 2 %
BLOCK = 2**17
SPENDING = Spending()


@lru_cache(maxsize=256)
def nominal_levels(alpha: float, looks: tuple[int, ...], spending: Spending = SPENDING) -> tuple[float, ...]:
    """The level that the two-sided p-value of the paired t-test at each look is compared with.

    The t-statistics of successive looks at one growing sample of normal differences have a joint distribution without
    parameters. It is simulated (2 million studies, one fixed seed), because the boundaries for a known variance, which
    textbooks list, reject too often with a handful of seeds.

    Args:
        alpha: Level of all looks together, two-sided.
        looks: Seeds at each look, ascending, at least 2.
        spending: How alpha is spent.

    Returns:
        One level per look; for a single look alpha itself.

    Raises:
        RunError: If the looks do not ascend.

    References:
        Jennison and Turnbull 2000, Group Sequential Methods, chapters 4 and 7.

    Example:
        >>> [round(level, 3) for level in nominal_levels(0.05, (4, 8, 12))]
        [0.007, 0.016, 0.036]
    """
    from scipy import special

    if not looks or list(looks) != sorted(set(looks)) or looks[0] < 2:
        raise RunError(f"statistics.looks: found {list(looks)}, expected ascending numbers of seeds, 2 or more.")
    spent = [spending.spent(look / looks[-1], alpha) for look in looks]
    levels = [spent[0]]
    if len(looks) == 1:
        return tuple(levels)
    statistics = _null_statistics(looks)
    going_on = statistics[0] < -special.stdtrit(looks[0] - 1, levels[0] / 2)
    for look in range(1, len(looks)):
        at_look = statistics[look][going_on]
        stops = max(1, round((spent[look] - spent[look - 1]) * PATHS))
        boundary = np.partition(at_look, len(at_look) - stops)[len(at_look) - stops]
        levels.append(2 * float(special.stdtr(looks[look] - 1, -float(boundary))))
        going_on &= statistics[look] < boundary
    return tuple(levels)


@lru_cache(maxsize=2)
def _null_statistics(looks: tuple[int, ...]) -> np.ndarray:
    """|t| at each look of simulated studies without a difference, float32, (looks, PATHS)."""
    rng = np.random.default_rng(20001)
    statistics = np.empty((len(looks), PATHS), np.float32)
    for start in range(0, PATHS, BLOCK):
        total, squares, n = np.zeros(BLOCK), np.zeros(BLOCK), 0
        for row, look in enumerate(looks):
            added = look - n
            group = rng.normal(0, math.sqrt(added), BLOCK)  # sum of the added differences
            squares += group**2 / added + (rng.chisquare(added - 1, BLOCK) if added > 1 else 0)
            total, n = total + group, look
            variance = (squares - total**2 / n) / (n - 1)
            statistics[row, start : start + BLOCK] = np.abs(total) / np.sqrt(n * variance)
    return statistics


def holm_levels(
    alpha: float, tests: int, decided: int, looks: Sequence[int], spending: Spending = SPENDING
) -> tuple[float, ...]:
    """Levels at the looks for a contrast that is open, when `decided` of a family of `tests` are decided already.

    Holm's rule over looks: the alpha of a decided contrast goes in equal parts to those still open, which from then on have
    the levels of their larger alpha.

    References:
        Maurer and Bretz 2013, https://doi.org/10.1080/19466315.2013.807748.
    """
    return nominal_levels(alpha / (tests - decided), tuple(looks), spending)
