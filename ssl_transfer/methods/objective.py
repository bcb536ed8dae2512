"""The interface between methods and the training loop: an objective computes the loss of a batch of views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, TypedDict

import torch
from torch import nn

from ssl_transfer.data.views import ViewBatch, Views
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.schedule import Schedule


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
    """

    name: str
    parameters: list[nn.Parameter]
    decays: bool = True


def one_group(module: nn.Module) -> list[Group]:
    """All trainable parameters of a module, with one learning rate."""
    return [Group("all", [parameter for parameter in module.parameters() if parameter.requires_grad])]


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
    """

    backbone: Backbone
    schedule: Schedule = Schedule()
    seed: int = 0
    bn_groups: int = 1
    compares: ClassVar[str] = ""
    needs_labels: ClassVar[bool] = False

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
        return one_group(self)

    def rates(self, step: int, factor: float) -> Mapping[str, float]:
        """Learning rate of each group at a step, as a share of its peak.

        A group with a share of 0 is not updated: its gradients are dropped before the optimiser step.

        Args:
            step: The step, counted from 0.
            factor: The share that the schedule has at this step (warm-up, cosine).
        """
        return {group.name: factor for group in self.groups()}

    def before_step(self, step: int) -> None:
        """Called at the beginning of a step (counted from 0), on all ranks."""

    def check_batch(self, batch_size: int) -> None:
        """Refuse a global batch that the method cannot use, with a `RecipeError`."""

    def after_backward(self, step: int) -> None:
        """Called after the gradients are computed, before the optimiser step (counted from 0)."""

    def after_step(self, step: int) -> None:
        """Called after an optimiser step (counted from 1). Momentum networks are updated here."""
