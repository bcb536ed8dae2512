"""Strategies summarised over pretrainings: how often each one dominates, and the average of their means."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd

from ssl_transfer.study.statistics.dominance import Dominance

STRATEGY_SETTING = ["task", "protocol", "fraction", "noise", "noise_sigma", "metric"]


def strategy_wins(strategies: pd.DataFrame) -> list[dict]:
    """For how many pretrainings each strategy is undominated: no other is better than it, and it is better than another.

    Args:
        strategies: `statistics.strategy_contrasts`, at main metrics.

    Returns:
        A dict per setting: its columns, `arms` (how many pretrainings), `counts` (strategy -> pretrainings), `undecided`
        (pretrainings without any such strategy) and `checkpoint` (a verdict holds for one checkpoint alone).
    """
    settings = []
    for setting, pairs in strategies.groupby(STRATEGY_SETTING, dropna=False):
        orders = [Dominance.of(arm_pairs) for _, arm_pairs in pairs.groupby("pretraining")]
        counts = Counter(name for order in orders for name in order.winners)
        names = dict.fromkeys(name for order in orders for name in order.arms)
        settings.append(
            {
                **dict(zip(STRATEGY_SETTING, setting, strict=True)),
                "arms": len(orders),
                "counts": {name: counts[name] for name in names},
                "undecided": sum(not order.winners for order in orders),
                "checkpoint": any(order.one_checkpoint for order in orders),
            }
        )
    return settings


def averaged(results: pd.DataFrame) -> tuple[float, float, float]:
    """The average of the arms' means with its 95 % t-interval: arms fixed, seeds random.

    Variances add over independent arms, and their degrees of freedom are Welch–Satterthwaite's.

    Args:
        results: Rows of `statistics.summary`, one per arm: mean, sd and n.

    Returns:
        Mean and both ends of the interval; these are NaN where an arm has fewer than two seeds.
    """
    from scipy import special

    variance = (results["sd"] ** 2 / results["n"]).to_numpy(float)
    mean = float(results["mean"].mean()) if len(results) else math.nan
    if not len(results) or not np.isfinite(variance).all() or not variance.sum() > 0:
        return mean, math.nan, math.nan
    df = variance.sum() ** 2 / np.sum(variance**2 / (results["n"].to_numpy(float) - 1))
    reach = float(special.stdtrit(df, 0.975)) * math.sqrt(variance.sum()) / len(results)
    return mean, mean - reach, mean + reach
