"""The standard deviations behind the power of a contrast: of pairs, or of a trained arm and public weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class FixedSide:
    """The side of an unpaired contrast that pretraining seeds add nothing to: public weights.

    Attributes:
        n: Its units, evaluation seeds.
        sd: SD of a unit's metric.
        measured: Whether its results are there: its mean is known then, and differences are those from this mean.
    """

    n: int
    sd: float
    measured: bool = False


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
        return math.sqrt(2) * _sd_of_mean(self.pretraining, self.residual, draws)

    def against(self, draws: int) -> None:
        """Both sides are in the differences."""

    def highest_sd(self, draws: float, confidence: float = 0.8) -> float:
        """Upper limit of `unit_sd`; NaN if the components are stated."""
        return _highest(self.unit_sd(draws), self.df, confidence)


@dataclass(frozen=True)
class WelchComponents:
    """Standard deviations of single runs behind a contrast of a trained arm with public weights, which have no pretraining SD.

    Attributes:
        pretraining: Between pretraining seeds of the trained arm.
        residual: Between evaluations of one of its pretrainings, with all that would cancel in pairs: label subset, head, order.
            NaN: not known apart, and `pretraining` has the variance of both at the draws that there were.
        public: Between evaluations of the public weights.
        df: Degrees of freedom of the estimate of `pretraining`; None: stated.
        source: Where they are from, in words.
    """

    pretraining: float
    residual: float
    public: float
    df: int | None = None
    source: str = "stated"

    def unit_sd(self, draws: float) -> float:
        """SD of a pretraining of the trained arm that is averaged over a number of evaluation seeds."""
        return _sd_of_mean(self.pretraining, self.residual, draws)

    def against(self, draws: int) -> FixedSide:
        """The public weights, whose units are their evaluations."""
        return FixedSide(draws, self.public)

    def highest_sd(self, draws: float, confidence: float = 0.8) -> float:
        """Upper limit of `unit_sd`; NaN if the components are stated."""
        return _highest(self.unit_sd(draws), self.df, confidence)


def _sd_of_mean(pretraining: float, residual: float, draws: float) -> float:
    return math.hypot(pretraining, 0.0 if math.isnan(residual) else residual / math.sqrt(draws))


def _highest(sd: float, df: int | None, confidence: float) -> float:
    from scipy import special

    return sd * math.sqrt(df / special.chdtri(df, confidence)) if df else math.nan


def pair_components(differences: pd.DataFrame, source: str) -> PairComponents | None:
    """Components of a contrast by an analysis of variance of its differences, see `nested_components`.

    Args:
        differences: Columns pretraining_seed and difference, a row per evaluation seed.
        source: Where they are from.

    Returns:
        None with fewer than two pretraining seeds.
    """
    found = nested_components(differences["pretraining_seed"], differences["difference"])
    if found is None:
        return None
    pretraining, residual, df = found
    return PairComponents(pretraining / math.sqrt(2), residual / math.sqrt(2), df, source)


def nested_components(seeds: pd.Series, values: pd.Series) -> tuple[float, float, int] | None:
    """Standard deviations between pretraining seeds, and between evaluations of one.

    The model is value ~ pretraining seed (random) + evaluation seed within it (residual): evaluations of two pretraining seeds
    share no draws.

    Args:
        seeds: Pretraining seed of each value, (N,).
        values: Values, (N,).

    Returns:
        The SD between pretraining seeds, 0 where its mean square is the smaller one; the SD within; the degrees of freedom of the
        first. With one value per seed the first includes the second, which is NaN. None with fewer than two pretraining seeds.

    References:
        Searle, Casella and McCulloch 1992, Variance Components, section 3.6 (unbalanced one-way classification).
    """
    of_seed = values.groupby(seeds)
    n, means = of_seed.size().to_numpy(float), of_seed.mean().to_numpy(float)
    groups, runs = len(n), n.sum()
    if groups < 2:
        return None
    if (n == 1).all():
        return float(np.std(means, ddof=1)), math.nan, groups - 1
    within = float(((of_seed.size() - 1) * of_seed.var().fillna(0)).sum() / (runs - groups))
    centre = np.sum(n * means) / runs
    between = np.sum(n * (means - centre) ** 2) / (groups - 1)
    mean_runs = (runs - np.sum(n**2) / runs) / (groups - 1)
    return math.sqrt(max(0.0, (between - within) / mean_runs)), math.sqrt(within), groups - 1


def welch_components(trained: pd.DataFrame, public: pd.DataFrame, source: str) -> WelchComponents | None:
    """Components of a contrast of a trained arm with public weights.

    Args:
        trained: Columns pretraining_seed and value, a row per evaluation seed.
        public: Column value, a row per evaluation seed; with fewer than two, their SD is taken to be that of the trained arm.
        source: Where they are from.

    Returns:
        None with fewer than two pretraining seeds, or where nothing tells the SD between evaluations.
    """
    found = nested_components(trained["pretraining_seed"], trained["value"])
    if found is None:
        return None
    pretraining, residual, df = found
    of_public = float(public["value"].std()) if len(public) > 1 else residual
    return None if math.isnan(of_public) else WelchComponents(pretraining, residual, of_public, df, source)
