"""The check of every export: the library that it is for computes the same features from it."""

from __future__ import annotations

from pathlib import Path

import torch

from ssl_transfer.errors import BackboneError
from ssl_transfer.export.home import Home
from ssl_transfer.models.architecture import brief
from ssl_transfer.models.backbone import Backbone

TOLERANCE = 1e-4  # of the largest feature, or of 1 if that is larger
IMAGES = 3


def assert_agreement(home: Home, backbone: Backbone, folder: Path) -> float:
    """Compare features of random images.

    Args:
        home: The library.
        backbone: The exported backbone.
        folder: The exported folder.

    Returns:
        The largest difference of a feature.

    Raises:
        BackboneError: If the library cannot load the folder, or a feature differs by more than `TOLERANCE`.
    """
    card = backbone.card
    shape = (IMAGES, card.in_channels, card.image_size, card.image_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = backbone.eval()(images)
        try:
            found = home.features(folder, images)
        except Exception as error:  # of the library
            raise BackboneError(f"{card.name}: {home.title} cannot load this export: {brief(error)}") from None
    if found.shape != expected.shape:
        raise BackboneError(
            f"{card.name}: not exported: {home.title} gives features of shape {tuple(found.shape)}, this backbone "
            f"{tuple(expected.shape)}. Take --to timm or --to onnx."
        )
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise BackboneError(
            f"{card.name}: not exported: {home.title} computes other features, by up to {difference:.2g} (images of "
            f"{card.image_size} px, options {card.options}). Its layers differ in padding, pooling or activation. "
            "Take --to timm or --to onnx."
        )
    return difference
