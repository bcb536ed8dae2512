"""Views: random versions of whole batches, with parameters of each image's own.

A preset (`VIEWS`) is a function whose signature declares its options. All presets are one pipeline: crop, flip and
rotate in one resampling; move the window; jitter colour; blur; add noise; normalise. Randomness is drawn by counter
(see `counters`), so a view belongs to (seed, epoch, image, view) and not to a worker or a rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as functional

from ssl_transfer.data.counters import uniforms
from ssl_transfer.data.intensity import LUMINANCE, SOFT_TISSUE_HU, Intensity, Scale, match_channels
from ssl_transfer.errors import RecipeError

DRAWS = 20
NOISE_TABLE = 2**20


class ViewBatch(NamedTuple):
    """Views of one batch.

    Attributes:
        views: One tensor (B, C, H, W) per view, normalised as the backbone reads it; H and W may differ between views.
        rows: Which images, int64 (B,), as the pool counts them.
        labels: Where they are learnt from: class codes, int64 (B,); several 0/1 labels (B, K); or masks (B, H, W) that were
            cut, turned and flipped as the views.
    """

    views: list[torch.Tensor]
    rows: torch.Tensor
    labels: torch.Tensor | None = None


@dataclass(frozen=True)
class Views:
    """The pipeline's parameters. Shares and strengths are 0 for a step that does nothing.

    Attributes:
        size: Height and width of a view, pixels.
        crop_scale: Smallest and largest share of the image's area that a crop covers.
        flip: Probability of a left–right flip; `flip_vertical` of an up–down flip.
        rotation_degrees: Rotation is uniform in ± this.
        window_hu: HU that become 0 and 1 before jitter (CT in HU only).
        window_shift: The window's centre moves by ± this share of its width.
        window_stretch: Its width is multiplied by exp(± this). On displayed images the same two are brightness and contrast.
        brightness: After windowing, ± this is added; `contrast`: multiplied by 1 ± this.
        colour: Strength of saturation and hue jitter (three channels only).
        grey: Probability of dropping colour.
        blur_share: Probability of blurring; sigma is uniform in 0.1 … `blur_sigma` (pixels at 224).
        noise: Largest sigma of additive Gaussian noise, unit intensity; drawn uniformly from 0.
        intensity: Mean and spread that the backbone reads.
    """

    size: int
    crop_scale: tuple[float, float]
    flip: float
    flip_vertical: float
    rotation_degrees: float
    window_hu: tuple[float, float]
    window_shift: float
    window_stretch: float
    brightness: float
    contrast: float
    colour: float
    grey: float
    blur_share: float
    blur_sigma: float
    noise: float
    intensity: Intensity
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def make(self, images: torch.Tensor, scale: Scale, draws: np.ndarray) -> torch.Tensor:
        """Make one view of each image.

        Args:
            images: A store's values, shape (B, C, H, W), any dtype.
            scale: Map to unit intensity.
            draws: Uniform numbers, shape (B, DRAWS).

        Returns:
            Float32, shape (B, C, size, size), normalised.
        """
        return self.make_pair(images, None, scale, draws)[0]

    def make_pair(
        self, images: torch.Tensor, masks: torch.Tensor | None, scale: Scale, draws: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Make one view of each image as `make` does, and cut its mask, int64 (B, H, W), at the same places.

        Returns:
            The views, and the masks' class ids (B, size, size), each that of the nearest pixel.
        """
        draw = iter(torch.from_numpy(draws.T.astype(np.float32)))
        theta, crop_pixels = self._geometry(*images.shape[-2:], draw)
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
        """Random resized crop, flips and rotation as one affine map of each image (B, 2, 3), and the pixels of the crops' shorter
        sides; planned on the CPU, or resampling would wait for the GPU to learn how often to average.
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
        """Resample by `theta`; a crop with 2^n times the pixels of a view is first averaged n times, against aliasing."""
        levels = (crop_pixels / self.size).log2().floor().clamp(min=0).long()
        deepest = int(levels.max())
        views = unit.new_empty((len(unit), unit.shape[1], self.size, self.size))
        for level in range(deepest + 1):
            if level:
                unit = functional.avg_pool2d(unit, 2)
            chosen = slice(None) if deepest == 0 else torch.nonzero(levels == level)[:, 0]
            part = theta[chosen].to(unit.device, non_blocking=True)
            if len(part) == 0:
                continue
            if deepest:
                chosen = chosen.to(unit.device, non_blocking=True)
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
        blurred, spread = next(draw) < self.blur_share, next(draw)
        largest = self.blur_sigma * self.size / 224
        radius = math.ceil(2 * largest)
        if not self.blur_share or radius == 0:
            return unit
        sigma = torch.where(blurred, 0.1 + (largest - 0.1) * spread, 0.0).clamp(min=1e-3)
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
        """Add noise: each image reads a fixed table of normal numbers from an offset of its own."""
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
        presets: One per view.
        scale: Of the store.
        seed: Of the run.
        channels: That the backbone reads.
    """

    def __init__(self, presets: Sequence[Views], scale: Scale, seed: int, channels: int):
        self.presets, self.scale, self.seed, self.channels = presets, scale, seed, channels

    def __call__(self, images: torch.Tensor, rows: np.ndarray, epoch: int | np.ndarray) -> list[torch.Tensor]:
        """Views of images (B, C, H, W) that are called `rows` (B,): one tensor per preset."""
        images = match_channels(images, self.channels)
        return [
            preset.make(images, self.scale, uniforms(self.seed, epoch, rows, view, DRAWS))
            for view, preset in enumerate(self.presets)
        ]

    def pair(
        self, images: torch.Tensor, masks: torch.Tensor, rows: np.ndarray, epoch: int | np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The first preset's views, and the masks (B, H, W) cut as they are."""
        draws = uniforms(self.seed, epoch, rows, 0, DRAWS)
        return self.presets[0].make_pair(match_channels(images, self.channels), masks, self.scale, draws)


def ct(
    size: int,
    channels: int,
    units: str,
    *,
    window_hu: tuple[float, float] = SOFT_TISSUE_HU,
    crop_scale: tuple[float, float] = (0.3, 1.0),
    flip: float = 0.5,
    rotation_degrees: float = 15.0,
    window_shift: float = 0.2,
    window_stretch: float = 0.4,
    brightness: float = 0.1,
    contrast: float = 0.2,
    blur_share: float = 0.5,
    blur_sigma: float = 2.0,
    noise: float = 0.05,
) -> Views:
    """Grey radiology: no colour, no hue; the window moves in HU, or as brightness and contrast of equal strength.

    Args:
        size: Height and width of a view in pixels.
        channels: Channels that the backbone reads.
        units: Units of the store's pixels, as in its card.
        window_hu: Lower and upper end in HU; they become 0 and 1 before the jitter. Default: soft tissue, width 400,
            level 40.
        crop_scale: Smallest and largest share of the image's area that a crop covers. This project's choice: slices
            must keep their organ; SimCLR has 0.08 for photographs (2002.05709, appendix A).
        flip: Probability of a left–right flip. SimCLR: 0.5 (2002.05709, appendix A).
        rotation_degrees: Largest angle in degrees, in both directions; uniform. This project's choice.
        window_shift: Largest shift of the window's centre, as a share of its width; uniform. This project's choice.
        window_stretch: The window's width is multiplied by exp(± up to this). This project's choice.
        brightness: Largest offset after windowing, in unit intensity. This project's choice.
        contrast: Contrast after windowing is multiplied by 1 ± up to this. This project's choice.
        blur_share: Probability of a Gaussian blur. SimCLR: 0.5 (2002.05709, appendix A).
        blur_sigma: Largest standard deviation of the blur, in pixels of a 224 px view; the smallest is 0.1. SimCLR: 2
            (2002.05709, appendix A).
        noise: Largest standard deviation of additive Gaussian noise, in unit intensity; uniform from 0. This project's
            choice.
    """
    if units == "rgb":
        raise RecipeError(
            "data.views: the ct preset reads one-channel intensities, and this store is RGB. Use views: natural or "
            "microscopy, or ingest again with --channels 1."
        )
    return Views(
        size,
        crop_scale,
        flip,
        0.0,
        rotation_degrees,
        window_hu,
        window_shift,
        window_stretch,
        brightness,
        contrast,
        0.0,
        0.0,
        blur_share,
        blur_sigma,
        noise,
        Intensity(window_hu, (0.5,) * channels, (0.25,) * channels),
    )


def microscopy(
    size: int,
    channels: int,
    units: str,
    *,
    crop_scale: tuple[float, float] = (0.25, 1.0),
    flip: float = 0.5,
    flip_vertical: float = 0.5,
    rotation_degrees: float = 180.0,
    brightness: float = 0.2,
    contrast: float = 0.4,
    colour: float = 0.25,
    blur_share: float = 0.5,
    blur_sigma: float = 2.0,
    noise: float = 0.05,
) -> Views:
    """Cells have no up or down: any rotation, both flips; mild colour for stained (three-channel) images.

    Args:
        size: Height and width of a view in pixels.
        channels: Channels that the backbone reads.
        units: Units of the store's pixels, as in its card.
        crop_scale: Smallest and largest share of the image's area that a crop covers. This project's choice.
        flip: Probability of a left–right flip. SimCLR: 0.5 (2002.05709, appendix A).
        flip_vertical: Probability of an up–down flip. This project's choice: cells have no up or down.
        rotation_degrees: Largest angle in degrees, in both directions; uniform. This project's choice: 180, any
            orientation.
        brightness: Largest offset, in unit intensity. This project's choice.
        contrast: Contrast is multiplied by 1 ± up to this. This project's choice.
        colour: Strength of the jitter of saturation and hue in three-channel images, as SimCLR's s (2002.05709,
            appendix A: 1). This project's choice: 0.25, because stain carries information.
        blur_share: Probability of a Gaussian blur. SimCLR: 0.5 (2002.05709, appendix A).
        blur_sigma: Largest standard deviation of the blur, in pixels of a 224 px view; the smallest is 0.1. SimCLR: 2
            (2002.05709, appendix A).
        noise: Largest standard deviation of additive Gaussian noise, in unit intensity; uniform from 0. This project's
            choice.
    """
    return Views(
        size,
        crop_scale,
        flip,
        flip_vertical,
        rotation_degrees,
        SOFT_TISSUE_HU,
        0.0,
        0.0,
        brightness,
        contrast,
        colour,
        0.0,
        blur_share,
        blur_sigma,
        noise,
        Intensity(mean=(0.5,) * channels, std=(0.25,) * channels),
    )


def natural(
    size: int,
    channels: int,
    units: str,
    *,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    flip: float = 0.5,
    brightness: float = 0.4,
    contrast: float = 0.4,
    colour: float = 0.5,
    grey: float = 0.2,
    blur_share: float = 0.5,
    blur_sigma: float = 2.0,
) -> Views:
    """Photographs, as SimCLR: crops from 8 %, colour jitter of strength 0.5, grey, blur.

    Args:
        size: Height and width of a view in pixels.
        channels: Channels that the backbone reads.
        units: Units of the store's pixels, as in its card.
        crop_scale: Smallest and largest share of the image's area that a crop covers. SimCLR: 0.08, 1 (2002.05709,
            appendix A).
        flip: Probability of a left–right flip. SimCLR: 0.5 (2002.05709, appendix A).
        brightness: Largest offset, in unit intensity. SimCLR: 0.8 s, with s = 0.5 (2002.05709, appendix A and B.9).
        contrast: Contrast is multiplied by 1 ± up to this. SimCLR: 0.8 s, with s = 0.5.
        colour: Strength s of the jitter of saturation (0.8 s) and hue (0.2 s), with probability 0.8. SimCLR: 1 on
            ImageNet, 0.5 on CIFAR-10 (2002.05709, appendix A and B.9).
        grey: Probability of dropping colour. SimCLR: 0.2 (2002.05709, appendix A).
        blur_share: Probability of a Gaussian blur. SimCLR: 0.5 (2002.05709, appendix A).
        blur_sigma: Largest standard deviation of the blur, in pixels of a 224 px view; the smallest is 0.1. SimCLR: 2
            (2002.05709, appendix A).
    """
    if (channels == 1 or units != "rgb") and (colour or grey):
        raise RecipeError(
            f"data.views: the natural preset jitters colour, and {'the backbone reads' if units == 'rgb' else 'the store has'} "
            "one channel. Set views.colour=0 views.grey=0, or use views: ct or microscopy."
        )
    mean, std = (
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.5,) * channels, (0.25,) * channels)
    )
    return Views(
        size,
        crop_scale,
        flip,
        0.0,
        0.0,
        SOFT_TISSUE_HU,
        0.0,
        0.0,
        brightness,
        contrast,
        colour,
        grey,
        blur_share,
        blur_sigma,
        0.0,
        Intensity(mean=mean, std=std),
    )


