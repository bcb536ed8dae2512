"""Heads of bags: classifiers of the frozen features of all images of a group.

`mean` and `max` pool features without learning anything, so that a probe sees one vector per group. `topk` and `attention` learn
which images matter, together with the classifier, from the labels of the groups alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional

from ssl_transfer.models.bag_pooling import BAG_POOLINGS
from ssl_transfer.models.device import fastest_device
from ssl_transfer.models.group_probe import BagFeatures, FittedBagHead, HeadInputs, head_scores

COMPONENTS, ITERATIONS = 64, 3  # principal components that heads learn from; of their subspace
COMPONENT_ROWS = 4  # images per feature that components are estimated from
HIDDEN = 8  # units of the gate of the attention: more overfit few groups
STEPS, EVERY = 20, 5
RATES, WEIGHT_DECAYS = {"topk": 0.2, "attention": 0.08}, {"topk": 0.01, "attention": 1.0}


def bag_heads(
    train: BagFeatures,
    labels: np.ndarray,
    val: BagFeatures,
    poolings: Sequence[str],
    n_classes: int,
    seed: int,
    kind: str,
) -> Iterator[tuple[dict[str, Any], np.ndarray, FittedBagHead]]:
    """Train heads of bags on frozen features, and yield each at every check.

    They learn from the first 64 principal components of the standardised training features, by AdamW on all groups at once, in
    20 steps, `topk` at a rate of 0.2 with weight decay 0.01, `attention` at 0.08 with 1. Few groups are overfitted soon, so
    validation selects the step.

    Args:
        train: Features of the training groups.
        labels: Class of each group, (G,); multi-label: 0, 1 or −1 for unknown, (G, n_classes).
        val: Features of the validation groups.
        poolings: Some of `poolings.LEARNED`.
        n_classes: Number of classes or labels.
        seed: Seed of the initial weights, and of the components.
        kind: Kind of the task: `multiclass`, `multilabel` or `ordinal`.

    Yields:
        The setting (`group_pool`, `steps`), probabilities of the validation groups, and the head at that step.
    """
    device = fastest_device()
    targets = torch.from_numpy(labels).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, components = _components(torch.from_numpy(train.values).to(device))
    of_train, of_val = (HeadInputs.of(features, mean, components) for features in (train, val))
    for pooling in poolings:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            options = {"hidden": HIDDEN} if pooling == "attention" else {}
            head = BAG_POOLINGS[pooling](components.shape[1], n_classes, **options).to(device)
        rate, decay = RATES[pooling], WEIGHT_DECAYS[pooling]
        optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=decay, fused=True)
        for step in range(1, STEPS + 1):
            optimizer.zero_grad()
            _loss(head(*of_train), targets).backward()
            optimizer.step()
            if step % EVERY == 0:
                fitted = FittedBagHead(copy.deepcopy(head), mean, components, kind)
                yield {"group_pool": pooling, "steps": step}, head_scores(head, of_val, kind), fitted


def _components(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and scaled principal directions (D, K) of standardised features (n, D), by subspace iteration.

    Components keep their relative variances: whitened, the many small ones would drown what few images show. Of many more rows
    than features, every second, third, … one is taken.
    """
    values = values[:: max(1, len(values) // (COMPONENT_ROWS * values.shape[1]))]
    mean = values.mean(0)
    inputs = values - mean
    std = inputs.square().mean(0).sqrt()
    std = torch.where(std > 1e-6 * std.max(), std, torch.inf)  # a constant feature has no direction
    inputs /= std
    basis = torch.randn(values.shape[1], min(COMPONENTS, *values.shape)).to(values)
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(inputs.T @ (inputs @ basis)).Q
    components = inputs @ basis
    variances, axes = torch.linalg.eigh(components.T @ components / len(values))
    return mean, basis @ axes / (std[:, None] * variances.mean().clamp(min=1e-24).sqrt())


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over groups; multi-label: over the known labels."""
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels)
    losses = functional.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).float(), reduction="none")
    return (losses * (labels >= 0)).mean()
