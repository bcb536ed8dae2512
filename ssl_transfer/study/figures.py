"""Figures of a study in one look: every seed is a point, every pretraining keeps its colour and marker.

Figures are drawn without pyplot, so nothing is global and nothing stays open. `save` writes files for papers
(white ground); `inline_svg` gives the same figure for a page, where its ink follows the page's text colour.
"""

from __future__ import annotations

import hashlib
import html
import io
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ssl_transfer.study.statistics import seed_units, summary
from ssl_transfer.study.table import SCRATCH
from ssl_transfer.study.wording import percent, words

INK = "#23272e"
# Okabe and Ito 2008 (safe for colour-blind readers), lightened where a dark page needs it; no yellow, for a white one.
COLORS = ("#1f82c0", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v")  # not as many as colours: the pair repeats only after 30 arms
SCRATCH_LOOK = ("#8a8f98", "X")
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "svg.fonttype": "none", "svg.hashsalt": "study",
    "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.titlesize": 9.5,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.linewidth": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": INK, "grid.alpha": 0.13,
    "grid.linewidth": 0.6, "xtick.color": INK, "ytick.color": INK, "xtick.major.size": 3, "ytick.major.size": 0,
    "xtick.major.width": 0.6, "legend.frameon": False, "lines.linewidth": 1.8,
}  # fmt: skip


