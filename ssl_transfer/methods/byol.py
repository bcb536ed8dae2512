"""BYOL."""

from __future__ import annotations

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from pydantic import PositiveInt

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.momentum import MomentumNetwork, rising_momentum
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone


class BYOL(Objective):
    """Predict a momentum network's projection of one view from the other view; no negatives.

    The loss is 2 − 2cos, summed over both directions. The momentum network keeps its own BatchNorm statistics.

    Args:
        momentum: Share of itself that the momentum network keeps per step at the start, in [0, 1]; it rises to 1 along
            a cosine. Paper: 0.996 for 1000 epochs, 0.99 for 300 (section 3.3, appendix).
        hidden_dim: Width of the hidden layers of projection and prediction head. Paper: 4096 (section 3.3).
        projection_dim: Width of projections and predictions. Paper: 256 (section 3.3).

    References:
        Grill et al. 2020, https://arxiv.org/abs/2006.07733, Algorithm 1 and appendix A.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        momentum: float = 0.996,
        hidden_dim: PositiveInt = 4096,
        projection_dim: PositiveInt = 256,
    ):
        super().__init__()
        self.backbone = backbone
        self.projection_head = BYOLProjectionHead(backbone.feature_dim, hidden_dim, projection_dim)
        self.prediction_head = BYOLPredictionHead(projection_dim, hidden_dim, projection_dim)
        self.momentum_network = MomentumNetwork(backbone, self.projection_head)
        self.momentum = momentum
        self.negative_cosine = NegativeCosineSimilarity()

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """2 − 2cos between each view's prediction and the other view's target."""
        projections = [self.projection_head(self.backbone(view)) for view in batch.views]
        predictions = [self.prediction_head(projection) for projection in projections]
        with torch.no_grad():
            targets = [self.momentum_network(view) for view in batch.views]
        first = self.negative_cosine(predictions[0].float(), targets[1].float())
        second = self.negative_cosine(predictions[1].float(), targets[0].float())
        return {"loss": (2 + 2 * first) + (2 + 2 * second), "projections": [p.detach().float() for p in projections]}

    def after_step(self, step: int) -> None:
        """Update the momentum network; its momentum rises to 1 along a cosine."""
        momentum = rising_momentum(self.momentum, step, self.schedule.total_steps)
        self.momentum_network.update(self.backbone, self.projection_head, momentum)
