"""Fine-tune: train a backbone together with a classifier on a task, by one of several strategies."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from accelerate import Accelerator
from accelerate.utils import gather_object

from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult, classified, tried
from ssl_transfer.evaluation.task_model import TaskModel, build_task_model, build_training_set, learn, suited_views
from ssl_transfer.models.embedding import evaluating, prepared
from ssl_transfer.models.heads import ClassifierHead
from ssl_transfer.recipe import Component, FinetuneSection

AT_ONCE = 256  # images per batch of a prediction
STRATEGY, OPTIMIZER, TRAIN = (
    Component(name="full"),
    Component(name="adamw", lr=3e-4, weight_decay=0.01),
    FinetuneSection(),
)


def finetune(
    context: EvalContext,
    *,
    strategy: Component = STRATEGY,
    optimizer: Component = OPTIMIZER,
    views: Component | None = None,
    train: FinetuneSection = TRAIN,
) -> ProtocolResult:
    """Train a classifier and its backbone by a strategy; evaluate on test with the weights that were best on validation.

    Args:
        strategy: Which layers are trained, and how, `{name, options}`; see the page of each strategy.
        optimizer: `{name, options}`, with its peak learning rate; see the page of each optimiser.
        views: Augmentation preset, `{name, options}`; null: a mild one for the task's domain (no blur, no noise, crops
            of at least 0.6 of the area).
        train: Length of the training, batches, and checks on validation.

    Raises:
        RecipeError: If `train.balance` is `sampling` and the task is multi-label.
    """
    task, rows = context.task, context.rows
    views = views or suited_views(context)
    multilabel = task.kind == "multilabel"
    if multilabel and train.balance == "sampling":
        raise RecipeError("train.balance: sampling is for multiclass tasks; take train.balance=weights.")
    weights = _class_weights(task.labels[rows["train"]], len(task.classes)) if train.balance == "weights" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.draw)
        head = ClassifierHead(context.backbone.feature_dim, len(task.classes))
    criterion = _MultiLabel(weights) if multilabel else _CrossEntropy(weights)
    model = build_task_model(context, head, criterion, strategy, train)
    training_set = build_training_set(context, views, labels=task.labels)

    def validate(accelerator: Accelerator, lower: torch.dtype | None) -> dict[str, float]:
        return task.scoring.metrics(
            task.labels[rows["val"]], _scores(context, model, "val", multilabel, accelerator, lower)
        )

    strata = [rows["train"]]
    if train.balance == "sampling":
        strata = [rows["train"][task.labels[rows["train"]] == c] for c in range(len(task.classes))]
    trained = learn(context, model, training_set, strata, optimizer, train, validate)
    settings = {"strategy": strategy, "optimizer": optimizer, "views": views, "train": train, **trained.settings}
    if context.is_trial:
        return tried({"step": trained.best.step}, settings, trained.best.validation)

    def scores(tested: EvalContext) -> np.ndarray:
        return _scores(tested, model, "test", multilabel, trained.accelerator, trained.lower)

    of_validation = _scores(context, model, "val", multilabel, trained.accelerator, trained.lower)
    result = classified(context, {"step": trained.best.step}, settings, trained.best.validation, of_validation, scores)
    model.strategy.finish(context.backbone)
    return result


class _CrossEntropy:
    """Softmax cross-entropy, averaged over images; an image is weighted by its class."""

    def __init__(self, weights: torch.Tensor | None):
        self.weights = weights

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return (losses if self.weights is None else losses * self.weights.to(logits.device)[labels]).mean()


class _MultiLabel:
    """Sigmoid cross-entropy, averaged over images and labels; unknown labels (−1) have weight 0, positive ones their own."""

    def __init__(self, weights: torch.Tensor | None):
        self.weights = weights

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        positive = None if self.weights is None else self.weights.to(logits.device)
        losses = functional.binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0).float(), reduction="none", pos_weight=positive
        )
        return (losses * (labels >= 0)).mean()


def _class_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Multiclass: inverse class frequencies, 1 on average. Multilabel (N, K): negatives per positive of each label."""
    if labels.ndim == 2:
        positives = np.maximum((labels == 1).sum(0), 1)
        return torch.tensor((labels == 0).sum(0) / positives, dtype=torch.float32)
    counts = np.bincount(labels, minlength=classes)
    return torch.tensor(len(labels) / (classes * counts), dtype=torch.float32)


def _scores(
    context: EvalContext,
    model: TaskModel,
    split: str,
    multilabel: bool,
    accelerator: Accelerator,
    lower: torch.dtype | None,
) -> np.ndarray:
    """Probabilities (n, C) of a split's images; each rank computes a part, and every rank gets all of them."""
    rows = context.rows[split]
    mine = np.arange(len(rows))[accelerator.process_index :: accelerator.num_processes]
    scored: list[tuple[int, np.ndarray]] = []
    with evaluating(model, accelerator.device, lower):
        for positions, inputs in prepared(
            context.backbone, context.store(split), rows[mine], context.size, AT_ONCE, accelerator.device
        ):
            logits = model.head(context.backbone, inputs).float()
            probabilities = logits.sigmoid() if multilabel else logits.double().softmax(1)
            scored += zip(mine[positions].tolist(), probabilities.cpu().double().numpy(), strict=True)
    return np.stack([scores for _, scores in sorted(gather_object(scored), key=lambda item: item[0])])
