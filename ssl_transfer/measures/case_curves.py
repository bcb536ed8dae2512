"""Confusion matrices and curves of the predictions of one evaluation, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.measures.classification import PREDICTED_ABOVE, decided_classes
from ssl_transfer.measures.curves import RankedCounts

if TYPE_CHECKING:
    import pandas

MOST_POINTS = 1000  # of a curve; one of more thresholds is thinned


def confusion(cases: CasePredictions) -> pandas.DataFrame | None:
    """How many images of each class are predicted as each class.

    Args:
        cases: Predictions of an evaluation.

    Returns:
        Multiclass and ordinal: a row per true class, columns `true` and one per predicted class. Multi-label: a row per label,
        columns `label`, `true_negative`, `false_positive`, `false_negative`, `true_positive`, of the images with a known value.
        None of other kinds.
    """
    import pandas

    if cases.kind in ("multiclass", "ordinal"):
        decided = decided_classes(cases.predicted, cases.kind == "ordinal")
        count = len(cases.classes)
        counts = np.bincount(cases.truth * count + decided, minlength=count**2).reshape(count, count)
        return pandas.DataFrame({"true": cases.classes, **dict(zip(cases.classes, counts.T.tolist(), strict=True))})
    if cases.kind != "multilabel":
        return None
    outcomes = {"negative": cases.truth == 0, "positive": cases.truth == 1}
    above = cases.predicted > PREDICTED_ABOVE
    cells = {
        "true_negative": outcomes["negative"] & ~above,
        "false_positive": outcomes["negative"] & above,
        "false_negative": outcomes["positive"] & ~above,
        "true_positive": outcomes["positive"] & above,
    }
    return pandas.DataFrame({"label": cases.classes, **{name: cell.sum(0) for name, cell in cells.items()}})


def curves(cases: CasePredictions) -> pandas.DataFrame | None:
    """The ROC and precision-recall curves of each class against the rest; of two classes, those of the second.

    Args:
        cases: Predictions of an evaluation.

    Returns:
        A row per point, from the highest threshold to the lowest: `class`, `threshold`, `sensitivity` (that is recall),
        `false_positive_rate`, `precision`. Curves of more than `MOST_POINTS` thresholds are thinned evenly, their ends are kept.
        A class without both outcomes has no curve. None of other kinds than classes, grades and labels.
    """
    import pandas

    if cases.kind not in ("multiclass", "ordinal", "multilabel"):
        return None
    parts = []
    single = len(cases.classes) == 2 and cases.kind != "multilabel"
    for code, name in list(enumerate(cases.classes))[1 if single else 0 :]:
        truth = cases.truth[:, code] if cases.kind == "multilabel" else (cases.truth == code).astype(int)
        counts = RankedCounts.of(truth == 1, truth == 0, cases.predicted[:, code], np.ones((len(truth), 1)))
        if not (counts.positives > 0) or not (counts.negatives > 0):
            continue
        length = len(counts.thresholds)
        kept = np.unique(np.linspace(0, length - 1, min(length, MOST_POINTS)).round().astype(int))
        positives, negatives = counts.true_positives[kept, 0], counts.false_positives[kept, 0]
        parts.append(
            pandas.DataFrame(
                {
                    "class": name,
                    "threshold": counts.thresholds[kept],
                    "sensitivity": positives / counts.positives,
                    "false_positive_rate": negatives / counts.negatives,
                    "precision": positives / (positives + negatives),
                }
            )
        )
    columns = ["class", "threshold", "sensitivity", "false_positive_rate", "precision"]
    return pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=columns)
