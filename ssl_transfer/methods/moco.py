"""MoCo v2."""

from __future__ import annotations

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from pydantic import PositiveFloat, PositiveInt

from ssl_transfer.data.transfer import to_device
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.momentum import MomentumNetwork
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.ranks import gather, rank, world_size
from ssl_transfer.numerics import without_autocast


class MoCo(Objective):
    """InfoNCE: identify the momentum network's key of an image's other view among a queue of keys of past images.

    If a query and its key shared BatchNorm statistics, these would reveal which key matches. Therefore statistics are computed in
    `bn_groups` equal parts of the global batch, and keys are assigned to the groups in an order that is drawn at each step. Both
    depend on the global batch only, not on the number of ranks. `bn_groups=1` is plain synchronised BatchNorm. Micro-batches of
    an accumulated batch enter the queue one after the other.

    Args:
        temperature: Softmax temperature over cosine similarities, dimensionless. MoCo v2: 0.2 (2003.04297, section 3).
        queue: Number of keys that are kept as negatives, a multiple of the batch size. Paper: 65536 (1911.05722, section 4).
        momentum: Share of itself that the momentum network keeps per step, in [0, 1]; constant. Paper: 0.999
            (1911.05722, section 4.1).
        bn_groups: Number of equal parts of the global batch with separate BatchNorm statistics. Paper: 8, one per GPU
            (1911.05722, section 3.3).
        projection_dim: Width of queries and keys. Paper: 128 (1911.05722, section 3.3).

    References:
        He et al. 2020, https://arxiv.org/abs/1911.05722, Algorithm 1; Chen et al. 2020, https://arxiv.org/abs/2003.04297.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        temperature: PositiveFloat = 0.2,
        queue: PositiveInt = 65536,
        momentum: float = 0.999,
        bn_groups: PositiveInt = 8,
        projection_dim: PositiveInt = 128,
    ):
        super().__init__()
        self.backbone = backbone
        width = backbone.feature_dim
        self.projection_head = MoCoProjectionHead(width, width, projection_dim)
        self.momentum_network = MomentumNetwork(backbone, self.projection_head)
        self.momentum, self.queue, self.bn_groups = momentum, queue, bn_groups
        self.criterion = NTXentLoss(temperature, memory_bank_size=(queue, projection_dim), gather_distributed=True)
        bank = self.criterion.memory_bank  # lightly leaves the queue out of the state; a resumed run needs it
        for name in ("bank", "bank_ptr"):
            bank.register_buffer(name, getattr(bank, name), persistent=True)

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Queries from the first view, keys from the second."""
        queries = self.projection_head(self.backbone(batch.views[0]))
        with torch.no_grad():
            keys = self._keys(batch.views[1], step)
        with without_autocast(queries.device):  # logits of bf16 would round differences of similarities
            loss = self.criterion(queries.float(), keys.float())
        return {"loss": loss, "projections": [queries.detach().float(), keys.float()]}

    def _keys(self, images: torch.Tensor, step: int) -> torch.Tensor:
        """Keys of this rank's images. They are computed on shuffled images of all ranks and brought back into order."""
        if self.bn_groups == 1:
            return self.momentum_network(images)
        local, total = len(images), len(images) * world_size()
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.seed * 10**9 + step))
        local_rows = slice(rank() * local, (rank() + 1) * local)
        there = to_device(torch.stack([order, torch.argsort(order)])[:, local_rows], images.device)
        shuffled = gather(images)[there[0]]
        keys = gather(self.momentum_network(shuffled))
        return keys[there[1]]

    def after_step(self, step: int) -> None:
        """Update the momentum network."""
        self.momentum_network.update(self.backbone, self.projection_head, self.momentum)

    def check_batch(self, batch_size: int) -> None:
        """Check that the queue is a multiple of the global batch, and that the batch can be divided into the groups.

        Raises:
            RecipeError: If not.
        """
        if self.queue % batch_size:
            raise RecipeError(
                f"method.queue: {self.queue} keys are not a multiple of train.batch_size {batch_size}, so batches would be cut "
                f"at the queue's end. Set method.queue={max(1, self.queue // batch_size) * batch_size}."
            )
        if batch_size % self.bn_groups or batch_size // self.bn_groups < 2:
            raise RecipeError(
                f"method.bn_groups: a batch of {batch_size} cannot be cut into {self.bn_groups} equal groups of two or "
                "more images. Choose another batch_size or bn_groups."
            )
