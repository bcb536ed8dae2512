"""Strategies on tiny backbones, and what a recorded run changes."""

import torch
from support.families import family_backbone

from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.models.blocks import blocks
from ssl_transfer.models.heads import LinearHead
from ssl_transfer.schedule import Schedule

STEPS = 12

ADAMW = "optimizer={name: adamw, lr: 0.01, weight_decay: 0.1}"


def made(name, family="resnet", steps=STEPS, steps_per_epoch=1, **options):
    """A strategy, its backbone and its head."""
    backbone = family_backbone(family)
    torch.manual_seed(0)
    head = LinearHead(backbone.feature_dim, 2)
    schedule = Schedule(steps_per_epoch=steps_per_epoch, total_steps=steps)
    return STRATEGIES[name](backbone, head, schedule, **options), backbone, head


def moved(record, step, part):
    """Names of a part's tensors that a step changes, without the part's name."""
    now, then = record.tensors[step], record.tensors[step + 1]
    return {
        name.removeprefix(f"{part}.")
        for name in now
        if name.startswith(part) and not torch.equal(now[name], then[name])
    }


def moved_blocks(record, step):
    """Numbers of the blocks of which a step changes a parameter or a statistic."""
    found = blocks(family_backbone("resnet").model)
    layers = [{name.rpartition(".")[0] for name in block.parameters} for block in found]
    changed = {name.rpartition(".")[0] for name in moved(record, step, "backbone.model")}
    return {number for number, own in enumerate(layers) if own & changed}
