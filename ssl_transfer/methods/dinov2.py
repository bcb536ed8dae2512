"""DINOv2."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

import torch
from lightly.loss import DINOLoss, KoLeoLoss
from lightly.models.modules import MaskedVisionTransformerTIMM
from lightly.models.modules.heads import DINOv2ProjectionHead
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_transfer.data.transfer import to_device
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.centering import TokenCenter, balanced_log_assignments
from ssl_transfer.methods.crops import LARGE_VIEWS, Crops
from ssl_transfer.methods.masking import block_masks
from ssl_transfer.methods.momentum import MomentumNetwork
from ssl_transfer.methods.objective import Losses
from ssl_transfer.methods.self_distillation import SelfDistillation
from ssl_transfer.methods.vit import plain_vit
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.ranks import gather_with_gradient
from ssl_transfer.numerics import without_autocast

Share = Annotated[float, Field(ge=0, le=1)]


class DINOv2(SelfDistillation):
    """DINO for images, iBOT for masked patches, and KoLeo, which spreads the features; ViT only.

    A momentum network sees two large crops without masks. The trained network predicts its output for an image from every other
    crop (DINO), and its output for each masked patch of a large crop (iBOT). Masks are blocks, as in iBOT, and functions of
    (seed, epoch, image, crop). KoLeo compares each image with its nearest neighbour in the global batch, separately for both
    large crops; centres and balanced assignments are those of the global batch, too. The loss is DINO + `patch_weight` · iBOT +
    `koleo_weight` · KoLeo.

    Args:
        output_dim: Number of output dimensions K of each head, over which the softmax is taken. Authors' code: 65536; 131072
            for ViT-L and ViT-g.
        hidden_dim: Width of the two hidden layers of the projection heads. Authors' code: 2048.
        bottleneck_dim: Width of the normalised layer in front of the output layer. Authors' code: 256.
        separate_heads: Whether images and patches have heads of their own. Paper: yes (section 4, untying head weights).
        temperature: Softmax temperature of the trained network, dimensionless. Authors' code: 0.1.
        target_temperature: Softmax temperature of the momentum network after its warm-up, dimensionless. Authors' code: 0.07.
        warmup_target_temperature: Softmax temperature of the momentum network at the first step, dimensionless. Authors'
            code: 0.04.
        warmup_epochs: Epochs over which the target temperature changes linearly from its warm-up value to its final one.
            Authors' code: 30.
        centering: How targets are kept from using few dimensions only: `sinkhorn` balances their assignments in the batch
            (three iterations; paper, section 4), `mean` subtracts a running mean as DINO does.
        center_momentum: Momentum of that running mean, in [0, 1]; used with `centering: mean`. Authors' code: 0.9.
        momentum: Share of itself that the momentum network keeps per step at the start, in [0, 1]; it rises to 1 along
            a cosine. Authors' code: 0.992.
        masked_images: Probability that a large crop is masked. Paper: 0.5 (iBOT, section 3.2).
        mask_share: Smallest and largest share of masked patches in a masked crop; uniform. Paper: 0.1, 0.5 (iBOT,
            section 3.2).
        patch_weight: Weight of the patch loss. Authors' code: 1.
        koleo_weight: Weight of KoLeo, summed over both large crops; 0: none. Authors' code: 0.1.
        local_views: Number of small crops per image; 0: none. Authors' code: 8.
        local_size: Height and width of a small crop in pixels. Authors' code: 96, for patches of 16 px.
        global_scale: Smallest and largest share of the image's area in a large crop. Authors' code: 0.32, 1.
        local_scale: Smallest and largest share of the image's area in a small crop. Authors' code: 0.05, 0.32.
        frozen_output_epochs: Epochs during which the output layers keep their initial weights. Authors' code: 1.

    References:
        Oquab et al. 2023, https://arxiv.org/abs/2304.07193, section 4; Zhou et al. 2022 (iBOT),
        https://arxiv.org/abs/2111.07832; Sablayrolles et al. 2019 (KoLeo), https://arxiv.org/abs/1806.03198.
    """

    compares = "nearest neighbours"

    def __init__(
        self,
        backbone: Backbone,
        *,
        output_dim: PositiveInt = 65536,
        hidden_dim: PositiveInt = 2048,
        bottleneck_dim: PositiveInt = 256,
        separate_heads: bool = True,
        temperature: PositiveFloat = 0.1,
        target_temperature: PositiveFloat = 0.07,
        warmup_target_temperature: PositiveFloat = 0.04,
        warmup_epochs: NonNegativeFloat = 30,
        centering: Literal["sinkhorn", "mean"] = "sinkhorn",
        center_momentum: Share = 0.9,
        momentum: Share = 0.992,
        masked_images: Share = 0.5,
        mask_share: tuple[Share, Share] = (0.1, 0.5),
        patch_weight: NonNegativeFloat = 1.0,
        koleo_weight: NonNegativeFloat = 0.1,
        local_views: NonNegativeInt = 8,
        local_size: PositiveInt = 96,
        global_scale: tuple[PositiveFloat, PositiveFloat] = (0.32, 1.0),
        local_scale: tuple[PositiveFloat, PositiveFloat] = (0.05, 0.32),
        frozen_output_epochs: NonNegativeFloat = 1,
    ):
        super().__init__()
        if mask_share[0] > mask_share[1]:
            raise RecipeError(f"method.mask_share: found {list(mask_share)}, expected the smallest share first.")
        vit = plain_vit(backbone, "dinov2")
        self.crops = Crops(
            local_views=local_views, local_size=local_size, global_scale=global_scale, local_scale=local_scale
        )
        self.crops.check(backbone)
        self.backbone = backbone
        self.masked_vit: Any = MaskedVisionTransformerTIMM(
            vit, weight_initialization="skip", pos_embed_initialization="skip"
        )
        sizes = (backbone.feature_dim, vit.embed_dim), hidden_dim, bottleneck_dim, output_dim
        self.heads, slow_heads = _heads(*sizes, separate_heads), _heads(*sizes, separate_heads)
        slow_heads.load_state_dict(self.heads.state_dict())
        self.momentum_network = MomentumNetwork(backbone, self.heads, slow_heads)
        kept = center_momentum if centering == "mean" else 1.0  # the centre stays 0
        self.criterion = DINOLoss(output_dim, student_temp=temperature, center_momentum=kept)
        self.patch_criterion = PatchLoss(output_dim, temperature, kept)
        self.koleo_criterion = KoLeoLoss()
        self.centering, self.patch_weight, self.koleo_weight = centering, patch_weight, koleo_weight
        self.momentum, self.frozen_output_epochs = momentum, frozen_output_epochs
        self.warmup = (warmup_target_temperature, target_temperature, warmup_epochs)
        self.masked_images, self.mask_share = masked_images, mask_share

    def trained_heads(self) -> nn.Module:
        """See `SelfDistillation`."""
        return self.heads

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """DINO over all pairs of other views, iBOT over the masked patches, and KoLeo over both global views."""
        images, small = torch.cat(batch.views[:LARGE_VIEWS]), batch.views[LARGE_VIEWS:]
        masks = self.masks(batch.rows, step)
        masked, weights = (to_device(values, images.device) for values in _masked_patches(masks))
        masks = to_device(masks, images.device)
        features, patches = self._masked(images, masks)
        with torch.no_grad():
            target_features, target_patches = _features_and_patches(self.momentum_network[0], images)
            slow_heads: Any = self.momentum_network[1]
            targets = slow_heads["images"](target_features).float()
            patch_targets = slow_heads["patches"](target_patches.flatten(0, 1)[masked]).float()
        parts = list(features.chunk(LARGE_VIEWS))
        if small:  # one pass for all small views
            parts += self.backbone(torch.cat(small)).chunk(len(small))
        outputs = self.heads["images"](torch.cat(parts)).float()
        patch_outputs = self.heads["patches"](patches.flatten(0, 1)[masked]).float()
        with without_autocast(images.device):
            temperature = self.target_temperature(step)
            targets, patch_targets = (self._balanced(values, temperature) for values in (targets, patch_targets))
            loss = self.criterion(
                list(targets.chunk(LARGE_VIEWS)), list(outputs.chunk(len(parts))), teacher_temp=temperature
            )
            loss = loss + self.patch_weight * self.patch_criterion(patch_targets, patch_outputs, weights, temperature)
            if self.koleo_weight:
                loss = loss + self.koleo_weight * sum(
                    self.koleo_criterion(gather_with_gradient(part.float())) for part in parts[:LARGE_VIEWS]
                )
        return {"loss": loss, "projections": [part.detach().float() for part in parts[:LARGE_VIEWS]]}

    def _masked(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, feature_dim) and patch tokens (n, patches, D) of images with masked patches."""
        vit, prefix = self.masked_vit.vit, self.masked_vit.vit.num_prefix_tokens
        of_tokens = nn.functional.pad(masks.flatten(1), (prefix, 0))  # prefix tokens are not masked
        tokens = self.masked_vit.encode(images, mask=of_tokens)
        return vit.forward_head(tokens, pre_logits=True), tokens[:, prefix:]

    def _balanced(self, outputs: Tensor, temperature: float) -> Tensor:
        """Outputs whose softmax at a temperature are the targets: balanced assignments, or as they are for a running mean."""
        if self.centering == "mean":
            return outputs
        return balanced_log_assignments(outputs / temperature) * temperature

    def masks(self, rows: Tensor, step: int) -> Tensor:
        """Which patches of both large crops are masked, on the CPU, bool (2B, height, width).

        Those of the first crop come first.
        """
        epoch, grid = step // self.schedule.steps_per_epoch, self.masked_vit.vit.patch_embed.grid_size
        options = {"grid": grid, "masked_images": self.masked_images, "mask_share": self.mask_share}
        positions = rows.cpu().numpy()
        views = [block_masks(self.seed, epoch, positions, view, **options) for view in range(LARGE_VIEWS)]
        return torch.cat(views)

    def compiled_parts(self) -> list[nn.Module]:
        """The transformer blocks, since masked images do not go through `forward` of the ViT."""
        return [self.masked_vit.vit.blocks]

    def check_batch(self, batch_size: int) -> None:
        """Refuse batches of one image, which has no neighbour.

        Raises:
            RecipeError: If so.
        """
        if self.koleo_weight and batch_size < 2:
            raise RecipeError(
                "train.batch_size: 1 image has no nearest neighbour for KoLeo. Set a larger one, or method.koleo_weight=0."
            )


