"""Strategies compared: how a backbone is best adapted, for each target and every pretraining."""

from __future__ import annotations

import math
from collections import Counter

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_transfer.study.report.dominance import Dominance
from ssl_transfer.study.report.drawing import INK, STYLE, Looks, filled, grid, legend
from ssl_transfer.study.report.wording import joined, measure, noisy, percent, words

SETTING = ["task", "protocol", "fraction", "noise", "noise_sigma", "metric"]
FEW_ARMS = 3  # up to here each arm has its own interval in a figure


def unbeaten(strategies: pd.DataFrame) -> list[dict]:
    """For how many pretrainings each strategy stands unbeaten with a win of its own.

    Args:
        strategies: `statistics.strategy_contrasts`, at main metrics.

    Returns:
        A dict per setting: its columns, `arms` (how many pretrainings), `counts` (strategy -> pretrainings), `undecided`
        (pretrainings for which no strategy does) and `checkpoint` (a verdict holds for one checkpoint alone).
    """
    found = []
    for setting, own in strategies.groupby(SETTING, dropna=False):
        standings = [Dominance.of(pairs) for _, pairs in own.groupby("pretraining")]
        counts = Counter(name for standing in standings for name in standing.winners)
        names = dict.fromkeys(name for standing in standings for name in standing.arms)
        found.append(
            {
                **dict(zip(SETTING, setting, strict=True)),
                "arms": len(standings),
                "counts": {name: counts[name] for name in names},
                "undecided": sum(not standing.winners for standing in standings),
                "checkpoint": any(standing.one_checkpoint for standing in standings),
            }
        )
    return found


def strategy_points(results: pd.DataFrame, looks: Looks) -> Figure:
    """Means of all strategies, a panel per target, protocol, label fraction and noise; panels of one metric.

    With up to `FEW_ARMS` pretrainings each has its 95 % interval. With more, each is a light mark, and a dark bar is their
    average with its 95 % interval: these pretrainings with other seeds, not other pretrainings.

    Args:
        results: `statistics.summary` of runs with a strategy, at one metric.
        looks: As for `figures.learning_curves`.
    """
    panels = list(results.groupby(SETTING, dropna=False))
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    names = sorted(set(results["strategy"]))
    several_tasks = results["task"].nunique() > 1
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(panels), columns, height=0.85 + 0.3 * len(names))
        for position, (ax, (setting, own)) in enumerate(zip(axes, panels, strict=True)):
            _panel(ax, own, names, looks)
            task, protocol, fraction, noise, sigma, metric = setting
            place = words(task) if several_tasks else ""
            ax.set_title(filled(joined(words(protocol), place, percent(fraction), noisy(noise, sigma)), columns))
            ax.set_yticks(
                range(len(names)), [words(name) for name in names] if position % columns == 0 else [""] * len(names)
            )
            if position >= len(panels) - columns:
                ax.set_xlabel(measure(metric))
        legend(figure, axes)
    return figure


def _panel(ax: Axes, results: pd.DataFrame, names: list[str], looks: Looks) -> None:
    arms = list(dict.fromkeys(results["pretraining"]))
    few = len(arms) <= FEW_ARMS
    for position, arm in enumerate(arms):
        color, marker = looks[arm]
        own = results[results["pretraining"] == arm]
        y = own["strategy"].map(names.index) + 0.22 * (position - (len(arms) - 1) / 2) * few
        ax.plot(
            own["mean"],
            y,
            linestyle="none",
            color=color,
            marker=marker,
            markersize=5,
            alpha=1 if few else 0.55,
            label=arm,
        )
        if few:
            ax.hlines(y, own["ci_low"], own["ci_high"], color=color, linewidth=1.6)
    for y, name in enumerate(names if not few else []):
        mean, low, high = averaged(results[results["strategy"] == name])
        ax.plot([low, high], [y, y], color=INK, linewidth=2.2)
        ax.plot(mean, y, color=INK, marker="|", markersize=13, markeredgewidth=2.2)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def averaged(results: pd.DataFrame) -> tuple[float, float, float]:
    """The average of the arms' means with its 95 % t-interval: arms fixed, seeds drawn, as many per arm as there are.

    Variances add over independent arms, and their degrees of freedom are Welch–Satterthwaite's.

    Args:
        results: Rows of `statistics.summary`, one per arm: mean, sd and n.
    """
    from scipy import special

    variance = (results["sd"] ** 2 / results["n"]).to_numpy(float)
    mean = float(results["mean"].mean()) if len(results) else math.nan
    if not len(results) or not np.isfinite(variance).all() or not variance.sum() > 0:
        return mean, math.nan, math.nan
    df = variance.sum() ** 2 / np.sum(variance**2 / (results["n"].to_numpy(float) - 1))
    reach = float(special.stdtrit(df, 0.975)) * math.sqrt(variance.sum()) / len(results)
    return mean, mean - reach, mean + reach
