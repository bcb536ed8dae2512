"""SimSiam."""

from __future__ import annotations

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
from pydantic import PositiveInt

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone


class SimSiam(Objective):
    """Predict one view's projection from the other's; a stopped gradient prevents collapse, without negatives or momentum.

    Args:
        projection_dim: Width of the projection head's layers and of the predictions. Paper: 2048 (section 3).
        bottleneck_dim: Width of the prediction head's hidden layer. Paper: 512 (section 3).

    References:
        Chen & He 2021, https://arxiv.org/abs/2011.10566, Algorithm 1.
    """

    def __init__(self, backbone: Backbone, *, projection_dim: PositiveInt = 2048, bottleneck_dim: PositiveInt = 512):
        super().__init__()
        self.backbone = backbone
        self.projection_head = SimSiamProjectionHead(backbone.feature_dim, projection_dim, projection_dim)
        self.prediction_head = SimSiamPredictionHead(projection_dim, bottleneck_dim, projection_dim)
        self.negative_cosine = NegativeCosineSimilarity()

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Mean negative cosine of both directions, in [−1, 1]."""
        projections = [self.projection_head(self.backbone(view)) for view in batch.views]
        predictions = [self.prediction_head(projection).float() for projection in projections]
        targets = [projection.detach().float() for projection in projections]
        first = self.negative_cosine(predictions[0], targets[1])
        second = self.negative_cosine(predictions[1], targets[0])
        return {"loss": (first + second) / 2, "projections": targets}
