"""Pictures opened with Pillow: PNG, JPEG and BMP, and TIFF codecs that tifffile lacks.

Pillow knows some fifty formats, of which some start other programs (EPS: Ghostscript). Only those of the reader's suffixes are
tried, whatever a file is called. Pixels of more than 8 bits in colour are cut to 8 bits; alpha is left out, and colours are taken
as they are stored, not laid over a background.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.readers.dicom_codestream import codestream_of
from ssl_transfer.data.readers.limits import MAX_MEGAPIXELS, check_megapixels
from ssl_transfer.data.readers.reader import Unreadable

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
MASK_FORMATS = (*FORMATS, "GIF")
GREY_8_BIT = ("1", "L", "LA", "La")
GREY_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr")
PHOTOMETRIC = {"P": "PALETTE", "PA": "PALETTE", "CMYK": "CMYK", "YCbCr": "YCBCR"}  # others: RGB or MINISBLACK
ORIENTATION = 0x0112  # tag of EXIF and TIFF; values 5 to 8 exchange rows and columns
PNG_GREY = 0  # colour type
PNG_RGBA = 6
DEEP_GREY_WITH_ALPHA = (16, 4)  # bit depth and colour type


@contextmanager
def open_picture(path: Path, max_megapixels: float = MAX_MEGAPIXELS, formats: Sequence[str] = FORMATS) -> Iterator[Any]:
    """Open a picture by its header; pixels are decoded when they are used.

    Args:
        path: File.
        max_megapixels: Largest size.
        formats: Names of the formats that are tried, in Pillow's notation.

    Raises:
        Unreadable: If it is larger, of none of these formats, or a BMP that Pillow misreads.
    """
    from PIL import Image, UnidentifiedImageError

    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # `max_megapixels` is the limit
    try:
        with Image.open(path, formats=list(formats)) as image:
            width, height = image.size
            check_megapixels(height, width, max_megapixels)
            _check_bmp(image)
            yield _deep_grey(image) if png_header(image) == DEEP_GREY_WITH_ALPHA else image
    except UnidentifiedImageError:
        raise Unreadable(_unidentified(path, formats)) from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _unidentified(path: Path, formats: Sequence[str]) -> str:
    """Why Pillow does not open a file: it knows JPEG of 8 bits only."""
    with open(path, "rb") as file:
        jpeg = codestream_of(file.read(2**16))
    if jpeg is not None and jpeg.precision != 8:
        return (
            f"a picture of {jpeg.precision} bits in JPEG or JPEG 2000, which cannot be decoded. Save it as TIFF or PNG"
        )
    return f"its content is none of {', '.join(formats)}"


def _check_bmp(image: Any) -> None:
    """Refuse a BMP whose palette is black and white, or a ramp, but whose pixels have other bits than Pillow then expects."""
    expected = {"1": 1, "L": 8}.get(image.mode)
    if image.format != "BMP" or expected is None:
        return
    with open(image.filename, "rb") as file:
        head = file.read(34)
    bits, compression = int.from_bytes(head[28:30], "little"), int.from_bytes(head[30:34], "little")
    if len(head) == 34 and head[14] >= 40 and compression == 0 and bits != expected:
        raise Unreadable(
            f"a BMP of {bits} bits with a palette of {2**expected} greys cannot be decoded. Save it as PNG"
        )


def _deep_grey(image: Any) -> Any:
    """The grey of a PNG with 16 bits and alpha, of which Pillow reads 8 bits: its four bytes a pixel are read as 8-bit RGBA."""
    from PIL import Image

    content = bytearray(Path(image.filename).read_bytes())
    content[24:26] = 8, PNG_RGBA
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with Image.open(io.BytesIO(content), formats=["PNG"]) as written:
        bytes_of = np.asarray(written).astype(np.uint16)
    grey = Image.fromarray(bytes_of[..., 0] << 8 | bytes_of[..., 1])
    grey.info |= {name: value for name, value in image.info.items() if name == "exif"}
    return grey


def upright_size(image: Any) -> tuple[int, int]:
    """Height and width of a Pillow image that is turned by its orientation tag, from the header."""
    from PIL import Image

    width, height = image.size
    tags = Image.Image.getexif(image)  # that of PNG decodes all pixels, to find a tag behind them
    return (width, height) if tags.get(ORIENTATION, 1) in (5, 6, 7, 8) else (height, width)


def upright(image: Any) -> Any:
    """A Pillow image, turned and flipped as its orientation tag says."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def form_of(image: Any) -> tuple[int, np.dtype]:
    """Channels (1 or 3) and dtype of a Pillow image as `pixels` gives it.

    Raises:
        Unreadable: If its mode is not supported.
    """
    if image.mode in GREY_8_BIT:
        return 1, np.dtype(np.uint8)
    if image.mode in GREY_DEEP:
        return 1, np.dtype(np.float32)
    if image.mode not in COLOUR:
        raise Unreadable(f"its colour mode {image.mode} is not supported")
    return 3, np.dtype(np.uint8)


