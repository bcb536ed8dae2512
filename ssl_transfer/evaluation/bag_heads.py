"""Heads of bags: classifiers of the frozen features of all images of a group.

`mean` and `max` pool features without learning anything, so that a probe sees one vector per group. `topk` and `attention` learn
which images matter, together with the classifier, from the labels of the groups alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as functional

from ssl_transfer.data.groups import Bags
from ssl_transfer.measures.linear_model import probabilities
from ssl_transfer.models.bag_pooling import BAG_POOLINGS, BagPooling

COMPONENTS = 64  # principal components that heads learn from
HIDDEN = 8  # units of the gate of the attention: more overfit few groups
STEPS, EVERY, RATE, WEIGHT_DECAY = 40, 10, 2e-2, 1e-2


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
        starts = np.searchsorted(self.codes, np.arange(self.count))
        if pooling == "max":
            return np.maximum.reduceat(self.values, starts)
        sums = np.add.reduceat(self.values, starts, dtype=np.float64)
        return (sums / np.bincount(self.codes)[:, None]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class FittedBagHead:
    """A fitted head.

    Attributes:
        head: Maps principal components of the features to logits.
        mean: Of the training features, (D,).
        components: (D, K), scaled so that the mean variance of the components of the training features is 1.
        multilabel: Whether each column is a label by itself.
    """

    head: BagPooling
    mean: torch.Tensor
    components: torch.Tensor
    multilabel: bool

    def __call__(self, features: BagFeatures) -> np.ndarray:
        """Probabilities (G, C)."""
        return _scores(self.head, _Inputs.of(features, self.mean, self.components), self.multilabel)


class _Inputs(NamedTuple):
    values: torch.Tensor  # components, (n, K)
    codes: torch.Tensor
    count: int

    @classmethod
    def of(cls, features: BagFeatures, mean: torch.Tensor, components: torch.Tensor) -> _Inputs:
        values, codes = (torch.from_numpy(array).to(mean.device) for array in (features.values, features.codes))
        return cls(torch.addmm(-(mean @ components), values, components), codes, features.count)


def bag_heads(
    train: BagFeatures, labels: np.ndarray, val: BagFeatures, poolings: Sequence[str], n_classes: int, seed: int
) -> Iterator[tuple[dict[str, Any], np.ndarray, FittedBagHead]]:
    """Train heads of bags on frozen features, and yield each at every check.

    They learn from the first 64 principal components of the standardised training features, by AdamW on all groups at once: 40
    steps at a rate of 0.02, with weight decay 0.01. Few groups are overfitted soon, so validation selects the step.

    Args:
        train: Features of the training groups.
        labels: Class of each group, (G,); multi-label: 0, 1 or −1 for unknown, (G, n_classes).
        val: Features of the validation groups.
        poolings: Some of `poolings.LEARNED`.
        n_classes: Number of classes or labels.
        seed: Seed of the initial weights, and of the components.

    Yields:
        The setting (`group_pool`, `steps`), probabilities of the validation groups, and the head at that step.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    targets, multilabel = torch.from_numpy(labels).to(device), labels.ndim == 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, components = _components(torch.from_numpy(train.values).to(device))
    of_train, of_val = (_Inputs.of(features, mean, components) for features in (train, val))
    for pooling in poolings:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            options = {"hidden": HIDDEN} if pooling == "attention" else {}
            head = BAG_POOLINGS[pooling](components.shape[1], n_classes, **options).to(device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
        for step in range(1, STEPS + 1):
            optimizer.zero_grad()
            _loss(head(*of_train), targets).backward()
            optimizer.step()
            if step % EVERY == 0:
                fitted = FittedBagHead(copy.deepcopy(head), mean, components, multilabel)
                yield {"group_pool": pooling, "steps": step}, _scores(head, of_val, multilabel), fitted


def _scores(head: BagPooling, inputs: _Inputs, multilabel: bool) -> np.ndarray:
    """Probabilities (G, C)."""
    with torch.no_grad():
        return probabilities(head(*inputs).double().cpu().numpy(), multilabel)


def _components(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and scaled principal directions (D, K) of standardised features (n, D), by a randomised decomposition.

    Components keep their relative variances: whitened, the many small ones would drown what few images show.
    """
    mean, std = values.mean(0), values.std(0, correction=0)
    std = torch.where(std > 1e-6 * std.max(), std, torch.inf)  # a constant feature has no direction
    _, scale, directions = torch.svd_lowrank((values - mean) / std, q=min(COMPONENTS, *values.shape), niter=1)
    rms = (scale.square().mean() / len(values)).sqrt().clamp(min=1e-12)
    return mean, directions / (std[:, None] * rms)


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over groups; multi-label: over the known labels."""
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels)
    losses = functional.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).float(), reduction="none")
    return (losses * (labels >= 0)).mean()
