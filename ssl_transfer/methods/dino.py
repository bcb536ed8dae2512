"""DINO."""

from __future__ import annotations

import warnings

import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.crops import LARGE_VIEWS, Crops
from ssl_transfer.methods.momentum import MomentumNetwork
from ssl_transfer.methods.objective import Losses
from ssl_transfer.methods.self_distillation import SelfDistillation
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.numerics import without_autocast


class DINO(SelfDistillation):
    """Self-distillation: every view predicts a momentum network's centred and sharpened output for the large crops.

    There are two large crops and `local_views` small ones per image. The target temperature warms up linearly; the output
    layer is frozen for the first `frozen_output_epochs`.

    Args:
        output_dim: Number of output dimensions K, over which the softmax is taken. Paper: 65536 (appendix C).
        hidden_dim: Width of the two hidden layers of the projection head. Paper: 2048 (section 3.1).
        bottleneck_dim: Width of the normalised layer in front of the output layer. Paper: 256 (appendix C).
        temperature: Softmax temperature of the trained network, dimensionless. Paper: 0.1 (section 3.2).
        target_temperature: Softmax temperature of the momentum network after its warm-up, dimensionless. Paper: 0.07
            (section 3.2).
        warmup_target_temperature: Softmax temperature of the momentum network at the first step, dimensionless. Paper: 0.04
            (section 3.2).
        warmup_epochs: Epochs over which the target temperature changes linearly from its warm-up value to its final one.
            Paper: 30 (section 3.2).
        center_momentum: Momentum of the running mean that is subtracted from the targets, in [0, 1]. Paper: 0.9
            (section 3.1, Eq. 4).
        momentum: Share of itself that the momentum network keeps per step at the start, in [0, 1]; it rises to 1 along
            a cosine. Paper: 0.996 (section 3.1).
        local_views: Number of small crops per image; 0: none. Authors' code: 8.
        local_size: Height and width of a small crop in pixels. Paper: 96 (section 3.1).
        global_scale: Smallest and largest share of the image's area in a large crop. Authors' code: 0.4, 1.
        local_scale: Smallest and largest share of the image's area in a small crop. Authors' code: 0.05, 0.4.
        frozen_output_epochs: Epochs during which the output layer keeps its initial weights. Authors' code: 1.

    References:
        Caron et al. 2021, https://arxiv.org/abs/2104.14294, Algorithm 1 and appendix C.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        output_dim: PositiveInt = 65536,
        hidden_dim: PositiveInt = 2048,
        bottleneck_dim: PositiveInt = 256,
        temperature: PositiveFloat = 0.1,
        target_temperature: PositiveFloat = 0.04,
        warmup_target_temperature: PositiveFloat = 0.04,
        warmup_epochs: NonNegativeFloat = 0,
        center_momentum: float = 0.9,
        momentum: float = 0.996,
        local_views: NonNegativeInt = 8,
        local_size: PositiveInt = 96,
        global_scale: tuple[PositiveFloat, PositiveFloat] = (0.4, 1.0),
        local_scale: tuple[PositiveFloat, PositiveFloat] = (0.05, 0.4),
        frozen_output_epochs: NonNegativeFloat = 1,
    ):
        super().__init__()
        self.crops = Crops(
            local_views=local_views, local_size=local_size, global_scale=global_scale, local_scale=local_scale
        )
        self.crops.check(backbone)
        self.backbone = backbone
        batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules())  # as the paper

        def new_head() -> DINOProjectionHead:
            with warnings.catch_warnings():  # lightly uses torch's older weight_norm
                warnings.simplefilter("ignore", FutureWarning)
                return DINOProjectionHead(backbone.feature_dim, hidden_dim, bottleneck_dim, output_dim, batch_norm)

        self.projection_head, slow_head = new_head(), new_head()  # its weight norm cannot be copied
        slow_head.load_state_dict(self.projection_head.state_dict())
        self.momentum_network = MomentumNetwork(backbone, self.projection_head, slow_head)
        self.criterion = DINOLoss(output_dim, student_temp=temperature, center_momentum=center_momentum)
        self.momentum, self.frozen_output_epochs = momentum, frozen_output_epochs
        self.warmup = (warmup_target_temperature, target_temperature, warmup_epochs)

    def trained_heads(self) -> nn.Module:
        """See `SelfDistillation`."""
        return self.projection_head

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Cross-entropy from each global view's target to every other view's output."""
        large, small = torch.cat(batch.views[:LARGE_VIEWS]), batch.views[LARGE_VIEWS:]
        features = self.backbone(
            large
        )  # one pass for all views of a size, and one of the head, as in the authors' code
        if small:
            features = torch.cat([features, self.backbone(torch.cat(small))])
        outputs = self.projection_head(features).float().chunk(len(batch.views))
        with torch.no_grad():
            targets = self.momentum_network(large).float().chunk(LARGE_VIEWS)
        with without_autocast(large.device):
            loss = self.criterion(list(targets), list(outputs), teacher_temp=self.target_temperature(step))
        projections = features.detach().float().chunk(len(batch.views))[:LARGE_VIEWS]
        return {"loss": loss, "projections": list(projections)}
