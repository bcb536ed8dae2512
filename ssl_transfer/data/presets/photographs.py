"""Presets of views for photographs: of the world, and of the retina."""

from __future__ import annotations

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.views import Views
from ssl_transfer.errors import RecipeError


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
            "one channel. Set data.views.colour=0 data.views.grey=0 (of an evaluation: views.colour=0 views.grey=0), or use "
            "another preset; see ssl-transfer list views."
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


def fundus(
    size: int,
    channels: int,
    units: str,
    *,
    crop_scale: tuple[float, float] = (0.8, 1.0),
    flip: float = 0.5,
    rotation_degrees: float = 180.0,
    brightness: float = 0.2,
    contrast: float = 0.4,
    colour: float = 0.5,
    blur_share: float = 0.0,
    blur_sigma: float = 2.0,
    noise: float = 0.0,
) -> Views:
    """For photographs of the retina: large crops, any rotation, colour jitter; no blur, which may remove small lesions.

    Args:
        size: Height and width of a view in pixels.
        channels: Channels that the backbone reads.
        units: Units of the store's pixels, as in its card.
        crop_scale: Smallest and largest share of the image's area that a crop covers. Huang 2021: 0.8, 1.2 (2107.08274, its
            code); here a crop ends at the image's border.
        flip: Probability of a left–right flip, which makes a left eye a right one. This project's choice.
        rotation_degrees: Largest angle in degrees, in both directions; uniform. Huang 2021: 180 (2107.08274, its code).
        brightness: Largest offset, in unit intensity. Huang 2021: a factor 1 ± 0.4 (2107.08274, its code), which is 0.2
            at mid-grey.
        contrast: Contrast is multiplied by 1 ± up to this. Huang 2021: 0.4 (2107.08274, its code).
        colour: Strength s of the jitter of saturation (0.8 s) and hue (0.2 s) in three-channel images. Huang 2021: saturation
            0.4, hue 0.1 (2107.08274, its code), which is s = 0.5.
        blur_share: Probability of a Gaussian blur. This project's choice: 0, for microaneurysms are a few pixels wide.
        blur_sigma: Largest standard deviation of the blur, in pixels of a 224 px view; the smallest is 0.1.
        noise: Largest standard deviation of additive Gaussian noise, in unit intensity; uniform from 0. This project's
            choice: 0.
    """
    return Views(
        size=size,
        crop_scale=crop_scale,
        flip=flip,
        rotation_degrees=rotation_degrees,
        brightness=brightness,
        contrast=contrast,
        colour=colour,
        blur_share=blur_share,
        blur_sigma=blur_sigma,
        noise=noise,
        intensity=Intensity(mean=(0.5,) * channels, std=(0.25,) * channels),
    )
