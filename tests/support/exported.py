"""Backbones for tests of exports: random weights in every layer, so that a tensor under a wrong name changes the features."""

from __future__ import annotations

from dataclasses import replace

import torch

from ssl_transfer.models.backbone import Backbone, load_backbone
from ssl_transfer.models.card import weights_digest


def randomised(spec: str, **facts) -> Backbone:
    """A backbone of random weights, biases, scales and BatchNorm statistics; `facts` are fields of its card."""
    backbone = load_backbone(f"scratch:{spec}")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in backbone.model.state_dict().items():
            if tensor.ndim == 1:
                noise = torch.rand(tensor.shape, generator=draw)
                positive = name.endswith(("weight", "running_var", "gamma"))
                tensor.copy_(0.5 + noise if positive else 0.2 * noise - 0.1)
    backbone.card = replace(backbone.card, id=weights_digest(backbone.model, backbone.card), **facts)
    return backbone


def images_for(backbone: Backbone, count: int = 4) -> torch.Tensor:
    """Random images in the shape of the backbone's input."""
    card = backbone.card
    shape = (count, card.in_channels, card.image_size, card.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def features_of(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    """Features by the backbone itself."""
    with torch.no_grad():
        return backbone.eval()(images)
