"""The spectrum of features: one Gram matrix and one eigendecomposition, from which every score of features is computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

EPSILON = np.finfo(float).eps


@dataclass(frozen=True)
class Spectrum:
    """Centred features along their principal axes, largest first, and how targets lie along them.

    Only the R axes count whose variance lies above rounding. Where N < D they come from the N × N Gram matrix.

    Attributes:
        n_features: D.
        variances: Of the features along the axes (ddof 0), (R,).
        center: The mean feature vector along the axes, and last its length orthogonal to them, (R + 1,).
        cross: Σ_i (f_i − mean) y_i along the axes, for each of K target columns, (R, K).
        sums: Of the targets, (K,).
        spreads: Σ_i (y_i − mean)², (K,).
        fourth: Mean of ‖f − mean‖⁴.
        codes: Class of each image, (N,), if the targets are classes.
        factors: Two matrices whose product are the `places`.
    """

    n_features: int
    variances: np.ndarray
    center: np.ndarray
    cross: np.ndarray
    sums: np.ndarray
    spreads: np.ndarray
    fourth: float
    codes: np.ndarray | None
    factors: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, features: np.ndarray, targets: np.ndarray) -> Spectrum:
        """Of features (N, D) and targets (N, K), or class codes (N,) that stand for their one-hot columns."""
        (rows, dim), mean = features.shape, features.mean(0)
        centred = features - mean
        lengths = np.einsum("nd,nd->n", centred, centred)
        transposed, sums, spreads = _columns(targets)
        rounding = (
            rows * (EPSILON * np.linalg.norm(mean)) ** 2
        )  # what the mean's own rounding leaves of constant features
        if rows >= dim:
            variances, axes = _descending(centred.T @ centred / rows, rows, rounding)
            factors = (centred, axes)
            cross, center = ((transposed @ centred) @ axes).T, mean @ axes
        else:
            variances, left = _descending(centred @ centred.T / rows, dim, rounding)
            length = np.sqrt(rows * variances)
            factors = (left, np.diag(length))
            cross, center = (transposed @ left).T * length[:, None], (centred @ mean) @ left / length
        beside = np.sqrt(max(0.0, mean @ mean - center @ center)) if len(variances) < dim else 0.0
        center = np.append(center, beside)
        fourth = float(np.square(lengths).mean())
        codes = targets if targets.ndim == 1 else None
        return cls(dim, variances, center, cross, sums, spreads, fourth, codes, factors)

    @cached_property
    def places(self) -> np.ndarray:
        """Centred features along the axes, (N, R)."""
        return self.factors[0] @ self.factors[1]

    @property
    def n_rows(self) -> int:
        """N."""
        return len(self.factors[0])

    @property
    def shrinkage(self) -> float:
        """Ledoit and Wolf's share of a multiple of the identity in the covariance, in [0, 1].

        Source:
            Ledoit and Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4; the value of scikit-learn's `LedoitWolf`.
        """
        squares, dim = np.square(self.variances).sum(), self.n_features
        dispersion = squares - self.variances.sum() ** 2 / dim
        noise = min((self.fourth - squares) / self.n_rows, dispersion)
        return float(noise / dispersion) if noise > 0 else 0.0


def _columns(targets: np.ndarray) -> tuple[np.ndarray | csr_array, np.ndarray, np.ndarray]:
    """Targets transposed (K, N), their sums, and the sums of squares about their means."""
    if targets.ndim == 2:
        return targets.T, targets.sum(0), np.square(targets - targets.mean(0)).sum(0)
    rows = len(targets)
    sums = np.bincount(targets).astype(float)
    one_hot = csr_array((np.ones(rows), (targets, np.arange(rows))), shape=(len(sums), rows))
    return one_hot, sums, sums * (1 - sums / rows)


def _descending(gram: np.ndarray, other_side: int, rounding: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues above rounding, largest first, and their vectors."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > max(values[-1] * max(len(gram), other_side) * EPSILON, rounding)
    return values[kept][::-1], vectors[:, kept][:, ::-1]
