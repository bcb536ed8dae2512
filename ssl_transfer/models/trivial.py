"""Trivial features: statistics of an image that need no network, the control that a pretraining has to beat.

A target that a linear probe solves on them says nothing about pretrainings: the grey level of the air around a body may give its
region away.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import nn

from ssl_transfer.cards import TRIVIAL, TRIVIAL_NAME, BackboneCard
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BINS = 16  # of the histogram, over unit intensity
THUMBNAIL = 8  # height and width, in cells
CORNER_SHARE = 16  # a corner is a sixteenth of the height and width, at least a pixel
PER_CHANNEL = 4 + len(PERCENTILES) + BINS + THUMBNAIL**2  # 91


class TrivialFeatures(nn.Module):
    """Corner means, percentiles, histogram and thumbnail of each channel; it has no weights.

    Args:
        height: Height of the images before they were padded to a square, in pixels.
        width: Their width.

    Example:
        >>> TrivialFeatures(64, 64)(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 91])
    """

    def __init__(self, height: int, width: int):
        super().__init__()
        self.height, self.width = height, width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images in unit intensity (B, C, S, S) to features (B, 91 · C), those of the first channel first.

        Of each channel: the means of the corners (upper left, upper right, lower left, lower right), the percentiles
        `PERCENTILES` (linear interpolation), the share of the pixels in each of `BINS` equal bins of [0, 1], and the means of
        8 × 8 cells, row by row. The margin that squared an image is left out.
        """
        return self._features(self._without_margin(images.float()))

    @staticmethod
    def _features(images: torch.Tensor) -> torch.Tensor:
        parts = (_corner_means(images), _percentiles(images), _histogram(images), _thumbnail(images))
        return torch.cat(parts, 2).flatten(1)

    def _without_margin(self, images: torch.Tensor) -> torch.Tensor:
        size, longer = images.shape[-1], max(self.height, self.width)
        height, width = (max(1, round(size * side / longer)) for side in (self.height, self.width))
        top, left = (size - height) // 2, (size - width) // 2
        return images[..., top : top + height, left : left + width]


def _corner_means(images: torch.Tensor) -> torch.Tensor:
    high, wide = (max(1, side // CORNER_SHARE) for side in images.shape[-2:])
    sides = [
        (rows, columns) for rows in (slice(high), slice(-high, None)) for columns in (slice(wide), slice(-wide, None))
    ]
    return torch.stack([images[..., rows, columns].mean((2, 3)) for rows, columns in sides], 2)


def _percentiles(images: torch.Tensor) -> torch.Tensor:
    ordered = images.flatten(2).sort(2).values  # `torch.quantile` refuses more than 16 million values
    position = torch.tensor(PERCENTILES, device=images.device) / 100 * (ordered.shape[2] - 1)
    below, above = position.floor().long(), position.ceil().long()
    return torch.lerp(ordered[..., below], ordered[..., above], position - below)


def _histogram(images: torch.Tensor) -> torch.Tensor:
    pixels = images.flatten(2)
    bins = (pixels * BINS).long().clamp(0, BINS - 1)
    counts = pixels.new_zeros((*pixels.shape[:2], BINS)).scatter_add(2, bins, torch.ones_like(pixels))
    return counts / pixels.shape[2]


def _thumbnail(images: torch.Tensor) -> torch.Tensor:
    return functional.adaptive_avg_pool2d(images, THUMBNAIL).flatten(2)


def is_trivial(spec: str) -> bool:
    """Whether a backbone's spec is `trivial` or `trivial,seed=N`."""
    return spec.partition(",")[0] == TRIVIAL


def trivial_card(spec: str, shape: tuple[int, int, int]) -> BackboneCard:
    """The card of trivial features: no pretraining, no source domain.

    Args:
        spec: `trivial`, or `trivial,seed=N`: evaluations draw label subsets as for the pretraining seed N.
        shape: (C, H, W) of the images.

    Raises:
        BackboneError: If the spec has another setting, or the seed is not a whole number.
    """
    _, *settings = spec.split(",")
    key, _, text = settings[0].partition("=") if settings else ("seed", "", "")
    if len(settings) > 1 or key != "seed" or (settings and not text.isdecimal()):
        raise BackboneError(f"{spec}: expected {TRIVIAL}, or {TRIVIAL},seed=N with a whole number N.")
    channels, height, width = shape
    return BackboneCard(
        name=TRIVIAL_NAME,
        architecture=TRIVIAL,
        in_channels=channels,
        image_size=max(height, width),
        stem="standard",
        options={"height": height, "width": width},
        feature_dim=PER_CHANNEL * channels,
        intensity=Intensity(mean=(0.0,) * channels, std=(1.0,) * channels),
        method=TRIVIAL,
        pretraining_seed=int(text) if settings else None,
        licence="none: computed from pixels",
    )
