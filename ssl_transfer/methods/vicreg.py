"""VICReg."""

from __future__ import annotations

import torch
from lightly.loss.vicreg_loss import invariance_loss, variance_loss
from lightly.models.modules.heads import VICRegProjectionHead
from pydantic import NonNegativeFloat, PositiveInt

from ssl_transfer.console import say
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.ranks import gather_with_gradient
from ssl_transfer.numerics import without_autocast

LARGEST_HEAD = 10  # times the weights of the backbone; ResNet-50 and the paper's head: 6


class VICReg(Objective):
    """Three terms: equal projections of two views, a standard deviation of at least 1 in each dimension, uncorrelated dimensions.

    Args:
        invariance: Weight λ of the distance between views, dimensionless. Paper: 25 (section 4.2).
        variance: Weight μ of the hinge on each dimension's standard deviation, dimensionless. Paper: 25 (section 4.2).
        covariance: Weight ν of the off-diagonal covariances, dimensionless. Paper: 1 (section 4.2).
        hidden_dim: Width of the two hidden layers of the projection head. Paper: 8192 (section 4.2).
        projection_dim: Width of the projections. Paper: 8192 (section 4.2).

    References:
        Bardes, Ponce & LeCun 2022, https://arxiv.org/abs/2105.04906, Algorithm 1; the two variance
        terms are averaged, as in the authors' code and lightly's.
    """

    compares = "variances and covariances"

    def __init__(
        self,
        backbone: Backbone,
        *,
        invariance: NonNegativeFloat = 25.0,
        variance: NonNegativeFloat = 25.0,
        covariance: NonNegativeFloat = 1.0,
        hidden_dim: PositiveInt = 8192,
        projection_dim: PositiveInt = 8192,
    ):
        super().__init__()
        head = backbone.feature_dim * hidden_dim + hidden_dim**2 + hidden_dim * projection_dim
        weights = sum(parameter.numel() for parameter in backbone.parameters())
        if head > LARGEST_HEAD * weights:
            say(
                f"VICReg: the projection head has {head / 1e6:,.0f} million weights, {head / weights:.0f} times as many as the "
                "backbone, and takes most of the time. For a small backbone: method.hidden_dim=1024 method.projection_dim=1024."
            )
        self.backbone = backbone
        self.projection_head = VICRegProjectionHead(backbone.feature_dim, hidden_dim, projection_dim)
        self.weights = (invariance, variance, covariance)

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Invariance, variance and covariance over the global batch."""
        projections = [self.projection_head(self.backbone(view)).float() for view in batch.views]
        with without_autocast(projections[0].device):
            first, second = (gather_with_gradient(projection) for projection in projections)
            loss = vicreg_loss(first, second, self.weights)
        return {"loss": loss, "projections": [p.detach() for p in projections]}


def vicreg_loss(first: torch.Tensor, second: torch.Tensor, weights: tuple[float, float, float]) -> torch.Tensor:
    """VICReg's loss of the projections (B, D) of two views.

    Args:
        weights: Those of invariance, variance and covariance.
    """
    invariance, variance, covariance = weights
    return (
        invariance * invariance_loss(first, second)
        + variance * 0.5 * (variance_loss(first) + variance_loss(second))
        + covariance * (covariance_loss(first) + covariance_loss(second))
    )


def covariance_loss(projections: torch.Tensor) -> torch.Tensor:
    """Sum of squared covariances of different dimensions of projections (B, D), divided by D.

    lightly selects them by a mask, whose list of positions takes 1 GB at 8192 dimensions; this is a view.
    """
    count, width = projections.shape
    centred = projections - projections.mean(0)
    covariance = centred.T @ centred / (count - 1)
    off_diagonal = covariance.flatten()[:-1].view(width - 1, width + 1)[
        :, 1:
    ]  # every row starts with a diagonal element
    return off_diagonal.square().sum() / width
