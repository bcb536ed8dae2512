"""SimCLR."""

from __future__ import annotations

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from pydantic import PositiveFloat, PositiveInt

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone


class SimCLR(Objective):
    """Contrastive loss NT-Xent: two views of an image against all other images of the global batch.

    Args:
        temperature: Softmax temperature over cosine similarities, dimensionless. Paper: 0.1 on ImageNet (Table 5), 0.5
            on CIFAR-10 (appendix B.9).
        hidden_dim: Width of the projection head's hidden layer. Authors' code: that of the features, 2048.
        projection_dim: Width of the projections that the loss compares. Paper: 128 (section 2.3).

    References:
        Chen et al. 2020, https://arxiv.org/abs/2002.05709, Algorithm 1.
    """

    compares = "negatives"

    def __init__(
        self,
        backbone: Backbone,
        *,
        temperature: PositiveFloat = 0.5,
        hidden_dim: PositiveInt = 2048,
        projection_dim: PositiveInt = 128,
    ):
        super().__init__()
        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(backbone.feature_dim, hidden_dim, projection_dim)
        self.criterion = NTXentLoss(temperature, gather_distributed=True)  # negatives from every rank

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Loss of both views, each against all others."""
        projections = self.projection_head(self.backbone(torch.cat(batch.views)))
        first, second = projections.float().chunk(2)
        return {"loss": self.criterion(first, second), "projections": [first.detach(), second.detach()]}
