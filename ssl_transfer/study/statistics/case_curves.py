"""Mean ROC and precision-recall curves, and mean confusion matrices, of the arms of a study in one cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.measures.case_curves import confusion, curves
from ssl_transfer.study.statistics.patients import RunsWithPredictions

GRID = np.linspace(0, 1, 101)  # false positive rates, and recalls, at which curves are averaged
MOST_RUNS = 5  # of an arm that are read
CURVE_POINTS = ["pretraining", "curve", "x", "y", "runs"]
CONFUSION_CELLS = ["pretraining", "true", "predicted", "share", "runs"]


def arm_curves(
    cell: Mapping[str, Any], arms: Sequence[str], runs: RunsWithPredictions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Average the curves and confusion matrices of the runs of each arm.

    Args:
        cell: The columns of `CELL`; the metric does not matter.
        arms: Names of the arms.
        runs: Gives the runs of an arm in a cell; the first `MOST_RUNS` of each are read.

    Returns:
        Points of the curves, columns `CURVE_POINTS`: `curve` is `roc` (x: false positive rate, y: sensitivity) or
        `precision_recall` (x: recall, y: precision), a mean over classes, each against the rest, and runs. Cells of the confusion
        matrices, columns `CONFUSION_CELLS`: share of the images of a true class, a mean over runs; none of multi-label tasks.
        Both are empty for targets without classes.
    """
    points, cells = [], []
    for arm in arms:
        read = [run.read() for run in islice(runs({**cell, "pretraining": arm}), MOST_RUNS)]
        tables = [table for cases in read if (table := curves(cases)) is not None and len(table)]
        for curve, at in (("roc", _sensitivity), ("precision_recall", _precision)):
            lines = [at(of_class) for table in tables for _, of_class in table.groupby("class")]
            if lines:
                mean = {"x": GRID, "y": np.mean(lines, 0)}
                points.append(pd.DataFrame({"pretraining": arm, "curve": curve, **mean, "runs": len(tables)}))
        matrices = [
            counts.set_index("true") for cases in read if (counts := confusion(cases)) is not None and "true" in counts
        ]
        if matrices:
            cells.append(_shares(matrices).assign(pretraining=arm, runs=len(matrices)))
    return _joined(points, CURVE_POINTS), _joined(cells, CONFUSION_CELLS)


def _joined(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _sensitivity(points: pd.DataFrame) -> np.ndarray:
    """The largest sensitivity at each false positive rate of the grid."""
    rates = points["false_positive_rate"].to_numpy()
    reached = np.searchsorted(rates, GRID + 1e-12, "right")
    return np.append(0.0, points["sensitivity"].to_numpy())[reached]


def _precision(points: pd.DataFrame) -> np.ndarray:
    """The precision of the first threshold that reaches each recall of the grid."""
    first = np.searchsorted(points["sensitivity"].to_numpy(), GRID - 1e-12, "left")
    return points["precision"].to_numpy()[np.minimum(first, len(points) - 1)]


def _shares(matrices: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean share of each predicted class among the images of each true class: `true`, `predicted`, `share`."""
    shares = [matrix / matrix.sum(axis=1).replace(0, np.nan).to_numpy()[:, None] for matrix in matrices]
    mean = pd.DataFrame(np.mean([share.to_numpy() for share in shares], 0), matrices[0].index, matrices[0].columns)
    return mean.rename_axis(columns="predicted").stack().rename("share").reset_index()
