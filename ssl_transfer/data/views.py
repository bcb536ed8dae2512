"""Views: random augmentations of whole batches, with separate parameters for each image.

All presets (`presets`) use one pipeline: crop, flip and rotate in one resampling; move the window; jitter colours; blur; add
noise; normalise. Random numbers are counter-based (see `counters`): a view is a function of (seed, epoch, image, view), and does
not depend on the worker or rank that makes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as functional

from ssl_transfer.data.counters import uniforms
from ssl_transfer.data.display import LUMINANCE
from ssl_transfer.data.intensity import Intensity, Scale, match_channels

DRAWS = 20  # random numbers per view
NOISE_TABLE = 2**20  # length of the table of normal numbers


class ViewBatch(NamedTuple):
    """Views of one batch.

    Attributes:
        views: One tensor (B, C, H, W) per view, normalised for the backbone; H and W may differ between views.
        rows: Rows of the images in the training set, int64 (B,).
        labels: Class codes, int64 (B,); several 0/1 labels (B, K); or masks (B, H, W), cropped, rotated and flipped like the
            views. None for methods that need no labels.
    """

    views: list[torch.Tensor]
    rows: torch.Tensor
    labels: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Views:
    """Parameters of the pipeline. With a probability or strength of 0, a step does nothing.

    Attributes:
        size: Height and width of a view in pixels.
        crop_scale: Smallest and largest share of the image's area that a crop covers.
        crop_ratio: Smallest and largest aspect ratio of a crop.
        flip: Probability of a left–right flip.
        flip_vertical: Probability of an up–down flip.
        rotation_degrees: Largest angle of rotation in both directions; uniform.
        window_shift: Largest shift of the window's centre in both directions, as a share of its width; uniform.
        window_stretch: Largest logarithm of the factor on the window's width, in both directions; uniform. On displayed images,
            shift and stretch of the window act as brightness and contrast.
        brightness: Largest offset after windowing, in both directions; uniform.
        contrast: Largest change of the factor 1 on the difference from mid-grey after windowing, in both directions; uniform.
        colour: Strength of saturation and hue jitter (three channels only).
        grey: Probability of removing colour.
        blur_share: Probability of a blur.
        blur_sigma: Largest standard deviation of the blur, in pixels of a 224 px view; uniform from 0.1.
        noise: Largest standard deviation of additive Gaussian noise, in unit intensity; uniform from 0.
        intensity: Window, mean and standard deviation of the backbone's input.
    """

    size: int
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    flip_vertical: float = 0.0
    rotation_degrees: float = 0.0
    window_shift: float = 0.0
    window_stretch: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    colour: float = 0.0
    grey: float = 0.0
    blur_share: float = 0.0
    blur_sigma: float = 0.0
    noise: float = 0.0
    intensity: Intensity

    def make(self, images: torch.Tensor, scale: Scale, draws: np.ndarray) -> torch.Tensor:
        """Make one view of each image.

        Args:
            images: Values of a store, shape (B, C, H, W), any dtype.
            scale: Map from these values to unit intensity.
            draws: Uniform random numbers, shape (B, DRAWS).

        Returns:
            Normalised views, float32, shape (B, C, size, size).
        """
        return self.make_pair(images, None, scale, draws)[0]

    def make_pair(
        self, images: torch.Tensor, masks: torch.Tensor | None, scale: Scale, draws: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Make one view of each image as `make` does, and crop, rotate and flip its mask, int64 (B, H, W), in the same way.

        Returns:
            The views, and the masks (B, size, size), resampled by nearest neighbour.
        """
        draw = iter(torch.from_numpy(draws.T.astype(np.float32)))
        theta, crop_pixels = self._geometry(images.shape[-2], images.shape[-1], draw)
        unit = self._sample(scale.unit(images), theta, crop_pixels)
        if masks is not None:
            grid = _affine_grid(theta.to(masks.device), self.size)
            masks = functional.grid_sample(
                masks[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
            )[:, 0].long()
        draw = iter(torch.stack(list(draw)).to(images.device, non_blocking=True))
        unit = self._window(unit, draw)
        unit = self._colours(unit, draw)
        unit = self._blur(unit, draw)
        unit = self._noise(unit, draw)
        return self.intensity.normalise(unit), masks

    def _geometry(self, height: int, width: int, draw) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw crop, flips and rotation.

        They are drawn on the CPU: on a GPU, resampling would have to wait for the size of the largest crop.

        Returns:
            An affine map per image (B, 2, 3), and the shorter side of its crop in pixels (B,).
        """
        low, high = self.crop_scale
        area = low + (high - low) * next(draw)
        log_low, log_high = (math.log(r) for r in self.crop_ratio)
        ratio = torch.exp(log_low + (log_high - log_low) * next(draw))
        share_x = (area * ratio * height / width).sqrt().clamp(max=1)  # of the image's width
        share_y = (area / ratio * width / height).sqrt().clamp(max=1)
        centre_x = (1 - share_x) * (2 * next(draw) - 1)
        centre_y = (1 - share_y) * (2 * next(draw) - 1)
        sign_x = torch.where(next(draw) < self.flip, -1.0, 1.0)
        sign_y = torch.where(next(draw) < self.flip_vertical, -1.0, 1.0)
        angle = math.radians(self.rotation_degrees) * (2 * next(draw) - 1)
        cos, sin, aspect = angle.cos(), angle.sin(), height / width
        theta = torch.stack(
            [
                torch.stack([cos * share_x * sign_x, -sin * share_y * sign_y * aspect, centre_x], 1),
                torch.stack([sin * share_x * sign_x / aspect, cos * share_y * sign_y, centre_y], 1),
            ],
            1,
        )
        return theta, torch.minimum(share_x * width, share_y * height)

    def _sample(self, unit: torch.Tensor, theta: torch.Tensor, crop_pixels: torch.Tensor) -> torch.Tensor:
        """Resample by `theta`. A crop whose side is 2^n times that of a view is first averaged n times, to prevent aliasing."""
        levels = (crop_pixels / self.size).log2().floor().clamp(min=0).long()
        deepest = int(levels.max())
        views = unit.new_empty((len(unit), unit.shape[1], self.size, self.size))
        for level in range(deepest + 1):
            if level:
                unit = functional.avg_pool2d(unit, 2)
            rows = None if deepest == 0 else torch.nonzero(levels == level)[:, 0]
            part = (theta if rows is None else theta[rows]).to(unit.device, non_blocking=True)
            if len(part) == 0:
                continue
            chosen = slice(None) if rows is None else rows.to(unit.device, non_blocking=True)
            views[chosen] = functional.grid_sample(
                unit[chosen],
                _affine_grid(part, self.size),
                mode="bilinear",
                padding_mode="reflection",
                align_corners=False,
            )
        return views

    def _window(self, unit: torch.Tensor, draw) -> torch.Tensor:
        """Move and stretch the window, clip to it, then jitter brightness and contrast inside it."""
        shift = self.window_shift * (2 * next(draw) - 1)
        stretch = torch.exp(self.window_stretch * (2 * next(draw) - 1))
        brightness = self.brightness * (2 * next(draw) - 1)
        contrast = 1 + self.contrast * (2 * next(draw) - 1)
        unit = ((unit - _each(0.5 + shift)) / _each(stretch)).add_(0.5).clamp_(0, 1)
        if self.brightness or self.contrast:
            unit = (unit - 0.5).mul_(_each(contrast)).add_(_each(0.5 + brightness)).clamp_(0, 1)
        return unit

    def _colours(self, unit: torch.Tensor, draw) -> torch.Tensor:
        """Saturation, hue and grey of three-channel images, with the probabilities of SimCLR."""
        drawn = [next(draw) for _ in range(4)]
        if unit.shape[1] != 3 or not (self.colour or self.grey):
            return unit
        jittered = drawn[0] < 0.8
        luminance = (unit * unit.new_tensor(LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)
        saturation = torch.where(jittered, 1 + 0.8 * self.colour * (2 * drawn[1] - 1), 1.0)
        unit = luminance + (unit - luminance) * _each(saturation)
        turn = torch.where(jittered, 0.2 * self.colour * (2 * drawn[2] - 1), 0.0)  # share of the colour circle
        unit = torch.einsum("bij,bjhw->bihw", _hue_rotation(2 * math.pi * turn), unit)
        return torch.where(_each(drawn[3] < self.grey), luminance, unit).clamp_(0, 1)

    def _blur(self, unit: torch.Tensor, draw) -> torch.Tensor:
        """Separable Gaussian blur, each image with its sigma (or none), as a sum of shifted images."""
        blurred, position = next(draw) < self.blur_share, next(draw)
        largest = self.blur_sigma * self.size / 224
        radius = math.ceil(2 * largest)
        if not self.blur_share or radius == 0:
            return unit
        sigma = torch.where(blurred, 0.1 + (largest - 0.1) * position, 0.0).clamp(min=1e-3)
        offsets = torch.arange(-radius, radius + 1, device=unit.device)
        kernel = torch.exp(-0.5 * (offsets[None] / sigma[:, None]) ** 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).T
        side = unit.shape[-1]
        for axis in (2, 3):
            pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
            padded = functional.pad(unit, pad, mode="reflect")
            unit = torch.zeros_like(unit)
            for i, weight in enumerate(kernel):
                unit.addcmul_(_each(weight), padded.narrow(axis, i, side))
        return unit

    def _noise(self, unit: torch.Tensor, draw) -> torch.Tensor:
        """Add noise: each image reads a fixed table of normal numbers from a random offset."""
        sigma, offset = self.noise * next(draw), next(draw)
        if not self.noise:
            return unit
        pixels = unit[0].numel()
        table = _normal_table(unit.device, max(NOISE_TABLE, 4 * pixels))
        starts = (offset.double() * (len(table) - pixels)).long()
        noise = table.unfold(0, pixels, 1)[starts]
        return noise.view_as(unit).mul_(_each(sigma)).add_(unit)


class ViewMaker:
    """Makes the views of a training batch from a store's values.

    Args:
        presets: Preset of each view.
        scale: Map from the values of the store to unit intensity.
        seed: Seed of the run.
        channels: Number of channels that the backbone reads.
    """

    def __init__(self, presets: Sequence[Views], scale: Scale, seed: int, channels: int):
        self.presets, self.scale, self.seed, self.channels = presets, scale, seed, channels

    def __call__(self, images: torch.Tensor, rows: np.ndarray, epoch: int | np.ndarray) -> list[torch.Tensor]:
        """Views of images (B, C, H, W), which are the rows `rows` (B,) of the training set: one tensor per preset."""
        images = match_channels(images, self.channels)
        return [
            preset.make(images, self.scale, uniforms(self.seed, epoch, rows, view, DRAWS))
            for view, preset in enumerate(self.presets)
        ]

    def pair(
        self, images: torch.Tensor, masks: torch.Tensor, rows: np.ndarray, epoch: int | np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Views by the first preset, and the masks (B, H, W), cropped, rotated and flipped in the same way."""
        draws = uniforms(self.seed, epoch, rows, 0, DRAWS)
        return self.presets[0].make_pair(match_channels(images, self.channels), masks, self.scale, draws)


def _each(values: torch.Tensor) -> torch.Tensor:
    """Reshape a number per image (B,) so that it broadcasts over a batch (B, C, H, W)."""
    return values.view(-1, 1, 1, 1)


def _affine_grid(theta: torch.Tensor, size: int) -> torch.Tensor:
    """torch's `affine_grid` for square views, (B, size, size, 2), computed as sums of rows and columns: several times faster."""
    centres = (torch.arange(size, device=theta.device) * 2 + 1) / size - 1
    grid = theta.new_empty((len(theta), size, size, 2))
    for i in (0, 1):
        along_x = theta[:, i, 0, None] * centres
        along_y = theta[:, i, 1, None] * centres + theta[:, i, 2, None]
        torch.add(along_x[:, None, :], along_y[:, :, None], out=grid[..., i])
    return grid


def _hue_rotation(angle: torch.Tensor) -> torch.Tensor:
    """Rotation of RGB about the grey axis by `angle` (B,), shape (B, 3, 3) (Rodrigues' formula)."""
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    axis = 1 / math.sqrt(3)
    cross = angle.new_tensor([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]])
    return cos * torch.eye(3, device=angle.device) + sin * cross + (1 - cos) / 3


@cache
def _normal_table(device: torch.device, length: int) -> torch.Tensor:
    table = np.random.default_rng(0).standard_normal(length, np.float32)
    return torch.from_numpy(table).to(device)
