"""The interface of strategies: which layers are trained, when, at which learning rate, and with which penalty."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from ssl_transfer.methods.objective import Group
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.blocks import Block, blocks
from ssl_transfer.schedule import Schedule

Gradients = Callable[[int], list[torch.Tensor | None]]


class Strategy(nn.Module):
    """Which layers a fine-tune trains, and how; its buffers are part of a checkpoint.

    Args:
        backbone: The backbone, with its pretrained weights.
        head: The head, with random weights.
        schedule: Length and warm-up of the training.

    Attributes:
        blocks: Blocks of the backbone, from input to output.
        head: The head's trainable parameters by name.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, schedule: Schedule):
        super().__init__()
        self.schedule = schedule
        self.blocks: list[Block] = blocks(backbone.model)
        self.head_parameters = {f"head.{name}": parameter for name, parameter in head.named_parameters()}

    @property
    def backbone_parameters(self) -> dict[str, nn.Parameter]:
        """The backbone's trainable parameters by name."""
        return {
            name: parameter
            for block in self.blocks
            for name, parameter in block.parameters.items()
            if parameter.requires_grad
        }

    def groups(self) -> list[Group]:
        """Trainable parameters by learning rate; here the backbone and the head."""
        return [
            Group("backbone", list(self.backbone_parameters.values())),
            Group("head", list(self.head_parameters.values())),
        ]

    def rates(self, step: int, factor: float) -> Mapping[str, float]:
        """Learning rate of each group at a step as a share of its peak; 0 freezes the group (see `Objective.rates`)."""
        return {group.name: factor for group in self.groups()}

    def before_step(self, step: int, gradients: Gradients) -> None:
        """Called before a step.

        Args:
            step: The step, counted from 0.
            gradients: Computes the gradients of the loss on the global batch of a step, one per parameter of `groups`, in
                their order; it has no side effects.
        """

    def penalty(self) -> torch.Tensor | float:
        """A penalty that is added to the loss."""
        return 0.0

    def finish(self, backbone: Backbone) -> None:
        """Called once after training and scoring: restore the layers of the backbone's architecture."""
