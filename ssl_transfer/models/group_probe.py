"""Fitted probes of groups: one prediction from the frozen features of all images of a patient, study or series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ssl_transfer.data.groups import Bags
from ssl_transfer.measures.linear_model import LinearModel, probabilities
from ssl_transfer.models.bag_pooling import BAG_POOLINGS, BagPooling
from ssl_transfer.poolings import LEARNED

HEAD = "head."  # prefix of the tensors of a head in a file


@dataclass(frozen=True, eq=False)
class BagFeatures:
    """Features of the images of some groups.

    Attributes:
        values: Features, float32 (n, D), sorted by group and, within a group, by value.
        codes: Number of the group of each row, int64 (n,), ascending.
        count: Number of groups.
    """

    values: np.ndarray
    codes: np.ndarray
    count: int

    @classmethod
    def of(cls, values: np.ndarray, bags: Bags) -> BagFeatures:
        """Features (n, D) of images in the given groups. Results do not depend on the order of the images, to the last bit."""
        order = np.lexsort((values[:, 0], values.sum(1, dtype=np.float64), bags.codes))
        return cls(values[order], bags.codes[order], len(bags.names))

    def pooled(self, pooling: str) -> np.ndarray:
        """One vector per group, float32 (G, D): its `mean`, or its `max`."""
        ends = np.searchsorted(self.codes, np.arange(self.count), "right")
        groups = np.split(self.values, ends[:-1])  # a loop over them takes a sixth of the time of `np.add.reduceat`
        if pooling == "max":
            return np.stack([values.max(0) for values in groups])
        return np.stack([values.mean(0, dtype=np.float64) for values in groups]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class PooledProbe:
    """A probe of pooled features.

    Attributes:
        pooling: How the features of a group are pooled: `mean` or `max`.
        probe: Maps pooled features (G, D) to predictions: a linear model, or the votes of neighbours.
    """

    pooling: str
    probe: Callable[[np.ndarray], np.ndarray]

    def __call__(self, features: BagFeatures) -> np.ndarray:
        """Predictions of the groups, as those of the probe."""
        return self.probe(features.pooled(self.pooling))


@dataclass(frozen=True, eq=False)
class FittedBagHead:
    """A head that has learned how to pool, together with its classifier.

    Attributes:
        head: Maps principal components of the features to logits.
        mean: Of the training features, (D,).
        components: (D, K), scaled so that the mean variance of the components of the training features is 1.
        kind: Kind of the task: `multiclass`, `multilabel` or `ordinal`.
    """

    head: BagPooling
    mean: torch.Tensor
    components: torch.Tensor
    kind: str

    def __call__(self, features: BagFeatures) -> np.ndarray:
        """Probabilities (G, C)."""
        return head_scores(self.head, HeadInputs.of(features, self.mean, self.components), self.kind)

    def tensors(self) -> dict[str, np.ndarray]:
        """What is kept in a file."""
        learned = {f"{HEAD}{name}": tensor for name, tensor in self.head.state_dict().items()}
        tensors = {"mean": self.mean, "components": self.components, **learned}
        return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in tensors.items()}

    @classmethod
    def of_tensors(cls, tensors: dict[str, np.ndarray], kind: str, pooling: str) -> FittedBagHead:
        """The head of `tensors`.

        Raises:
            KeyError: If one is missing.
            RuntimeError: If their shapes do not fit each other.
        """
        given = {name: torch.from_numpy(array) for name, array in tensors.items()}
        mean, components = given.pop("mean"), given.pop("components")
        state = {name.removeprefix(HEAD): tensor for name, tensor in given.items()}
        options = {"hidden": len(state["hidden.weight"]) // 2} if pooling == "attention" else {}
        head = BAG_POOLINGS[pooling](components.shape[1], len(state["classifier.weight"]), **options)
        head.load_state_dict(state)
        if mean.shape != components.shape[:1]:
            raise RuntimeError(f"its mean has {len(mean)} features, and its components {len(components)}")
        return cls(head, mean, components, kind)


class HeadInputs(NamedTuple):
    """What the head of a `FittedBagHead` maps to logits: components of the features (n, K), codes (n,), and count of groups."""

    values: torch.Tensor
    codes: torch.Tensor
    count: int

    @classmethod
    def of(cls, features: BagFeatures, mean: torch.Tensor, components: torch.Tensor) -> HeadInputs:
        """The components of some features."""
        values, codes = (torch.from_numpy(array).to(mean.device) for array in (features.values, features.codes))
        return cls(torch.addmm(-(mean @ components), values, components), codes, features.count)


def head_scores(head: BagPooling, inputs: HeadInputs, kind: str) -> np.ndarray:
    """Probabilities of the groups, (G, C)."""
    with torch.no_grad():
        return probabilities(head(*inputs).double().cpu().numpy(), kind == "multilabel")


Classifier = LinearModel | PooledProbe | FittedBagHead


def fitted_tensors(classifier: Classifier) -> dict[str, np.ndarray]:
    """What is kept of a classifier in a file; see `classifier_of`."""
    linear = classifier.probe if isinstance(classifier, PooledProbe) else classifier
    if not isinstance(linear, LinearModel | FittedBagHead):
        raise TypeError(f"{type(linear).__name__} has no tensors")
    return linear.tensors()


def classifier_of(tensors: dict[str, np.ndarray], kind: str, pooling: str | None) -> tuple[Classifier, int]:
    """The classifier of `fitted_tensors`, and the number of its outputs.

    Args:
        tensors: Name -> tensor.
        kind: Kind of the task.
        pooling: How it pools the images of a group; None: it classifies single images.

    Raises:
        KeyError, RuntimeError, ValueError: If a tensor is missing, or their shapes do not fit each other.
    """
    if pooling in LEARNED:
        fitted = FittedBagHead.of_tensors(tensors, kind, pooling)
        return fitted, fitted.head.classifier.out_features
    linear = LinearModel.of_tensors(tensors, kind)
    return PooledProbe(pooling, linear) if pooling else linear, len(linear.intercepts)
