"""Figures of a study: every seed is a point, every pretraining keeps its colour and marker.

Nothing is averaged over settings: what differs in task, protocol, strategy, fraction or noise has a panel or a place
of its own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ssl_transfer.result import better
from ssl_transfer.study.drawing import INK, STYLE, Looks, arm_looks, grid
from ssl_transfer.study.statistics import seed_units, summary
from ssl_transfer.study.table import CLEAN, complete
from ssl_transfer.study.wording import measure, noisy, percent, words

TITLE_CHARACTERS = 38  # what stands above a third of a figure


def learning_curves(frame: pd.DataFrame, metric: str, looks: Looks | None = None) -> Figure:
    """Value over label fraction: a point per run, a line through the means, a panel per task, protocol and noise.

    Args:
        frame: A tidy table (`table.study_table`).
        metric: Which metric to draw.
        looks: Colour and marker of each arm (`drawing.arm_looks`), the same for all figures of a page; None: by the frame.
    """
    looks, panels = looks or arm_looks(frame["pretraining"]), list(_panels(frame, metric))
    columns = min(3, len(panels) // frame.loc[frame["metric"] == metric, "task"].nunique())
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(panels), columns, height=2.7)
        for ax, (title, runs) in zip(axes, panels, strict=False):
            _curves(ax, runs, looks)
            ax.set_title(title)
            ax.set_xlabel("labelled patients")
        for ax in axes[::columns]:
            ax.set_ylabel(measure(metric))
        _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: list[Axes]) -> None:
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4)


def _curves(ax: Axes, runs: pd.DataFrame, looks: Looks) -> None:
    fractions = np.sort(runs["fraction"].unique())
    arms = _nearest_first(runs)
    for position, arm in enumerate(arms):
        color, marker = looks[arm]
        own = runs[runs["pretraining"] == arm]
        dodge = 1.045 ** (position - (len(arms) - 1) / 2)  # the axis is logarithmic
        means = summary(own).set_index("fraction")["mean"]
        ax.plot(means.index * dodge, means, color=color, marker=marker, markersize=5.5, label=arm)
        ax.scatter(own["fraction"] * dodge, own["value"], color=color, marker=marker, s=13, alpha=0.5, linewidths=0)
    ax.set_xscale("log")
    ax.set_xticks(fractions, [percent(fraction) for fraction in fractions])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(fractions[0] / 1.4, fractions[-1] * 1.4)


def robustness_curves(frame: pd.DataFrame, metric: str, looks: Looks | None = None) -> Figure | None:
    """Value over the strength of noise: a point per run, a line through the means, and at the left what there is without.

    A panel per task, protocol, strategy, fraction and noise. Sigma is on a logarithmic axis, which has no zero: runs
    without noise stand apart as hollow marks.

    Args:
        frame: A tidy table.
        metric: Which metric to draw.
        looks: As for `learning_curves`.

    Returns:
        The figure; None if no panel has two sigmas, that of no noise included.
    """
    looks, panels = looks or arm_looks(frame["pretraining"]), list(_noise_panels(frame, metric))
    if not panels:
        return None
    kinds = len({noise for noise, _, _ in panels})
    columns = kinds if kinds in (2, 3) else min(3, len(panels))  # side by side: one protocol under every noise
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(panels), columns, height=2.8, sharey="row")
        for ax, (noise, place, runs) in zip(axes, panels, strict=True):
            _decay(ax, runs, looks)
            ax.set_title(f"{textwrap.fill(place, TITLE_CHARACTERS)}\n{noisy(noise)}")
            ax.set_xlabel("σ of the noise (share of the intensity range)")
        for ax in axes[::columns]:
            ax.set_ylabel(measure(metric))
        _legend(figure, axes)
    return figure


def _noise_panels(frame: pd.DataFrame, metric: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Noise, place in words and runs of each task, protocol, strategy, fraction and noise; runs without noise are in all."""
    frame = complete(frame)
    runs = frame[frame["metric"] == metric]
    several_tasks = runs["task"].nunique() > 1
    for key, own in runs.groupby(["task", "protocol", "strategy", "fraction"], dropna=False):
        task, protocol, strategy, fraction = key
        place = _joined(words(protocol), words(strategy), words(task) if several_tasks else "", percent(fraction))
        for noise in sorted(set(own["noise"]) - {CLEAN}):
            drawn = own[own["noise"].isin([noise, CLEAN])]
            if drawn["noise_sigma"].nunique() > 1:
                yield noise, place, drawn


