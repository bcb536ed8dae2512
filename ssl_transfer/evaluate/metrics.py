"""Classification metrics from class scores, and their intervals. Averaging is the task card's, never a default."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn import metrics

ECE_BINS = 15


def classification_metrics(labels: np.ndarray, scores: np.ndarray, averaging: str) -> dict[str, float]:
    """Score predictions.

    Args:
        labels: True class, integers in [0, C), shape (N,).
        scores: Class probabilities, rows sum to 1, shape (N, C).
        averaging: `macro` or `weighted`, for auroc (one class against the rest) and f1.

    Returns:
        `accuracy`, `balanced_accuracy`, `auroc`, `f1`, `ece`, each in [0, 1]. A class without an image is left out of
        auroc; with a single class present auroc is NaN.
    """
    found = scores.argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that a resample misses
        return {
            "accuracy": float(np.mean(found == labels)),
            "balanced_accuracy": float(metrics.balanced_accuracy_score(labels, found)),
            "auroc": auroc(labels, scores, averaging),
            "f1": float(metrics.f1_score(labels, found, average=averaging, zero_division=0)),
            "ece": calibration_error(labels, scores),
        }


def auroc(labels: np.ndarray, scores: np.ndarray, averaging: str) -> float:
    """Area under the ROC curve, each class against the rest, averaged over the classes present."""
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    if scores.shape[1] == 2:
        return float(metrics.roc_auc_score(labels == 1, scores[:, 1]))
    areas = [metrics.roc_auc_score(labels == c, scores[:, c]) for c in present]
    weights = [np.mean(labels == c) for c in present] if averaging == "weighted" else None
    return float(np.average(areas, weights=weights))


def calibration_error(labels: np.ndarray, scores: np.ndarray) -> float:
    """Expected calibration error of the top class, 15 bins of equal width (Guo 2017, 1706.04599)."""
    confidence, right = scores.max(1), scores.argmax(1) == labels
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    count = np.bincount(bins, minlength=ECE_BINS)
    gap = np.bincount(bins, right, ECE_BINS) - np.bincount(bins, confidence, ECE_BINS)
    return float(np.abs(gap).sum() / count.sum())


def patient_intervals(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, averaging: str, resamples: int, seed: int
) -> dict[str, list[float]]:
    """95 % percentile intervals; patients are resampled with replacement, all images of one together.

    Args:
        labels: Shape (N,).
        scores: Shape (N, C).
        groups: Patient of each image, shape (N,).
        resamples: Number of bootstrap samples; 0 gives no intervals.
    """
    if not resamples:
        return {}
    _, codes = np.unique(groups, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    draw = np.random.default_rng(seed)
    samples: dict[str, list[float]] = {}
    for _ in range(resamples):
        rows = np.concatenate([members[i] for i in draw.integers(len(members), size=len(members))])
        for name, value in classification_metrics(labels[rows], scores[rows], averaging).items():
            samples.setdefault(name, []).append(value)
    return {name: [float(q) for q in np.nanpercentile(values, [2.5, 97.5])] for name, values in samples.items()}
