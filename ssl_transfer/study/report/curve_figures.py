"""Figures of mean ROC and precision-recall curves, and of mean confusion matrices, of the arms in one cell."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ssl_transfer.palette import COLORS, INK
from ssl_transfer.study.report.drawing import STYLE, Looks, filled, grid, legend

COLUMNS = 4  # confusion matrices in a row
PANELS = {  # curve -> title, label of x, label of y
    "roc": ("ROC", "1 − specificity", "sensitivity"),
    "precision_recall": ("Precision and recall", "recall (sensitivity)", "precision"),
}


def curve_figure(points: pd.DataFrame, looks: Looks) -> Figure:
    """Two panels: the ROC and the precision-recall curve of each arm.

    Args:
        points: Of `statistics.arm_curves`.
        looks: Colour and marker of each arm.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(2, 2, height=3.6)
        for ax, (curve, (title, across, up)) in zip(axes, PANELS.items(), strict=True):
            for arm, line in points[points["curve"] == curve].groupby("pretraining", sort=False):
                color, marker = looks[str(arm)]
                every = {"marker": marker, "markersize": 4.5, "markevery": 20}
                ax.plot(line["x"], line["y"], color=color, label=str(arm), linewidth=1.6, **every)
            if curve == "roc":
                ax.plot([0, 1], [0, 1], color=INK, alpha=0.35, linewidth=0.8, linestyle=(0, (3, 3)))
            ax.set(title=title, xlabel=across, ylabel=up, xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        legend(figure, axes)
    return figure


def confusion_figure(cells: pd.DataFrame) -> Figure:
    """A panel per arm: the share of each predicted class among the images of each true class.

    Args:
        cells: Of `statistics.arm_curves`.
    """
    arms = list(dict.fromkeys(cells["pretraining"]))
    names = list(dict.fromkeys(cells["true"]))
    columns = min(COLUMNS, max(2, len(arms)))
    side = 9.4 / columns
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = grid(len(arms), columns, height=side)
        for ax, arm in zip(axes, arms, strict=True):
            of_arm = cells[cells["pretraining"] == arm]
            _matrix(
                ax, of_arm.pivot(index="true", columns="predicted", values="share").loc[names, names].to_numpy(float)
            )
            ax.set_title(filled(str(arm), columns))
            ticks, texts = range(len(names)), [name if len(name) < 16 else f"{name[:15]}…" for name in map(str, names)]
            ax.set_xticks(ticks, texts, rotation=45, ha="right", fontsize=7.5)
            ax.set_yticks(ticks, texts if ax in axes[::columns] else [""] * len(texts), fontsize=7.5)
        for ax in axes[::columns]:
            ax.set_ylabel("true")
        axes[0].set_xlabel("predicted")
    return figure


def _matrix(ax: Axes, shares: np.ndarray) -> None:
    """Cells shaded by their share, as rectangles and not as a picture, with their percentages."""
    count = len(shares)
    for (row, column), share in np.ndenumerate(np.nan_to_num(shares)):
        ax.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=COLORS[0], alpha=share, linewidth=0))
        if count <= 10 and share >= 0.005:
            color = "white" if share > 0.6 else INK
            size = 8.5 if count <= 6 else 6.5
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=size)
    ax.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
    ax.spines[["top", "right"]].set_visible(True)
    ax.tick_params(length=0)