def _decay(ax: Axes, runs: pd.DataFrame, looks: Looks) -> None:
    sigmas = np.sort(runs.loc[runs["noise"] != CLEAN, "noise_sigma"].unique())
    step = max(2.0, (sigmas[-1] / sigmas[0]) ** (1 / max(1, len(sigmas) - 1)))
    clean = sigmas[0] / step  # where the axis shows 0
    arms = _nearest_first(runs)
    for position, arm in enumerate(arms):
        color, marker = looks[arm]
        own = runs[runs["pretraining"] == arm]
        dodge = step ** (0.07 * (position - (len(arms) - 1) / 2))
        means = summary(own).set_index("noise_sigma")["mean"]
        noisy_means, without = means[means.index > 0], means[means.index == 0]
        look = {"color": color, "marker": marker, "markersize": 5.5}
        ax.plot(noisy_means.index * dodge, noisy_means, label=arm, **look)
        ax.plot(without.index + clean * dodge, without, markerfacecolor="none", linestyle="none", **look)
        places = own["noise_sigma"].where(own["noise_sigma"] > 0, clean) * dodge
        ax.scatter(places, own["value"], color=color, marker=marker, s=13, alpha=0.5, linewidths=0)
    ax.set_xscale("log")
    ax.set_xticks([clean, *sigmas], [CLEAN, *_thinned(sigmas)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axvline(sigmas[0] / step**0.5, color=INK, linewidth=0.6, linestyle=(0, (2, 3)))
    ax.set_xlim(clean / step**0.5, sigmas[-1] * step**0.5)


def _thinned(sigmas: np.ndarray, apart: float = 0.17) -> list[str]:
    """A text for each sigma, empty where it would run into the one before; `apart` is a share of the axis."""
    at = np.log(sigmas) / max(np.ptp(np.log(sigmas)), 1e-9)
    texts, last = [], -np.inf
    for place, sigma in zip(at, sigmas, strict=True):
        texts.append(f"{sigma:g}" if place - last >= apart else "")
        last = place if texts[-1] else last
    return texts


def seed_points(frame: pd.DataFrame, metric: str, looks: Looks | None = None) -> Figure:
    """Every seed as a point beside the mean and its 95 % t-interval; rows are arms, columns label fractions.

    Points are the units of the statistics: pretraining seeds, where an arm has several. Panels of a row have the
    same scale, not the same range: spreads compare by eye.

    Args:
        frame: A tidy table.
        metric: Which metric to draw.
        looks: As for `learning_curves`.
    """
    looks, panels = looks or arm_looks(frame["pretraining"]), list(_panels(frame, metric))
    columns = max(runs["fraction"].nunique() for _, runs in panels)
    n_arms = max(runs["pretraining"].nunique() for _, runs in panels)
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(panels) * columns, columns, height=0.75 + 0.33 * n_arms)
        for row, (title, runs) in enumerate(panels):
            row_axes = axes[row * columns : (row + 1) * columns]
            _strips(row_axes, title, runs, looks)
            if row == len(panels) - 1:
                for ax in row_axes:
                    ax.set_xlabel(measure(metric))
    return figure


def _strips(row_axes: list[Axes], title: str, runs: pd.DataFrame, looks: Looks) -> None:
    arms = _nearest_first(runs)
    by_fraction = list(runs.groupby("fraction"))
    for spare in row_axes[len(by_fraction) :]:
        spare.set_visible(False)
    drawn = row_axes[: len(by_fraction)]
    for ax, (fraction, own) in zip(drawn, by_fraction, strict=True):
        first = ax is drawn[0]
        _strip(ax, own, arms, looks)
        ax.set_yticks(range(len(arms)), arms if first else [""] * len(arms))
        ax.set_title(f"{title}, {percent(fraction)}" if first else percent(fraction))
    span = max(np.ptp(ax.get_xlim()) for ax in drawn)
    for ax in drawn:
        middle = np.mean(ax.get_xlim())
        ax.set_xlim(middle - span / 2, middle + span / 2)


def _strip(ax: Axes, runs: pd.DataFrame, arms: list[str], looks: Looks) -> None:
    units = seed_units(runs).groupby("pretraining")["value"]
    for row in summary(runs).itertuples():
        (color, marker), y = looks[row.pretraining], arms.index(row.pretraining)
        values = units.get_group(row.pretraining)
        spread = np.linspace(-0.13, 0.13, len(values)) if len(values) > 1 else np.zeros(1)
        ax.scatter(values, y + 0.2 + spread, color=color, marker=marker, s=17, alpha=0.75, linewidths=0)
        ax.plot([row.ci_low, row.ci_high], [y - 0.16] * 2, color=color, linewidth=2)
        ax.plot(row.mean, y - 0.16, color=color, marker="|", markersize=12, markeredgewidth=2)
    ax.set_ylim(len(arms) - 0.45, -0.55)
    ax.grid(axis="y", visible=False)


def effects(contrasts: pd.DataFrame, looks: Looks | None = None) -> Figure:
    """Every difference with its 95 % interval, grouped by protocol, task, fraction and noise; one panel per metric.

    A filled marker in the colour of the arm that was better; a hollow one where the difference is not decided.

    Args:
        contrasts: As `statistics.contrasts` returns them; at least one row.
        looks: As for `learning_curves`.
    """
    looks = looks or arm_looks([*contrasts["a"], *contrasts["b"]])
    group = ["protocol", "strategy", "task", "fraction", "noise", "noise_sigma"]
    lines = contrasts[[*group, "a", "b"]].drop_duplicates().reset_index(drop=True)
    first = ~lines.duplicated(group)
    lines["y"] = np.arange(len(lines)) + 1.1 * first.cumsum()
    metrics = list(dict.fromkeys(contrasts["metric"]))
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(metrics), len(metrics), height=0.5 + 0.235 * lines["y"].max(), sharey=True)
        for ax, metric in zip(axes, metrics, strict=True):
            rows = contrasts[contrasts["metric"] == metric].merge(lines, on=[*group, "a", "b"])
            for row in rows.itertuples():
                _effect(ax, row, looks)
            ax.axvline(0, color=INK, linewidth=0.9)
            less = "; less is better" if better(metric) < 0 else ""
            ax.set_xlabel(f"difference in {words(metric)} (first − second{less})")
            ax.grid(axis="y", visible=False)
        labels = [f"{row.a} − {row.b}" for row in lines.itertuples()]
        heads = [_heading(row) for row in lines[first].itertuples()]
        axes[0].set_yticks([*lines["y"], *(lines.loc[first, "y"] - 1)], [*labels, *heads])
        for tick in axes[0].get_yticklabels()[len(labels) :]:
            tick.set_fontweight("bold")
        axes[0].set_ylim(lines["y"].max() + 0.7, -0.4)
    return figure


