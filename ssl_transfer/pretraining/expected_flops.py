"""Floating-point operations of a pretraining, counted from its recipe before it is run, without computing anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.views import ViewBatch, Views
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.registry import METHODS, Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.flops import drop_weights
from ssl_transfer.pretraining.setup import new_backbone, new_objective, resolve
from ssl_transfer.recipe import PretrainRecipe
from ssl_transfer.training.freezing import FrozenBackbone
from ssl_transfer.training.step_cost import StepCost

CLASSES = np.arange(3)  # of a supervised method: the cost of its last layer hardly depends on their number


def pretraining_flops(recipe: PretrainRecipe, where: str) -> int:
    """Operations of all steps of a pretraining, as its card will state them: a step with a frozen backbone is counted and one
    without, times their numbers.

    The stores need not exist: then each gives as many images as `data.limit` asks for.

    Args:
        recipe: The recipe.
        where: Name of the recipe in error messages.

    Raises:
        RecipeError, StoreError: If they cannot be known before the run; the message says why.
    """
    recipe = resolve(recipe, where)
    if recipe.method.options.get("teacher"):
        raise RecipeError("the teacher is opened when the pretraining runs")
    backbone, preset, needs_labels = (
        untrained_backbone(recipe),
        _preset(recipe),
        METHODS[recipe.method.name].needs_labels,
    )
    objective = new_objective(recipe, backbone, CLASSES if needs_labels else None).train()
    drop_weights(objective)
    objective.schedule = schedule = recipe.schedule(_images(recipe))
    batch = _batch(objective, preset, schedule.batch_size // schedule.accumulate)
    spent, frozen = StepCost(schedule), FrozenBackbone(objective)
    for step in sorted({0, schedule.freeze_steps}):
        frozen.settle(step)
        for _ in range(schedule.accumulate):
            with spent.counted(step):
                objective(batch, step)["loss"].backward()
    return spent.until(schedule.total_steps, ranks=1, gpus=0).flops or 0


def untrained_backbone(recipe: PretrainRecipe) -> Backbone:
    """The backbone of a recipe with random weights.

    Raises:
        StoreError: If its channels are those of a store that does not exist.
        BackboneError: If timm cannot build it.
    """
    preset = _preset(recipe)
    return new_backbone(recipe, len(preset.intensity.mean), preset, None, recipe.name)


def _preset(recipe: PretrainRecipe) -> Views:
    """Views of a recipe's size and channels; only these matter."""
    stated = recipe.data.channels
    channels = recipe.backbone.in_channels or (stated.count if stated.are_stated else None)
    channels = channels or max(ImageStore(str(source.store)).shape[0] for source in recipe.data.sources())
    return VIEWS["xray"](recipe.data.size, channels, "display")


def _batch(objective: Objective, preset: Views, images: int) -> ViewBatch:
    """Views of so many images, without values."""
    views = [
        torch.empty(images, len(preset.intensity.mean), view.size, view.size, device="meta")
        for view in objective.view_presets(preset)
    ]
    return ViewBatch(views, torch.arange(images), torch.zeros(images, dtype=torch.int64, device="meta"))


def _images(recipe: PretrainRecipe) -> int:
    """Images of an epoch. A store that does not exist has as many as `data.limit` asks for."""
    sources, limit, images = recipe.data.sources(), recipe.data.limit, 0
    most = limit and max(1, limit // len(sources))
    for store in (str(source.store) for source in sources):
        if most and not Path(store).is_dir():
            images += most
        else:
            train = len(ImageStore(store).positions("train"))
            images += min(train, most or train)
    return images
