"""Power of contrasts over looks: what a design can decide, how soon, and which allocation of runs is cheapest.

The looks are simulated as paths of one growing sample of normal values, with the levels that decide them: the differences of
pairs, or, against public weights, the runs of the trained side, which Welch's test compares with a side that does not grow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_transfer.study.statistics.detectable import noncentrality
from ssl_transfer.study.statistics.power_components import FixedSide, PairComponents, WelchComponents

POWER = 0.8
PATHS = 20_000
QUANTILES = 1000  # that those at the degrees of freedom of Welch's test are interpolated from
DRAWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)  # evaluation seeds per pretraining seed that an allocation may have
MOST_SEEDS = 200  # of an allocation


@dataclass(frozen=True)
class LookPower:
    """What a design decides by each look, cumulated: arrays with an entry per look.

    Attributes:
        different: Probability to be found different, with the right sign.
        equivalent: Probability to be found equivalent.
        decided: Probability to be found either.
        stops: Probability that the study stops at this look; at the last, what is left.
    """

    different: np.ndarray
    equivalent: np.ndarray
    decided: np.ndarray
    stops: np.ndarray

    def expected(self, amounts: Sequence[float]) -> float:
        """Expected seeds (or hours, …) from those at each look."""
        return float(np.sum(self.stops * np.asarray(amounts, float)))


@dataclass(frozen=True)
class Start:
    """Differences of pairs that are there already: their number, sum, and sum of squares."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> Start:
        """From the differences."""
        values = np.asarray(list(values), float)
        return cls(len(values), float(values.sum()), float(np.sum(values**2)))


def look_power(
    looks: Sequence[int],
    levels: Sequence[float],
    difference: float,
    sd: float,
    margin: float | None = None,
    *,
    against: FixedSide | None = None,
    start: Start = Start(),
    paths: int = PATHS,
    seed: int = 0,
) -> LookPower:
    """Simulate the looks of a contrast.

    Args:
        looks: Seeds at each look, ascending; all above those of `start`.
        levels: Level of each look.
        difference: True difference; its sign is that of the differences that count as found.
        sd: SD of the difference of a pair; with `against`, of a unit of the side that grows.
        margin: Largest difference that counts as equivalent; None: nothing is.
        against: The other side in Welch's test; None: the values are differences of pairs.
        start: Differences that are there already: the power is then conditional on them.
        paths: Number of simulated studies.
        seed: Of the simulation.
    """
    means, errors = _paths(looks, difference, sd, start, paths, seed)
    df = np.asarray(looks, float)[:, None] - 1
    if against is not None:
        means, errors, df = _less_fixed_side(means, errors, df, against, seed)
    level = np.asarray(levels, float)[:, None]
    needed = _quantiles(df, 1 - level / 2) * errors
    sign = -1 if difference < 0 else 1
    different, wrong_sign = sign * means >= needed, -sign * means >= needed
    equivalent = np.zeros_like(different)
    if margin is not None and not math.isnan(margin):
        equivalent = margin - np.abs(means) >= _quantiles(df, 1 - level) * errors
    over = different | equivalent | wrong_sign
    first = np.where(over.any(0), over.argmax(0), len(looks))  # look at which each study stops
    at = np.arange(len(looks))[:, None] == first

    def by_then(found: np.ndarray) -> np.ndarray:
        return np.cumsum((found & at).mean(1))

    stops = at.mean(1)
    stops[-1] += (first == len(looks)).mean()
    return LookPower(by_then(different), by_then(equivalent), by_then(over), stops)


