"""TIFF files: their layout by the header, and their samples as they are stored.

tifffile reads them, including OME-TIFF, ImageJ and BigTIFF; pages with a compression that it cannot decode by itself (LZW, JPEG,
CCITT) are decoded by Pillow. The images are those of the main series. Its axes C (channel) and T (time) divide it into volumes,
and all others are slices. Several samples of a grey pixel are channels, too, unless they are alpha. Thumbnails and pyramid levels
are left out. OME files that continue in other files are not followed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.readers.limits import check_megapixels, check_promise
from ssl_transfer.data.readers.pictures import ORIENTATION, open_picture
from ssl_transfer.data.readers.reader import Unreadable

VOLUME_AXES = {"T": "time", "C": "channel"}  # axis -> column
GDAL_NODATA, COLORMAP = 42113, 320
GREY, COLOUR = ("MINISBLACK", "MINISWHITE"), ("RGB", "YCBCR", "PALETTE", "SEPARATED")
BY_PILLOW = ("YCBCR",)  # tifffile leaves its conversion to the caller


@dataclass(frozen=True)
class TiffLayout:
    """What the header of a TIFF file says.

    Attributes:
        volumes: For each volume the columns that tell it apart (`channel`, `time`); one volume has none.
        slices: Images of each volume.
        size: Height and width of the upright images.
        samples: Stored samples per pixel.
        dtype: Dtype of the samples.
        bits: Bits per sample.
        photometric: `MINISBLACK`, `MINISWHITE`, `RGB`, `YCBCR`, `PALETTE` or `SEPARATED` (CMYK).
        orientation: 1 to 8.
        padding: Value that stands for missing pixels (GDAL), or None.
    """

    volumes: tuple[dict[str, int], ...]
    slices: int
    size: tuple[int, int]
    samples: int
    dtype: np.dtype
    bits: int
    photometric: str
    orientation: int
    padding: float | None

    @property
    def is_grey(self) -> bool:
        """Whether a pixel is one value, not a colour."""
        return self.photometric in GREY


def tiff_layout(path: Path, max_megapixels: float) -> TiffLayout:
    """Read the layout of a file from its header.

    Raises:
        Unreadable: If it is too large, cut off, or of a kind that is not supported.
    """
    with _main_series(path) as (_, series):
        return _layout(path, series, max_megapixels)


def read_tiff(path: Path, max_megapixels: float) -> tuple[TiffLayout, np.ndarray, np.ndarray | None]:
    """Decode a file.

    Returns:
        The layout; the samples of all images, upright, shape (volumes, slices, samples, H, W), as they are stored; and the colour
        map of a palette, uint8, shape (3, values).

    Raises:
        Unreadable: As `tiff_layout`, and if pixels cannot be decoded.
    """
    with _main_series(path) as (_, series):
        layout = _layout(path, series, max_megapixels)
        page = series.keyframe
        colours = None
        if layout.photometric == "PALETTE":
            colours = np.asarray(page.colormap)
            colours = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)  # some writers store 8 bits
        if layout.photometric not in BY_PILLOW:
            try:
                samples = _ordered(series.asarray(), _axes(series))
                return layout, _turned(samples, layout.orientation), colours
            except (ImportError, KeyError, ValueError, NotImplementedError) as error:
                is_missing = isinstance(error, ImportError)  # zstd is part of Python from 3.14 on
                if not is_missing and "imagecodecs" not in str(error):
                    raise
        return layout, _by_pillow(path, series, layout, max_megapixels), colours


@contextmanager
def _main_series(path: Path) -> Iterator[tuple[Any, Any]]:
    """The opened file and its main series."""
    import tifffile

    with tifffile.TiffFile(path, _multifile=False) as tiff:
        series = [s for s in tiff.series if not _is_extra(s)] or list(tiff.series)
        if not series:
            raise Unreadable("it has no image")
        shapes = [tuple(s.shape) for s in (*series, *_unmarked_levels(series[0]))]
        if len(series) > 1 and tiff.is_svs:
            series = series[:1]  # the others are its label and its macro image
        if len(shapes) > 1 and not tiff.is_svs:
            raise Unreadable(
                f"its pages are no stack: {len(shapes)} groups of shapes {', '.join(map(str, shapes[:4]))}. "
                "Save them as files of their own"
            )
        if any(page is None for page in series[0].pages):
            raise Unreadable("some of its pages are missing (it may continue in other files)")
        yield tiff, series[0]


def _is_extra(series: Any) -> bool:
    """Whether a series is a thumbnail or a transparency mask."""
    page = series.keyframe
    return bool(page.is_reduced or page.is_mask)


def _unmarked_levels(series: Any) -> list[Any]:
    """Smaller pages that tifffile takes for levels of a pyramid, but which the file does not mark as such."""
    if series.kind not in ("generic", "uniform"):
        return []
    return [level for level in series.levels[1:] if not (level.keyframe.is_reduced or level.keyframe.is_subifd)]


def _axes(series: Any) -> str:
    """The axes of a series; S, the samples of a pixel, becomes C where they are channels of grey without a stated meaning."""
    page = series.keyframe
    is_grey = getattr(page.photometric, "name", "") in GREY
    unstated = page.extrasamples and not any(int(extra) for extra in page.extrasamples)
    return series.axes.replace("S", "C") if is_grey and unstated and "C" not in series.axes else series.axes


def _layout(path: Path, series: Any, max_megapixels: float) -> TiffLayout:
    page = series.keyframe
    axes = _axes(series)
    shape = dict(zip(axes, series.shape, strict=True))
    if "X" not in shape or "Y" not in shape:
        raise Unreadable(f"its axes are {axes}; expected Y and X")
    height, width = shape["Y"], shape["X"]
    if min(series.shape) < 1:
        raise Unreadable(f"its shape is {tuple(series.shape)}, which has no pixels")
    check_megapixels(height, width, max_megapixels)
    compressed = int(page.compression) != 1
    check_promise(
        math.ceil(math.prod(series.shape) * page.bitspersample / 8), path.stat().st_size, compressed=compressed
    )
    photometric = getattr(page.photometric, "name", str(page.photometric))
    if photometric not in GREY + COLOUR:
        raise Unreadable(f"its photometric interpretation is {photometric}; expected {', '.join(GREY + COLOUR)}")
    samples = shape.get("S", 1)
    if photometric in ("RGB", "YCBCR", "SEPARATED") and samples < (4 if photometric == "SEPARATED" else 3):
        raise Unreadable(f"its photometric interpretation is {photometric}, but it has {samples} sample(s) per pixel")
    tag = page.tags.get(ORIENTATION)
    orientation = int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
    return TiffLayout(
        volumes=_volumes(axes, shape),
        slices=math.prod(count for axis, count in shape.items() if axis not in (*VOLUME_AXES, *"SYX")),
        size=(width, height) if orientation > 4 else (height, width),
        samples=samples,
        dtype=np.dtype(series.dtype),
        bits=int(page.bitspersample),
        photometric=photometric,
        orientation=orientation,
        padding=_padding(page),
    )


def _volumes(axes: str, shape: dict[str, int]) -> tuple[dict[str, int], ...]:
    """The columns of each volume, in the order of `_ordered`."""
    dividing = [axis for axis in axes if axis in VOLUME_AXES and shape[axis] > 1]
    numbers = np.ndindex(*(shape[axis] for axis in dividing))
    return tuple(dict(zip((VOLUME_AXES[axis] for axis in dividing), number, strict=True)) for number in numbers)


def _padding(page: Any) -> float | None:
    tag = page.tags.get(GDAL_NODATA)
    if tag is None:
        return None
    try:
        return float(str(tag.value).strip("\x00 "))
    except ValueError:
        return None


def _ordered(array: np.ndarray, axes: str) -> np.ndarray:
    """Reorder the axes of a series to (volumes, slices, samples, H, W)."""
    dividing = [axis for axis in axes if axis in VOLUME_AXES]
    between = [axis for axis in axes if axis not in (*VOLUME_AXES, *"SYX")]
    samples = ["S"] if "S" in axes else []
    array = np.transpose(array, [axes.index(axis) for axis in (*dividing, *between, *samples, "Y", "X")])
    lengths = iter(array.shape)
    volumes, slices, count = (math.prod(next(lengths) for _ in group) for group in (dividing, between, samples))
    return array.reshape(volumes, slices, count, *array.shape[-2:])


def _turned(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and flip images (…, H, W) such that the first row is at the top and the first column at the left."""
    if orientation > 4:  # rows of the file are columns of the image
        samples = np.swapaxes(samples, -1, -2)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    samples = samples[..., ::-1, :] if flip_rows else samples
    return samples[..., ::-1] if flip_columns else samples


