"""A new method: two views of an image shall have the same features."""

from __future__ import annotations

from pydantic import PositiveFloat

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone


class Agree(Objective):
    """Mean squared distance of the features of two views.

    Args:
        weight: Factor of the loss.
    """

    def __init__(self, backbone: Backbone, *, weight: PositiveFloat = 1.0):
        super().__init__()
        self.backbone = backbone
        self.weight = weight

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """The weighted distance."""
        first, second = (self.backbone(view).float() for view in batch.views)
        loss = self.weight * (first - second).square().mean()
        return {"loss": loss, "projections": [first.detach(), second.detach()]}
