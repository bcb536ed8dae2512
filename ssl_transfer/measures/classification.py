"""Classification metrics: functions of scored images. Averaging is stated by the task card and has no default.

Every metric takes weights for many resamples at once, so that a thousand bootstrap samples cost a few matrix products; the
plain value is the one of equal weights. Weights are stored in columns, one per resample, so that rows are gathered and added
along contiguous memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ssl_transfer.measures.curves import RankedCounts
from ssl_transfer.measures.temperature import scaled

ECE_BINS = 15
OPERATING_POINT = (
    0.95  # specificity at which sensitivity is measured, and the reverse, unless the task card states another
)
PREDICTED_ABOVE = 0.5  # score above which a label is predicted; equals argmax for two classes


class PerClass(NamedTuple):
    """A metric that is averaged over classes: the average (R,), and the values that are reported per class, (C, R) or (0, R)."""

    mean: np.ndarray
    each: np.ndarray


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """Labels and scores of N images under R sets of weights, and the weighted counts that metrics share.

    Attributes:
        labels: True class, integers in [0, C), shape (N,); multi-label: 1, 0 or, where unknown, −1, shape (N, C).
        scores: Probabilities, shape (N, C).
        averaging: `macro`, or `weighted` by the images of a class.
        weights: Weights of the images, shape (N, R).
        operating_point: The specificity at which sensitivity is measured, and the reverse, in (0, 1).
        temperature: Of temperature scaling, fitted on validation; None: not known.
        levels: Of grades in ascending order, the number of each, by whose differences errors are measured, (C,): the median of
            the probabilities is then decided on, which has the smallest expected error. None: classes or labels.
    """

    labels: np.ndarray
    scores: np.ndarray
    averaging: str
    weights: np.ndarray
    operating_point: float = OPERATING_POINT
    temperature: float | None = None
    levels: np.ndarray | None = None

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2

    @cached_property
    def calibrated(self) -> ScoredImages:
        """The same images with scaled probabilities; the temperature must be known."""
        if self.temperature is None:
            raise ValueError("these images have no temperature")
        return replace(self, scores=scaled(self.scores, self.temperature, self.multilabel))

    @cached_property
    def positive(self) -> np.ndarray:
        """Whether an image is of a class, bool (N, C)."""
        return self.labels == 1 if self.multilabel else self.labels[:, None] == np.arange(self.scores.shape[1])

    @cached_property
    def negative(self) -> np.ndarray:
        """Whether an image is not of a class (False if unknown), bool (N, C)."""
        return self.labels == 0 if self.multilabel else ~self.positive

    @cached_property
    def predicted(self) -> np.ndarray:
        """Whether an image is predicted to be of a class, bool (N, C)."""
        if self.multilabel:
            return self.scores > PREDICTED_ABOVE
        return self.decided[:, None] == np.arange(self.scores.shape[1])

    @cached_property
    def decided(self) -> np.ndarray:
        """The predicted class of each image, not of multi-label ones: the most probable one, or the median grade; (N,)."""
        return decided_classes(self.scores, ordinal=self.levels is not None)

    @property
    def errors(self) -> np.ndarray:
        """Number of the predicted minus that of the true grade, (N,)."""
        return self.level_of(self.decided) - self.level_of(self.labels)

    def level_of(self, grades: np.ndarray) -> np.ndarray:
        """Numbers (N,) of grades (N,); the images must be of grades."""
        if self.levels is None:
            raise ValueError("these classes have no order")
        return self.levels[grades]

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Weighted mean of values (N,), (R,)."""
        return values @ self.weights / self.weights.sum(0)

    @cached_property
    def total(self) -> np.ndarray:
        """Weight of all images (R,); multi-label: of the images with a known value of each label, (C, R)."""
        return self.weigh(self.labels >= 0) if self.multilabel else self.weights.sum(0)

    @cached_property
    def in_truth(self) -> np.ndarray:
        """Weight of the images of each class, (C, R)."""
        return self.weigh(self.positive)

    @cached_property
    def true_positives(self) -> np.ndarray:
        """Weight of the images of each class that are predicted as this class, (C, R)."""
        return self.weigh(self.positive & self.predicted)

    @cached_property
    def true_negatives(self) -> np.ndarray:
        """Weight of the images not of a class that are not predicted as this class, (C, R)."""
        return self.weigh(self.negative & ~self.predicted)

    @cached_property
    def in_predictions(self) -> np.ndarray:
        """Weight of the images that are predicted as each class, among those with a known label, (C, R)."""
        return self.weigh(self.predicted & (self.positive | self.negative))

    @property
    def judged(self) -> list[int]:
        """Classes with a one-vs-rest metric: of two classes only the second."""
        count = self.scores.shape[1]
        return [1] if count == 2 and not self.multilabel else list(range(count))

    @cached_property
    def read_from_curves(self) -> np.ndarray:
        """Average precision, sensitivity at the operating point and specificity at it, of each class judged, (3, C, R)."""
        values = []
        for c in self.judged:
            outcomes = self.positive[:, c], self.negative[:, c]
            counts = RankedCounts.of(*outcomes, self.scores[:, c], self.weights, at_positives=True)
            at = counts.sensitivity_at(self.operating_point), counts.specificity_at(self.operating_point)
            values.append([counts.average_precision(), *at])
        return np.stack(values, 1)

    def weigh(self, values: np.ndarray) -> np.ndarray:
        """Weighted column sums: values (N, C) -> (C, R)."""
        return values.T.astype(float) @ self.weights

    def average(self, values: np.ndarray, evenly: bool = False) -> np.ndarray:
        """Mean over classes (C, R) -> (R,), by the task's averaging or `evenly`; classes without a value are left out."""
        truth = self.in_truth[self.judged] if len(values) < len(self.in_truth) else self.in_truth
        shares = truth if self.averaging == "weighted" and not evenly else np.ones_like(truth)
        shares = np.where(np.isnan(values), 0.0, shares)
        return np.nansum(values * shares, 0) / shares.sum(0)

    def per_class(self, values: np.ndarray) -> PerClass:
        """Values of the judged classes (C, R) with their average; of two classes, there are none per class."""
        return PerClass(self.average(values), values if len(values) == self.scores.shape[1] else values[:0])


