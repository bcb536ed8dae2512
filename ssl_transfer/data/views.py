"""Views: random augmentations of whole batches, with separate parameters for each image.

All presets (`presets`) use one pipeline: crop, flip and rotate in one resampling; move the window; multiply by a bias field
and speckle; raise to a power; jitter colours or stains; blur; add noise; normalise. Random numbers are counter-based (see
`counters`): a view is a function of (seed, epoch, image, view), and does not depend on the worker or rank that makes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as functional

from ssl_transfer.channels import InputChannels
from ssl_transfer.data.counters import uniforms
from ssl_transfer.data.intensity import Intensity, Scale, match_channels
from ssl_transfer.data.positives import Positive
from ssl_transfer.data.transfer import to_device, to_device_together
from ssl_transfer.data.view_steps import BIAS_TERMS, HED, steps_for

DRAWS = 37  # random numbers per view
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
        rotation_step: Angles are rounded to multiples of this, in degrees; 0: any angle.
        window_shift: Largest shift of the window's centre in both directions, as a share of its width; uniform.
        window_stretch: Largest logarithm of the factor on the window's width, in both directions; uniform. On displayed images,
            shift and stretch of the window act as brightness and contrast.
        bias_field: Largest coefficient of the logarithm of a smooth factor, a polynomial of order 3; uniform.
        speckle: Largest standard deviation of multiplicative Gaussian noise; uniform from 0.
        gamma: Largest logarithm of the exponent of the intensity, in both directions; uniform.
        brightness: Largest offset after windowing, in both directions; uniform.
        contrast: Largest change of the factor 1 on the difference from mid-grey after windowing, in both directions; uniform.
        colour: Strength of saturation and hue jitter (three channels only).
        grey: Probability of removing colour.
        stain: Largest change of the factor 1 on the amount of each stain, and largest offset of it in optical density (natural
            logarithm), in both directions; uniform (three channels only).
        blur_share: Probability of a blur.
        blur_sigma: Largest standard deviation of the blur, in pixels of a 224 px view; uniform from 0.1.
        noise: Largest standard deviation of additive Gaussian noise, in unit intensity; uniform from 0.
        positive: Which image all views but the first are made of: the `same`, or a partner (see `positives.Partners`).
        positive_mm: Largest distance of a partner of `slice`, in mm; None: the next slices.
        intensity: Window, mean and standard deviation of the backbone's input.
    """

    size: int
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    flip_vertical: float = 0.0
    rotation_degrees: float = 0.0
    rotation_step: float = 0.0
    window_shift: float = 0.0
    window_stretch: float = 0.0
    bias_field: float = 0.0
    speckle: float = 0.0
    gamma: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    colour: float = 0.0
    grey: float = 0.0
    stain: float = 0.0
    blur_share: float = 0.0
    blur_sigma: float = 0.0
    noise: float = 0.0
    positive: Positive = "same"
    positive_mm: float | None = None
    intensity: Intensity

    def for_input(self, intensity: Intensity, channels: InputChannels) -> Views:
        """This preset for the input of a backbone: its normalisation, and no colours to jitter in slices and windows."""
        colourless = dict.fromkeys(("colour", "grey", "stain"), 0.0) if channels.are_stated else {}
        return replace(self, intensity=intensity, **colourless)

    def make(self, images: torch.Tensor, scale: Scale, draws: np.ndarray) -> torch.Tensor:
        """Make one view of each image.

        Args:
            images: Values of a store, shape (B, C, H, W), any dtype.
            scale: Map from these values to unit intensity, or several (K) maps, which are jittered alike.
            draws: Uniform random numbers, shape (B, DRAWS).

        Returns:
            Normalised views, float32, shape (B, C · K, size, size).
        """
        return self.make_pair(images, None, scale, draws)[0]

    def make_pair(
        self, images: torch.Tensor, masks: torch.Tensor | None, scale: Scale, draws: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Make one view of each image as `make` does, and crop, rotate and flip its mask, int64 (B, H, W), in the same way.

        Returns:
            The views, and the masks (B, size, size), resampled by nearest neighbour.
        """
        draw, device = iter(torch.from_numpy(draws.T.astype(np.float32))), images.device
        theta, crop_pixels = self._geometry(images.shape[-2], images.shape[-1], draw)
        steps = steps_for(device)
        values, scale = steps.values(images, scale)
        look, noise_offset, speckle_offset = self._look(images.shape[1], scale, draw)
        drawn = to_device_together({"theta": theta, **look}, device)
        values = self._sample(values, drawn["theta"], crop_pixels)
        if masks is not None:
            grid = _affine_grid(drawn["theta"], self.size)
            masks = functional.grid_sample(
                masks[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
            )[:, 0].long()
        unit = steps.window(values, drawn["centre"], drawn["width"])
        if "bias" in drawn:
            unit = steps.bias_field(unit, drawn["bias"])
        if "speckle" in drawn:
            unit = steps.noise(unit, _normal_numbers(unit, speckle_offset) * unit, drawn["speckle"]).clamp_(0, 1)
        if "gamma" in drawn:
            unit = steps.gamma(unit, drawn["gamma"])
        if self.brightness or self.contrast:
            unit = steps.contrast(unit, drawn["brightness"], drawn["contrast"])
        if "rotation" in drawn:
            unit = steps.colours(unit, drawn["saturation"], drawn["rotation"], drawn["grey"])
        if "stain_matrix" in drawn:
            unit = steps.stain(unit, drawn["stain_matrix"], drawn["stain_offset"])
        if "kernel" in drawn:
            unit = steps.blur(unit, drawn["kernel"])
        if self.noise:
            unit = steps.noise(unit, _normal_numbers(unit, noise_offset), drawn["noise"])
        return steps.normalise(unit, self.intensity), masks

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
        if self.rotation_step:
            step = math.radians(self.rotation_step)
            angle = step * (angle / step).round()
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
        if deepest == 0:
            return _resampled(unit, _affine_grid(theta, self.size))
        views = unit.new_empty((len(unit), unit.shape[1], self.size, self.size))
        for level in range(deepest + 1):
            if level:
                unit = functional.avg_pool2d(unit, 2)
            rows = torch.nonzero(levels == level)[:, 0]
            if len(rows):
                rows = to_device(rows, unit.device)
                views[rows] = _resampled(unit[rows], _affine_grid(theta[rows], self.size))
        return views

    def _look(self, channels: int, scale: Scale, draw) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Draw window, brightness, contrast, colours, blur, noise, and what is of single modalities.

        Returns:
            Parameters of `view_steps` by name, (B, …), on the CPU; and the offsets of noise and speckle as shares of their table,
            (B,).
        """
        low, high = torch.tensor(scale.windows).T
        centre = 0.5 + self.window_shift * (2 * next(draw) - 1)
        width = torch.exp(self.window_stretch * (2 * next(draw) - 1))
        look = {
            "centre": centre[:, None] * (high - low) + low,
            "width": width[:, None] * (high - low),
            "brightness": self.brightness * (2 * next(draw) - 1),
            "contrast": 1 + self.contrast * (2 * next(draw) - 1),
        }
        jitters, saturation, hue, grey = (next(draw) for _ in range(4))
        if channels == 3 and (self.colour or self.grey):  # with the probabilities of SimCLR
            jitters = jitters < 0.8
            turn = torch.where(jitters, 0.2 * self.colour * (2 * hue - 1), 0.0)  # share of the colour circle
            look["saturation"] = torch.where(jitters, 1 + 0.8 * self.colour * (2 * saturation - 1), 1.0)
            look["rotation"] = _hue_rotation(2 * math.pi * turn)
            look["grey"] = grey < self.grey
        blurred, position = next(draw) < self.blur_share, next(draw)
        largest = self.blur_sigma * self.size / 224
        radius = math.ceil(2 * largest)
        if self.blur_share and radius:
            sigma = torch.where(blurred, 0.1 + (largest - 0.1) * position, 0.0).clamp(min=1e-3)
            kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1)[None] / sigma[:, None]) ** 2)
            look["kernel"] = kernel / kernel.sum(1, keepdim=True)
        look["noise"], noise_offset = self.noise * next(draw), next(draw)
        return {**look, **self._look_of_modality(channels, draw)}, noise_offset, next(draw)

    def _look_of_modality(self, channels: int, draw) -> dict[str, torch.Tensor]:
        """Draw gamma, speckle, bias field and stains; returns those that the preset has."""
        drawn = {"gamma": torch.exp(self.gamma * (2 * next(draw) - 1)), "speckle": self.speckle * next(draw)}
        drawn["bias"] = self.bias_field * (2 * torch.stack([next(draw) for _ in BIAS_TERMS], 1) - 1)
        factors, offsets = (self.stain * (2 * torch.stack([next(draw) for _ in HED], 1) - 1) for _ in range(2))
        drawn["stain_matrix"], drawn["stain_offset"] = _stain_change(1 + factors, offsets)
        stain = self.stain if channels == 3 else 0.0
        strengths = (self.gamma, self.speckle, self.bias_field, stain, stain)
        return {name: drawn[name] for name, strength in zip(drawn, strengths, strict=True) if strength}


