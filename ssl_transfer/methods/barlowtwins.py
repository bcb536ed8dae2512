"""Barlow Twins."""

from __future__ import annotations

from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from pydantic import PositiveFloat, PositiveInt

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.ranks import gather_with_gradient
from ssl_transfer.numerics import without_autocast


class BarlowTwins(Objective):
    """Make the cross-correlation matrix of the projections of two views, over the global batch, close to the identity.

    Projections of all ranks are gathered before they are standardised. With its own gathering, lightly standardises them per
    rank, which is another loss.

    Args:
        redundancy: Weight λ of the off-diagonal terms, dimensionless. Paper: 0.005 (section 2.2).
        loss_scale: Factor on the whole loss, dimensionless; 1 is the paper's formula (authors' code: `scale-loss`).
        hidden_dim: Width of the two hidden layers of the projection head. Paper: 8192 (section 2.2).
        projection_dim: Width of the projections whose correlations are taken. Paper: 8192 (section 2.2).

    References:
        Zbontar et al. 2021, https://arxiv.org/abs/2103.03230, Algorithm 1; `loss_scale` as in the authors' code.
    """

    compares = "correlations"

    def __init__(
        self,
        backbone: Backbone,
        *,
        redundancy: PositiveFloat = 5e-3,
        loss_scale: PositiveFloat = 1.0,
        hidden_dim: PositiveInt = 8192,
        projection_dim: PositiveInt = 8192,
    ):
        super().__init__()
        self.backbone = backbone
        self.projection_head = BarlowTwinsProjectionHead(backbone.feature_dim, hidden_dim, projection_dim)
        self.criterion = BarlowTwinsLoss(redundancy)
        self.loss_scale = loss_scale

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Invariance plus `redundancy` times the squared off-diagonal correlations."""
        projections = [self.projection_head(self.backbone(view)).float() for view in batch.views]
        with without_autocast(projections[0].device):  # correlations near 1 need full precision
            loss = self.criterion(*(gather_with_gradient(projection) for projection in projections))
        return {"loss": self.loss_scale * loss, "projections": [p.detach() for p in projections]}