def decided_classes(scores: np.ndarray, ordinal: bool) -> np.ndarray:
    """The predicted class of each image, (N,), from probabilities (N, C): the most probable one, or the median of grades."""
    return (np.cumsum(scores, 1)[:, :-1] < PREDICTED_ABOVE).sum(1) if ordinal else scores.argmax(1)


def accuracy(images: ScoredImages) -> np.ndarray:
    """Share of correctly classified images, (R,); multi-label: mean over labels."""
    if images.multilabel:
        return images.average((images.true_positives + images.true_negatives) / images.total, evenly=True)
    return images.true_positives.sum(0) / images.total


def balanced_accuracy(images: ScoredImages) -> np.ndarray:
    """Mean recall of classes, (R,); multi-label: mean over labels of the mean recall of both outcomes."""
    recall = images.true_positives / images.in_truth
    if images.multilabel:
        recall = (recall + images.true_negatives / (images.total - images.in_truth)) / 2
    return images.average(recall, evenly=True)


def auroc(images: ScoredImages) -> PerClass:
    """Area under the ROC curve of each class against the rest."""
    areas = np.stack(
        [
            binary_auroc(images.positive[:, c], images.negative[:, c], images.scores[:, c], images.weights)
            for c in images.judged
        ]
    )
    return images.per_class(areas)


def average_precision(images: ScoredImages) -> PerClass:
    """Average precision of each class against the rest."""
    return images.per_class(images.read_from_curves[0])


def sensitivity_at_specificity(images: ScoredImages) -> PerClass:
    """Largest sensitivity at a specificity of at least the operating point, of each class against the rest."""
    return images.per_class(images.read_from_curves[1])


def specificity_at_sensitivity(images: ScoredImages) -> PerClass:
    """Largest specificity at a sensitivity of at least the operating point, of each class against the rest."""
    return images.per_class(images.read_from_curves[2])


