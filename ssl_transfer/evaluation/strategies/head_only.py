"""Training of the head only."""

from __future__ import annotations

from torch import nn

from ssl_transfer.evaluation.strategies.strategy import Strategy
from ssl_transfer.methods.objective import Group
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.schedule import Schedule


class HeadOnly(Strategy):
    """The backbone is frozen and only the head is trained: a linear probe by SGD, or a decoder on a frozen encoder."""

    def __init__(self, backbone: Backbone, head: nn.Module, schedule: Schedule):
        super().__init__(backbone, head, schedule)
        backbone.requires_grad_(False)

    def groups(self) -> list[Group]:
        """The head."""
        return [Group("head", list(self.head_parameters.values()))]
