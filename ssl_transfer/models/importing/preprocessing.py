"""Mean and standard deviation of the input of imported weights: who states them, and in which unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ssl_transfer.data.display import SOFT_TISSUE_HU
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError
from ssl_transfer.models.importing.checkpoint import Checkpoint
from ssl_transfer.models.importing.layout import Layout, Tensors

PREPROCESSOR = "data_preprocessor."  # of mmpretrain: mean and std in 0–255


class Stated(NamedTuple):
    """Mean and standard deviation in unit intensity, and who states them."""

    mean: Sequence[float]
    std: Sequence[float]
    source: str


def intensity_of(
    checkpoint: Checkpoint,
    tensors: Tensors,
    layout: Layout,
    channels: int,
    *,
    window: Sequence[float] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[Intensity, str]:
    """The intensity normalisation of imported weights, and where its mean and standard deviation come from, in words.

    Args:
        checkpoint: The checkpoint.
        tensors: Its state dict.
        layout: Its layout.
        channels: Number of input channels.
        window: HU that become 0 and 1; None: soft tissue.
        mean: Mean of each channel after scaling to 0 to 1; None: that of the checkpoint or layout.
        std: Standard deviation of each channel, likewise.

    Raises:
        BackboneError: If the number of values does not fit the channels, or a value is impossible.
    """
    stated = _of_checkpoint(checkpoint, tensors) or _of_layout(checkpoint, layout)
    if mean is not None and std is not None:
        source = "--mean and --std"
    elif mean is not None or std is not None:
        source = f"{'--mean' if mean is not None else '--std'}; the other: {stated.source}"
    else:
        source = stated.source
    values = [
        _per_channel(name, option or default, channels)
        for name, option, default in (("mean", mean, stated.mean), ("std", std, stated.std))
    ]
    if min(values[1]) <= 0:
        raise BackboneError(f"{source}: std {min(values[1]):g}, expected values above 0. Give --mean and --std.")
    low, high = window or SOFT_TISSUE_HU
    return Intensity(window_hu=(float(low), float(high)), mean=values[0], std=values[1]), source


def _of_checkpoint(checkpoint: Checkpoint, tensors: Tensors) -> Stated | None:
    """What the checkpoint or the files beside it state; None if they state nothing."""
    values = [tensors.get(f"{PREPROCESSOR}{name}") for name in ("mean", "std")]
    if all(value is not None for value in values):
        mean, std = (torch.as_tensor(value).double().flatten().div(255).tolist() for value in values)
        return Stated(mean, std, "data_preprocessor of the checkpoint, divided by 255")
    settings = checkpoint.preprocessor
    if isinstance(settings.get("image_mean"), list) and isinstance(settings.get("image_std"), list):
        if settings.get("do_normalize", True):
            return Stated(settings["image_mean"], settings["image_std"], "preprocessor_config.json")
        return Stated((0.0,) * 3, (1.0,) * 3, "preprocessor_config.json, which does not normalise")
    config = checkpoint.config.get("pretrained_cfg")
    config = config if isinstance(config, dict) else checkpoint.config
    preprocess = checkpoint.config.get("preprocess_cfg")  # of OpenCLIP
    for settings in (config, preprocess if isinstance(preprocess, dict) else {}):
        if isinstance(settings.get("mean"), list) and isinstance(settings.get("std"), list):
            return Stated(settings["mean"], settings["std"], "config.json")
    return None


def _of_layout(checkpoint: Checkpoint, layout: Layout) -> Stated:
    for pattern, (mean, std) in layout.intensity_of_files.items():
        if re.fullmatch(pattern, checkpoint.path.name.lower()):
            return Stated(mean, std, f"layout {layout.name}, by the name of the file")
    return Stated(*layout.intensity, f"default of the layout {layout.name}")


def _per_channel(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value per channel: repeated if there is one, averaged if the backbone has one channel.

    Raises:
        BackboneError: If there are as many as channels in no way.
    """
    values = tuple(float(value) for value in values)
    if len(values) == channels:
        return values
    if len(values) == 1:
        return values * channels
    if channels == 1:
        return (sum(values) / len(values),)
    raise BackboneError(
        f"--{name}: found {len(values)} values for {channels} input channels. Give {channels} values, or 1."
    )