VIEWS = {"ct": ct, "microscopy": microscopy, "natural": natural}


def mild(
    domain: str, units: str, channels: int, crop_scale: tuple[float, float] = (0.6, 1.0)
) -> tuple[str, dict[str, Any]]:
    """A preset and options that leave an image what it is: for a domain, without blur and noise, by small crops.

    Args:
        domain: Of the images; photographs and microscopes have presets of their own, all else that of grey radiology.
        units: Of their store.
        channels: That the backbone reads.
        crop_scale: Share of the image that a crop keeps.
    """
    preset = {"photograph": "natural", "microscopy": "microscopy"}.get(domain.partition("/")[0], "ct")
    if preset == "ct" and units == "rgb":
        preset = "microscopy"
    if preset != "natural":
        return preset, {"crop_scale": crop_scale, "blur_share": 0.0, "noise": 0.0}
    colourless = {} if units == "rgb" and channels == 3 else {"colour": 0.0}
    return preset, {"crop_scale": crop_scale, "blur_share": 0.0, "grey": 0.0, **colourless}


def _each(values: torch.Tensor) -> torch.Tensor:
    """One number per image (B,), ready to meet a batch (B, C, H, W)."""
    return values.view(-1, 1, 1, 1)


def _affine_grid(theta: torch.Tensor, size: int) -> torch.Tensor:
    """`affine_grid` of square views, shape (B, size, size, 2), as sums of rows and columns: several times faster on a CPU."""
    places = (torch.arange(size, device=theta.device) * 2 + 1) / size - 1
    grid = theta.new_empty((len(theta), size, size, 2))
    for i in (0, 1):
        along_x = theta[:, i, 0, None] * places
        along_y = theta[:, i, 1, None] * places + theta[:, i, 2, None]
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