class PatchLoss(nn.Module):
    """iBOT's cross-entropy of masked patches. (lightly's looks for them on the device, and the host would wait.)

    Args:
        output_dim: Number of output dimensions K.
        temperature: Softmax temperature of the trained network, dimensionless.
        center_momentum: Momentum of the running mean of targets, in [0, 1].
    """

    def __init__(self, output_dim: int, temperature: float, center_momentum: float):
        super().__init__()
        self.temperature, self.center = temperature, TokenCenter(output_dim, center_momentum)

    def forward(self, targets: Tensor, outputs: Tensor, weights: Tensor, temperature: float) -> Tensor:
        """Loss of n masked patches: outputs (n, K) of both networks, weights (n,), temperature of the targets."""
        expected = ((targets - self.center.value) / temperature).softmax(-1)
        entropies = -(expected * (outputs / self.temperature).log_softmax(-1)).sum(-1)
        self.center.update(targets)
        return (entropies * weights).sum()


def _masked_patches(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the masked patches among all of a batch, and their weights in the loss: all images have one weight.

    They are found on the CPU, since the host would wait for a GPU.
    """
    positions = masks.flatten().nonzero()[:, 0]
    shares = 1 / (len(masks) * masks.sum((1, 2)).clamp(min=1))
    return positions, shares[positions // masks[0].numel()]


def _heads(
    input_dims: tuple[int, int], hidden_dim: int, bottleneck_dim: int, output_dim: int, separate: bool
) -> nn.ModuleDict:
    """The projection heads of `images` and `patches`, which are the same one unless they are separate."""
    with warnings.catch_warnings():  # lightly uses torch's older weight_norm
        warnings.simplefilter("ignore", FutureWarning)
        of_images, of_patches = (
            DINOv2ProjectionHead(width, hidden_dim, bottleneck_dim, output_dim) for width in input_dims
        )
    return nn.ModuleDict({"images": of_images, "patches": of_patches if separate else of_images})


def _features_and_patches(backbone: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (n, feature_dim) and patch tokens (n, patches, D) of images by a ViT backbone."""
    tokens = backbone.model.forward_features(images)
    return backbone.model.forward_head(tokens, pre_logits=True), tokens[:, backbone.model.num_prefix_tokens :]
