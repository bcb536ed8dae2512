"""The features of a backbone together with the map of local features that they are pooled from."""

from __future__ import annotations

import math

import torch
from torch import nn

from ssl_transfer.errors import BackboneError
from ssl_transfer.models.backbone import Backbone


class FeatureMaps(nn.Module):
    """A backbone whose forward pass returns its features and its last map.

    Args:
        backbone: The backbone, a CNN or a transformer with a square grid of tokens.

    Attributes:
        channels: Number of channels of the map.

    Raises:
        BackboneError: If it has no map.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        card, was_training = backbone.card, backbone.training
        image = torch.zeros(1, card.in_channels, *2 * [card.image_size])
        backbone.eval()
        try:
            with torch.no_grad():
                features, local = self(image)
                whole = backbone(image)
        except (AttributeError, NotImplementedError, TypeError, ValueError):
            raise BackboneError(f"backbone {card.name}: {card.architecture} has no map of local features.") from None
        finally:
            backbone.train(was_training)
        if features.shape != whole.shape or not torch.allclose(features, whole, rtol=1e-4, atol=1e-5):
            raise BackboneError(
                f"backbone {card.name}: the features of {card.architecture} are not pooled from its map."
            )
        self.channels: int = local.shape[1]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images (B, C, H, W) to features (B, feature_dim) and maps (B, channels, h, w)."""
        model = self.backbone.model
        output = model.forward_features(images)
        return model.forward_head(output), as_map(output, model)


def as_map(output: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """The output of a timm model before pooling as a map (B, C, h, w), without class and register tokens.

    Raises:
        ValueError: If it is no map, and no square grid of tokens.
    """
    if output.ndim == 4:
        return output.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else output
    if output.ndim != 3:
        raise ValueError(f"an output of shape {tuple(output.shape)} has no positions")
    tokens = output[:, getattr(model, "num_prefix_tokens", 0) :]
    side = math.isqrt(tokens.shape[1])
    if side**2 != tokens.shape[1]:
        raise ValueError(f"{tokens.shape[1]} tokens are no square grid")
    return tokens.transpose(1, 2).unflatten(2, (side, side))
