"""Metrics of a number that is predicted for each image, under weights for many resamples at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_transfer.measures.classification import ScoredImages


@dataclass(frozen=True, eq=False)
class ScoredValues:
    """True and predicted values of N images under R sets of weights.

    Attributes:
        truth: True values, (N,).
        predicted: Predicted values, (N,).
        weights: Weights of the images, (N, R).
    """

    truth: np.ndarray
    predicted: np.ndarray
    weights: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Predicted minus true value, (N,)."""
        return self.predicted - self.truth

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Weighted mean of values (N,), (R,)."""
        return values @ self.weights / self.weights.sum(0)


def mae(scored: ScoredValues | ScoredImages) -> np.ndarray:
    """Mean absolute error, in the unit of the target or in grades, (R,)."""
    return scored.mean(np.abs(scored.errors))


def rmse(scored: ScoredValues) -> np.ndarray:
    """Root of the mean squared error, in the unit of the target, (R,)."""
    return np.sqrt(scored.mean(scored.errors**2))


def r2(scored: ScoredValues) -> np.ndarray:
    """Coefficient of determination, (R,): 1 − Σ (y − ŷ)² / Σ (y − ȳ)², ȳ of the same images; NaN if all have one true value."""
    centred = scored.truth - scored.truth.mean()  # so that large values lose no digits
    spread = scored.mean(centred**2) - scored.mean(centred) ** 2
    unexplained = scored.mean(scored.errors**2)
    return 1 - np.divide(
        unexplained, spread, out=np.full_like(spread, np.nan), where=_varies(scored.truth, scored.weights)
    )


def spearman(scored: ScoredValues) -> np.ndarray:
    """Rank correlation of true and predicted values, (R,); ties have their mean rank. NaN if either has one value only."""
    ranks = [_ranks(values, scored.weights) for values in (scored.truth, scored.predicted)]
    total = scored.weights.sum(0)
    truth, predicted = (rank - (rank * scored.weights).sum(0) / total for rank in ranks)
    covariance, *variances = (
        (a * b * scored.weights).sum(0) for a, b in ((truth, predicted), (truth, truth), (predicted, predicted))
    )
    varies = _varies(scored.truth, scored.weights) & _varies(scored.predicted, scored.weights)
    spread = np.sqrt(variances[0] * variances[1])
    return np.divide(covariance, spread, out=np.full_like(spread, np.nan), where=varies)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean rank of each image where an image of weight w counts as w images, up to a constant, (N, R)."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    below = np.zeros((len(values) + 1, weights.shape[1]))
    np.cumsum(weights[order], 0, out=below[1:])
    return (below[np.searchsorted(ascending, values, "left")] + below[np.searchsorted(ascending, values, "right")]) / 2


def _varies(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Whether the images of weight above 0 have two different values, (R,)."""
    order = np.argsort(values, kind="stable")
    drawn, ascending = weights[order] > 0, values[order]
    first, last = drawn.argmax(0), len(values) - 1 - drawn[::-1].argmax(0)
    return drawn.any(0) & (ascending[first] < ascending[last])
