"""What a head is trained for: outputs, loss, and the scores that its outputs mean, for every kind of target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional

from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import RecipeError
from ssl_transfer.measures.ordinal import grade_probabilities

BALANCED = {  # kind of task -> values of `train.balance` that it has
    "multiclass": ("none", "weights", "sampling"),
    "ordinal": ("none", "weights", "sampling"),
    "multilabel": ("none", "weights"),
    "regression": ("none",),
}


@dataclass(frozen=True, eq=False)
class HeadObjective:
    """The target of a task as a head learns it.

    Attributes:
        outputs: Number of outputs of the head.
        criterion: Loss of outputs (B, outputs) and labels (B, …), averaged over images.
        labels: What the head learns of every row of the store.
        scores: Maps outputs (B, outputs) to scores as `Task.scoring` takes them: probabilities (B, C), or values (B,); float64.
    """

    outputs: int
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    labels: np.ndarray
    scores: Callable[[torch.Tensor], np.ndarray]


def head_objective(task: Task, train: np.ndarray, balance: str) -> HeadObjective:
    """The objective of a task.

    Multiclass: softmax cross-entropy. Multi-label: sigmoid cross-entropy of each label. Ordinal: sigmoid cross-entropy of each
    threshold between grades, see `measures.ordinal`. Regression: squared error of the target, standardised by its mean and
    standard deviation in the training rows.

    Args:
        task: The task.
        train: Positions of the training rows.
        balance: `train.balance` of the settings; `weights` weights rare classes up.

    Raises:
        RecipeError: If this kind of target cannot be balanced like this.
    """
    if balance not in BALANCED[task.kind]:
        others = [name for name in BALANCED[task.kind] if name != "none"]
        advice = f"take train.balance={others[0]}" if others else "leave it out"
        raise RecipeError(f"train.balance: {balance} is not for {task.kind} tasks; {advice}.")
    classes = len(task.classes)
    if task.kind == "regression":
        return _regression(task.labels, train)
    weights = class_weights(task.labels[train], classes) if balance == "weights" else None
    if task.kind == "multilabel":
        return HeadObjective(classes, MultiLabel(weights), task.labels, lambda logits: _array(logits.sigmoid()))
    if task.kind == "ordinal":
        return HeadObjective(classes - 1, Thresholds(weights), task.labels, _grades)
    return HeadObjective(classes, CrossEntropy(weights), task.labels, lambda logits: _array(logits.double().softmax(1)))


def _regression(values: np.ndarray, train: np.ndarray) -> HeadObjective:
    mean, std = float(values[train].mean()), float(values[train].std()) or 1.0
    labels = ((values - mean) / std).astype(np.float32)
    return HeadObjective(1, _squared_error, labels, lambda outputs: _array(outputs.double()[:, 0] * std + mean))


def _grades(logits: torch.Tensor) -> np.ndarray:
    return grade_probabilities(_array(logits.double().sigmoid()))


def _squared_error(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(outputs[:, 0], labels)


class CrossEntropy:
    """Softmax cross-entropy, averaged over images; an image is weighted by its class."""

    def __init__(self, weights: torch.Tensor | None):
        self.weights = weights

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return (losses if self.weights is None else losses * self.weights.to(logits.device)[labels]).mean()


class Thresholds:
    """Sigmoid cross-entropy of each threshold between grades, summed over them; an image is weighted by its grade."""

    def __init__(self, weights: torch.Tensor | None):
        self.weights = weights

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        above = (labels[:, None] > torch.arange(logits.shape[1], device=logits.device)).float()
        losses = functional.binary_cross_entropy_with_logits(logits, above, reduction="none").sum(1)
        return (losses if self.weights is None else losses * self.weights.to(logits.device)[labels]).mean()


class MultiLabel:
    """Sigmoid cross-entropy, averaged over images and labels; unknown labels (−1) have weight 0, positive ones their own."""

    def __init__(self, weights: torch.Tensor | None):
        self.weights = weights

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        positive = None if self.weights is None else self.weights.to(logits.device)
        losses = functional.binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0).float(), reduction="none", pos_weight=positive
        )
        return (losses * (labels >= 0)).mean()


def class_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Multiclass: inverse class frequencies, 1 on average. Multilabel (N, K): negatives per positive of each label."""
    if labels.ndim == 2:
        positives = np.maximum((labels == 1).sum(0), 1)
        return torch.tensor((labels == 0).sum(0) / positives, dtype=torch.float32)
    counts = np.bincount(labels, minlength=classes)
    return torch.tensor(len(labels) / (classes * counts), dtype=torch.float32)


def _array(values: torch.Tensor) -> np.ndarray:
    return values.cpu().double().numpy()