def _by_pillow(path: Path, series: Any, layout: TiffLayout, max_megapixels: float) -> np.ndarray:
    """Samples as `read_tiff` gives them, decoded by Pillow; YCbCr becomes RGB."""
    images = []
    try:
        if _axes(series) != series.axes:
            raise Unreadable("several samples of a grey pixel")
        with open_picture(path, max_megapixels, ("TIFF",)) as picture:
            for page in series.pages:
                picture.seek(page.index)
                picture.load()
                images.append(_stored(picture, layout))
                if picture.getexif().get(ORIENTATION, 1) != 1:  # versions before 9.4 leave it to the caller
                    images[-1] = _turned(images[-1], layout.orientation)
    except (Unreadable, EOFError) as error:
        compression = getattr(series.keyframe.compression, "name", series.keyframe.compression)
        raise Unreadable(
            f"its compression {compression} of {layout.bits} bits cannot be decoded ({str(error)[:80]}). "
            "`pip install imagecodecs` adds it"
        ) from None
    axes = "".join(axis for axis in series.axes if axis not in "SYX")
    lengths = tuple(count for axis, count in zip(series.axes, series.shape, strict=True) if axis in axes)
    stack = np.stack(images).reshape(*lengths, *images[0].shape)
    return _ordered(stack, f"{axes}SYX")


