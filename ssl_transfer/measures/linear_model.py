"""A fitted linear model of features, as it is kept and applied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from ssl_transfer.measures.ordinal import grade_probabilities
from ssl_transfer.measures.standardize import Standardizer
from ssl_transfer.target_kinds import KINDS


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Standardise features, and map them to predictions by one linear layer.

    Attributes:
        weights: Shape (K, D), of standardised features; K is 1 for two classes, C − 1 for C grades, and 1 for a number or
            survival.
        intercepts: Shape (K,).
        standardize: Mean and standard deviation of the training features.
        kind: Kind of the task: `multiclass`, `multilabel`, `ordinal`, `regression` or `survival`.
    """

    weights: np.ndarray
    intercepts: np.ndarray
    standardize: Standardizer
    kind: str

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Predictions from features (M, D): probabilities (M, C) of classes, labels or grades, or numbers or log hazards (M,)."""
        return self.predicted(self.standardize(features).astype(np.float32))

    def predicted(self, inputs: np.ndarray) -> np.ndarray:
        """Predictions from standardised features, see `__call__`."""
        outputs = logits(inputs, self.weights, self.intercepts)
        if KINDS[self.kind].number is not None:
            return outputs[:, 0]
        if self.kind == "ordinal":
            return grade_probabilities(expit(outputs))
        return probabilities(outputs, self.kind == "multilabel")

    def tensors(self) -> dict[str, np.ndarray]:
        """What is kept in a file: weights, mean and standard deviation in float32, in which they are applied."""
        return {
            "weights": np.ascontiguousarray(self.weights, np.float32),
            "intercepts": np.ascontiguousarray(self.intercepts, np.float64),
            "mean": np.ascontiguousarray(self.standardize.mean, np.float32),
            "std": np.ascontiguousarray(self.standardize.std, np.float32),
        }

    @classmethod
    def of_tensors(cls, tensors: dict[str, np.ndarray], kind: str) -> LinearModel:
        """The model of `tensors`, for a kind of task.

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
        return cls(weights, intercepts, Standardizer(mean, std), kind)


def logits(features: np.ndarray, weights: np.ndarray, intercepts: np.ndarray) -> np.ndarray:
    """Logits (N, K), float64; the matrix product is computed in the features' precision."""
    return features @ weights.T.astype(features.dtype) + intercepts


def probabilities(scores: np.ndarray, multilabel: bool) -> np.ndarray:
    """Probabilities (N, K) from logits (N, K); (N, 2) from the single logit of two classes."""
    if multilabel:
        return expit(scores)
    return np.hstack([expit(-scores), expit(scores)]) if scores.shape[1] == 1 else softmax(scores, axis=1)
