"""Floating-point operations of evaluations, counted before they are run, without computing anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ssl_transfer.data.store import ImageStore
from ssl_transfer.evaluation.settings import evaluate_recipe
from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.flops import counted_flops, drop_weights
from ssl_transfer.models.heads import LinearHead, SegmentationHead
from ssl_transfer.schedule import Schedule

OUTPUTS = 3  # the cost of a head hardly depends on their number


def training_flops(protocol: str, backbone: Backbone, settings: Sequence[str]) -> int:
    """Operations of all steps of a fine-tune or a segmentation; early stopping (`train.patience`) can make them fewer.

    Args:
        protocol: `finetune` or `segment`.
        backbone: The backbone, which loses its weights.
        settings: Those of the evaluation, `key=value`.

    Raises:
        RecipeError: If a setting is wrong, or the strategy does not suit the backbone.
    """
    recipe, options = evaluate_recipe(protocol, settings)
    train, strategy, size = options["train"], options["strategy"], recipe.size or backbone.card.image_size
    if protocol == "segment":
        head = SegmentationHead(backbone, OUTPUTS, size, options["decoder_width"])
    else:
        head = LinearHead(backbone.feature_dim, OUTPUTS)
    schedule = Schedule(total_steps=train.steps)
    STRATEGIES[strategy.name](backbone, head, schedule, **strategy.options)  # freezes layers, or adds some
    for part in (head, backbone.train()):
        drop_weights(part)
    with counted_flops() as flops:
        head(backbone, _images(backbone, train.batch_size, size)).sum().backward()
    return train.steps * flops.count


def feature_flops(backbone: Backbone, store: str, settings: Sequence[str]) -> int:
    """Operations of the features of all images of a store.

    Args:
        backbone: The backbone, which loses its weights.
        store: Path of the store.
        settings: `size=` of the images in pixels, by default that of the pretraining; others do not matter.

    Raises:
        StoreError: If the store does not exist.
    """
    size = dict(word.split("=", 1) for word in settings).get("size") or backbone.card.image_size
    count = len(ImageStore(store))
    drop_weights(backbone.eval())
    with torch.inference_mode(), counted_flops() as flops:
        backbone(_images(backbone, 1, int(size)))
    return count * flops.count


def _images(backbone: Backbone, count: int, size: int) -> torch.Tensor:
    return torch.empty(count, backbone.card.in_channels, size, size, device="meta")
