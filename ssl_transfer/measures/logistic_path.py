"""Logistic regression on few rows: strengths one after the other, from the strongest penalty to the weakest, in float64.

With few rows a step costs less than the calls that it is made of, so these are few, and NumPy's. Features are replaced by their
coordinates along their principal axes, of which there are at most as many as rows: weights outside their span are 0 at the
optimum. Each strength starts from the optima of the two before it. Steps are those of L-BFGS (Liu & Nocedal 1989), whose
first inverse Hessian is the Kronecker product of the mean curvature between classes and the variances along the axes, plus
the penalty: in these coordinates, a division.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.linalg import eigh
from threadpoolctl import ThreadpoolController

HISTORY = 6  # past steps that L-BFGS remembers; more save hardly any steps
KEPT_VARIANCE = 1e-13  # axes with a smaller share of the largest variance are rounding
REMAINING_SLOPE = 0.5  # a line search ends where the slope is at most this share of its initial size
LINE_SEARCH_TRIALS = 20
PROVEN_GAP = 3e-5  # to which the optimum is proven, as a share of the objective
OBJECTIVE_FLOOR = 1e-12  # added to the objective in estimated gaps, since it may go to 0
LARGEST_MARGIN = 700.0  # exp of more overflows
ABSENT = 40.0  # logits that a class without rows lies below the others, whose optimum is infinitely low
PATIENCE = 30  # steps without a smaller gap, after which only rounding errors are left


@dataclass(frozen=True)
class Head:
    """The head of one strength.

    Attributes:
        weights: (K, D).
        intercepts: (K,).
        steps: Of L-BFGS.
        gap: Proven gap to the optimum, as a share of the objective.
    """

    weights: np.ndarray
    intercepts: np.ndarray
    steps: int
    gap: float


def one_thread() -> AbstractContextManager:
    """Context in which BLAS has one thread: several would take longer on few rows, and round differently."""
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


class Axes:
    """Centred features (N, D) and their coordinates along their principal axes.

    Attributes:
        coordinates: (N, R + 1); R is at most N and D. The last column is 1.
        variances: Of each column, (R + 1,); that of the last is 1.
        mean, scale: Features are centred by their mean (D,) and divided by one number.
    """

    def __init__(self, features: np.ndarray):
        count, dim = features.shape
        self.mean = features.mean(0)
        self.inputs = features - self.mean
        scale = float(np.sqrt(np.square(self.inputs).mean()))
        self.scale = scale if scale > 0 else 1.0
        self.inputs /= self.scale
        self.wide = count < dim
        square = self.inputs @ self.inputs.T if self.wide else self.inputs.T @ self.inputs
        variances, vectors = eigh(square / count, overwrite_a=True, check_finite=False, driver="evd")
        kept = variances > KEPT_VARIANCE * max(variances[-1], 1e-300)
        self._vectors, self._lengths = vectors[:, kept], np.sqrt(variances[kept] * count)
        coordinates = self._vectors * self._lengths if self.wide else self.inputs @ self._vectors
        self.coordinates = np.column_stack([coordinates, np.ones(count)])
        self.variances = np.append(variances[kept], 1.0)

    def original(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (K, D) and intercepts (K,) for the features as they came, from points (K, R + 1)."""
        weights = self._weights(points) / self.scale
        return weights, points[:, -1] - weights @ self.mean

    def gradient(self, residuals: np.ndarray, points: np.ndarray, penalty: float) -> np.ndarray:
        """Gradient (K, D) of the objective in the weights of centred and scaled features, free of the axes' rounding."""
        return residuals @ self.inputs + penalty * self._weights(points)

    def _weights(self, points: np.ndarray) -> np.ndarray:
        if self.wide:
            return ((points[:, :-1] / self._lengths) @ self._vectors.T) @ self.inputs
        return points[:, :-1] @ self._vectors.T


