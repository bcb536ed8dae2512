"""Presets of views for radiology: grey images whose depth, side or brightness may mean something."""

from __future__ import annotations

from pydantic import PositiveFloat

from ssl_transfer.data.display import SOFT_TISSUE_HU
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.positives import Positive
from ssl_transfer.data.views import Views
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


def xray(
    size: int,
    channels: int,
    units: str,
    *,
    crop_scale: tuple[float, float] = (0.6, 1.0),
    flip: float = 0.5,
    rotation_degrees: float = 10.0,
    brightness: float = 0.2,
    contrast: float = 0.4,
    blur_share: float = 0.0,
    blur_sigma: float = 2.0,
    noise: float = 0.0,
    positive: Positive = "same",
    positive_mm: PositiveFloat | None = None,
) -> Views:
    """For radiographs: large crops, small rotations, brightness and contrast; no blur, which may remove small findings.

    Args:
        size: Height and width of a view in pixels.
        channels: Channels that the backbone reads.
        units: Units of the store's pixels, as in its card.
        crop_scale: Smallest and largest share of the image's area that a crop covers. ConVIRT: 0.6, 1 (2010.00747).
            MoCo-CXR does not crop, because a small crop may miss the disease (2010.05352).
        flip: Probability of a left–right flip. MoCo-CXR: 0.5 (2010.05352). Set 0 where the side matters, such as for the
            heart or for a finding that is named by its side.
        rotation_degrees: Largest angle in degrees, in both directions; uniform. MoCo-CXR: 10 (2010.05352).
        brightness: Largest offset, in unit intensity. ConVIRT: a factor 1 ± 0.4 (2010.00747), which at mid-grey is 0.2.
        contrast: Contrast is multiplied by 1 ± up to this. ConVIRT: 0.4 (2010.00747).
        blur_share: Probability of a Gaussian blur. MoCo-CXR: 0 (2010.05352).
        blur_sigma: Largest standard deviation of the blur, in pixels of a 224 px view; the smallest is 0.1.
        noise: Largest standard deviation of additive Gaussian noise, in unit intensity; uniform from 0. This project's
            choice: 0.
        positive: Which image the second view is made of: the `same`; a neighbouring `slice` of the same volume; or any image of
            the same `patient`. Default: same, as in SimCLR (2002.05709). Images of one patient: MICLe (2101.05224).
        positive_mm: With `slice`: largest distance of the other slice in mm; null: the next slice on either side.
    """
    return Views(
        size=size,
        crop_scale=crop_scale,
        flip=flip,
        rotation_degrees=rotation_degrees,
        brightness=brightness,
        contrast=contrast,
        blur_share=blur_share,
        blur_sigma=blur_sigma,
        noise=noise,
        positive=positive,
        positive_mm=positive_mm,
        intensity=Intensity(mean=(0.5,) * channels, std=(0.25,) * channels),
    )


def ultrasound(
    size: int,
    channels: int,
    units: str,
    *,
    crop_scale: tuple[float, float] = (0.8, 1.0),
    flip: float = 0.5,
    rotation_degrees: float = 0.0,
    gamma: float = 0.2,
    brightness: float = 0.2,
    contrast: float = 0.4,
    speckle: float = 0.1,
    blur_share: float = 0.0,
    blur_sigma: float = 2.0,
    positive: Positive = "same",
    positive_mm: PositiveFloat | None = None,
) -> Views:
    """For B-mode ultrasound: large crops, left–right flips, brightness curves, speckle; never upside down, since depth runs down.

    Args:
        size: Height and width of a view in pixels.
        channels: Channels that the backbone reads.
        units: Units of the store's pixels, as in its card.
        crop_scale: Smallest and largest share of the image's area that a crop covers. USCL: 0.8, 1 (2011.13066, its code).
        flip: Probability of a left–right flip. USCL: 0.5 (2011.13066, its code).
        rotation_degrees: Largest angle in degrees, in both directions; uniform. USCL: 0 (2011.13066, its code): shadows and
            attenuation follow the beam.
        gamma: The image is raised to the power exp(± up to this), as gain curves do. This project's choice.
        brightness: Largest offset, in unit intensity. This project's choice; USCL jitters colours as SimCLR does.
        contrast: Contrast is multiplied by 1 ± up to this. This project's choice.
        speckle: Largest standard deviation of multiplicative Gaussian noise; uniform from 0. This project's choice.
        blur_share: Probability of a Gaussian blur. USCL: 0 (2011.13066, its code).
        blur_sigma: Largest standard deviation of the blur, in pixels of a 224 px view; the smallest is 0.1.
        positive: Which image the second view is made of: the `same`; a neighbouring `slice` of the same volume; or any image of
            the same `patient`. Default: same, as in SimCLR (2002.05709). Frames of one video: USCL (2011.13066).
        positive_mm: With `slice`: largest distance of the other slice in mm; null: the next slice on either side.
    """
    return Views(
        size=size,
        crop_scale=crop_scale,
        flip=flip,
        rotation_degrees=rotation_degrees,
        gamma=gamma,
        brightness=brightness,
        contrast=contrast,
        speckle=speckle,
        blur_share=blur_share,
        blur_sigma=blur_sigma,
        positive=positive,
        positive_mm=positive_mm,
        intensity=Intensity(mean=(0.5,) * channels, std=(0.25,) * channels),
    )


def mr(
    size: int,
    channels: int,
    units: str,
    *,
    crop_scale: tuple[float, float] = (0.3, 1.0),
    flip: float = 0.5,
    rotation_degrees: float = 15.0,
    bias_field: float = 0.5,
    gamma: float = 0.3,
    brightness: float = 0.1,
    contrast: float = 0.2,
    blur_share: float = 0.5,
    blur_sigma: float = 2.0,
    noise: float = 0.05,
    positive: Positive = "same",
    positive_mm: PositiveFloat | None = None,
) -> Views:
    """For MR, whose grey levels have no unit: a smooth bias field of the coil, gamma, and what `ct` does to shape and sharpness.

    Args:
        size: Height and width of a view in pixels.
        channels: Channels that the backbone reads.
        units: Units of the store's pixels, as in its card.
        crop_scale: Smallest and largest share of the image's area that a crop covers. This project's choice, as for CT.
        flip: Probability of a left–right flip. SimCLR: 0.5 (2002.05709, appendix A).
        rotation_degrees: Largest angle in degrees, in both directions; uniform. This project's choice, as for CT.
        bias_field: Largest coefficient of the logarithm of the bias field, a polynomial of order 3 in the view's coordinates from
            −1 to 1 (Van Leemput 1999, doi 10.1109/42.811270). TorchIO: 0.5 (2003.04696).
        gamma: The image is raised to the power exp(± up to this). TorchIO: 0.3 (2003.04696).
        brightness: Largest offset, in unit intensity. This project's choice, as for CT.
        contrast: Contrast is multiplied by 1 ± up to this. This project's choice, as for CT.
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
        rotation_degrees=rotation_degrees,
        bias_field=bias_field,
        gamma=gamma,
        brightness=brightness,
        contrast=contrast,
        blur_share=blur_share,
        blur_sigma=blur_sigma,
        noise=noise,
        positive=positive,
        positive_mm=positive_mm,
        intensity=Intensity(mean=(0.5,) * channels, std=(0.25,) * channels),
    )
