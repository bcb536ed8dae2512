"""Classification metrics from scores, and their intervals. Averaging is the task card's, never a default.

Every metric takes weights for many resamples at once, so that a thousand bootstrap samples cost a few matrix products; the
plain value is the one of equal weights. Weights stand in columns, one resample each: rows are gathered and added
along contiguous memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

ECE_BINS = 15
CLAIMED_ABOVE = 0.5  # score above which a label is said to be there; as argmax decides between two classes
RESAMPLE_CELLS = 2**22  # weights held at once: images x resamples


def classification_metrics(
    labels: np.ndarray, scores: np.ndarray, averaging: str, classes: Sequence[str]
) -> dict[str, float]:
    """Score predictions of one class per image, or of several labels per image.

    Of one class: `auroc` and `f1` are averages over classes, each against the rest, and `balanced_accuracy` is the mean
    recall; a class without an image is left out (of f1, one that is not claimed either). `ece` is that of the top
    class. `brier` is the mean over images of Σ_c (p_c − y_c)², in [0, 2]; of two classes it is (p_1 − y_1)², in [0, 1].
    Of two classes `auroc` is the second's against the first, and there is no `auroc_CLASS` to say it again.

    Of several labels: all are averages over labels, from the entries that are known; a label is claimed by a score above
    0.5. `auroc`, `f1` and `balanced_accuracy` leave out labels that do not have both outcomes; `accuracy`, `ece` (of the
    label's probability) and `brier` ((p − y)²) leave out those of which nothing is known.

    Args:
        labels: True class, integers in [0, C), shape (N,); or 1, 0 or, where unknown, −1, shape (N, C).
        scores: Class probabilities, rows sum to 1; or label probabilities; shape (N, C).
        averaging: Of auroc and f1: `macro`, or `weighted` by the images of a class.
        classes: C names.

    Returns:
        `accuracy`, `balanced_accuracy`, `auroc`, `f1`, `ece`, `brier`, and `auroc_CLASS` for every class or label. What
        is undefined is NaN: auroc without both outcomes, averages over nothing.

    Raises:
        ValueError: If there are not as many names as columns of scores.

    Source:
        ece: Guo et al. 2017, https://arxiv.org/abs/1706.04599, 15 bins of equal width. brier: Brier 1950.
    """
    values = weighted_metrics(labels, scores, averaging, classes, np.ones((len(labels), 1)))
    return {name: float(value[0]) for name, value in values.items()}


def weighted_metrics(
    labels: np.ndarray, scores: np.ndarray, averaging: str, classes: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics of `classification_metrics` under weights of the images, shape (N, R); each has shape (R,)."""
    if scores.shape[1] != len(classes):
        raise ValueError(f"scores of {scores.shape[1]} classes, names of {len(classes)}")
    with np.errstate(invalid="ignore", divide="ignore"):  # what is undefined is NaN
        measure = _of_classes if labels.ndim == 1 else _of_labels
        return measure(labels, scores, averaging, classes, weights)


def patient_intervals(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    averaging: str,
    classes: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, list[float]]:
    """95 % percentile intervals of `classification_metrics`, patients resampled; see `bootstrap_intervals`.

    Args:
        labels, scores, averaging, classes: As there.
        groups: Patient of each image, shape (N,).
        resamples: Number of bootstrap samples; 0 gives no intervals.
        seed: Fixes the samples.
    """
    return bootstrap_intervals(
        lambda weights: weighted_metrics(labels, scores, averaging, classes, weights), groups, resamples, seed
    )


def bootstrap_intervals(
    measure: Callable[[np.ndarray], dict[str, np.ndarray]], groups: np.ndarray, resamples: int, seed: int
) -> dict[str, list[float]]:
    """95 % percentile intervals; patients are drawn with replacement, all rows of one together.

    Args:
        measure: Weights of the rows (N, R) -> metric -> values (R,).
        groups: Patient of each row, shape (N,).
        resamples: Number of bootstrap samples; 0 gives no intervals.
        seed: Fixes the samples.

    Returns:
        Metric -> [low, high] over the samples that have a value; a metric of which none has is left out.
    """
    _, codes = np.unique(groups, return_inverse=True)
    patients = int(codes.max()) + 1
    draw = np.random.default_rng(seed)
    samples: dict[str, list[np.ndarray]] = {}
    at_once = max(1, RESAMPLE_CELLS // len(codes))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        times = draw.multinomial(patients, np.full(patients, 1 / patients), size=count)  # how often each is drawn
        for name, values in measure(times.T[codes].astype(float)).items():
            samples.setdefault(name, []).append(values)
    found = {name: np.concatenate(parts) for name, parts in samples.items()}
    return {
        name: [float(q) for q in np.nanpercentile(values, [2.5, 97.5])]
        for name, values in found.items()
        if not np.isnan(values).all()  # auroc of a single class
    }


def _of_classes(
    labels: np.ndarray, scores: np.ndarray, averaging: str, classes: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    n_classes, found = len(classes), scores.argmax(1)
    one_hot, claims = np.eye(n_classes)[labels], np.eye(n_classes)[found]
    truth, claimed, right = one_hot.T @ weights, claims.T @ weights, (one_hot * claims).T @ weights  # (C, R)
    recall = right / truth
    f1 = 2 * right / (truth + claimed)
    judged = [1] if n_classes == 2 else list(range(n_classes))  # of two classes each is the other's rest
    areas = np.stack([_auroc(labels == c, labels != c, scores[:, c], weights) for c in judged])
    errors = ((scores - one_hot) ** 2)[:, judged].sum(1)
    total = weights.sum(0)
    return {
        "accuracy": right.sum(0) / total,
        "balanced_accuracy": _average(recall, np.ones_like(truth)),
        "auroc": _average(areas, _shares(truth, averaging)[judged]),
        "f1": _average(f1, _shares(truth, averaging)),
        "ece": _calibration_error(found == labels, scores.max(1), weights) / total,
        "brier": errors @ weights / total,
        **({f"auroc_{name}": area for name, area in zip(classes, areas, strict=True)} if n_classes > 2 else {}),
    }


def _of_labels(
    labels: np.ndarray, scores: np.ndarray, averaging: str, classes: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    known, claims = labels >= 0, scores > CLAIMED_ABOVE
    positive, negative = labels == 1, labels == 0
    total, truth = _sums(known, weights), _sums(positive, weights)  # (K, R)
    hits, rejections = _sums(positive & claims, weights), _sums(negative & ~claims, weights)
    claimed = _sums(known & claims, weights)
    areas = np.stack([_auroc(*which, weights) for which in zip(positive.T, negative.T, scores.T, strict=True)])
    calibration = [_calibration_error(positive[at, c], scores[at, c], weights[at]) for c, at in enumerate(known.T)]
    both, evenly = (truth > 0) & (truth < total), np.ones_like(truth)
    return {
        "accuracy": _average((hits + rejections) / total, evenly),
        "balanced_accuracy": _average((hits / truth + rejections / (total - truth)) / 2, evenly),
        "auroc": _average(areas, _shares(truth, averaging)),
        "f1": _average(np.where(both, 2 * hits / (truth + claimed), np.nan), _shares(truth, averaging)),
        "ece": _average(np.stack(calibration) / total, evenly),
        "brier": _average(_sums(known * (scores - labels) ** 2, weights) / total, evenly),
        **{f"auroc_{name}": area for name, area in zip(classes, areas, strict=True)},
    }


def _sums(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted column sums: values (N, K), weights (N, R) -> (K, R)."""
    return values.T.astype(float) @ weights


def _shares(truth: np.ndarray, averaging: str) -> np.ndarray:
    return truth if averaging == "weighted" else np.ones_like(truth)


def _average(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mean over classes (C, R) by shares; classes without a value are left out."""
    shares = np.where(np.isnan(values), 0.0, shares)
    return np.nansum(values * shares, 0) / shares.sum(0)


def _auroc(positive: np.ndarray, negative: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted probability that a positive scores above a negative, ties counting half; NaN without either.

    The two masks may leave out images. Negatives are added up in the order of their scores once, and looked up for
    every positive.
    """
    score, up, down = (score[positive], score[negative]), weights[positive], weights[negative]
    order = np.argsort(score[1], kind="stable")
    ranked = score[1][order]
    below = np.zeros((len(ranked) + 1, weights.shape[1]))
    np.cumsum(down[order], 0, out=below[1:])
    won = below[np.searchsorted(ranked, score[0], "left")] + below[np.searchsorted(ranked, score[0], "right")]
    return np.einsum("nr,nr->r", up, won) / (2 * up.sum(0) * below[-1])


def _calibration_error(right: np.ndarray, confidence: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ over bins of |Σ weight · (right − confidence)|; by the total weight, the expected calibration error."""
    bins = np.eye(ECE_BINS)[np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)]
    return np.abs((bins * (right - confidence)[:, None]).T @ weights).sum(0)
