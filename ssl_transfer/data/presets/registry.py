"""The presets of views by name, and which of them is for which modality."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssl_transfer.data.presets.microscopy import histology, microscopy
from ssl_transfer.data.presets.photographs import fundus, natural
from ssl_transfer.data.presets.radiology import ct, mr, ultrasound, xray
from ssl_transfer.data.views import Views
from ssl_transfer.domains import FAMILIES, MICROSCOPY, UNKNOWN

VIEWS: dict[str, Callable[..., Views]] = {
    "ct": ct,
    "xray": xray,
    "ultrasound": ultrasound,
    "mr": mr,
    "microscopy": microscopy,
    "histology": histology,
    "natural": natural,
    "fundus": fundus,
}
OF_FAMILY = {
    MICROSCOPY: "microscopy",
    "photograph": "natural",
    "remote sensing": "natural",
    UNKNOWN: "ct",
}  # where a modality has none
OF_MODALITY = {"mammography": "xray", "nuclear": "ct", "dermoscopy": "microscopy", "endoscopy": "natural"}


def preset_of(domain: str, units: str) -> str:
    """Name of the preset for images of a domain.

    Args:
        domain: `modality` or `modality/region`.
        units: Units of the store: images in colour, also of CT, have `natural` where grey ones of their modality have `ct`.
    """
    modality = domain.partition("/")[0]
    preset = modality if modality in VIEWS else OF_MODALITY.get(modality) or OF_FAMILY[FAMILIES[modality]]
    return "natural" if preset == "ct" and units == "rgb" else preset


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
