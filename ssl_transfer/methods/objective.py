"""What every method is: a module that turns the views of a batch into a loss."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, TypedDict

import torch
from torch import nn

from ssl_transfer.data.views import ViewBatch, Views
from ssl_transfer.models.backbone import Backbone


class Losses(TypedDict):
    """What a forward pass gives: the loss, and the projections (B, D) of each view, which are only watched."""

    loss: torch.Tensor
    projections: list[torch.Tensor]


class Course(NamedTuple):
    """What a method may know of its run: the seed, and how long it lasts."""

    seed: int = 0
    steps_per_epoch: int = 1
    total_steps: int = 1


class Objective(nn.Module):
    """A self-supervised method: backbone, heads, and the loss of a batch of views.

    Attributes:
        backbone: What is exported in the end.
        course: Of the run; with the step it fixes any order or schedule of the method's own.
        bn_groups: Equal parts of the global batch that have BatchNorm statistics of their own (1: none).
        compares: What the loss takes from the other images of the batch (`negatives`, …); empty: nothing. Such a batch
            cannot be accumulated from smaller ones.
        needs_labels: Whether batches must bring `labels`.
    """

    backbone: Backbone
    course: Course = Course()
    bn_groups: int = 1
    compares: ClassVar[str] = ""
    needs_labels: ClassVar[bool] = False

    def view_presets(self, preset: Views) -> list[Views]:
        """The views that the method sees of each image, made from the recipe's preset."""
        return [preset, preset]

    def compiled_parts(self) -> list[nn.Module]:
        """What `torch.compile` is applied to."""
        return [self.backbone.model]

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Loss of this rank's part of the global batch, at a step counted from 0.

        The mean over ranks is the loss of the global batch, and so is the mean of the gradients.
        """
        raise NotImplementedError

    def check_batch(self, batch_size: int) -> None:
        """Refuse a global batch that the method cannot use, with a `RecipeError`."""

    def after_backward(self, step: int) -> None:
        """Called between the gradients and the optimiser step that uses them (counted from 0)."""

    def after_step(self, step: int) -> None:
        """Called after an optimiser step (counted from 1). Momentum networks move here."""
