"""ROC and precision-recall curves under weights, and the metrics that are read from them.

A curve has a point per distinct score: the images with this score or a higher one are predicted as positive. Ties are one point,
as in scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class RankedCounts:
    """What is counted at thresholds of a score, from the highest to the lowest, for R sets of weights.

    Attributes:
        thresholds: The T thresholds, descending.
        true_positives, false_positives: Weight of the positives, and of the negatives, at or above each threshold, (T, R).
        positives, negatives: Weight of all of them, (R,).
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    @classmethod
    def of(
        cls,
        positive: np.ndarray,
        negative: np.ndarray,
        score: np.ndarray,
        weights: np.ndarray,
        *,
        at_positives: bool = False,
    ) -> RankedCounts:
        """Count the images of a class.

        Args:
            positive: Whether each image is positive, bool (N,).
            negative: Whether each image is negative; images may be neither.
            score: Score of each image, (N,).
            weights: Weights of the images, (N, R).
            at_positives: Whether the thresholds are the scores of positives alone; then they are fewer, and every metric of this
                class has the same value: between two of them only false positives change.
        """
        thresholds = np.unique(score[positive] if at_positives else score[positive | negative])[::-1]
        above = [_weight_above(score[outcome], weights[outcome], thresholds) for outcome in (positive, negative)]
        (true_positives, positives), (false_positives, negatives) = above
        return cls(thresholds, true_positives, false_positives, positives, negatives)

    def average_precision(self) -> np.ndarray:
        """Σ_n (recall_n − recall_{n−1}) · precision_n over the thresholds, (R,); NaN without a positive."""
        predicted = self.true_positives + self.false_positives
        precision = np.divide(self.true_positives, predicted, out=np.zeros_like(predicted), where=predicted > 0)
        steps = np.diff(self.true_positives, axis=0, prepend=0.0)
        return np.einsum("tr,tr->r", steps, precision) / self.positives

    def sensitivity_at(self, specificity: float) -> np.ndarray:
        """The largest sensitivity of a threshold whose specificity is at least this, (R,); NaN without both outcomes."""
        reached = (self.negatives - self.false_positives) / self.negatives >= specificity
        best = np.where(reached, self.true_positives, 0.0).max(0, initial=0.0) / self.positives
        return np.where(self.negatives > 0, best, np.nan)

    def specificity_at(self, sensitivity: float) -> np.ndarray:
        """The largest specificity of a threshold whose sensitivity is at least this, (R,); NaN without both outcomes."""
        reached = self.true_positives / self.positives >= sensitivity
        best = np.where(reached, self.negatives - self.false_positives, 0.0).max(0, initial=0.0) / self.negatives
        return np.where(self.positives > 0, best, np.nan)


def _weight_above(score: np.ndarray, weights: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the images at or above each threshold (T, R), and of all (R,)."""
    order = np.argsort(-score, kind="stable")
    cumulated = np.zeros((len(score) + 1, weights.shape[1]))
    np.cumsum(weights[order], 0, out=cumulated[1:])
    return cumulated[np.searchsorted(-score[order], -thresholds, "right")], cumulated[-1]
