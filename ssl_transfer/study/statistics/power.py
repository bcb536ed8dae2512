"""Power of paired contrasts over looks: what a design can decide, how soon, and which allocation of runs is cheapest.

The looks are simulated as paths of one growing sample of normal differences of pairs, with the levels that decide them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ssl_transfer.study.statistics.detectable import noncentrality

POWER = 0.8
PATHS = 20_000
DRAWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)  # evaluation seeds per pretraining seed that an allocation may have
MOST_SEEDS = 200  # of an allocation


@dataclass(frozen=True)
class PairComponents:
    """Standard deviations behind the difference of a pair: in each arm, of a single run's metric.

    Attributes:
        pretraining: Between pretraining seeds.
        residual: Between evaluations of one pretraining that cancels in no pair: head, order, arm × subset. NaN: not known
            apart, and `pretraining` has the variance of both at the draws that there were.
        df: Degrees of freedom of the estimate of the SD of a pair; None: stated.
        source: Where they are from, in words.
    """

    pretraining: float
    residual: float
    df: int | None = None
    source: str = "stated"

    def unit_sd(self, draws: float) -> float:
        """SD of the difference of a pair whose sides are averaged over a number of evaluation seeds."""
        residual = 0.0 if math.isnan(self.residual) else self.residual
        return math.sqrt(2 * (self.pretraining**2 + residual**2 / draws))

    def highest_sd(self, draws: float, confidence: float = 0.8) -> float:
        """Upper limit of `unit_sd`; NaN if the components are stated."""
        from scipy import special

        if not self.df:
            return math.nan
        return self.unit_sd(draws) * math.sqrt(self.df / special.chdtri(self.df, confidence))


def pair_components(differences: pd.DataFrame, source: str) -> PairComponents | None:
    """Components of a contrast by an analysis of variance of its differences.

    The model is difference ~ pretraining seed (random) + evaluation seed within it (residual): evaluations of two pretraining
    seeds share no draws.

    Args:
        differences: Columns pretraining_seed and difference, a row per evaluation seed.
        source: Where they are from.

    Returns:
        None with fewer than two pretraining seeds. The pretraining SD is 0 where its mean square is the smaller one.

    References:
        Searle, Casella and McCulloch 1992, Variance Components, section 3.6 (unbalanced one-way classification).
    """
    of_seed = differences.groupby("pretraining_seed")["difference"]
    n, means = of_seed.size().to_numpy(float), of_seed.mean().to_numpy(float)
    groups, runs = len(n), n.sum()
    if groups < 2:
        return None
    if (n == 1).all():
        return PairComponents(float(np.std(means, ddof=1) / math.sqrt(2)), math.nan, groups - 1, source)
    within = float(((of_seed.size() - 1) * of_seed.var().fillna(0)).sum() / (runs - groups))
    centre = np.sum(n * means) / runs
    between = np.sum(n * (means - centre) ** 2) / (groups - 1)
    mean_runs = (runs - np.sum(n**2) / runs) / (groups - 1)
    pretraining = max(0.0, (between - within) / mean_runs)
    return PairComponents(math.sqrt(pretraining / 2), math.sqrt(within / 2), groups - 1, source)


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
    start: Start = Start(),
    paths: int = PATHS,
    seed: int = 0,
) -> LookPower:
    """Simulate the looks of a paired contrast.

    Args:
        looks: Seeds at each look, ascending; all above those of `start`.
        levels: Level of each look.
        difference: True difference; its sign is that of the differences that count as found.
        sd: SD of the difference of a pair.
        margin: Largest difference that counts as equivalent; None: nothing is.
        start: Differences that are there already: the power is then conditional on them.
        paths: Number of simulated studies.
        seed: Of the simulation.
    """
    means, errors = _paths(looks, difference, sd, start, paths, seed)
    different, equivalent = _crossings(looks, levels, means * (-1 if difference < 0 else 1), errors, margin)
    wrong_sign = _crossings(looks, levels, means * (1 if difference < 0 else -1), errors, None)[0]
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


def _crossings(
    looks: Sequence[int], levels: Sequence[float], means: np.ndarray, errors: np.ndarray, margin: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each path is found above 0, and equivalent, at each look."""
    from scipy import special

    df, level = np.asarray(looks, float)[:, None] - 1, np.asarray(levels, float)[:, None]
    different = means >= special.stdtrit(df, 1 - level / 2) * errors
    if margin is None or math.isnan(margin):
        return different, np.zeros_like(different)
    return different, margin - np.abs(means) >= special.stdtrit(df, 1 - level) * errors


def detectable_difference(n: int, level: float, sd: float, power: float = POWER) -> float:
    """The smallest true difference that the paired test of one look finds with some power; NaN with fewer than two pairs.

    Args:
        n: Pairs.
        level: Two-sided level.
        sd: SD of the difference of a pair.
        power: Probability to find it.
    """
    from scipy import special

    if n < 2:
        return math.nan
    return float(noncentrality(n - 1, 1 - power, special.stdtrit(n - 1, 1 - level / 2))) * sd / math.sqrt(n)


@dataclass(frozen=True)
class Allocation:
    """A number of evaluation seeds per pretraining seed, with what it takes to find a difference.

    Attributes:
        draws: Evaluation seeds per pretraining seed.
        seeds: Pretraining seeds per arm; None: more than `MOST_SEEDS`.
        minutes: Cost of both arms; infinite without seeds.
    """

    draws: int
    seeds: int | None
    minutes: float


def allocations(
    components: PairComponents,
    difference: float,
    level: float,
    minutes_per_seed: float,
    minutes_per_draw: float,
    *,
    draws: Iterable[int] = DRAWS,
    power: float = POWER,
) -> list[Allocation]:
    """Pretraining seeds and cost with which a paired test finds a difference, for several numbers of draws.

    Args:
        components: Standard deviations of a run.
        difference: The difference to find.
        level: Two-sided level of the test, all looks together.
        minutes_per_seed: Cost of a pretraining seed in both arms, without the evaluations of the contrast.
        minutes_per_draw: Cost of the evaluations of the contrast at one evaluation seed, in both arms.
        draws: Evaluation seeds per pretraining seed.
        power: Probability to find the difference.
    """
    found = []
    for count in draws:
        sd = components.unit_sd(count)
        seeds = next(
            (n for n in range(2, MOST_SEEDS + 1) if detectable_difference(n, level, sd, power) <= difference), None
        )
        minutes = math.inf if seeds is None else seeds * (minutes_per_seed + count * minutes_per_draw)
        found.append(Allocation(count, seeds, minutes))
    return found
