"""A fitted linear classifier of features, as it is kept and applied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from ssl_transfer.measures.standardize import Standardizer


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """Standardise features, and map them to probabilities by one linear layer.

    Attributes:
        weights: Shape (K, D), of standardised features; K is 1 for two classes.
        intercepts: Shape (K,).
        standardize: Mean and standard deviation of the training features.
        multilabel: Whether each column is a label by itself; otherwise the classes exclude each other.
    """

    weights: np.ndarray
    intercepts: np.ndarray
    standardize: Standardizer
    multilabel: bool

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (M, C) of the classes or labels, from features (M, D)."""
        inputs = self.standardize(features).astype(np.float32)
        return probabilities(logits(inputs, self.weights, self.intercepts), self.multilabel)

    def tensors(self) -> dict[str, np.ndarray]:
        """What is kept in a file: weights, mean and standard deviation in float32, in which they are applied."""
        return {
            "weights": np.ascontiguousarray(self.weights, np.float32),
            "intercepts": np.ascontiguousarray(self.intercepts, np.float64),
            "mean": np.ascontiguousarray(self.standardize.mean, np.float32),
            "std": np.ascontiguousarray(self.standardize.std, np.float32),
        }

    @classmethod
    def of_tensors(cls, tensors: dict[str, np.ndarray], multilabel: bool) -> LinearClassifier:
        """The classifier of `tensors`.

        Raises:
            KeyError: If one is missing.
            ValueError: If their shapes do not fit each other.
        """
        weights, intercepts, mean, std = (tensors[name] for name in ("weights", "intercepts", "mean", "std"))
        if (
            weights.ndim != 2
            or intercepts.shape != weights.shape[:1]
            or not mean.shape == std.shape == weights.shape[1:]
        ):
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            raise ValueError(f"its tensors do not fit each other: {shapes}")
        return cls(weights, intercepts, Standardizer(mean, std), multilabel)


def logits(features: np.ndarray, weights: np.ndarray, intercepts: np.ndarray) -> np.ndarray:
    """Logits (N, K), float64; the matrix product is computed in the features' precision."""
    return features @ weights.T.astype(features.dtype) + intercepts


def probabilities(scores: np.ndarray, multilabel: bool) -> np.ndarray:
    """Probabilities (N, K) from logits (N, K); (N, 2) from the single logit of two classes."""
    if multilabel:
        return expit(scores)
    return np.hstack([expit(-scores), expit(scores)]) if scores.shape[1] == 1 else softmax(scores, axis=1)
