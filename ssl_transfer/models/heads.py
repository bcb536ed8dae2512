"""Heads for fine-tuning: a linear layer on the features, and a U-Net decoder on the feature maps of a backbone."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import nn

from ssl_transfer.errors import BackboneError
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.bag_pooling import BAG_POOLINGS
from ssl_transfer.models.layers import outputs

TOKEN_LEVELS = 4  # levels of a ViT, whose blocks all have the same resolution
TOKEN_SCALES = (
    4.0,
    2.0,
    1.0,
    0.5,
)  # those levels' resolutions as multiples of the token grid, as in ViTDet (2203.16527)
WIDEST = 256


class LinearHead(nn.Module):
    """One linear layer on the features.

    Args:
        feature_dim: Length of a feature vector.
        outputs: Number of outputs, such as classes or labels.
    """

    def __init__(self, feature_dim: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(feature_dim, outputs)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
        """Outputs (B, outputs), such as logits."""
        return self.linear(backbone(images))


class BagHead(nn.Module):
    """A linear head of groups of images: the features of a group's images are pooled, see `bag_pooling`.

    Args:
        feature_dim: Length of a feature vector.
        outputs: Number of outputs, such as classes or labels.
        pooling: A name in `BAG_POOLINGS`.
        bag_size: Images of each group in a training batch.
    """

    def __init__(self, feature_dim: int, outputs: int, pooling: str, bag_size: int):
        super().__init__()
        self.pooling, self.bag_size = BAG_POOLINGS[pooling](feature_dim, outputs), bag_size
        nn.init.normal_(self.pooling.classifier.weight, std=0.01)
        nn.init.zeros_(self.pooling.classifier.bias)

    def forward(self, backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
        """Logits (groups, outputs) of images (groups · bag_size, C, H, W), those of a group together."""
        count = len(images) // self.bag_size
        bags = torch.arange(count, device=images.device).repeat_interleave(self.bag_size)
        return self.pooling(backbone(images).float(), bags, count)


class SegmentationHead(nn.Module):
    """A U-Net decoder on the feature maps of a backbone.

    timm's `feature_info` lists these maps. All blocks of a ViT have the same resolution: four of them, evenly spaced,
    are resampled to four resolutions. The decoder is that of segmentation_models_pytorch.

    Args:
        backbone: The backbone; the sizes of its maps are measured with a black image.
        classes: Number of classes, including the background.
        size: Height and width of the images, pixels.
        width: Channels at the image's resolution; doubled with every level below, up to 256.

    Raises:
        BackboneError: If the backbone has no maps of two or more resolutions.
    """

    def __init__(self, backbone: Backbone, classes: int, size: int, width: int = 16):
        super().__init__()
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        self.layers = _layers(backbone)
        training = backbone.training
        with torch.no_grad():
            levels = self._levels(backbone.eval(), torch.zeros(1, backbone.card.in_channels, size, size))
        backbone.train(training)
        channels = [level.shape[1] for level in levels]
        widths = [min(WIDEST, width * 2**level) for level in reversed(range(len(channels)))]
        self.decoder = UnetDecoder([0, *channels], widths, n_blocks=len(channels))
        self.classifier = nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes, H, W)."""
        return self.classifier(self.decoder([images, *self._levels(backbone, images)]))

    def _levels(self, backbone: Backbone, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps (B, C, h, w), the finest first."""
        with outputs(backbone.model, self.layers) as captured:
            backbone.model.forward_features(images)
        levels = [captured[layer] for layer in self.layers]
        if levels[0].ndim == 3:
            return [
                _resampled(_grid(tokens, backbone.model), scale)
                for tokens, scale in zip(levels, TOKEN_SCALES, strict=True)
            ]
        return levels


def _layers(backbone: Backbone) -> list[str]:
    """Names of the layers whose outputs are the levels, the finest first."""
    info = getattr(backbone.model, "feature_info", None) or []
    layers = [level["module"] for level in info]
    if layers and len({level["reduction"] for level in info}) == 1:
        layers = [layers[(i + 1) * len(layers) // TOKEN_LEVELS - 1] for i in range(TOKEN_LEVELS)]
    if len(layers) < 2:
        raise BackboneError(
            f"backbone {backbone.card.architecture}: timm lists no maps inside it that a decoder could read. Segment with a "
            "ResNet, DenseNet, VGG, ConvNeXt or ViT."
        )
    return layers


def _grid(tokens: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """Tokens (B, N, C) without class and register tokens as a map (B, C, h, w) of a square image."""
    tokens = tokens[:, getattr(model, "num_prefix_tokens", 0) :]
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _resampled(level: torch.Tensor, scale: float) -> torch.Tensor:
    if scale == 1:
        return level
    size = [max(1, round(side * scale)) for side in level.shape[-2:]]
    return functional.interpolate(level, size, mode="bilinear", align_corners=False)
