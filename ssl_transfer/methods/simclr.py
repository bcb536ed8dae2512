"""SimCLR."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from lightly.models.modules import SimCLRProjectionHead
from pydantic import PositiveFloat, PositiveInt

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.ranks import gather_with_gradient, rank
from ssl_transfer.numerics import without_autocast


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
        self.temperature = temperature

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Loss of both views, each against all others."""
        projections = self.projection_head(self.backbone(torch.cat(batch.views)))
        first, second = projections.float().chunk(2)
        with without_autocast(first.device):  # logits of bf16 would round differences of similarities
            loss = nt_xent(first, second, self.temperature)
        return {"loss": loss, "projections": [first.detach(), second.detach()]}


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent of this rank's images, with the negatives of all ranks.

    The loss of lightly, without its boolean masks, for which the host would wait four times per step.

    Args:
        first, second: Projections of the two views, (B, D).
        temperature: Softmax temperature.

    Source:
        Chen et al. 2020, https://arxiv.org/abs/2002.05709, Algorithm 1.
    """
    first, second = functional.normalize(first, dim=1), functional.normalize(second, dim=1)
    keys = torch.cat([gather_with_gradient(first), gather_with_gradient(second)])
    own = torch.arange(len(first), device=first.device) + rank() * len(first)
    itself, other_view = torch.cat([own, own + len(keys) // 2]), torch.cat([own + len(keys) // 2, own])
    logits = torch.cat([first, second]) @ keys.T / temperature
    return functional.cross_entropy(logits.scatter(1, itself[:, None], -torch.inf), other_view)
