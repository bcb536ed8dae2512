"""MoCo v3."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad
from pydantic import PositiveFloat, PositiveInt

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.momentum import MomentumNetwork, rising_momentum
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.ranks import gather, rank
from ssl_transfer.numerics import without_autocast


class MoCoV3(Objective):
    """InfoNCE against the momentum network's keys of the global batch, in both directions; no queue.

    The loss is 2τ · InfoNCE, summed over both directions. For a ViT, `frozen_patch_embedding` keeps the patch projection at its
    initial random weights, which stabilises the training according to the paper.

    Args:
        temperature: Softmax temperature over cosine similarities, dimensionless. Authors' code: 0.2 for a ViT, 1.0 for
            a ResNet.
        momentum: Share of itself that the momentum network keeps per step at the start, in [0, 1]; it rises to 1 along
            a cosine. Paper: 0.99.
        hidden_dim: Width of the hidden layers of projection and prediction head. Paper: 4096 (section 5).
        projection_dim: Width of queries and keys. Paper: 256 (section 5).
        frozen_patch_embedding: Whether a ViT's patch projection keeps its initial weights. Paper: yes (section 4.2).

    References:
        Chen, Xie & He 2021, https://arxiv.org/abs/2104.02057, Algorithm 1 and section 4.2.
    """

    compares = "negatives"

    def __init__(
        self,
        backbone: Backbone,
        *,
        temperature: PositiveFloat = 0.2,
        momentum: float = 0.99,
        hidden_dim: PositiveInt = 4096,
        projection_dim: PositiveInt = 256,
        frozen_patch_embedding: bool = True,
    ):
        super().__init__()
        self.backbone = backbone
        self.projection_head = MoCoProjectionHead(backbone.feature_dim, hidden_dim, projection_dim, 3, batch_norm=True)
        self.prediction_head = MoCoProjectionHead(projection_dim, hidden_dim, projection_dim, 2, batch_norm=True)
        self.momentum_network = MomentumNetwork(backbone, self.projection_head)
        if frozen_patch_embedding and hasattr(backbone.model, "patch_embed"):
            deactivate_requires_grad(backbone.model.get_submodule("patch_embed"))
        self.temperature, self.momentum = temperature, momentum

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """InfoNCE of each view's query among the keys of all other views."""
        queries = [self.prediction_head(self.projection_head(self.backbone(view))).float() for view in batch.views]
        with torch.no_grad():
            keys = [self.momentum_network(view).float() for view in batch.views]
        with without_autocast(queries[0].device):  # as for MoCo
            loss = self._info_nce(queries[0], keys[1]) + self._info_nce(queries[1], keys[0])
        return {"loss": loss, "projections": [query.detach() for query in queries]}

    def _info_nce(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        all_keys = functional.normalize(gather(keys), dim=1)
        logits = functional.normalize(queries, dim=1) @ all_keys.T / self.temperature
        positives = torch.arange(len(queries), device=queries.device) + rank() * len(queries)
        return 2 * self.temperature * functional.cross_entropy(logits, positives)

    def after_step(self, step: int) -> None:
        """Update the momentum network; its momentum rises to 1 along a cosine."""
        momentum = rising_momentum(self.momentum, step, self.schedule.total_steps)
        self.momentum_network.update(self.backbone, self.projection_head, momentum)