def mcc(images: ScoredImages) -> np.ndarray:
    """Matthews correlation coefficient, (R,); multi-label: mean over labels.

    It is 0 if all images are predicted as one class, and NaN if all are of one class.

    Source:
        Gorodkin 2004, doi 10.1016/j.compbiolchem.2004.09.006, for several classes.
    """
    hits, truth, predicted = images.true_positives, images.in_truth, images.in_predictions
    if images.multilabel:
        total = images.total
        covariance = hits * total - truth * predicted
        spreads = truth * (total - truth), predicted * (total - predicted)
        return images.average(_correlation(covariance, *spreads), evenly=True)
    total = images.total
    covariance = hits.sum(0) * total - (truth * predicted).sum(0)
    return _correlation(covariance, total**2 - (truth**2).sum(0), total**2 - (predicted**2).sum(0))


def f1(images: ScoredImages) -> np.ndarray:
    """Harmonic mean of precision and recall, averaged over classes, (R,)."""
    values = 2 * images.true_positives / (images.in_truth + images.in_predictions)
    if images.multilabel:
        both = (images.in_truth > 0) & (images.in_truth < images.total)
        values = np.where(both, values, np.nan)
    return images.average(values)


def calibration_error(images: ScoredImages) -> np.ndarray:
    """Expected calibration error of the top class, (R,); multi-label: of each label's probability, mean over labels."""
    labels, scores, weights = images.labels, images.scores, images.weights
    if not images.multilabel:
        return _calibration_gap(scores.argmax(1) == labels, scores.max(1), weights) / images.total
    gaps = [
        _calibration_gap(images.positive[labelled, c], scores[labelled, c], weights[labelled])
        for c, labelled in enumerate((labels >= 0).T)
    ]
    return images.average(np.stack(gaps) / images.total, evenly=True)


def brier(images: ScoredImages) -> np.ndarray:
    """Mean squared error of probabilities, (R,): summed over classes, or the second of two; multi-label: mean over labels."""
    if images.multilabel:
        errors = (images.labels >= 0) * (images.scores - images.labels) ** 2
        return images.average(images.weigh(errors) / images.total, evenly=True)
    errors = ((images.scores - images.positive) ** 2)[:, images.judged].sum(1)
    return errors @ images.weights / images.total


def binary_auroc(positive: np.ndarray, negative: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted probability that a positive scores above a negative, ties counting half; NaN without either.

    Negatives are sorted by score and cumulated once, then looked up for every positive.

    Args:
        positive: Whether each image is positive, bool (N,).
        negative: Whether each image is negative; images may be neither.
        score: Score of each image, shape (N,).
        weights: Weights of the images, shape (N, R).

    Returns:
        Areas, shape (R,).
    """
    of_positives, of_negatives, up, down = score[positive], score[negative], weights[positive], weights[negative]
    order = np.argsort(of_negatives, kind="stable")
    ranked = of_negatives[order]
    below = np.zeros((len(ranked) + 1, weights.shape[1]))
    np.cumsum(down[order], 0, out=below[1:])
    won = below[np.searchsorted(ranked, of_positives, "left")] + below[np.searchsorted(ranked, of_positives, "right")]
    return np.einsum("nr,nr->r", up, won) / (2 * up.sum(0) * below[-1])


def _correlation(covariance: np.ndarray, of_truth: np.ndarray, of_predictions: np.ndarray) -> np.ndarray:
    """covariance / √(variances); 0 without a variance of the predictions, NaN without one of the truth."""
    values = np.where(of_predictions > 0, covariance / np.sqrt(of_truth * of_predictions), 0.0)
    return np.where(of_truth > 0, values, np.nan)


def _calibration_gap(right: np.ndarray, confidence: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ over bins of |Σ weight · (right − confidence)|; divided by the total weight, the expected calibration error."""
    bins = np.eye(ECE_BINS)[np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)]
    return np.abs((bins * (right - confidence)[:, None]).T @ weights).sum(0)