def _stored(picture: Any, layout: TiffLayout) -> np.ndarray:
    """Samples (S, H, W) as the file stores them, of a page that Pillow decoded: it inverts and enlarges up to 8 bits."""
    if picture.mode == "YCbCr":
        picture = picture.convert("RGB")
    values = np.asarray(picture)
    if layout.photometric == "MINISWHITE" and layout.bits <= 8:
        values = ~values if values.dtype == bool else 255 - values
    if layout.is_grey and layout.bits in (2, 4):
        values = values // (255 // (2**layout.bits - 1))
    if layout.dtype.kind in "iu" and values.dtype.kind in "iu" and values.dtype != layout.dtype:
        values = values.astype(layout.dtype)  # signed bytes are read as unsigned ones
    return np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None]


def tiff_form(layout: TiffLayout) -> tuple[int, np.dtype]:
    """Channels (1 or 3) and dtype of the images of `tiff_images`.

    Raises:
        Unreadable: If samples are complex numbers, or colours are not unsigned integers of 8 or 16 bits.
    """
    dtype = layout.dtype
    if dtype.kind not in "buif":
        raise Unreadable(f"its samples are {dtype}, not real numbers")
    if not layout.is_grey:
        if dtype.kind != "u" or dtype.itemsize > 2:
            raise Unreadable(f"its colours are {dtype}; expected unsigned integers of 8 or 16 bits")
        return 3, np.dtype(np.uint8)
    if dtype.kind == "b" or (dtype == np.uint8 and layout.bits <= 8):
        return 1, np.dtype(np.uint8)
    return 1, np.dtype(np.int16 if np.can_cast(dtype, np.int16) else np.float32)


def tiff_depth(layout: TiffLayout) -> tuple[float, float] | None:
    """Lowest and highest value that the images of a layout can have; None for floats and for signed integers above 8 bits."""
    channels, dtype = tiff_form(layout)
    if channels == 3 or dtype == np.uint8:
        return 0.0, 255.0
    if layout.dtype.kind == "f":
        return None
    if layout.dtype.kind == "i":  # 16 bits with a sign are a container: nobody uses both ends
        return (-128.0, 127.0) if layout.bits == 8 else None
    return 0.0, 2.0**layout.bits - 1


def tiff_images(
    layout: TiffLayout, samples: np.ndarray, colours: np.ndarray | None, colour_bits: int | None = None
) -> np.ndarray:
    """Convert samples to images.

    Grey of up to 8 bits becomes 0..255, and deeper grey keeps its values. WhiteIsZero is inverted within the stored bits (floats:
    within the file's smallest and largest value). Colour is cut to 8 bits; alpha is left out.

    Args:
        layout: The layout of the file.
        samples: Samples as stored, shape (N, samples, H, W).
        colours: Colour map of a palette, uint8 (3, values).
        colour_bits: Bits in use of colours with 16 bits, of which the upper 8 are taken; None: all.

    Returns:
        Shape (N, 1 or 3, H, W). Floats may contain values that are not finite.
    """
    channels, dtype = tiff_form(layout)
    if colours is not None:
        return np.moveaxis(colours[:, samples[:, 0]], 0, 1)
    if channels == 1:
        grey = samples[:, :1]
        grey = _inverted(grey, layout.bits) if layout.photometric == "MINISWHITE" else grey
        if dtype == np.uint8:
            return (grey.astype(np.uint8) * (255 // (2**layout.bits - 1))).astype(np.uint8)
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is replaced and counted
            return grey.astype(dtype)
    shift = max((colour_bits or 16) - 8, 0) if samples.dtype.itemsize == 2 else 0
    samples = np.minimum(samples >> shift, 255).astype(np.uint8)
    if layout.photometric == "SEPARATED":
        ink, black = samples[:, :3].astype(np.uint16), samples[:, 3:4].astype(np.uint16)
        return ((255 - ink) * (255 - black) // 255).astype(np.uint8)
    return samples[:, :3]


def _inverted(grey: np.ndarray, bits: int) -> np.ndarray:
    if grey.dtype == bool or grey.dtype.kind == "i":
        return ~grey  # of signed integers: -1 - value
    if grey.dtype.kind == "u":
        return grey.dtype.type(2**bits - 1) - grey
    finite = grey[np.isfinite(grey)]
    return finite.min() + finite.max() - grey if finite.size else grey