class ViewMaker:
    """Makes the views of a training batch from a store's values.

    Args:
        presets: Preset of each view.
        scale: Map from the values of the store to unit intensity, or several.
        seed: Seed of the run.
        channels: Number of channels that the backbone reads.
    """

    def __init__(self, presets: Sequence[Views], scale: Scale, seed: int, channels: int):
        self.presets, self.scale, self.seed, self.channels = presets, scale, seed, channels

    def __call__(
        self, images: torch.Tensor, rows: np.ndarray, epoch: int | np.ndarray, partners: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Views of images (B, C, H, W), which are the rows `rows` (B,) of the training set: one tensor per preset.

        The first view is of the images, all others are of their partners, if there are any.
        """
        images = self.matched(images)
        others = images if partners is None else self.matched(partners)
        return [
            preset.make(others if view else images, self.scale, uniforms(self.seed, epoch, rows, view, DRAWS))
            for view, preset in enumerate(self.presets)
        ]

    def pair(
        self, images: torch.Tensor, masks: torch.Tensor, rows: np.ndarray, epoch: int | np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Views by the first preset, and the masks (B, H, W), cropped, rotated and flipped in the same way."""
        draws = uniforms(self.seed, epoch, rows, 0, DRAWS)
        return self.presets[0].make_pair(self.matched(images), masks, self.scale, draws)

    def matched(self, images: torch.Tensor) -> torch.Tensor:
        """Images of a store in so many channels that their unit intensities have those of the backbone."""
        return match_channels(images, self.channels // len(self.scale.windows))


def _resampled(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _affine_grid(theta: torch.Tensor, size: int) -> torch.Tensor:
    """torch's `affine_grid` for square views, (B, size, size, 2), computed as sums of rows and columns: several times faster."""
    centres = _centres(size, theta.device)
    grid = theta.new_empty((len(theta), size, size, 2))
    for i in (0, 1):
        along_x = theta[:, i, 0, None] * centres
        along_y = theta[:, i, 1, None] * centres + theta[:, i, 2, None]
        torch.add(along_x[:, None, :], along_y[:, :, None], out=grid[..., i])
    return grid


@cache
def _centres(size: int, device: torch.device) -> torch.Tensor:
    """Centres of pixels in the coordinates of `grid_sample`, from −1 to 1."""
    with torch.inference_mode(False):
        return ((torch.arange(size) * 2 + 1) / size - 1).to(device)


def _hue_rotation(angle: torch.Tensor) -> torch.Tensor:
    """Rotation of RGB about the grey axis by `angle` (B,), shape (B, 3, 3) (Rodrigues' formula)."""
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    axis = 1 / math.sqrt(3)
    cross = torch.tensor([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]])
    return cos * torch.eye(3) + sin * cross + (1 - cos) / 3


def _stain_change(factors: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors and offsets (B, 3) of the stains as a map of the optical density of RGB: matrices (B, 3, 3), offsets (B, 3)."""
    stains = torch.tensor(HED)  # a row is the optical density of one stain in R, G and B
    return (stains.T * factors[:, None]) @ torch.linalg.inv(stains.T), offsets @ stains


def _normal_numbers(unit: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Normal numbers for images (B, C, H, W): each reads a fixed table from its offset, a share of the table, on the CPU."""
    pixels = unit[0].numel()
    table = _normal_table(unit.device, max(NOISE_TABLE, 4 * pixels))
    starts = to_device((offset.double() * (len(table) - pixels)).long(), unit.device)
    return table.unfold(0, pixels, 1)[starts].view_as(unit)


@cache
def _normal_table(device: torch.device, length: int) -> torch.Tensor:
    table = np.random.default_rng(0).standard_normal(length, np.float32)
    return torch.from_numpy(table).to(device)
