"""The interface between methods and the training loop: an objective computes the loss of a batch of views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, TypedDict

import torch
from torch import nn

from ssl_transfer.data.views import ViewBatch, Views
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.blocks import blocks
from ssl_transfer.schedule import Schedule

HEADS = "heads"  # name of the group of all parameters outside of the backbone


class Losses(TypedDict):
    """Output of a forward pass: the loss, and the projections (B, D) of each view, for monitoring only."""

    loss: torch.Tensor
    projections: list[torch.Tensor]


class Group(NamedTuple):
    """Parameters that share a learning rate.

    Attributes:
        name: Name of the group.
        parameters: Trainable parameters.
        decays: Whether the optimiser's weight decay applies to the weights; it never applies to norms and biases.
        depth: Number of layers from the heads down to these parameters (last layer of the backbone: 1), for `layer_decay` of the
            optimiser; 0: heads, and parameters that are not grouped by layer.
    """

    name: str
    parameters: list[nn.Parameter]
    decays: bool = True
    depth: int = 0


def one_group(module: nn.Module) -> list[Group]:
    """All trainable parameters of a module, with one learning rate."""
    return [Group("all", [parameter for parameter in module.parameters() if parameter.requires_grad])]


def groups_by_layer(objective: Objective) -> list[Group]:
    """The trainable parameters of a backbone by layer, from input to output, then all others: the heads.

    Layers are the stages of a CNN with its stem, and the blocks of a ViT with its embedding (`blocks`).
    """
    layers = [(block.name, block.trainable) for block in blocks(objective.backbone.model)]
    layers = [(name, parameters) for name, parameters in layers if parameters]
    inside = {id(parameter) for _, parameters in layers for parameter in parameters}
    heads = [each for each in objective.parameters() if each.requires_grad and id(each) not in inside]
    return [
        *(
            Group(f"backbone.{name}", parameters, depth=len(layers) - number)
            for number, (name, parameters) in enumerate(layers)
        ),
        Group(HEADS, heads),
    ]


class Objective(nn.Module):
    """Backbone, heads, and the loss of a batch of views.

    Attributes:
        backbone: The network that is exported after training.
        schedule: Schedule of the training, from which methods derive schedules of their own.
        seed: Seed of the training. Everything that a method draws is a function of the seed and the step.
        bn_groups: Number of equal parts of the global batch with separate BatchNorm statistics; 1: the whole batch.
        compares: What the loss computes between images of a batch, such as `negatives`; empty: the loss of an image does not
            depend on the others. If it is not empty, a batch cannot be accumulated from smaller ones.
        needs_labels: Whether batches must have `labels`.
        layered: Whether each layer of the backbone is a group of its own, with a rate that can differ from that of the heads.
        group_names: Names of these groups; empty until they are asked for.
    """

    backbone: Backbone
    schedule: Schedule = Schedule()
    seed: int = 0
    bn_groups: int = 1
    layered: bool = False
    group_names: tuple[str, ...] = ()
    compares: ClassVar[str] = ""
    needs_labels: ClassVar[bool] = False

    @property
    def teacher(self) -> Backbone | None:
        """A frozen backbone that the training learns from, which is no part of this module; None without one."""
        return None

    def view_presets(self, preset: Views) -> list[Views]:
        """The views of each image that the method uses, made from the recipe's preset."""
        return [preset, preset]

    def compiled_parts(self) -> list[nn.Module]:
        """The modules that `torch.compile` is applied to."""
        return [self.backbone.model]

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Loss of this rank's part of the global batch, at a step counted from 0.

        The mean over ranks is the loss of the global batch, and so is the mean of the gradients.
        """
        raise NotImplementedError

    def groups(self) -> list[Group]:
        """Parameters by learning rate."""
        if not self.layered:
            return one_group(self)
        groups = groups_by_layer(self)
        self.group_names = self.group_names or tuple(group.name for group in groups)  # a frozen backbone is in no group
        return groups

    def rates(self, step: int, factor: float) -> Mapping[str, float]:
        """Learning rate of each group at a step, as a share of its peak.

        A group with a share of 0 is not updated: its gradients are dropped before the optimiser step.

        Args:
            step: The step, counted from 0.
            factor: The share that the schedule has at this step (warm-up, cosine).
        """
        names = self.group_names or [group.name for group in self.groups()]
        return {name: factor * (1.0 if name == HEADS else self.schedule.release(step)) for name in names}

    def before_step(self, step: int) -> None:
        """Called at the beginning of a step (counted from 0), on all ranks."""

    def check_batch(self, batch_size: int) -> None:
        """Refuse a global batch that the method cannot use, with a `RecipeError`."""

    def after_backward(self, step: int) -> None:
        """Called after the gradients are computed, before the optimiser step (counted from 0)."""

    def after_step(self, step: int) -> None:
        """Called after an optimiser step (counted from 1). Momentum networks are updated here."""
