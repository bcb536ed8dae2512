"""Linear erasure of a concept from features: the least change after which no linear classifier finds the concept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RANK = 1e-8  # eigenvalues below this share of the largest one, and correlations below it, are rounding errors


@dataclass(frozen=True, eq=False)
class Eraser:
    """The affine map x − P (x − mean), with P = written @ read of low rank.

    Attributes:
        mean: Mean of the features that it was fitted to, shape (D,).
        written: Shape (D, r).
        read: Shape (r, D).
    """

    mean: np.ndarray
    written: np.ndarray
    read: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features (M, D) without the concept."""
        return features - ((features - self.mean) @ self.read.T) @ self.written.T

    @property
    def projection(self) -> np.ndarray:
        """The matrix I − P, which is applied to centred features, shape (D, D)."""
        return np.eye(len(self.mean)) - self.written @ self.read


def whitening(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symmetric square root of the pseudo-inverse of the covariance of features (N, D), and its own pseudo-inverse.

    Returns:
        Two matrices (D, D).
    """
    centred = features - features.mean(0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(features))
    kept = variances > RANK * max(variances[-1], 0)
    scales, axes = np.sqrt(variances[kept]), axes[:, kept]
    return (axes / scales) @ axes.T, (axes * scales) @ axes.T


def leace(features: np.ndarray, concept: np.ndarray, whiten: tuple[np.ndarray, np.ndarray] | None = None) -> Eraser:
    """Fit LEACE: the affine map that makes features uncorrelated with a concept and moves them least, in mean square.

    With W the inverse square root of the covariance of the features, and Q an orthonormal basis of the columns of W Σ_xz, the
    map is x − W⁺ Q Qᵀ W (x − mean). Of all affine maps whose result has no covariance with the concept it moves the features
    least in every quadratic norm. For a concept of indicators of classes, the class means then coincide, and no linear classifier
    with a convex loss does better on these rows than a constant.

    Args:
        features: Rows that the map is fitted to, shape (N, D).
        concept: Numbers, or an indicator of each class, shape (N, K). Constant columns are ignored.
        whiten: What `whitening` returns for these features, for several concepts; None: computed.

    Source:
        Belrose et al. 2023, https://arxiv.org/abs/2306.03819, theorem 4.2.
    """
    features = np.asarray(features, np.float64)
    white, coloured = whitening(features) if whiten is None else whiten
    spread = concept.std(0)
    varying = (concept[:, spread > 0] - concept[:, spread > 0].mean(0)) / spread[spread > 0]
    mean = features.mean(0)
    basis, correlations, _ = np.linalg.svd(white @ ((features - mean).T @ varying / len(features)), full_matrices=False)
    basis = basis[:, correlations > RANK]
    return Eraser(mean, coloured @ basis, basis.T @ white)
