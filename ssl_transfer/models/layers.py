"""Layers of a backbone, as timm lists them, and what they hold while images pass through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ssl_transfer.models.backbone import Backbone

MOST = 12  # layers that are looked at; of more, such as the blocks of a large ViT, as many evenly spaced ones


def layer_names(backbone: Backbone) -> list[str]:
    """Names of the stages (of a ViT, the blocks) of a backbone, those near the image first; none where timm lists none."""
    info = getattr(backbone.model, "feature_info", None) or []
    names = [level["module"] for level in info]
    count = min(MOST, len(names))
    return [names[(i + 1) * len(names) // count - 1] for i in range(count)]


@contextmanager
def outputs(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """While the block runs: layer -> what it gave for the images that passed last."""
    found: dict[str, torch.Tensor] = {}
    layers = dict(model.named_modules())
    hooks = [
        layers[name].register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
        for name in names
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def pooled(output: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """A vector (B, C) per image of maps (B, C, h, w) or tokens (B, N, C): their mean, without class and register tokens."""
    if output.ndim == 3:
        return output[:, getattr(model, "num_prefix_tokens", 0) :].mean(1)
    if output.ndim == 4:
        return output.mean((1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else (2, 3))
    return output
