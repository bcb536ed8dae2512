"""Layers of a backbone, as timm lists them, and their outputs during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ssl_transfer.models.backbone import Backbone

MAX_LAYERS = 12  # layers that are analysed; of more (large ViTs), 12 evenly spaced ones


def layer_names(backbone: Backbone) -> list[str]:
    """Names of the stages (of a ViT, the blocks) of a backbone, from input to output; empty if timm lists none."""
    info = getattr(backbone.model, "feature_info", None) or []
    names = [level["module"] for level in info]
    count = min(MAX_LAYERS, len(names))
    return [names[(i + 1) * len(names) // count - 1] for i in range(count)]


@contextmanager
def outputs(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Context that gives the outputs of layers in the latest forward pass: layer -> output."""
    captured: dict[str, torch.Tensor] = {}
    layers = dict(model.named_modules())
    hooks = [
        layers[name].register_forward_hook(lambda _, __, output, name=name: captured.update({name: output}))
        for name in names
    ]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def pooled(output: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """Mean (B, C) over positions of maps (B, C, h, w), or over tokens (B, N, C) without class and register tokens."""
    if output.ndim == 3:
        return output[:, getattr(model, "num_prefix_tokens", 0) :].mean(1)
    if output.ndim == 4:
        return output.mean((1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else (2, 3))
    return output
