"""One narrow member of every family of backbones, and its native size."""

import torch

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.card import new_card

FAMILIES = {
    "resnet": ("resnet18", {"channels": [8, 16, 32, 64]}),
    "densenet": ("densenet121", {"growth_rate": 8, "block_config": [1, 1, 1, 1]}),
    "vgg": ("vgg11_bn", {"mlp_ratio": 0.01}),
    "convnext": ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}),
    "vit": ("vit_tiny_patch16_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}),
}
NATIVE_PX = 224


def described(name, size, options, channels=1, stem="standard", seed=0, **facts) -> Backbone:
    """A random backbone with its card, in eval."""
    architecture = Architecture(name, channels, size, stem, options)
    model = architecture.build(seed)
    intensity = Intensity(mean=(0.5,) * channels, std=(0.25,) * channels)
    return Backbone(model, new_card("made up", architecture, model, intensity, **facts)).eval()


def family_backbone(family, channels=1, size=32, stem="standard", seed=0, **facts) -> Backbone:
    """A random backbone of a family, in eval, with statistics that images would have left."""
    name, options = FAMILIES[family]
    backbone = described(name, size, options, channels, stem, seed, **facts)
    for layer in backbone.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(seed))
    return backbone
