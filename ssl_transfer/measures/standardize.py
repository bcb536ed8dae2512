"""Standardisation of features by the mean and standard deviation of the training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Mean and standard deviation (ddof 0) of each feature, shape (D,). Constant features get an infinite one, and become 0."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, *, constant_below: float = 0.0, dtype: type | None = None) -> Standardizer:
        """Compute mean and standard deviation of training features (N, D).

        Args:
            features: Training features, finite.
            constant_below: A feature is constant if its standard deviation is at most this share of the largest one.
            dtype: Data type of the sums; None: that of the features.
        """
        mean, std = features.mean(0, dtype=dtype), features.std(0, dtype=dtype)
        varies = std > constant_below * max(std.max(), 1e-12)
        return cls(mean, np.where(varies, std, np.inf).astype(std.dtype))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Subtract the mean from features (M, D) and divide by the standard deviation, in the dtype of the features."""
        return (features - self.mean.astype(features.dtype)) / self.std.astype(features.dtype)
