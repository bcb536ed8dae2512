"""The head alone."""

from __future__ import annotations

from torch import nn

from ssl_transfer.evaluation.strategies.strategy import Strategy
from ssl_transfer.methods.objective import Course, Group
from ssl_transfer.models.backbone import Backbone


class HeadOnly(Strategy):
    """The backbone is frozen and only the head is trained: a linear probe by SGD, or a decoder on a frozen encoder."""

    def __init__(self, backbone: Backbone, head: nn.Module, course: Course):
        super().__init__(backbone, head, course)
        backbone.requires_grad_(False)

    def groups(self) -> list[Group]:
        """The head."""
        return [Group("head", list(self.head_parameters.values()))]