def facts_of(image: Any) -> dict[str, Any]:
    """The columns `intensity`, `bits` and `photometric` of a Pillow image, from its header."""
    channels, _ = form_of(image)
    photometric = PHOTOMETRIC.get(image.mode, "RGB" if channels == 3 else "MINISBLACK")
    facts: dict[str, Any] = {"photometric": photometric, "bits": stored_bits(image)}
    if photometric == "PALETTE":
        facts["intensity"] = "palette"
    elif image.mode not in GREY_DEEP:
        facts["intensity"] = "colour" if channels == 3 else "display"
    return facts


def stored_bits(image: Any) -> int:
    """Bits per sample of a Pillow image; of a PNG as its header says, else those of the mode."""
    header = png_header(image)
    if header is not None:
        return header[0]
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def png_header(image: Any) -> tuple[int, int] | None:
    """Bit depth and colour type of a PNG; None for other formats."""
    if image.format != "PNG" or not getattr(image, "filename", ""):
        return None
    with open(image.filename, "rb") as file:
        head = file.read(26)
    return head[24], head[25]


def pixels(image: Any) -> np.ndarray:
    """Pixels (1 or 3, H, W) of a Pillow image: uint8, or float32 for grey of more than 8 bits.

    Raises:
        Unreadable: If its mode is not supported.
    """
    channels, dtype = form_of(image)
    if dtype == np.float32:
        return np.asarray(image).astype(np.float32)[None]
    if channels == 1:
        return np.asarray(image.convert("LA" if image.mode == "La" else "L").convert("L"))[None]
    image = image.convert("RGBA") if image.mode in ("PA", "RGBa") else image
    return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0))


def palette_of(image: Any) -> np.ndarray | None:
    """The palette of a Pillow image, uint8, shape (n, 3); None if its values are not indices."""
    return np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3) if image.mode == "P" else None


def by_colour(values: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Class ids of a mask with a palette: its indices; but 0 for black and 1 for white, if these are all colours, white first.

    Args:
        values: Indices.
        palette: Colours, uint8, shape (n, 3).

    Returns:
        The ids, and the palette that they are indices of, if they are.
    """
    is_white = (palette == 255).all(axis=1)
    if is_white[0] and (is_white | (palette == 0).all(axis=1)).all():
        return is_white[values].astype(np.uint8), None
    return values, palette


def class_values(image: Any) -> np.ndarray:
    """Values (H, W) of a Pillow image that is a mask: palette indices, or the grey values as they are stored.

    Raises:
        Unreadable: If it is in colour, or if its values lie in its alpha channel.
    """
    header = png_header(image)
    image = upright(image)
    if image.mode in ("P", "L", "1", *GREY_DEEP):
        values = np.asarray(image)
        if header in ((2, PNG_GREY), (4, PNG_GREY)):  # Pillow enlarges 0..3 and 0..15 to 0..255
            values = values // (255 // (2 ** header[0] - 1))
        return values.astype(np.uint8) if values.dtype == bool else values
    if image.mode not in ("LA", "RGB", "RGBA", "RGBX", "PA"):
        raise Unreadable(f"is in colour ({image.mode}); expected one grey value per class")
    bands = [np.asarray(band) for band in image.split()]
    grey, alpha = (bands[:3], bands[3:]) if len(bands) > 2 else (bands[:1], bands[1:])
    if any(not np.array_equal(grey[0], band) for band in grey[1:]):
        colours = image.convert("RGB").getcolors(maxcolors=image.width * image.height)
        raise Unreadable(
            f"is in colour ({len(colours)} colours); expected one grey value per class, or a palette. "
            "Save it with one value per colour"
        )
    if alpha and np.ptp(grey[0]) == 0 and np.ptp(alpha[0]) > 0:
        raise Unreadable("has one grey value and a shape in its alpha channel. Save alpha as a grey image")
    return grey[0]
