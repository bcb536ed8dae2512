"""The spectrum of features: one Gram matrix and one eigendecomposition from which all scores that read features are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg.blas import dsyrk  # pyright: ignore[reportAttributeAccessIssue] — SciPy makes it at import
from scipy.sparse import csr_array

EPSILON = np.finfo(float).eps
BLOCK = 2048  # rows that are centred at a time


@dataclass(frozen=True)
class Spectrum:
    """Centred features in the coordinates of their principal axes, largest variance first, and sums of the targets along them.

    Only the R axes whose variance exceeds rounding errors are kept. If N < D they are computed from the N × N Gram matrix.

    Attributes:
        n_rows, n_features: N and D.
        variances: Variances of the features along the axes (ddof 0), (R,).
        center: Coordinates of the mean feature vector along the axes, then the length of its orthogonal component, (R + 1,).
        cross: Σ_i (f_i − mean) y_i along the axes, for each of K target columns, (R, K).
        sums: Sums of the targets, (K,).
        scatter: Σ_i (y_i − mean)², (K,).
        fourth: Mean of ‖f − mean‖⁴.
        codes: Class of each image, (N,); empty if the targets are not classes.
        project: Computes `coordinates`.
    """

    n_rows: int
    n_features: int
    variances: np.ndarray
    center: np.ndarray
    cross: np.ndarray
    sums: np.ndarray
    scatter: np.ndarray
    fourth: float
    codes: np.ndarray
    project: Callable[[], np.ndarray]

    @classmethod
    def of(cls, features: np.ndarray, targets: np.ndarray) -> Spectrum:
        """Compute the spectrum of features (N, D) and targets (N, K), or class codes (N,) in place of their one-hot columns."""
        (rows, dim), mean = features.shape, features.mean(0, dtype=np.float64)
        sums, scatter = _totals(targets)
        # Variance that constant features have because their mean is rounded.
        rounding = rows * (EPSILON * np.linalg.norm(mean)) ** 2
        if rows >= dim:
            gram, cross, fourth = _accumulated(features, mean, targets)
            variances, axes = _descending(gram, rows, rounding)
            cross, center = (cross @ axes).T, mean @ axes

            def project() -> np.ndarray:
                return np.subtract(features, mean, dtype=np.float64) @ axes

        else:
            centred = np.subtract(features, mean, dtype=np.float64)
            fourth = float(np.square(np.einsum("nd,nd->n", centred, centred)).mean())
            variances, left_vectors = _descending(centred @ centred.T / rows, dim, rounding)
            singular_values = np.sqrt(rows * variances)
            cross, center = (
                _by_target(targets, left_vectors).T * singular_values[:, None],
                (centred @ mean) @ left_vectors / singular_values,
            )

            def project() -> np.ndarray:
                return left_vectors * singular_values

        orthogonal = np.sqrt(max(0.0, mean @ mean - center @ center)) if len(variances) < dim else 0.0
        codes = targets if targets.ndim == 1 else np.empty(0, np.int64)
        return cls(rows, dim, variances, np.append(center, orthogonal), cross, sums, scatter, fourth, codes, project)

    @cached_property
    def coordinates(self) -> np.ndarray:
        """Centred features along the axes, (N, R)."""
        return self.project()

    @property
    def shrinkage(self) -> float:
        """Weight of a multiple of the identity in Ledoit and Wolf's estimate of the covariance, in [0, 1].

        Source:
            Ledoit and Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4; the value of scikit-learn's `LedoitWolf`.
        """
        squares, dim = np.square(self.variances).sum(), self.n_features
        dispersion = squares - self.variances.sum() ** 2 / dim
        noise = min((self.fourth - squares) / self.n_rows, dispersion)
        return float(noise / dispersion) if noise > 0 else 0.0


def _accumulated(features: np.ndarray, mean: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Covariance of centred features (its upper triangle), their sums by target (K, D), and the mean of their norm to the fourth.

    Rows are taken in blocks, because allocating a centred copy of all rows would take as long as the eigendecomposition.
    """
    (rows, dim), fourth, cross = features.shape, 0.0, np.zeros(())
    gram, memory = np.zeros((dim, dim), order="F"), np.empty((min(BLOCK, rows), dim))
    classes = targets.max() + 1 if targets.ndim == 1 else None
    for start in range(0, rows, BLOCK):
        centred = np.subtract(
            features[start : start + BLOCK], mean, out=memory[: min(BLOCK, rows - start)], casting="unsafe"
        )
        gram = dsyrk(1 / rows, centred.T, beta=1.0, c=gram, overwrite_c=1)
        fourth += np.square(np.einsum("nd,nd->n", centred, centred)).sum() / rows
        cross = cross + _by_target(targets[start : start + BLOCK], centred, classes)
    return gram, cross, float(fourth)


def _totals(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of target columns, and their sums of squared deviations from the mean."""
    if targets.ndim == 2:
        return targets.sum(0), np.square(targets - targets.mean(0)).sum(0)
    sums = np.bincount(targets).astype(float)
    return sums, sums * (1 - sums / len(targets))


def _by_target(targets: np.ndarray, values: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Σ_i y_i v_i of target columns (n, K) or of class codes (n,), (K, …)."""
    return targets.T @ values if targets.ndim == 2 else one_hot(targets, classes) @ values


def one_hot(codes: np.ndarray, classes: int | None = None) -> csr_array:
    """Indicator matrix of classes (C, N); its product with a matrix (N, K) is the sum over the rows of each class."""
    shape = (classes or codes.max() + 1, len(codes))
    return csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=shape)


def _descending(gram: np.ndarray, other_side: int, rounding: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a Gram matrix (its upper triangle) that exceed rounding errors, largest first, and their eigenvectors."""
    values, vectors = np.linalg.eigh(gram, UPLO="U")
    kept = values > max(values[-1] * max(len(gram), other_side) * EPSILON, rounding)
    return values[kept][::-1], vectors[:, kept][:, ::-1]
