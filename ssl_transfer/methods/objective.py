"""What every method is: a module that turns the views of a batch into a loss."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import nn

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.models.backbone import Backbone


class Losses(TypedDict):
    """What a forward pass gives: the loss, and the projections that the collapse alarm watches."""

    loss: torch.Tensor
    projections: torch.Tensor


class Objective(nn.Module):
    """A self-supervised method: backbone, heads, and the loss of a batch of views.

    Attributes:
        backbone: What is exported in the end.
        seed: Of the run; together with the step it fixes any order that the method draws.
        bn_groups: Equal parts of the global batch that have BatchNorm statistics of their own (1: none).
    """

    backbone: Backbone
    seed: int = 0
    bn_groups: int = 1

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Loss of this rank's part of the global batch.

        The mean over ranks is the loss of the global batch, and so is the mean of the gradients.
        """
        raise NotImplementedError

    def check_batch(self, batch_size: int) -> None:
        """Refuse a global batch that the method cannot use, with a `RecipeError`."""

    def after_step(self, step: int, total_steps: int) -> None:
        """Called after optimiser step `step` of `total_steps` (counted from 1). Momentum networks move here."""
