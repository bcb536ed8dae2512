"""MoCo v2."""

from __future__ import annotations

import copy

import torch
import torch.distributed as distributed
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.batchnorm import rank, world_size


class MoCo(Objective):
    """Find an image's other view, seen by a slow copy of the network, among a queue of past images.

    BatchNorm would let a query recognise its key by their shared statistics. So statistics are taken over `bn_groups`
    equal parts of the global batch, and keys are dealt to the groups in an order drawn from the step: both depend on
    the global batch alone, not on the number of ranks. `bn_groups=1` is plain synchronised BatchNorm.

    References:
        He et al. 2020, https://arxiv.org/abs/1911.05722, Algorithm 1; Chen et al. 2020, https://arxiv.org/abs/2003.04297.
    """

    def __init__(
        self,
        backbone: Backbone,
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
        self.momentum_network = nn.Sequential(copy.deepcopy(self.backbone), copy.deepcopy(self.projection_head))
        deactivate_requires_grad(self.momentum_network)
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
        loss = self.criterion(queries.float(), keys.float())
        return {"loss": loss, "projections": queries.detach().float()}

    def _keys(self, images: torch.Tensor, step: int) -> torch.Tensor:
        """Keys of this rank's images, computed among shuffled companions."""
        if self.bn_groups == 1:
            return self.momentum_network(images)
        local, total = len(images), len(images) * world_size()
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.seed * 10**9 + step)).to(
            images.device
        )
        mine = slice(rank() * local, (rank() + 1) * local)
        shuffled = _gather(images)[order[mine]]
        keys = _gather(self.momentum_network(shuffled))
        return keys[torch.argsort(order)[mine]]

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the momentum network."""
        update_momentum(self.backbone, self.momentum_network[0], self.momentum)
        update_momentum(self.projection_head, self.momentum_network[1], self.momentum)

    def check_batch(self, batch_size: int) -> None:
        """Refuse a global batch that does not fit the queue or the groups.

        Raises:
            RecipeError: If it divides unevenly.
        """
        if self.queue % batch_size:
            raise RecipeError(
                f"method.queue: {self.queue} keys are no multiple of train.batch_size {batch_size}, so batches would be cut "
                f"at the queue's end. Set method.queue={max(1, self.queue // batch_size) * batch_size}."
            )
        if batch_size % self.bn_groups or batch_size // self.bn_groups < 2:
            raise RecipeError(
                f"method.bn_groups: a batch of {batch_size} cannot be cut into {self.bn_groups} equal groups of two or "
                "more images. Choose another batch_size or bn_groups."
            )


def _gather(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate a tensor over ranks, in their order; no gradient."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
