"""The content of mask files: their values as they are stored, how often each occurs, and the colours of their palettes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssl_transfer.data.readers.matching import VOLUME_SUFFIXES, suffix
from ssl_transfer.data.readers.pictures import MASK_FORMATS, by_colour, class_values, open_picture, palette_of
from ssl_transfer.data.readers.reader import Unreadable

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class MaskContent:
    """What a mask file contains.

    Attributes:
        counts: How many pixels or voxels have each value; empty if the file cannot be read.
        colours: Colour of each of these values, if they are indices of a palette.
        white_is_zero: Whether it is a TIFF that is shown with 0 as white.
    """

    counts: Mapping[float, int] = field(default_factory=dict)
    colours: Mapping[int, Colour] = field(default_factory=dict)
    white_is_zero: bool = False


def content_of(path: Path, max_megapixels: float) -> MaskContent:
    """The content of a mask file; none if it cannot be read, which is reported when its image is read."""
    try:
        if suffix(path.name) in VOLUME_SUFFIXES:
            from ssl_transfer.data.readers.nifti_file import NiftiFile

            volume = NiftiFile(path)
            counts: Counter[float] = Counter()
            for number in range(volume.shape[3]):
                counts.update(count_values(volume.voxels(number)))
            return MaskContent(dict(counts))
        values, palette, white_is_zero = _image(path, max_megapixels)
        counted = count_values(values)
    except Exception:  # decoders raise whatever a damaged file provokes
        return MaskContent()
    colours = {} if palette is None else {int(k): _colour(palette[int(k)]) for k in counted if k < len(palette)}
    return MaskContent(counted, colours, white_is_zero)


def no_content(path: Path, reason: str) -> MaskContent:
    """The content of a file that cannot be read."""
    return MaskContent()


def image_values(path: Path, max_megapixels: float) -> np.ndarray:
    """Values (H, W) of a mask image as they are stored, upright.

    Raises:
        Unreadable: If it cannot be read, or is no mask.
    """
    try:
        return _image(path, max_megapixels)[0]
    except Unreadable:
        raise
    except Exception as error:  # decoders raise whatever a damaged file provokes
        raise Unreadable(f"cannot be read: {str(error)[:200] or type(error).__name__}") from None


def is_native(path: Path) -> bool:
    """Whether a native decoder reads a file, which a damaged file may crash."""
    return suffix(path.name) in (".jpg", ".jpeg", ".tif", ".tiff")


def count_values(array: np.ndarray) -> dict[float, int]:
    """How often each value occurs in an array; floats are rounded to three decimals, and those that are not finite left out."""
    if array.dtype == np.uint8:
        numbers = np.bincount(array.ravel(), minlength=256)
        return {value: int(numbers[value]) for value in np.flatnonzero(numbers).tolist()}
    if array.dtype.kind == "f":
        array = np.round(array[np.isfinite(array)], 3)
    values, numbers = np.unique(array, return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))


def _image(path: Path, max_megapixels: float) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Values of a mask image, its palette (n, 3) if they are indices, and whether it is shown with 0 as white."""
    if suffix(path.name) in (".tif", ".tiff"):
        return _tiff(path, max_megapixels)
    with open_picture(path, max_megapixels, MASK_FORMATS) as image:
        palette = palette_of(image)
        values = class_values(image)
    return (values, None, False) if palette is None else (*by_colour(values, palette), False)


def _tiff(path: Path, max_megapixels: float) -> tuple[np.ndarray, np.ndarray | None, bool]:
    from ssl_transfer.data.readers.tiff import read_tiff

    layout, samples, colours = read_tiff(path, max_megapixels)
    if samples.shape[:2] != (1, 1):
        raise Unreadable(f"has {samples.shape[0] * samples.shape[1]} pages; expected one")
    values = samples[0, 0]
    if layout.photometric in ("RGB", "YCBCR") and not (values[:3] == values[0]).all():
        raise Unreadable("is in colour; expected one grey value per class, or a palette")
    values = values[0].astype(np.uint8) if values.dtype == bool else values[0]
    if colours is not None:
        return *by_colour(values, colours.T), False
    return values, None, layout.photometric == "MINISWHITE"


def _colour(entry: np.ndarray) -> Colour:
    red, green, blue = entry.tolist()
    return red, green, blue
