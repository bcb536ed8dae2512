"""Scores of how well a linear model of the features predicts the labels: H-score, its regularised form, and LogME."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ssl_transfer.errors import ScoreError, nearest
from ssl_transfer.measures.transferability.inputs import checked_features, checked_labels, checked_targets
from ssl_transfer.measures.transferability.spectrum import Spectrum

TARGETS = ("multiclass", "multilabel", "continuous")
# LogME searches the ratio t of prior precision to noise precision between these multiples of the mean eigenvalue of FᵀF.
LEAST_RATIO, LARGEST_RATIO = 1e-12, 1e12
GRID = 97  # ratios at which the evidence is computed first, four per decade
GOLDEN_STEPS = 32  # steps of the golden-section search; they leave an interval of 2e-7 of the grid's spacing
GOLDEN = (5**0.5 - 1) / 2


def h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """tr(cov(f)⁺ cov(E[f|y])): the share of variance that lies between classes, summed over directions.

    Range [0, min(C − 1, D)]. With at least as many features as images it is C − 1 for any features: use `regularized_h_score`
    there. A constant feature adds nothing. The score does not change under an invertible linear map of the features whose scales
    lie within about six decades, since variances below rounding errors are treated as 0.

    Args:
        features: Features, shape (N, D).
        labels: Class codes, integers (N,), of at least two classes.

    Raises:
        ScoreError: If features are not finite numbers (N, D), or labels not 1-D integers of N images and two classes.

    Source:
        Bao et al. 2019, https://ieeexplore.ieee.org/document/8803726.

    Example:
        >>> round(h_score([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]), 4)  # 1 of 1.25
        0.8
    """
    features = checked_features(features)
    return plain_h(Spectrum.of(features, checked_labels(labels, len(features))))


def regularized_h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """tr(Σ_α⁻¹ (1 − α) cov(E[f|y])), where Σ_α is the covariance shrunk by Ledoit and Wolf's α; the default H-score.

    Range [0, (C − 1) · N / (N − 1)]. The between-class covariance has ddof 1. The score does not change if the features are
    scaled or rotated.

    Args:
        features: Features, shape (N, D).
        labels: Class codes, integers (N,), of at least two classes.

    Raises:
        ScoreError: See `h_score`.

    Source:
        Ibrahim et al. 2022, https://arxiv.org/abs/2110.06893.
    """
    features = checked_features(features)
    return shrunk_h(Spectrum.of(features, checked_labels(labels, len(features))))


def logme(
    features: np.ndarray, labels: np.ndarray, target: Literal["multiclass", "multilabel", "continuous"] = "multiclass"
) -> float:
    """Maximised log evidence per image of a Bayesian linear model; mean over target columns.

    The model is y ~ N(F w, β⁻¹ I), w ~ N(0, α⁻¹ I), without an intercept. For a ratio t = α / β the best β is N / q(t) with
    q(t) = yᵀ(I + FFᵀ/t)⁻¹y, so that −½ [log(2π q/N) + 1] − ½/N · log det(I + FFᵀ/t) remains to be maximised over t. The search
    runs to convergence (the published code stops a fixed-point iteration early), and t lies between 10⁻¹² and 10¹² times the mean
    eigenvalue of FᵀF, which bounds the evidence of a perfect fit. Range (−∞, ∞). The score does not change with the scale of the
    features. A constant feature acts as an intercept.

    Args:
        features: Features, shape (N, D).
        labels: For `multiclass`: integers (N,), whose one-hot columns are the targets. For `multilabel`: 0 and 1, (N, K) or
            (N,). For `continuous`: numbers to regress, (N, K) or (N,). A column that never varies is left out.
        target: Kind of the target.

    Raises:
        ScoreError: If features are not finite numbers (N, D), or the labels are not of the kind of the target.

    Source:
        You et al. 2021, https://arxiv.org/abs/2102.11005.
    """
    if target not in TARGETS:
        raise ScoreError(f"target: found {target!r}.{nearest(str(target), TARGETS)}")
    features = checked_features(features)
    if target == "multiclass":
        columns = checked_labels(labels, len(features))
    else:
        columns = checked_targets(labels, len(features), binary=target == "multilabel")
    return evidence(Spectrum.of(features, columns))


def plain_h(spectrum: Spectrum) -> float:
    """`h_score` of a spectrum with classes."""
    return float((spectrum.cross**2 / (spectrum.sums * spectrum.n_rows) / spectrum.variances[:, None]).sum())


def shrunk_h(spectrum: Spectrum) -> float:
    """`regularized_h_score` of a spectrum with classes."""
    share = spectrum.shrinkage
    shrunk = (1 - share) * spectrum.variances + share * spectrum.variances.sum() / spectrum.n_features
    between = (spectrum.cross**2 / spectrum.sums).sum(1) / (spectrum.n_rows - 1)
    return float((1 - share) * (between / shrunk).sum())


def evidence(spectrum: Spectrum) -> float:
    """`logme` of a spectrum."""
    squares = spectrum.n_rows * spectrum.variances
    mean_square = (squares.sum() + spectrum.n_rows * spectrum.center @ spectrum.center) / spectrum.n_features
    if mean_square == 0:  # no features at all
        mean_square = 1.0
    log_evidence = _Evidence(spectrum, squares)
    grid = np.log(mean_square) + np.linspace(np.log(LEAST_RATIO), np.log(LARGEST_RATIO), GRID)
    values = np.stack([log_evidence.at(np.full(len(spectrum.sums), log_ratio)) for log_ratio in grid])
    best, columns = values.argmax(0), np.arange(len(spectrum.sums))
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, GRID - 1)]
    return float(np.maximum(values[best, columns], _golden(log_evidence.at, low, high)).mean())


class _Evidence:
    """Log evidence per image of K target columns. Along the axes, FᵀF is a diagonal matrix plus the outer product of the mean."""

    def __init__(self, spectrum: Spectrum, squares: np.ndarray):
        self.rows = spectrum.n_rows
        self.squares = np.append(squares, 0.0)  # orthogonal to the axes, only the mean is not 0
        self.mean = np.sqrt(self.rows) * spectrum.center
        self.target_means = spectrum.sums / np.sqrt(self.rows)
        self.cross = np.vstack([spectrum.cross, np.zeros(len(spectrum.sums))])
        explained = np.square(spectrum.cross) / squares[:, None]
        self.explained = np.vstack([explained, np.zeros(len(spectrum.sums))])
        unexplained = spectrum.scatter - explained.sum(0)
        # As many directions as images explain all variance: what rounding errors leave belongs to the weakest direction.
        if len(squares) >= self.rows - 1:
            self.explained[len(squares) - 1] = np.maximum(self.explained[len(squares) - 1] + unexplained, 0)
            unexplained = np.zeros_like(unexplained)
        self.residual = np.maximum(unexplained, 0)

    def at(self, log_ratio: np.ndarray) -> np.ndarray:
        """Log evidence (K,) at one log t per column, (K,). Small numbers are not computed as differences of large ones."""
        ratio = np.exp(log_ratio)
        if (log_ratio == log_ratio[0]).all():
            ratio = ratio[:1]
        inverse = 1 / (self.squares[:, None] + ratio)  # (R + 1, K), or (R + 1, 1) where all columns share t
        mean_factor = 1 + np.square(self.mean) @ inverse
        if len(ratio) == 1:
            ridge, explained_mean = ratio * (inverse[:, 0] @ self.explained), (self.mean * inverse[:, 0]) @ self.cross
        else:
            ridge = ratio * np.einsum("rk,rk->k", inverse, self.explained)
            explained_mean = np.einsum("r,rk,rk->k", self.mean, inverse, self.cross)
        misfit = self.residual + ridge + np.square(self.target_means - explained_mean) / mean_factor
        determinant = np.log1p(self.squares[:, None] / ratio).sum(0) + np.log(mean_factor)
        misfit = np.maximum(misfit, np.finfo(float).tiny)
        return -0.5 * (np.log(2 * np.pi * misfit / self.rows) + 1) - 0.5 * determinant / self.rows


def _golden(function, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Maxima of functions with a single maximum between `low` and `high`, by golden-section search, all at once."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(GOLDEN_STEPS):
        falls = at_left > at_right
        low, high = np.where(falls, low, left), np.where(falls, right, high)
        new = np.where(falls, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        value = function(new)
        left, right = np.where(falls, new, right), np.where(falls, left, new)
        at_left, at_right = np.where(falls, value, at_right), np.where(falls, at_left, value)
    return np.maximum(at_left, at_right)