def fit_path(
    axes: Axes,
    labels: np.ndarray,
    classes: int,
    share: np.ndarray,
    penalties: Sequence[float],
    tolerance: float,
    steps: int,
) -> list[Head]:
    """Minimise Σ share · loss + penalty / 2 · ‖weights‖² (intercepts are free), for every penalty.

    Args:
        axes: Of the features.
        labels: Codes in [0, classes), (N,), for a softmax. For one class: 0 or 1, for a sigmoid.
        classes: Number of classes of the softmax, or 1.
        share: Weight of each row, at least 0, (N,). Their sum is 1.
        penalties: Above 0, descending; for centred and scaled features.
        tolerance: Largest estimated gap to the optimum as a share of the objective.
        steps: Most steps per penalty.

    Returns:
        A head per penalty.
    """
    present = np.unique(labels[share > 0])
    if len(present) < 2:
        return [_constant(axes, present, classes)] * len(penalties)
    codes = np.searchsorted(present, labels) if classes > 1 else labels
    loss = _Softmax(codes, len(present), share) if classes > 1 else _Sigmoid(codes, share)
    descent = _Descent(axes, loss)
    heads, before, point = [], None, np.zeros((loss.classes, axes.coordinates.shape[1]))
    for penalty in penalties:
        starts = [point] if before is None else [2 * point - before, point]
        found, taken, gap = descent.minimise(starts, penalty, tolerance, steps)
        before, point = (point if heads else None), found
        weights, intercepts = axes.original(found)
        if len(present) < classes:
            weights, intercepts = _with_absent(weights, intercepts, present, classes)
        heads.append(Head(weights, intercepts, taken, gap))
    return heads


def _constant(axes: Axes, present: np.ndarray, classes: int) -> Head:
    """The head of a problem whose rows are all of one class, or that has no rows."""
    intercepts = np.zeros(classes)
    if len(present):
        intercepts = (
            np.where(np.arange(classes) == present[0], 0.0, -ABSENT) if classes > 1 else ABSENT * (2.0 * present - 1)
        )
    return Head(np.zeros((classes, axes.inputs.shape[1])), intercepts, 0, 0.0)


def _with_absent(weights, intercepts, present, classes):
    """Add the classes without rows."""
    every = np.zeros((classes, weights.shape[1])), np.full(classes, intercepts.min() - ABSENT)
    every[0][present], every[1][present] = weights, intercepts
    return every