def _paths(
    looks: Sequence[int], difference: float, sd: float, start: Start, paths: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean difference and its standard error at each look, shape (looks, paths)."""
    rng = np.random.default_rng(seed)
    n, total, squares = start.n, np.full(paths, start.total), np.full(paths, start.squares)
    means, errors = np.empty((2, len(looks), paths))
    for row, look in enumerate(looks):
        added = look - n
        group = rng.normal(added * difference, math.sqrt(added) * sd, paths)  # sum of the added differences
        within = rng.chisquare(added - 1, paths) * sd**2 if added > 1 else 0.0
        total, squares, n = total + group, squares + group**2 / added + within, look
        means[row] = total / n
        errors[row] = np.sqrt(np.maximum((squares - total**2 / n) / (n - 1), 0) / n)
    return means, errors


def _less_fixed_side(
    means: np.ndarray, errors: np.ndarray, df: np.ndarray, fixed: FixedSide, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences from a side that does not grow, their standard errors, and Welch's degrees of freedom: (looks, paths)."""
    error = fixed.sd / math.sqrt(fixed.n)
    if not fixed.measured:
        rng = np.random.default_rng([seed, 1])
        means = means - rng.normal(0, error, means.shape[1])
        error = error * np.sqrt(rng.chisquare(fixed.n - 1, means.shape[1]) / (fixed.n - 1))
    return means, np.hypot(errors, error), welch_df(errors, df, error, fixed.n - 1)


def welch_df(error_a: Any, df_a: Any, error_b: Any, df_b: Any) -> Any:
    """Degrees of freedom of Welch's test by Satterthwaite, of standard errors of both means and their degrees of freedom."""
    return (error_a**2 + error_b**2) ** 2 / (error_a**4 / df_a + error_b**4 / df_b)


def _quantiles(df: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Quantiles of Student's t at each look (looks, 1); for degrees of freedom of each path (looks, paths) by interpolation."""
    from scipy import special

    if df.shape[1] == 1:
        return special.stdtrit(df, p)
    quantiles = np.empty_like(df)
    for row, inverse, of_look in zip(quantiles, 1 / df, p[:, 0], strict=True):
        grid = np.linspace(inverse.min(), inverse.max(), QUANTILES)
        row[:] = np.interp(inverse, grid, special.stdtrit(1 / grid, of_look))
    return quantiles


def detectable_difference(
    n: int, level: float, sd: float, power: float = POWER, against: FixedSide | None = None
) -> float:
    """The smallest true difference that the test of one look finds with some power; NaN with fewer than two units.

    With `against` by the noncentral t distribution at Welch's degrees of freedom of the true SDs, an approximation.

    Args:
        n: Pairs; with `against`, units of the side that grows.
        level: Two-sided level.
        sd: SD of the difference of a pair, or of such a unit.
        power: Probability to find it.
        against: The other side in Welch's test; None: a paired test.
    """
    from scipy import special

    if n < 2 or (against is not None and against.n < 2):
        return math.nan
    error, df = sd / math.sqrt(n), n - 1.0
    if against is not None:
        fixed = against.sd / math.sqrt(against.n)
        df, error = welch_df(error, df, fixed, against.n - 1), math.hypot(error, fixed)
    return float(noncentrality(df, 1 - power, special.stdtrit(df, 1 - level / 2))) * error


@dataclass(frozen=True)
class Allocation:
    """A number of evaluation seeds per pretraining seed, with what it takes to find a difference.

    Attributes:
        draws: Evaluation seeds per pretraining seed, and of public weights.
        seeds: Pretraining seeds per arm; None: more than `MOST_SEEDS`.
        minutes: Cost of both arms; infinite without seeds.
    """

    draws: int
    seeds: int | None
    minutes: float


def allocations(
    components: PairComponents | WelchComponents,
    difference: float,
    level: float,
    minutes_per_seed: float,
    minutes_per_draw: float,
    *,
    once_per_draw: float = 0.0,
    draws: Iterable[int] = DRAWS,
    power: float = POWER,
) -> list[Allocation]:
    """Pretraining seeds and cost with which one look finds a difference, for several numbers of draws.

    Args:
        components: Standard deviations of a run.
        difference: The difference to find.
        level: Two-sided level of the test, all looks together.
        minutes_per_seed: Cost of a pretraining seed in all arms that have some, without the evaluations of the contrast.
        minutes_per_draw: Cost of the evaluations of the contrast at one evaluation seed, in these arms.
        once_per_draw: Cost of the evaluations of public weights at one evaluation seed.
        draws: Evaluation seeds per pretraining seed.
        power: Probability to find the difference.
    """
    found = []
    for count in draws:
        test = components.unit_sd(count), power, components.against(count)
        seeds = next(
            (n for n in range(2, MOST_SEEDS + 1) if detectable_difference(n, level, *test) <= difference), None
        )
        minutes = math.inf if seeds is None else seeds * (minutes_per_seed + count * minutes_per_draw)
        minutes += count * once_per_draw
        found.append(Allocation(count, seeds, minutes))
    return found
