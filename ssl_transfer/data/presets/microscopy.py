"""Presets of views for microscopy: images without an up and down, and stains that vary between laboratories."""

from __future__ import annotations

from pydantic import PositiveFloat

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.positives import Positive
from ssl_transfer.data.views import Views


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


def histology(
    size: int,
    channels: int,
    units: str,
    *,
    crop_scale: tuple[float, float] = (0.25, 1.0),
    flip: float = 0.5,
    flip_vertical: float = 0.5,
    rotation_degrees: float = 180.0,
    rotation_step: float = 90.0,
    stain: float = 0.05,
    brightness: float = 0.1,
    contrast: float = 0.2,
    blur_share: float = 0.5,
    blur_sigma: float = 2.0,
    positive: Positive = "same",
    positive_mm: PositiveFloat | None = None,
) -> Views:
    """For stained tissue: quarter turns, both flips, and a jitter of the stains instead of one of colours.

    Args:
        size: Height and width of a view in pixels.
        channels: Channels that the backbone reads.
        units: Units of the store's pixels, as in its card.
        crop_scale: Smallest and largest share of the image's area that a crop covers. This project's choice, as for microscopy.
        flip: Probability of a left–right flip. Tellez 2019: flips and quarter turns (1902.06543).
        flip_vertical: Probability of an up–down flip. Tellez 2019: see `flip`.
        rotation_degrees: Largest angle in degrees, in both directions. Tellez 2019: see `flip`.
        rotation_step: Angles are multiples of this, in degrees; 0: any angle. Tellez 2019: 90.
        stain: In three-channel images the amounts of haematoxylin, eosin and DAB (colour deconvolution) are multiplied by 1 ± up
            to this, and up to ± this is added, in optical density (natural logarithm). Tellez 2019: 0.05 is HED-light, 0.2 is
            HED-strong (1902.06543).
        brightness: Largest offset, in unit intensity. This project's choice.
        contrast: Contrast is multiplied by 1 ± up to this. This project's choice.
        blur_share: Probability of a Gaussian blur. SimCLR: 0.5 (2002.05709, appendix A).
        blur_sigma: Largest standard deviation of the blur, in pixels of a 224 px view; the smallest is 0.1. SimCLR: 2
            (2002.05709, appendix A).
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
        rotation_step=rotation_step,
        stain=stain,
        brightness=brightness,
        contrast=contrast,
        blur_share=blur_share,
        blur_sigma=blur_sigma,
        positive=positive,
        positive_mm=positive_mm,
        intensity=Intensity(mean=(0.5,) * channels, std=(0.25,) * channels),
    )
