"""Fine-tune: train a backbone together with a linear head on a task, by one of several strategies."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from ssl_transfer.data.transfer import to_device
from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult, classified, tried
from ssl_transfer.evaluation.objectives import HeadObjective, head_objective
from ssl_transfer.evaluation.task_model import TaskModel, build_task_model, build_training_set, learn, suited_views
from ssl_transfer.models.embedding import evaluating, prepared
from ssl_transfer.models.heads import BagHead, LinearHead
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

    With `target_of`, the features of a group's images are pooled (`group_pool`, by default `attention`) and scored together:
    those of `train.bag_size` images of each group in a training batch, and of all of them in validation and test.

    Raises:
        RecipeError: If the target cannot be balanced as `train.balance` says, several `group_pool` are given, or the batch size
            is no multiple of the bag size.
    """
    task, of_training = context.task, context.cases("train")
    views = views or suited_views(context)
    objective = head_objective(task, of_training, train.balance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.draw)
        head = _head(context, objective.outputs, train)
    model = build_task_model(context, head, objective.criterion, strategy, train)
    training_set = build_training_set(context, views, labels=objective.labels)

    def validate(accelerator: Accelerator, lower: torch.dtype | None) -> dict[str, float]:
        return task.scoring.metrics(
            task.labels[context.cases("val")], _scores(context, model, "val", objective, accelerator, lower)
        )

    groups = _groups(context)
    drawn = of_training if groups is None else np.arange(len(groups))
    strata = [drawn]
    if train.balance == "sampling":
        strata = [drawn[task.labels[of_training] == c] for c in range(len(task.classes))]
    trained = learn(context, model, training_set, strata, optimizer, train, validate, groups)
    settings = {"strategy": strategy, "optimizer": optimizer, "views": views, "train": train, **trained.settings}
    if isinstance(head, BagHead):
        settings["group_pool"] = context.group_poolings[0]
    if context.is_trial:
        return tried({"step": trained.best.step}, settings, trained.best.validation)

    def scores(tested: EvalContext) -> np.ndarray:
        return _scores(tested, model, "test", objective, trained.accelerator, trained.lower)

    of_validation = _scores(context, model, "val", objective, trained.accelerator, trained.lower)
    result = classified(context, {"step": trained.best.step}, settings, trained.best.validation, of_validation, scores)
    model.strategy.finish(context.backbone)
    return result


def _head(context: EvalContext, outputs: int, train: FinetuneSection) -> LinearHead | BagHead:
    """A new head: of images, or with `target_of` of groups."""
    if context.task.group_names is None:
        return LinearHead(context.backbone.feature_dim, outputs)
    if len(context.recipe.group_pool or ()) > 1:
        raise RecipeError(
            f"group_pool: found {context.recipe.group_pool}; finetune trains with one of them, such as group_pool=[attention]."
        )
    if train.batch_size % train.bag_size:
        raise RecipeError(
            f"train.batch_size: found {train.batch_size} images, expected a multiple of train.bag_size, {train.bag_size}."
        )
    return BagHead(context.backbone.feature_dim, outputs, context.group_poolings[0], train.bag_size)


def _groups(context: EvalContext) -> list[np.ndarray] | None:
    """Rows of the images of each training group; None for a task with a label per image."""
    if context.task.group_names is None:
        return None
    rows = context.rows["train"]
    bags = context.task.bags(rows)
    return [rows[bags.codes == code] for code in range(len(bags.names))]


def _scores(
    context: EvalContext,
    model: TaskModel,
    split: str,
    objective: HeadObjective,
    accelerator: Accelerator,
    lower: torch.dtype | None,
) -> np.ndarray:
    """Predictions for a split's images or groups, as `Task.scoring` takes them; each rank computes a part and gets all."""
    rows, bags = context.rows[split], context.task.bags(context.rows[split])
    mine = np.arange(len(bags.names))[accelerator.process_index :: accelerator.num_processes]
    chosen = np.flatnonzero(np.isin(bags.codes, mine))  # the images of these cases
    head, parts = model.head, []
    with evaluating(model, accelerator.device, lower):
        for _, inputs in prepared(
            context.backbone, context.store(split), rows[chosen], context.size, AT_ONCE, accelerator.device
        ):
            of_images = context.backbone(inputs) if isinstance(head, BagHead) else head(context.backbone, inputs)
            parts.append(of_images.float())
        outputs = torch.cat(parts) if parts else torch.empty((0, objective.outputs))
        if isinstance(head, BagHead) and parts:
            codes = to_device(torch.from_numpy(np.searchsorted(mine, bags.codes[chosen])), accelerator.device)
            outputs = head.pooling(outputs, codes, len(mine)).float()
    scored = list(zip(mine.tolist(), objective.scores(outputs), strict=True))
    return np.stack([scores for _, scores in sorted(gather_object(scored), key=lambda item: item[0])])
