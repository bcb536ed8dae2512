"""Figures of declared contrasts: the values of all units, their differences, and the differences from look to look."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.palette import COLORS, INK
from ssl_transfer.study.declared import of_metric
from ssl_transfer.study.report.claims import Terms
from ssl_transfer.study.report.drawing import MARKERS, STYLE, Looks, filled, grid
from ssl_transfer.study.report.wording import measure, nominal
from ssl_transfer.study.statistics import Decision, Look
from ssl_transfer.study.statistics.contrast_units import PAIRED, contrast_units

MOST_PANELS = 4  # settings in the figure of the first screen
VALUES_WIDTH, DIFFERENCES_WIDTH = 5.2, 4.1  # inches; side by side on a wide page
DASHED = (0, (4, 3))


@dataclass(frozen=True)
class _Column:
    """An arm of the figure of values.

    Attributes:
        name: Its name.
        look: Its colour and marker.
        values: Values of its units, by seed.
        pairs: Which seeds pair its units with those of other arms: `pretraining` or `evaluation`; empty: they are not paired.
    """

    name: str
    look: tuple[str, str]
    values: pd.Series
    pairs: str


def by_setting(decisions: Sequence[Decision], terms: Terms) -> dict[str, list[Decision]]:
    """Decisions by what they are about, those without any unit left out."""
    settings: dict[str, list[Decision]] = {}
    for decision in decisions:
        if len(decision.units.table):
            settings.setdefault(terms.setting(decision.contrast), []).append(decision)
    return settings


def unit_values(decisions: Sequence[Decision], terms: Terms, looks: Looks) -> Figure | None:
    """Every unit of the arms of declared contrasts, units of the same seed joined, beside the mean of each arm.

    A panel per setting (at most `MOST_PANELS`). Random initialisation is shown wherever it was run.

    Args:
        decisions: The primary contrasts, or the gate.
        terms: What the words depend on.
        looks: Colour and marker of each arm.

    Returns:
        The figure; None without any unit.
    """
    settings = by_setting(decisions, terms)
    if not settings:
        return None
    panels = list(settings.items())[:MOST_PANELS]
    columns = 1 if len(panels) == 1 else 2
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(panels), columns, height=3.0 if columns == 1 else 2.6)
        figure.set_figwidth(VALUES_WIDTH if columns == 1 else 9.4)
        for ax, (setting, of_setting) in zip(axes, panels, strict=True):
            _values(ax, _columns(of_setting, terms, looks))
            if len(panels) > 1:
                ax.set_title(filled(setting, 2))
            ax.set_ylabel(measure(of_setting[0].contrast.metric))
    return figure


def _columns(decisions: Sequence[Decision], terms: Terms, looks: Looks) -> list[_Column]:
    """Side a of the contrasts, then each side b, then random initialisation."""
    found: dict[str, _Column] = {}
    sides = [(decision, name) for name in "ab" for decision in decisions]
    for decision, side in sides:
        columns = getattr(decision.contrast, side)
        name = terms.side(columns)
        found.setdefault(name, _column(decision, side, name, _look(columns, looks, len(found))))
    contrast = decisions[0].contrast
    if "pretraining" in contrast.a:
        for arm in sorted(terms.random_init):
            other = replace(contrast, b={**contrast.b, "pretraining": arm})
            units = contrast_units(terms.runs, other)
            name = terms.side({"pretraining": arm})
            if len(units.table) and name not in found:
                look = _look({"pretraining": arm}, looks, len(found))
                found[name] = _column(replace(decisions[0], units=units), "b", name, look)
    return [column for column in found.values() if len(column.values)]


def _column(decision: Decision, side: str, name: str, look: tuple[str, str]) -> _Column:
    kind = "pretraining" if decision.units.by_pretraining[side] else "evaluation"
    return _Column(name, look, _side(decision, side), kind if decision.units.test == PAIRED else "")


def _look(side: Mapping[str, str], looks: Looks, position: int) -> tuple[str, str]:
    """That of its pretraining; strategies have the next colour."""
    if "strategy" not in side and side.get("pretraining") in looks:
        return looks[side["pretraining"]]
    return COLORS[position % len(COLORS)], MARKERS[position % len(MARKERS)]


def _side(decision: Decision, side: str) -> pd.Series:
    """Values of the units of one side, by seed."""
    table = decision.units.table
    if decision.units.test == "paired":
        return table.set_index("unit")[side]
    return table[table["side"] == side].set_index("unit")["value"]


def _values(ax: Axes, columns: Sequence[_Column]) -> None:
    for pairs, joined in itertools.groupby(enumerate(columns), lambda each: each[1].pairs):
        positions, arms = zip(*joined, strict=True)
        table = pd.DataFrame({column.name: column.values for column in arms})
        for _, values in table.iterrows() if pairs else ():
            ax.plot(positions, values, color=INK, linewidth=0.7, alpha=0.28, zorder=1)
    for x, column in enumerate(columns):
        color, marker = column.look
        values = column.values.dropna()
        ax.scatter([x] * len(values), values, color=color, marker=marker, s=24, alpha=0.85, linewidths=0, zorder=2)
        mean, half = float(values.mean()), _half_width(values.to_numpy(float), 0.05)
        ax.plot([x + 0.16] * 2, [mean - half, mean + half], color=color, linewidth=2, zorder=3)
        ax.plot(x + 0.16, mean, color=color, marker="_", markersize=11, markeredgewidth=2.4, zorder=3)
    ax.set_xticks(range(len(columns)), [filled(column.name, 6) for column in columns])
    ax.set_xlim(-0.45, len(columns) - 0.4)
    ax.grid(axis="x", visible=False)


def _half_width(values: np.ndarray, alpha: float) -> float:
    """Half the width of the t-interval of a mean; 0 with fewer than two values."""
    from scipy import special

    if len(values) < 2:
        return 0.0
    return float(special.stdtrit(len(values) - 1, 1 - alpha / 2) * values.std(ddof=1) / math.sqrt(len(values)))


def unit_differences(decisions: Sequence[Decision], terms: Terms, looks: Looks) -> Figure | None:
    """The difference of every pair of units, and the mean difference with its interval at the level that decides it.

    A panel per metric, a row per contrast. Filled, in the colour of the better arm: decided.

    Args:
        decisions: Declared contrasts.
        terms: What the words depend on.
        looks: Colour and marker of each arm.

    Returns:
        The figure; None before the first look.
    """
    shown = [decision for decision in decisions if decision.look is not None]
    metrics = list(dict.fromkeys(decision.contrast.metric for decision in shown))
    if not shown:
        return None
    several = len(by_setting(shown, terms)) > 1
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(metrics), 1, height=0.75 + (0.72 if several else 0.6) * len(shown) / len(metrics))
        figure.set_figwidth(9.4 if several else DIFFERENCES_WIDTH)
        for ax, metric in zip(axes, metrics, strict=True):
            rows = [decision for decision in shown if decision.contrast.metric == metric]
            _margin_band(ax, of_metric(terms.margin, metric), ax.axvspan)
            for y, decision in enumerate(rows):
                _difference(ax, decision, y, terms, looks)
            ax.axvline(0, color=INK, linewidth=0.9)
            ax.set_yticks(range(len(rows)), [_label(decision, terms, several) for decision in rows])
            ax.set_ylim(len(rows) - 0.4, -0.6)
            ax.set_xlabel(f"difference in {measure(metric)}")
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.grid(axis="y", visible=False)
    return figure


def _label(decision: Decision, terms: Terms, several: bool) -> str:
    a, b = terms.sides(decision.contrast)
    name = filled(f"{a} − {b}", 4)
    return f"{name}\n{filled(terms.setting(decision.contrast), 2)}" if several else name


def _difference(ax: Axes, decision: Decision, y: int, terms: Terms, looks: Looks) -> None:
    look = decision.look
    assert look is not None
    color = _color(decision, looks)
    if decision.units.test == "paired":
        values = (decision.units.table["a"] - decision.units.table["b"]).to_numpy(float)
        jitter = np.linspace(-0.1, 0.1, len(values)) if len(values) > 1 else np.zeros(len(values))
        ax.scatter(values, y + 0.2 + jitter, color=color, s=13, alpha=0.6, linewidths=0)
    ax.plot([look.ci_low, look.ci_high], [y - 0.12] * 2, color=color, linewidth=2.2)
    face = color if decision.decided else "none"
    ax.plot(look.difference, y - 0.12, marker="o", color=color, markerfacecolor=face, markersize=6.5)


def _color(decision: Decision, looks: Looks) -> str:
    """That of the better arm; ink where none is."""
    if decision.verdict not in ("better", "worse"):
        return INK
    side = decision.contrast.a if decision.verdict == "better" else decision.contrast.b
    return _look(side, looks, 0 if decision.verdict == "better" else 1)[0]


def _margin_band(ax: Axes, margin: float | None, span) -> None:
    """The differences that count as equivalent."""
    if margin is not None:
        span(-margin, margin, color=INK, alpha=0.09, linewidth=0)


def monitoring(decisions: Sequence[Decision], terms: Terms, looks: Looks) -> Figure | None:
    """The difference and its interval at every look, with the boundary beyond which a look decides that sides differ.

    A panel per contrast. The boundary of a look is in units of the difference, t(1 − level / 2, df) · standard error, for looks
    to come with the standard deviation so far. The band is the margin.

    Args:
        decisions: Declared contrasts.
        terms: What the words depend on.
        looks: Colour and marker of each arm.

    Returns:
        The figure; None where the design looks once, or no look was reached, or the latest has no interval (a single pair).
    """
    shown = [
        each
        for each in decisions
        if len(each.planned_looks) > 1 and each.looks and math.isfinite(each.looks[-1].ci_low)
    ]
    if not shown:
        return None
    columns = min(len(shown), 3)
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(shown), columns, height=2.9)
        figure.set_figwidth(5.6 if columns == 1 else 9.4)
        for position, (ax, decision) in enumerate(zip(axes, shown, strict=True)):
            _monitor(ax, decision, terms, looks)
            a, b = terms.sides(decision.contrast)
            several = len(by_setting(shown, terms)) > 1
            setting = f"\n{filled(terms.setting(decision.contrast), columns)}" if several else ""
            ax.set_title(f"{filled(f'{a} − {b}', columns)}{setting}")
            ax.set_xlabel("pairs of pretraining seeds")
            if position % columns == 0:
                ax.set_ylabel(f"difference in {measure(decision.contrast.metric)}")
    return figure


def _monitor(ax: Axes, decision: Decision, terms: Terms, looks: Looks) -> None:
    seeds, halves = boundaries_of_looks(decision)
    last = max(seeds)
    reached = [float(np.nanmax(np.abs([look.ci_low, look.ci_high]))) for look in decision.looks]
    later = max([*reached[1:], reached[decision.at or 0], halves[-1]])
    extent = 1.7 * max(later, min(reached[0], 2 * later))  # the first may be wide; with place for the verdict
    for sign in (1, -1):
        ax.fill_between(
            seeds, [sign * half for half in halves], sign * 10 * extent, color=COLORS[0], alpha=0.09, linewidth=0
        )
        ax.plot(
            seeds,
            [sign * half for half in halves],
            color=INK,
            linewidth=0.9,
            linestyle=DASHED,
            marker=".",
            markersize=4,
        )
    _margin_band(ax, of_metric(terms.margin, decision.contrast.metric), ax.axhspan)
    ax.axhline(0, color=INK, linewidth=0.9)
    for position, look in enumerate(decision.looks):
        _look_at(ax, decision, position, look, looks)
    ax.set_xticks(sorted({*seeds}))
    ax.set_xlim(min(seeds) - 0.08 * last, 1.06 * last)
    ax.set_ylim(-extent, extent)
    ax.grid(axis="x", visible=False)


def _look_at(ax: Axes, decision: Decision, position: int, look: Look, looks: Looks) -> None:
    after = decision.decided and position > (decision.at or 0)
    decides = decision.decided and position == decision.at
    color = _color(decision, looks) if decides else INK
    alpha = 0.35 if after else 1.0
    ax.plot([look.n_a] * 2, [look.ci_low, look.ci_high], color=color, linewidth=1.8, alpha=alpha)
    face = color if decides else "none"
    ax.plot(look.n_a, look.difference, "o", color=color, markerfacecolor=face, markersize=6, alpha=alpha)
    if decides:
        below = look.difference * metric_sign(decision.contrast.metric) < 0
        ax.annotate(
            f"{decision.verdict}\nlevel {nominal(look.decides_at)}",
            (look.n_a, look.ci_low if below else look.ci_high),
            (0, -4 if below else 4),
            textcoords="offset points",
            ha="center",
            va="top" if below else "bottom",
            fontsize=8,
            color=INK,
        )


def boundaries_of_looks(decision: Decision) -> tuple[list[int], list[float]]:
    """Pairs at each planned look, and the difference beyond which it decides that the sides differ.

    Args:
        decision: With at least one look.
    """
    from scipy import special

    seeds = [look.n_a for look in decision.looks]
    halves = [float(special.stdtrit(look.df, 1 - look.level / 2)) * look.error for look in decision.looks]
    latest = decision.looks[-1]
    for planned, alpha in zip(decision.planned_looks[len(seeds) :], decision.levels[len(seeds) :], strict=True):
        seeds.append(planned)
        standard_error = latest.error * math.sqrt(latest.n_a / planned)
        halves.append(float(special.stdtrit(planned - 1, 1 - alpha / 2) * standard_error))
    return seeds, halves