class _Softmax:
    """Loss of logits (K, N)."""

    def __init__(self, codes: np.ndarray, classes: int, share: np.ndarray):
        self.classes, self.share = classes, share
        self.own = codes * len(codes) + np.arange(len(codes))  # positions of each row's class among the logits

    def __call__(self, logits: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss, and its gradient (K, N). Nothing small is a difference of large numbers."""
        ratios = logits - logits.ravel()[self.own]
        np.minimum(ratios, LARGEST_MARGIN, out=ratios)
        np.exp(ratios, out=ratios)
        ratios.ravel()[self.own] = 0
        others = ratios.sum(0)
        factor = self.share / (1 + others)
        ratios *= factor
        ratios.ravel()[self.own] = -factor * others
        return float(self.share @ np.log1p(others)), ratios

    def curvature(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean curvature between classes: eigenvalues (K,), ascending, the first 0, and eigenvectors (K, K)."""
        weighted = residuals.copy()
        weighted.ravel()[self.own] += self.share  # share · probability
        between = -(weighted / np.maximum(self.share, 1e-300)) @ weighted.T
        np.fill_diagonal(between, 0)
        np.fill_diagonal(between, -between.sum(1))
        values, vectors = np.linalg.eigh(between)
        values[0] = 0
        return np.maximum(values, 0), vectors


class _Sigmoid:
    """Loss of logits (1, N)."""

    classes = 1

    def __init__(self, labels: np.ndarray, share: np.ndarray):
        self.share, self.signs = share, 1.0 - 2.0 * labels

    def __call__(self, logits: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss, and its gradient (1, N)."""
        others = np.exp(np.minimum(logits[0] * self.signs, LARGEST_MARGIN))
        return float(self.share @ np.log1p(others)), (self.share * self.signs * others / (1 + others))[None]

    def curvature(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean curvature (1,), and the number 1, (1, 1)."""
        wrong = np.abs(residuals[0])  # share · probability of the wrong outcome
        return np.array([wrong.sum() - (wrong**2 / np.maximum(self.share, 1e-300)).sum()]), np.ones((1, 1))


class _Descent:
    """L-BFGS on the points (K, R + 1) of one problem."""

    def __init__(self, axes: Axes, loss: _Softmax | _Sigmoid):
        self.axes, self.loss = axes, loss
        self.rows = np.ascontiguousarray(axes.coordinates)
        self.columns = np.ascontiguousarray(axes.coordinates.T)

    def minimise(self, starts, penalty, tolerance, most_steps):
        """The point with the smallest gap, number of steps, and its proven gap as a share of the objective."""
        self.penalties = np.full(self.rows.shape[1], penalty)
        self.penalties[-1] = 0  # of the intercept
        point, logits, value, residuals = self._best(starts)
        gradient = residuals @ self.rows + self.penalties * point
        history, best, newest = deque(maxlen=HISTORY), (np.inf, point, 0, residuals), 0
        for step in range(most_steps + 1):
            objective = value + 0.5 * float(self.penalties @ np.square(point).sum(0))
            direction = self._direction(gradient, history, residuals)
            slope = float(np.vdot(gradient, direction))
            estimated = -0.5 * slope / (objective + OBJECTIVE_FLOOR) / tolerance
            proven = float(np.square(gradient[:, :-1]).sum()) / (2 * penalty) / objective
            gap = max(estimated, 2 * proven / PROVEN_GAP)  # twice: the axes have rounding errors of their own
            if gap < best[0]:
                best, newest = (gap, point, step, residuals), step
            if not gap > 1 or step - newest > PATIENCE or slope >= 0:
                break
            along = direction @ self.columns
            rate, logits, (value, residuals) = self._search(point, direction, logits, along, slope, value)
            move = rate * direction
            point, before = point + move, gradient
            gradient = residuals @ self.rows + self.penalties * point
            change = gradient - before
            history.append((move, change, float(np.vdot(move, change))))
        _, point, step, residuals = best
        objective = self.loss(point @ self.columns)[0] + 0.5 * float(self.penalties @ np.square(point).sum(0))
        exact = self.axes.gradient(residuals, point, penalty)
        return point, step, float(np.square(exact).sum()) / (2 * penalty) / max(objective, 1e-300)

    def _best(self, starts):
        """The point with the lowest objective among some and zeros, with its logits, its loss and the gradient of the loss."""
        found = []
        for start in [*starts, np.zeros_like(starts[0])] if np.any(starts[-1]) else starts[-1:]:
            logits = start @ self.columns
            value, residuals = self.loss(logits)
            objective = value + 0.5 * float(self.penalties @ np.square(start).sum(0))
            found.append((objective, start, logits, value, residuals))
        return min(found, key=lambda each: each[0])[1:]

    def _direction(self, gradient, history, residuals):
        """Minus the inverse Hessian times the gradient, by the two-loop recursion."""
        values, vectors = self.loss.curvature(residuals)
        scale = values[:, None] * self.axes.variances + self.penalties
        scale = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 1e-30)
        direction, factors = gradient.copy(), []
        for move, change, product in reversed(history):
            factor = float(np.vdot(move, direction)) / product if product > 0 else 0.0
            factors.append(factor)
            direction -= factor * change
        direction = vectors @ (scale * (vectors.T @ direction))
        if history:
            _, change, product = history[-1]
            turned = vectors.T @ change
            length = float(np.vdot(turned, scale * turned))
            direction *= product / length if product > 0 and length > 0 else 1.0
        for (move, change, product), factor in zip(history, reversed(factors), strict=True):
            back = float(np.vdot(change, direction)) / product if product > 0 else 0.0
            direction += (factor - back) * move
        return -direction

    def _search(self, point, direction, logits, along, slope, value):
        """A step length where little slope is left, by secants between brackets; logits, and loss with gradient there."""
        linear = float(self.penalties @ (point * direction).sum(0))
        square = float(self.penalties @ np.square(direction).sum(0))
        noise = 16 * np.finfo(float).eps * value
        tried, low, low_slope, high, high_slope = 1.0, 0.0, slope, np.inf, np.inf
        for _ in range(LINE_SEARCH_TRIALS):
            rate = tried
            there = logits + rate * along
            lost, residuals = self.loss(there)
            left = float(np.vdot(residuals, along)) + linear + rate * square
            fell = lost - value + rate * (linear + 0.5 * rate * square) <= noise
            if fell and (abs(left) <= REMAINING_SLOPE * abs(slope) or (left < 0 and rate < 1)):
                break
            if left < 0:
                low, low_slope = rate, left
            else:
                high, high_slope = rate, left
            if np.isfinite(high):
                margin = 0.05 * (high - low)
                secant = low - (high - low) * low_slope / (high_slope - low_slope)
                tried = min(max(secant, low + margin), high - margin)
            else:
                tried = rate * min(max(slope / (slope - left), 1.5), 8.0) if slope != left else 8.0 * rate
        return rate, there, (lost, residuals)
