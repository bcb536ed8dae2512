"""Adoption: initialise a backbone with the weights of another, for other channels or another image size."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from timm.layers.pos_embed import resample_abs_pos_embed

from ssl_transfer.errors import BackboneError
from ssl_transfer.models.architecture import Architecture, TimmModel, input_convolutions, tensor_difference
from ssl_transfer.models.backbone import Backbone

POSITIONS = "pos_embed"


def adopt(model: TimmModel, architecture: Architecture, parent: Backbone) -> list[str]:
    """Copy the weights of a parent of the same architecture into a model.

    Weights are adapted to another number of channels or image size as timm does when it loads weights: filters of the
    first convolution are summed for one channel, else repeated and scaled; position embeddings are resampled.

    Args:
        model: The model that gets the weights.
        architecture: Architecture of the model.
        parent: The backbone with the weights, which is not changed.

    Returns:
        The adaptations, for the card, such as `conv1.weight: 3 → 1 input channels`.

    Raises:
        RuntimeError: If the parent differs in name, stem, options or tensors of its architecture.
    """
    architecture.check_parent(parent.architecture)
    weights, expected, adapted = parent.model.state_dict(), model.state_dict(), []
    have, want = parent.architecture.in_channels, architecture.in_channels
    for name in input_convolutions(model):
        key = f"{name}.weight"
        if have != want and key in weights and weights[key].shape[1] == have:
            weights[key] = _with_channels(weights[key], want)
            adapted.append(f"{key}: {have} → {want} input channels")
    if POSITIONS in expected and POSITIONS in weights and expected[POSITIONS].shape != weights[POSITIONS].shape:
        adapted.append(f"{POSITIONS}: {weights[POSITIONS].shape[1]} → {expected[POSITIONS].shape[1]} positions")
        prefix = 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 0)
        grid = list(model.patch_embed.grid_size)
        weights[POSITIONS] = resample_abs_pos_embed(weights[POSITIONS], grid, num_prefix_tokens=prefix)
    difference = tensor_difference(expected, weights)
    if difference:
        raise RuntimeError(difference)
    model.load_state_dict(weights)
    return adapted


def with_channels(backbone: Backbone, channels: int) -> Backbone:
    """A copy of a backbone that reads another number of channels, its first convolution adapted as in `adopt`.

    A backbone whose channels are slices or windows is returned as it is: images get them, whatever they have.

    Raises:
        BackboneError: If timm does not say which layer reads the image.
    """
    card = backbone.card
    if card.in_channels == channels or card.channels.are_stated:
        return backbone
    architecture = replace(backbone.architecture, in_channels=channels)
    model = architecture.build(seed=0)
    adapted = adopt(model, architecture, backbone)
    if not adapted:
        raise BackboneError(
            f"backbone {architecture.name}: timm does not say which layer reads the image, so it cannot be adapted to "
            f"{channels} channels. Use channels=repeat."
        )
    intensity = backbone.intensity.for_channels(channels)
    card = replace(card, in_channels=channels, intensity=intensity, adapted=(*card.adapted, *adapted))
    return Backbone.identified(model, card).train(backbone.training)


def _with_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Input filters (O, I, H, W) for another number of channels, by the rule of timm's `adapt_input_conv` for any I."""
    have = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, math.ceil(channels / have), 1, 1)[:, :channels] * (have / channels)