def arm_looks(arms: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each pretraining arm, by the order of their names; random initialisation is grey."""
    looks = {}
    for arm in sorted(set(arms) - {SCRATCH}):
        looks[arm] = (COLORS[len(looks) % len(COLORS)], MARKERS[len(looks) % len(MARKERS)])
    return {**looks, SCRATCH: SCRATCH_LOOK}


def learning_curves(frame: pd.DataFrame, metric: str) -> Figure:
    """Value over label fraction: a point per run, a line through the means, a panel per task and protocol.

    Args:
        frame: A tidy table (`table.study_table`), whole, so that colours agree between metrics.
        metric: Which metric to draw.
    """
    looks, panels = arm_looks(frame["pretraining"]), list(_panels(frame, metric))
    columns = min(3, len(panels) // frame.loc[frame["metric"] == metric, "task"].nunique())
    with matplotlib.rc_context(STYLE):
        figure, axes = _grid(len(panels), columns, height=2.7)
        for ax, (title, runs) in zip(axes, panels, strict=False):
            _curves(ax, runs, looks)
            ax.set_title(title)
            ax.set_xlabel("labelled patients")
        for ax in axes[::columns]:
            ax.set_ylabel(words(metric))
        handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4)
    return figure


def _curves(ax: Axes, runs: pd.DataFrame, looks: dict) -> None:
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


def seed_points(frame: pd.DataFrame, metric: str) -> Figure:
    """Every seed as a point beside the mean and its 95 % t-interval; rows are arms, columns label fractions.

    Points are the units of the statistics: pretraining seeds, where an arm has several. Panels of a row have the
    same scale, not the same range: spreads compare by eye.

    Args:
        frame: A tidy table, whole.
        metric: Which metric to draw.
    """
    looks, panels = arm_looks(frame["pretraining"]), list(_panels(frame, metric))
    columns = max(runs["fraction"].nunique() for _, runs in panels)
    n_arms = max(runs["pretraining"].nunique() for _, runs in panels)
    with matplotlib.rc_context(STYLE):
        figure, axes = _grid(len(panels) * columns, columns, height=0.75 + 0.33 * n_arms)
        for row, (title, runs) in enumerate(panels):
            row_axes = axes[row * columns : (row + 1) * columns]
            _strips(row_axes, title, runs, looks)
            if row == len(panels) - 1:
                for ax in row_axes:
                    ax.set_xlabel(words(metric))
    return figure


def _strips(row_axes: list[Axes], title: str, runs: pd.DataFrame, looks: dict) -> None:
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


def _strip(ax: Axes, runs: pd.DataFrame, arms: list[str], looks: dict) -> None:
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


def effects(contrasts: pd.DataFrame) -> Figure:
    """Every difference with its 95 % interval, grouped by protocol, task and fraction; one panel per metric.

    A filled marker in the colour of the arm that was better; a hollow one where the difference is not decided.

    Args:
        contrasts: As `statistics.contrasts` returns them; at least one row.
    """
    looks = arm_looks([*contrasts["a"], *contrasts["b"]])
    group = ["protocol", "strategy", "task", "fraction"]
    lines = contrasts[[*group, "a", "b"]].drop_duplicates().reset_index(drop=True)
    first = ~lines.duplicated(group)
    lines["y"] = np.arange(len(lines)) + 1.1 * first.cumsum()
    metrics = list(dict.fromkeys(contrasts["metric"]))
    with matplotlib.rc_context(STYLE):
        figure, axes = _grid(len(metrics), len(metrics), height=0.5 + 0.235 * lines["y"].max(), sharey=True)
        for ax, metric in zip(axes, metrics, strict=True):
            rows = contrasts[contrasts["metric"] == metric].merge(lines, on=[*group, "a", "b"])
            for row in rows.itertuples():
                _effect(ax, row, looks)
            ax.axvline(0, color=INK, linewidth=0.9)
            ax.set_xlabel(f"difference in {words(metric)} (first − second)")
            ax.grid(axis="y", visible=False)
        labels = [f"{row.a} − {row.b}" for row in lines.itertuples()]
        heads = [_heading(row) for row in lines[first].itertuples()]
        axes[0].set_yticks([*lines["y"], *(lines.loc[first, "y"] - 1)], [*labels, *heads])
        for tick in axes[0].get_yticklabels()[len(labels) :]:
            tick.set_fontweight("bold")
        axes[0].set_ylim(lines["y"].max() + 0.7, -0.4)
    return figure


def _effect(ax: Axes, row, looks: dict) -> None:
    decided = row.verdict.startswith(("better", "worse"))
    color, marker = looks[row.a if row.verdict.startswith("better") else row.b] if decided else (INK, "o")
    ax.plot([row.ci_low, row.ci_high], [row.y] * 2, color=color, linewidth=1.6, alpha=1 if decided else 0.6)
    face = color if decided else "none"
    ax.plot(row.difference, row.y, marker=marker, color=color, markerfacecolor=face, markersize=5.5)


def _heading(row) -> str:
    parts = [words(row.protocol), words(row.strategy), words(row.task), percent(row.fraction)]
    return " · ".join(part for part in parts if part)


def _panels(frame: pd.DataFrame, metric: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and runs of each task, protocol and strategy that have the metric."""
    runs = frame[frame["metric"] == metric].astype({"strategy": "object"}).fillna({"strategy": ""})
    several_tasks = runs["task"].nunique() > 1
    for (task, protocol, strategy), own in runs.groupby(["task", "protocol", "strategy"]):
        parts = [words(protocol), words(strategy), words(task) if several_tasks else ""]
        yield " · ".join(part for part in parts if part), own


def _nearest_first(runs: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(summary(runs)["pretraining"]))


def _grid(panels: int, columns: int, height: float, **shared) -> tuple[Figure, list[Axes]]:
    """A figure 9.4 inches wide with `panels` axes in rows of `columns`, each row `height` inches high."""
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(9.4, rows * height + 0.35), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel().tolist()
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def save(figure: Figure, folder: str | Path, name: str) -> tuple[Path, Path]:
    """Write `name.png` (200 dpi) and `name.svg` into a folder, which is made if it is missing; return both paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with matplotlib.rc_context(STYLE):
        figure.savefig(png, dpi=200, facecolor="white")
        figure.savefig(svg, facecolor="white", metadata={"Date": None})
    return png, svg


def inline_svg(figure: Figure, label: str = "") -> str:
    """The figure as an `<svg>` element to stand inside an HTML page.

    Ink is `currentColor` and the ground is transparent, so light and dark pages both work; text stays text in the
    page's font; ids are prefixed by a hash of the drawing, so that several figures can share a page; no prolog, no
    metadata, no address of any kind.

    Args:
        figure: One of the figures above, or any other drawn with `STYLE`.
        label: What a screen reader says in its place.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href").replace(INK, "currentColor")
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"font: ([^;\"]*?)([\d.]+px)[^;\"]*", r"font-size: \2; font-family: inherit", svg)  # older matplotlib
    prefix = f"f{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"
    svg = (
        svg.replace(' id="', f' id="{prefix}').replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    )
    box = re.search(r'viewBox="([^"]*)"', svg)[1]
    style = f"width: 100%; max-width: {figure.get_figwidth() * 96:.0f}px; stroke-linejoin: round; stroke-linecap: butt"
    head = f'<svg role="img" aria-label="{html.escape(label)}" viewBox="{box}" style="{style}">'
    return head + svg[svg.index(">") + 1 :]