def _effect(ax: Axes, row, looks: Looks) -> None:
    decided = row.verdict.startswith(("better", "worse"))
    color, marker = looks[row.a if row.verdict.startswith("better") else row.b] if decided else (INK, "o")
    ax.plot([row.ci_low, row.ci_high], [row.y] * 2, color=color, linewidth=1.6, alpha=1 if decided else 0.6)
    face = color if decided else "none"
    ax.plot(row.difference, row.y, marker=marker, color=color, markerfacecolor=face, markersize=5.5)


def _heading(row) -> str:
    noise = noisy(row.noise, row.noise_sigma)
    return _joined(words(row.protocol), words(row.strategy), words(row.task), percent(row.fraction), noise)


def _panels(frame: pd.DataFrame, metric: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and runs of each task, protocol, strategy and noise that have the metric."""
    frame = complete(frame)
    runs = frame[frame["metric"] == metric]
    several_tasks = runs["task"].nunique() > 1
    for key, own in runs.groupby(["task", "protocol", "strategy", "noise", "noise_sigma"]):
        task, protocol, strategy, noise, sigma = key
        place = words(task) if several_tasks else ""
        yield _joined(words(protocol), words(strategy), place, noisy(noise, sigma)), own


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _nearest_first(runs: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(summary(runs)["pretraining"]))
