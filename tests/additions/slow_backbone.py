"""A new strategy: the backbone learns more slowly than the head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ssl_transfer.evaluation.strategies.strategy import Strategy
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.schedule import Schedule


class SlowBackbone(Strategy):
    """The backbone has a share of the head's learning rate.

    Args:
        share: Of the head's rate, in (0, 1].
    """

    def __init__(self, backbone: Backbone, head: nn.Module, schedule: Schedule, *, share: float = 0.1):
        super().__init__(backbone, head, schedule)
        self.share = share

    def rates(self, step: int, factor: float) -> Mapping[str, float]:
        """The head's rate, and its share."""
        return {"head": factor, "backbone": self.share * factor}
