"""Colour of DICOM objects as 8-bit RGB: true colour of any depth, palettes, and supplemental palettes over grey."""

from __future__ import annotations

import numpy as np

from ssl_transfer.data.readers.dicom_coding import Coding
from ssl_transfer.data.readers.reader import Unreadable


def rgb(stored: np.ndarray, dataset, coding: Coding) -> np.ndarray:
    """Convert decoded pixels to (3, H, W) uint8.

    Args:
        stored: RGB (H, W, 3 or 4), or indices of a palette (H, W); the values of the stored bits.
        dataset: The object.
        coding: Its coding.

    Raises:
        Unreadable: If there are no colours in it.
    """
    if coding.kind == "palette":
        colours = _palette(stored, dataset, coding)
    else:
        if stored.ndim != 3 or stored.shape[-1] not in (3, 4):
            raise Unreadable(f"its pixels have the shape {stored.shape}, its header states colour")
        colours = _eight_bit(stored[..., :3], coding.bits or 8)  # without alpha
    return np.ascontiguousarray(np.moveaxis(colours, -1, 0))


def _eight_bit(values: np.ndarray, bits: int) -> np.ndarray:
    """The highest 8 bits of unsigned values."""
    values = values.astype(np.int64)
    return (values >> (bits - 8) if bits >= 8 else values << (8 - bits)).astype(np.uint8)


def _palette(indices: np.ndarray, dataset, coding: Coding) -> np.ndarray:
    """Look up colours (H, W, 3). Values below a supplemental palette are grey, from black for the smallest one."""
    from pydicom.pixels.processing import apply_color_lut

    supplemental = coding.photometric != "PALETTE COLOR"
    if supplemental and "PixelPresentation" in dataset:
        del dataset.PixelPresentation  # pydicom refuses it, since grey values have to be displayed in another way
    count, first, _ = map(int, dataset.RedPaletteColorLookupTableDescriptor)
    count = count or 65536
    table = apply_color_lut(np.arange(first, first + count), dataset)[..., :3]
    bits = table.dtype.itemsize * 8
    if bits > 8 and table.max(initial=0) < 256:
        bits = 8  # 8-bit entries in 16-bit words
    colours = _eight_bit(table, bits)[np.clip(indices.astype(np.int64) - first, 0, count - 1)]
    if supplemental:
        is_grey = indices < first
        if is_grey.any():
            low = coding.stored[0]
            grey = np.clip((indices - low) / max(first - 1 - low, 1) * 255, 0, 255)
            colours = np.where(is_grey[..., None], np.rint(grey)[..., None], colours).astype(np.uint8)
    return colours
