"""DICOM pixels in physical units: decoding, stored bits, rescaling to HU, padding, MONOCHROME1, frames.

CT is converted to HU, and colour of any coding to 8-bit RGB. Everything else keeps its stored values, rescaled if the file has a
rescale slope and intercept. Values consist of the stored bits alone: overlays and other bits of the word are removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.readers.dicom_codestream import check_frames
from ssl_transfer.data.readers.dicom_coding import Coding, Span, coding_of, lookup_table, padding_of, rescale_of
from ssl_transfer.data.readers.dicom_colour import rgb
from ssl_transfer.data.readers.dicom_grey import Decoding, GreyFrames, signed_words, stored_values
from ssl_transfer.data.readers.dicom_mosaic import is_mosaic, mosaic_of
from ssl_transfer.data.readers.dicom_values import frame_count
from ssl_transfer.data.readers.reader import Unreadable

JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
LOSSY_JPEG = ("1.2.840.10008.1.2.4.50", JPEG_EXTENDED)
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))  # also high-throughput
CONVERTED = ("RGB", "YBR_FULL", "YBR_FULL_422")  # colours that become RGB whatever the coding
BY_JPEG_2000 = ("YBR_RCT", "YBR_ICT")  # which its decoder makes RGB
PLAIN_BITS = (8, 16, 32)  # of the words of uncompressed pixels that NumPy reads


@dataclass(frozen=True)  # without slots, which take longer to pickle
class PlainPixels:
    """Uncompressed grey pixels of one frame, which are read without parsing their header again.

    Attributes:
        start: Position of the first word in the file.
        length: Bytes of the element, which is the last one of the file.
        coding: Their coding.
        padding: Lowest and highest stored value of the padding; None without one.
    """

    start: int
    length: int
    coding: Coding
    padding: Span | None


def decode_plain(
    path: Path, size: tuple[int, int], pixels: PlainPixels, decoding: Decoding
) -> tuple[np.ndarray, dict] | None:
    """The image and the columns of uncompressed pixels, see `decode`; None if the file is not as it was, and must be parsed.

    Raises:
        Unreadable: If the pixels contradict the header.
    """
    words = np.empty(size, f"<u{pixels.coding.allocated // 8}")
    try:
        with open(path, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != pixels.start + pixels.length:
                return None
            if os.preadv(file.fileno(), [words.data], pixels.start) != words.nbytes:
                return None
    except OSError:
        return None
    words = words.astype(words.dtype.newbyteorder("="), copy=False)
    return GreyFrames(pixels.coding, decoding, pixels.padding).image(words, pixels.coding.rescales[0])


def decode(path: Path, decoding: Decoding) -> Iterator[tuple[np.ndarray, dict]]:
    """Decode every frame of a file.

    Yields:
        Images in physical units, (1, H, W) of the dtype of `Coding.dtype`, or (3, H, W) uint8 for colour, and the columns of
        the frame: `rescale` where frames differ, `non_finite` for floats. One per frame, in the order of the file.

    Raises:
        Unreadable: If the pixels cannot be decoded, or contradict the header.
    """
    import pydicom

    try:
        dataset = pydicom.dcmread(path, force=True)
        _complete_meta(dataset)
        is_float = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
        if not is_float and "PixelData" not in dataset:
            raise Unreadable("pixels cannot be decoded: the file ends within them")
        coding = coding_of(dataset, is_float=is_float)
        grey = GreyFrames(coding, decoding, padding_of(dataset), lookup_table(dataset))
        mosaic = mosaic_of(dataset) if is_mosaic(dataset) else None
        for number, decoded in enumerate(_frames(dataset, path, coding)):
            if coding.kind != "grey":
                stored = decoded if is_float else stored_values(signed_words(decoded, coding), coding)
                yield rgb(stored, dataset, coding), {}
                continue
            image, columns = grey.image(decoded, rescale_of(dataset, number))
            yield from ((tile, columns) for tile in (mosaic.tiles(image) if mosaic else (image,)))
    except Unreadable:
        raise
    except Exception as error:  # decoders raise many kinds of errors; each becomes a line in the store's card
        raise Unreadable(_first_line(error)) from None


def _frames(dataset, path: Path, coding: Coding) -> Iterator[np.ndarray]:
    """Decoded words, (H, W) or (H, W, 3) RGB."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if coding.kind == "colour":
        dataset.PhotometricInterpretation = _colour_space(coding.photometric, syntax)
    frames, size = frame_count(dataset), (int(dataset.Rows), int(dataset.Columns))
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = frames  # 0 and text are not understood by decoders
    if syntax.is_compressed and not syntax.is_deflated:
        check_frames(dataset, frames, size, int(dataset.get("SamplesPerPixel") or 1))
        if syntax == JPEG_EXTENDED and (coding.bits or 8) > 8:
            yield from _gdcm_pixels(path, frames, size)
            return
    elif coding.kind != "colour" and coding.bits and coding.allocated in PLAIN_BITS and syntax.is_little_endian:
        yield from _plain(dataset.PixelData, frames, size, f"<u{coding.allocated // 8}")
        return
    from pydicom.pixels.utils import pixel_array

    decoded = pixel_array(dataset, correct_unused_bits=False)
    for frame in decoded if frames > 1 else [decoded]:
        if frame.shape[:2] != size:
            raise Unreadable(f"its pixels have the shape {frame.shape}, its header states {size}")
        yield frame.astype(frame.dtype.newbyteorder("="), copy=False)


def _colour_space(stated: str, syntax: Any) -> str:
    """The colour space by which pydicom makes RGB of decoded pixels; under other names it leaves colours as they are.

    Lossy JPEG holds YCbCr of the full range in its own subsampling, whatever name the header has for it.

    Raises:
        Unreadable: If the coding has no such colours: they would be stored as if they were RGB.
    """
    if stated in CONVERTED or (syntax in JPEG_2000 and stated in BY_JPEG_2000):
        return stated
    if syntax in LOSSY_JPEG:
        return "YBR_FULL_422"
    raise Unreadable(
        f"its colours are {stated}, which this coding ({syntax.name}) does not have; expected {', '.join(CONVERTED)}"
    )


def _plain(data: bytes, frames: int, size: tuple[int, int], dtype: str) -> Iterator[np.ndarray]:
    """Frames of uncompressed grey pixels."""
    count = size[0] * size[1]
    needed = frames * count * np.dtype(dtype).itemsize
    if len(data) < needed:
        raise Unreadable(f"pixels cannot be decoded: {len(data)} bytes, but its header states {needed}")
    words = np.frombuffer(data, dtype, frames * count)
    yield from words.reshape(frames, *size).astype(dtype.replace("<", "="), copy=False)


def _gdcm_pixels(path: Path, frames: int, size: tuple[int, int]) -> np.ndarray:
    """12-bit JPEG Extended: GDCM decodes it, but pydicom's plugin for GDCM does not offer it."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise Unreadable("pixels cannot be decoded: GDCM cannot read this file")
    image = reader.GetImage()
    kind = {"UINT16": np.uint16, "INT16": np.int16, "UINT8": np.uint8}[image.GetPixelFormat().GetScalarTypeAsString()]
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM's binding returns bytes as text
    return np.frombuffer(buffer, kind).reshape(frames, *size)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"pixels cannot be decoded: {' '.join(lines[:2])[:300] or type(error).__name__}"


def _complete_meta(dataset) -> None:
    """Add the transfer syntax that pydicom assumed for a file without a preamble, one of the uncompressed ones."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
