"""Fine-tune: train a backbone together with a linear head on a task, by one of several strategies."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from ssl_transfer.evaluation.context import EvalContext, ProtocolResult, classified, tried
from ssl_transfer.evaluation.objectives import HeadObjective, head_objective
from ssl_transfer.evaluation.task_model import TaskModel, build_task_model, build_training_set, learn, suited_views
from ssl_transfer.models.embedding import evaluating, prepared
from ssl_transfer.models.heads import LinearHead
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
    """Train a linear head and its backbone by a strategy; evaluate on test with the weights that were best on validation.

    The loss is that of the kind of target. Classes: softmax cross-entropy. Labels: sigmoid cross-entropy of each. Grades: sigmoid
    cross-entropy of each threshold between grades. Numbers: squared error, of the target standardised over the training images.

    Args:
        strategy: Which layers are trained, and how, `{name, options}`; see the page of each strategy.
        optimizer: `{name, options}`, with its peak learning rate; see the page of each optimiser.
        views: Augmentation preset, `{name, options}`; null: a mild one for the task's domain (no blur, no noise, crops
            of at least 0.6 of the area).
        train: Length of the training, batches, and checks on validation.

    Raises:
        RecipeError: If the target cannot be balanced as `train.balance` says.
    """
    task, rows = context.task, context.rows
    views = views or suited_views(context)
    objective = head_objective(task, rows["train"], train.balance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.draw)
        head = LinearHead(context.backbone.feature_dim, objective.outputs)
    model = build_task_model(context, head, objective.criterion, strategy, train)
    training_set = build_training_set(context, views, labels=objective.labels)

    def validate(accelerator: Accelerator, lower: torch.dtype | None) -> dict[str, float]:
        return task.scoring.metrics(
            task.labels[rows["val"]], _scores(context, model, "val", objective, accelerator, lower)
        )

    strata = [rows["train"]]
    if train.balance == "sampling":
        strata = [rows["train"][task.labels[rows["train"]] == c] for c in range(len(task.classes))]
    trained = learn(context, model, training_set, strata, optimizer, train, validate)
    settings = {"strategy": strategy, "optimizer": optimizer, "views": views, "train": train, **trained.settings}
    if context.is_trial:
        return tried({"step": trained.best.step}, settings, trained.best.validation)

    def scores(tested: EvalContext) -> np.ndarray:
        return _scores(tested, model, "test", objective, trained.accelerator, trained.lower)

    of_validation = _scores(context, model, "val", objective, trained.accelerator, trained.lower)
    result = classified(context, {"step": trained.best.step}, settings, trained.best.validation, of_validation, scores)
    model.strategy.finish(context.backbone)
    return result


def _scores(
    context: EvalContext,
    model: TaskModel,
    split: str,
    objective: HeadObjective,
    accelerator: Accelerator,
    lower: torch.dtype | None,
) -> np.ndarray:
    """Predictions for a split's images, as `Task.scoring` takes them; each rank computes a part, and every rank gets all of
    them.
    """
    rows = context.rows[split]
    mine = np.arange(len(rows))[accelerator.process_index :: accelerator.num_processes]
    scored: list[tuple[int, np.ndarray]] = []
    with evaluating(model, accelerator.device, lower):
        for positions, inputs in prepared(
            context.backbone, context.store(split), rows[mine], context.size, AT_ONCE, accelerator.device
        ):
            outputs = model.head(context.backbone, inputs).float()
            scored += zip(mine[positions].tolist(), objective.scores(outputs), strict=True)
    return np.stack([scores for _, scores in sorted(gather_object(scored), key=lambda item: item[0])])
