"""Classification metrics from class scores, and their intervals. Averaging is the task card's, never a default.

Every metric takes weights for many resamples at once, so that a thousand bootstrap samples cost a few matrix products; the
plain value is the one of equal weights.
"""

from __future__ import annotations

import numpy as np

ECE_BINS = 15
RESAMPLE_CELLS = 2**24  # weights held at once: resamples x images


def classification_metrics(labels: np.ndarray, scores: np.ndarray, averaging: str) -> dict[str, float]:
    """Score predictions.

    Args:
        labels: True class, integers in [0, C), shape (N,).
        scores: Class probabilities, rows sum to 1, shape (N, C).
        averaging: `macro` or `weighted`, for auroc (one class against the rest) and f1.

    Returns:
        `accuracy`, `balanced_accuracy`, `auroc`, `f1`, `ece`, each in [0, 1]. A class without an image is left out;
        with a single class present auroc is NaN.
    """
    values = weighted_metrics(labels, scores, averaging, np.ones((1, len(labels))))
    return {name: float(value[0]) for name, value in values.items()}


def weighted_metrics(
    labels: np.ndarray, scores: np.ndarray, averaging: str, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics of `classification_metrics` under weights of the images, shape (R, N); each has shape (R,)."""
    n_classes = scores.shape[1]
    found = scores.argmax(1)
    cells = np.eye(n_classes**2)[labels * n_classes + found]  # (N, C²)
    confusion = (weights @ cells).reshape(-1, n_classes, n_classes)
    truth, claimed, right = confusion.sum(2), confusion.sum(1), np.diagonal(confusion, axis1=1, axis2=2)
    present = truth > 0
    shares = truth if averaging == "weighted" else np.ones_like(truth)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(present, right / truth, np.nan)
        f1 = np.where(truth + claimed > 0, 2 * right / (truth + claimed), np.nan)
        judged = [1] if n_classes == 2 else range(n_classes)  # of two classes each is the other's rest
        areas = np.stack([_auroc(labels == c, scores[:, c], weights) for c in judged], 1)
        return {
            "accuracy": right.sum(1) / truth.sum(1),
            "balanced_accuracy": np.nansum(recall, 1) / present.sum(1),
            "auroc": _average(areas, shares[:, list(judged)]),
            "f1": _average(f1, shares),
            "ece": _calibration_error(found == labels, scores.max(1), weights),
        }


def _average(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mean over classes (R, C) by shares; classes without a value are left out."""
    shares = np.where(np.isnan(values), 0.0, shares)
    return np.nansum(values * shares, 1) / shares.sum(1)


def _auroc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted probability that a positive scores above a negative, ties counting half; NaN without either."""
    order = np.argsort(score, kind="stable")
    ranked, weights, positive = score[order], weights[:, order], positive[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ranked) != 0]))
    up = np.add.reduceat(weights * positive, starts, axis=1)  # (R, distinct scores)
    down = np.add.reduceat(weights * ~positive, starts, axis=1)
    below = np.cumsum(down, 1) - down / 2
    return (up * below).sum(1) / (up.sum(1) * down.sum(1))


def _calibration_error(right: np.ndarray, confidence: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error of the top class, 15 bins of equal width (Guo 2017, 1706.04599)."""
    bins = np.eye(ECE_BINS)[np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)]
    return np.abs(weights @ (bins * (right - confidence)[:, None])).sum(1) / weights.sum(1)


def patient_intervals(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, averaging: str, resamples: int, seed: int
) -> dict[str, list[float]]:
    """95 % percentile intervals; patients are resampled with replacement, all images of one together.

    Args:
        labels: Shape (N,).
        scores: Shape (N, C).
        groups: Patient of each image, shape (N,).
        resamples: Number of bootstrap samples; 0 gives no intervals.

    Returns:
        Metric -> [low, high]; a metric that no sample has a value of is left out.
    """
    _, codes = np.unique(groups, return_inverse=True)
    patients = int(codes.max()) + 1
    draw = np.random.default_rng(seed)
    samples: dict[str, list[np.ndarray]] = {}
    at_once = max(1, RESAMPLE_CELLS // len(labels))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        times = draw.multinomial(
            patients, np.full(patients, 1 / patients), size=count
        )  # how often each patient is drawn
        for name, values in weighted_metrics(labels, scores, averaging, times[:, codes].astype(float)).items():
            samples.setdefault(name, []).append(values)
    found = {name: np.concatenate(parts) for name, parts in samples.items()}
    return {
        name: [float(q) for q in np.nanpercentile(values, [2.5, 97.5])]
        for name, values in found.items()
        if not np.isnan(values).all()  # auroc of a single class
    }
