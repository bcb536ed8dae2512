"""Figures of a study: every seed is a point, every pretraining keeps its colour and marker.

Nothing is averaged over settings: each task, protocol, strategy, fraction and noise has a panel or a line of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ssl_transfer.measures.metrics import metric_range, metric_sign
from ssl_transfer.palette import INK
from ssl_transfer.study.report.drawing import PERMUTED_LOOK, STYLE, TRIVIAL_LOOK, Looks, arm_looks, filled, grid, legend
from ssl_transfer.study.report.wording import difference, joined, measure, noisy, percent, words
from ssl_transfer.study.statistics import seed_units, summary
from ssl_transfer.study.table import CLEAN, complete

LINESTYLES = {TRIVIAL_LOOK: "--", PERMUTED_LOOK: "-."}  # of controls
PANEL = ["task", "protocol", "strategy", "noise", "noise_sigma"]


@dataclass(frozen=True)
class _Panel:
    """What one panel shows: runs, the units that they are, and the means of these."""

    key: tuple
    title: str
    runs: pd.DataFrame
    units: pd.DataFrame
    means: pd.DataFrame

    @property
    def arms(self) -> list[str]:
        """From the nearest source domain to random initialisation."""
        return list(dict.fromkeys(self.means["pretraining"]))

    def by_fraction(self) -> list[_Panel]:
        """One panel per label fraction; the title of the first has the setting of all."""
        tables = (self.runs, self.units, self.means)
        split, panels = [dict(list(table.groupby("fraction", dropna=False))) for table in tables], []
        for fraction, *rows in zip(split[0], *(part.values() for part in split), strict=True):
            title = percent(fraction) if panels else ", ".join(filter(None, [self.title, percent(fraction)]))
            panels.append(_Panel(self.key, title, *rows))
        return panels


def _panels(frame: pd.DataFrame, metric: str) -> list[_Panel]:
    """Each task, protocol, strategy and noise that have the metric."""
    frame = complete(frame)
    runs = frame[frame["metric"] == metric]
    units, means = (dict(list(table.groupby(PANEL))) for table in (seed_units(runs), summary(runs)))
    several_tasks, panels = runs["task"].nunique() > 1, []
    for key, rows in runs.groupby(PANEL):
        task, protocol, strategy, noise, sigma = key
        title = joined(words(protocol), words(strategy), words(task) if several_tasks else "", noisy(noise, sigma))
        panels.append(_Panel(key, title, rows, units[key], means[key]))
    return panels


def learning_curves(
    frame: pd.DataFrame, metric: str, looks: Looks | None = None, band: pd.DataFrame | None = None
) -> Figure:
    """Value over label fraction: a point per run, a line through the means, a panel per task, protocol and noise.

    Args:
        frame: A tidy table (`table.study_table`).
        metric: Which metric to draw.
        looks: Colour and marker of each arm (`drawing.arm_looks`), the same for all figures of a page; None: by the frame.
        band: Results of controls (`statistics.summary`): in the panels that have them, a line through their means (trivial
            features dashed, permuted labels dash-dotted, others dotted) and a band of their 95 % intervals.
    """
    looks, panels = looks or arm_looks(frame["pretraining"]), _panels(frame, metric)
    each = len(panels) // len({panel.key[0] for panel in panels})
    columns = each if 2 <= each <= 4 else min(3, max(2, len(panels)))  # a row per task, where it fits
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(panels), columns, height=2.7)
        for ax, panel in zip(axes, panels, strict=True):
            if band is not None:
                here = (band["metric"] == metric) & (band[PANEL] == panel.key).all(axis=1)
                _band(ax, band[here & band["fraction"].isin(panel.runs["fraction"])], metric, looks)
            _curves(ax, panel, looks)
            ax.set_title(filled(panel.title, columns))
            ax.set_xlabel("labelled patients")
        for ax in axes[::columns]:
            ax.set_ylabel(measure(metric))
        legend(figure, axes)
    return figure


def with_curves(frame: pd.DataFrame, controls: Sequence[pd.DataFrame] = ()) -> pd.DataFrame:
    """The runs of what was run with several label fractions or has controls; if nothing was, all that have a fraction."""
    frame = complete(frame)
    frame = frame[frame["fraction"].notna()]
    several = frame.groupby([*PANEL, "metric"])["fraction"].transform("nunique") > 1
    known = {tuple(cell) for table in controls for cell in table[PANEL].itertuples(index=False)}
    kept = several | np.array([tuple(cell) in known for cell in frame[PANEL].itertuples(index=False)], bool)
    return frame[kept] if several.any() else frame


def _curves(ax: Axes, panel: _Panel, looks: Looks) -> None:
    fractions = np.sort(panel.runs["fraction"].unique())
    step = 1.045 ** min(1, 5 / max(1, len(panel.arms) - 1))
    for position, arm in enumerate(panel.arms):
        color, marker = looks[arm]
        runs = panel.runs[panel.runs["pretraining"] == arm]
        dodge = step ** (position - (len(panel.arms) - 1) / 2)  # the axis is logarithmic
        means = panel.means[panel.means["pretraining"] == arm].set_index("fraction")["mean"]
        ax.plot(means.index * dodge, means, color=color, marker=marker, markersize=5.5, label=arm)
        ax.scatter(runs["fraction"] * dodge, runs["value"], color=color, marker=marker, s=13, alpha=0.5, linewidths=0)
    ax.set_xscale("log")
    ax.set_xticks(fractions, [percent(fraction) for fraction in fractions])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(fractions[0] / 1.4, fractions[-1] * 1.4)


def _band(ax: Axes, means: pd.DataFrame, metric: str, looks: Looks) -> None:
    """Means of controls over label fraction, with their intervals as far as the metric reaches; of one fraction as a line."""
    for arm, rows in means.sort_values("fraction").groupby("pretraining"):
        color, linestyle = looks[arm][0], LINESTYLES.get(looks[arm], ":")
        line: dict[str, Any] = {"color": color, "linestyle": linestyle, "linewidth": 1.4, "label": arm}
        area: dict[str, Any] = {"color": color, "alpha": 0.18, "linewidth": 0}
        low, high = (rows[end].fillna(rows["mean"]).clip(*metric_range(metric)) for end in ("ci_low", "ci_high"))
        if len(rows) == 1:
            ax.axhline(rows["mean"].iloc[0], **line)
            ax.axhspan(low.iloc[0], high.iloc[0], **area)
        else:
            ax.plot(rows["fraction"], rows["mean"], **line)
            ax.fill_between(rows["fraction"], low, high, **area)


def robustness_curves(frame: pd.DataFrame, metric: str, looks: Looks | None = None) -> Figure | None:
    """Value over the strength of noise: a point per run, a line through the means, and at the left what there is without.

    A panel per task, protocol, strategy, fraction and noise. Sigma is on a logarithmic axis, which has no zero: runs
    without noise are hollow markers at the left.

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
        for ax, (noise, setting, runs) in zip(axes, panels, strict=True):
            _decay(ax, runs, looks)
            ax.set_title(f"{filled(setting, 3)}\n{noisy(noise)}")
            ax.set_xlabel("σ of the noise (share of the intensity range)")
        for ax in axes[::columns]:
            ax.set_ylabel(measure(metric))
        legend(figure, axes)
    return figure


