"""Presets of views, one per domain: a function whose keyword-only parameters are its options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import PositiveFloat

from ssl_transfer.data.display import SOFT_TISSUE_HU
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.positives import Positive
from ssl_transfer.data.views import Views
from ssl_transfer.domains import FAMILIES, MICROSCOPY
from ssl_transfer.errors import RecipeError


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
    positive: Positive = "same",
    positive_mm: PositiveFloat | None = None,
) -> Views:
    """For grey radiology images, without colour jitter. The window is jittered in HU; on displayed images this jitters brightness
    and contrast by the same amount.

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
        positive: Which image the second view is made of: the `same`; a neighbouring `slice` of the same volume; or any image of
            the same `patient`. Default: same, as in SimCLR (2002.05709). Images of one patient: MICLe (2101.05224).
        positive_mm: With `slice`: largest distance of the other slice in mm; null: the next slice on either side.
    """
    if units == "rgb":
        raise RecipeError(
            "data.views: the ct preset is for one-channel intensities, and this store is RGB. Use views: natural or "
            "microscopy, or ingest again with --channels 1."
        )
    return Views(
        size=size,
        crop_scale=crop_scale,
        flip=flip,
        rotation_degrees=rotation_degrees,
        window_shift=window_shift,
        window_stretch=window_stretch,
        brightness=brightness,
        contrast=contrast,
        blur_share=blur_share,
        blur_sigma=blur_sigma,
        noise=noise,
        positive=positive,
        positive_mm=positive_mm,
        intensity=Intensity(window_hu, (0.5,) * channels, (0.25,) * channels),
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
    positive: Positive = "same",
    positive_mm: PositiveFloat | None = None,
) -> Views:
    """For microscopy: any rotation, both flips, mild colour jitter for stained (three-channel) images.

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
        positive: Which image the second view is made of: the `same`; a neighbouring `slice` of the same volume; or any image of
            the same `patient`. Default: same, as in SimCLR (2002.05709). Images of one patient: MICLe (2101.05224).
        positive_mm: With `slice`: largest distance of the other slice in mm; null: the next slice on either side.
    """
    return Views(
        size=size,
        crop_scale=crop_scale,
        flip=flip,
        flip_vertical=flip_vertical,
        rotation_degrees=rotation_degrees,
        brightness=brightness,
        contrast=contrast,
        colour=colour,
        blur_share=blur_share,
        blur_sigma=blur_sigma,
        noise=noise,
        positive=positive,
        positive_mm=positive_mm,
        intensity=Intensity(mean=(0.5,) * channels, std=(0.25,) * channels),
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
    """For photographs, as in SimCLR: crops from 8 % of the area, colour jitter of strength 0.5, grey, blur.

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
        size=size,
        crop_scale=crop_scale,
        flip=flip,
        brightness=brightness,
        contrast=contrast,
        colour=colour,
        grey=grey,
        blur_share=blur_share,
        blur_sigma=blur_sigma,
        intensity=Intensity(mean=mean, std=std),
    )


VIEWS: dict[str, Callable[..., Views]] = {"ct": ct, "microscopy": microscopy, "natural": natural}


def mild(
    domain: str, units: str, channels: int, crop_scale: tuple[float, float] = (0.6, 1.0)
) -> tuple[str, dict[str, Any]]:
    """Name and options of a preset for mild augmentation: without blur and noise, with large crops.

    Args:
        domain: Domain of the images. Photographs and microscopy of all kinds have their presets; every other domain uses `ct`.
        units: Units of their store.
        channels: Number of channels that the backbone reads.
        crop_scale: Smallest and largest share of the image's area that a crop covers.
    """
    preset = {"photograph": "natural", MICROSCOPY: "microscopy"}.get(FAMILIES.get(domain.partition("/")[0], ""), "ct")
    if preset == "ct" and units == "rgb":
        preset = "microscopy"
    if preset != "natural":
        return preset, {"crop_scale": crop_scale, "blur_share": 0.0, "noise": 0.0}
    colourless = {} if units == "rgb" and channels == 3 else {"colour": 0.0}
    return preset, {"crop_scale": crop_scale, "blur_share": 0.0, "grey": 0.0, **colourless}