def _noise_panels(frame: pd.DataFrame, metric: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Noise, setting in words and runs of each task, protocol, strategy, fraction and noise; runs without noise are in all."""
    frame = complete(frame)
    runs = frame[frame["metric"] == metric]
    several_tasks = runs["task"].nunique() > 1
    for key, rows in runs.groupby(["task", "protocol", "strategy", "fraction"], dropna=False):
        task, protocol, strategy, fraction = key
        setting = joined(words(protocol), words(strategy), words(task) if several_tasks else "", percent(fraction))
        for noise in sorted(set(rows["noise"]) - {CLEAN}):
            drawn = rows[rows["noise"].isin([noise, CLEAN])]
            if drawn["noise_sigma"].nunique() > 1:
                yield noise, setting, drawn


def _decay(ax: Axes, runs: pd.DataFrame, looks: Looks) -> None:
    sigmas = np.sort(runs.loc[runs["noise"] != CLEAN, "noise_sigma"].unique())
    step = max(2.0, (sigmas[-1] / sigmas[0]) ** (1 / max(1, len(sigmas) - 1)))
    clean = sigmas[0] / step  # where the axis shows 0
    all_means = summary(runs)
    arms = list(dict.fromkeys(all_means["pretraining"]))
    for position, arm in enumerate(arms):
        color, marker = looks[arm]
        of_arm = runs[runs["pretraining"] == arm]
        dodge = step ** (min(0.07, 0.5 / len(arms)) * (position - (len(arms) - 1) / 2))
        means = all_means[all_means["pretraining"] == arm].set_index("noise_sigma")["mean"]
        noisy_means, without = means[means.index > 0], means[means.index == 0]
        look = {"color": color, "marker": marker, "markersize": 5.5}
        ax.plot(noisy_means.index * dodge, noisy_means, label=arm, **look)
        ax.plot(without.index + clean * dodge, without, markerfacecolor="none", linestyle="none", **look)
        sigma = of_arm["noise_sigma"].where(of_arm["noise_sigma"] > 0, clean) * dodge
        ax.scatter(sigma, of_arm["value"], color=color, marker=marker, s=13, alpha=0.5, linewidths=0)
    ax.set_xscale("log")
    ax.set_xticks([clean, *sigmas], [CLEAN, *_thinned(sigmas)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axvline(sigmas[0] / step**0.5, color=INK, linewidth=0.6, linestyle=(0, (2, 3)))
    ax.set_xlim(clean / step**0.5, sigmas[-1] * step**0.5)


def _thinned(sigmas: np.ndarray, apart: float = 0.17) -> list[str]:
    """A text for each sigma, empty where it would run into the one before; `apart` is a share of the axis."""
    at = np.log(sigmas) / max(np.ptp(np.log(sigmas)), 1e-9)
    texts, last = [], -np.inf
    for position, sigma in zip(at, sigmas, strict=True):
        texts.append(f"{sigma:g}" if position - last >= apart else "")
        last = position if texts[-1] else last
    return texts


def seed_points(frame: pd.DataFrame, metric: str, looks: Looks | None = None) -> Figure:
    """Every seed as a point beside the mean and its 95 % t-interval; arms stand one below the other.

    A row of panels has the label fractions of one task, protocol, strategy and noise; what was run at one fraction shares
    rows. Points are the units of the statistics: pretraining seeds, where an arm has several. Panels of a row have the same
    scale but not the same range, so that variances can be compared by eye.

    Args:
        frame: A tidy table.
        metric: Which metric to draw.
        looks: As for `learning_curves`.
    """
    looks, rows = looks or arm_looks(frame["pretraining"]), _strip_rows(_panels(frame, metric))
    columns = max(len(panels) for panels, _ in rows)
    n_arms = max(len(arms) for _, arms in rows)
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(rows) * columns, columns, height=0.75 + 0.33 * n_arms)
        for row, (panels, arms) in enumerate(rows):
            row_axes = axes[row * columns : (row + 1) * columns]
            for spare in row_axes[len(panels) :]:
                spare.set_visible(False)
            _strips(row_axes[: len(panels)], panels, arms, looks, columns)
            if row == len(rows) - 1:
                for ax in row_axes:
                    ax.set_xlabel(measure(metric))
    return figure


def _strip_rows(panels: list[_Panel]) -> list[tuple[list[_Panel], list[str]]]:
    """Panels of one label fraction each, in rows, with the arms of each row."""
    rows, singles = [], {}
    for panel in panels:
        fractions = panel.by_fraction()
        if len(fractions) > 1:
            rows.append((fractions, panel.arms))
        else:
            singles.setdefault(panel.key[:2], []).extend(fractions)
    columns = max([*(len(row) for row, _ in rows), *(min(3, len(row)) for row in singles.values())])
    for single in singles.values():
        for start in range(0, len(single), columns):
            row = single[start : start + columns]
            rows.append((row, list(dict.fromkeys(arm for panel in row for arm in panel.arms))))
    return sorted(rows, key=lambda row: row[0][0].key)


def _strips(axes: list[Axes], panels: list[_Panel], arms: list[str], looks: Looks, columns: int) -> None:
    for ax, panel in zip(axes, panels, strict=True):
        _strip(ax, panel, arms, looks)
        ax.set_yticks(range(len(arms)), arms if ax is axes[0] else [""] * len(arms))
        ax.set_title(filled(panel.title, columns))
    span = max(np.ptp(ax.get_xlim()) for ax in axes)
    for ax in axes:
        middle = np.mean(ax.get_xlim())
        ax.set_xlim(middle - span / 2, middle + span / 2)


def _strip(ax: Axes, panel: _Panel, arms: list[str], looks: Looks) -> None:
    units = panel.units.groupby("pretraining")["value"]
    row: Any
    for row in panel.means.itertuples():
        (color, marker), y = looks[row.pretraining], arms.index(row.pretraining)
        values = units.get_group(row.pretraining)
        jitter = np.linspace(-0.13, 0.13, len(values)) if len(values) > 1 else np.zeros(1)
        ax.scatter(values, y + 0.2 + jitter, color=color, marker=marker, s=17, alpha=0.75, linewidths=0)
        ax.plot([row.ci_low, row.ci_high], [y - 0.16] * 2, color=color, linewidth=2)
        ax.plot(row.mean, y - 0.16, color=color, marker="|", markersize=12, markeredgewidth=2)
    ax.set_ylim(len(arms) - 0.45, -0.55)
    ax.grid(axis="y", visible=False)


def effects(contrasts: pd.DataFrame, looks: Looks | None = None) -> Figure:
    """Every difference with its interval at the level that decides it, grouped by setting; one panel per metric.

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
            less = "; less is better" if metric_sign(metric) < 0 else ""
            ax.set_xlabel(f"difference in {words(metric)} (first − second{less})")
            ax.grid(axis="y", visible=False)
        labels = [difference(row.a, row.b) for row in lines.itertuples()]
        heads = [_heading(row) for row in lines[first].itertuples()]
        axes[0].set_yticks([*lines["y"], *(lines.loc[first, "y"] - 1)], [*labels, *heads])
        for tick in axes[0].get_yticklabels()[len(labels) :]:
            tick.set_fontweight("bold")
        axes[0].set_ylim(lines["y"].max() + 0.7, -0.4)
    return figure


def _effect(ax: Axes, row, looks: Looks) -> None:
    decided = row.verdict in ("better", "worse")
    color, marker = looks[row.a if row.verdict == "better" else row.b] if decided else (INK, "o")
    ax.plot([row.ci_low, row.ci_high], [row.y] * 2, color=color, linewidth=1.6, alpha=1 if decided else 0.6)
    face = color if decided else "none"
    ax.plot(row.difference, row.y, marker=marker, color=color, markerfacecolor=face, markersize=5.5)


def _heading(row) -> str:
    noise = noisy(row.noise, row.noise_sigma)
    return joined(words(row.protocol), words(row.strategy), words(row.task), percent(row.fraction), noise)
