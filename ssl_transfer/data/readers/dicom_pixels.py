"""DICOM pixels in physical units: decoding, stored bits, rescaling to HU, padding, MONOCHROME1, frames.

CT is converted to HU, and colour of any coding to 8-bit RGB. Everything else keeps its stored values, rescaled if the file has a
rescale slope and intercept. Values consist of the stored bits alone: overlays and other bits of the word are removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.readers.dicom_codestream import check_frames
from ssl_transfer.data.readers.dicom_coding import (
    Coding,
    Rescale,
    coding_of,
    lookup_table,
    padding_of,
    rescale_of,
    rescale_text,
)
from ssl_transfer.data.readers.dicom_colour import rgb
from ssl_transfer.data.readers.dicom_mosaic import is_mosaic, mosaic_of
from ssl_transfer.data.readers.dicom_values import frame_count
from ssl_transfer.data.readers.reader import Unreadable

AIR_HU = -1024  # below this is scanner padding, not air
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
MOST_OVERLAID = 0.25  # share of pixels with bits above the stored ones; with more, these are no overlay
LARGEST = 1e30  # no physical value is larger; float padding is often 3.4e38
PLAUSIBLE_HU = (-1100.0, -500.0)  # 5th percentile at least, 95th percentile at least


@dataclass(frozen=True)
class Decoding:
    """How an object is decoded, as `scan` decided it.

    Attributes:
        hu: Whether its values are HU.
        rescale: Slope and intercept of frames that state none, proved by their series; None: their stored values are kept.
    """

    hu: bool
    rescale: Rescale | None = None


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
        grey = _Grey(dataset, coding, decoding)
        mosaic = mosaic_of(dataset) if is_mosaic(dataset) else None
        for number, decoded in enumerate(_frames(dataset, path, coding)):
            stored = decoded if is_float else stored_values(decoded, coding)
            if coding.kind != "grey":
                yield rgb(stored, dataset, coding), {}
                continue
            image, columns = grey.image(decoded, stored, number)
            yield from ((tile, columns) for tile in (mosaic.tiles(image) if mosaic else (image,)))
    except Unreadable:
        raise
    except Exception as error:  # decoders raise many kinds of errors; each becomes a line in the store's card
        raise Unreadable(_first_line(error)) from None


def stored_values(decoded: np.ndarray, coding: Coding) -> np.ndarray:
    """The values of the stored bits, without overlays and other bits of the word, with the sign of two's complement.

    Args:
        decoded: Integers of any shape, as the decoder returns them.
        coding: The coding of the object.
    """
    width, bits = decoded.dtype.itemsize * 8, coding.bits or 1
    word = _word(decoded, coding)
    if bits >= width:
        return word
    shift = coding.shift if coding.shift + bits <= width else 0
    return (word << (width - bits - shift)) >> (width - bits)


def _word(decoded: np.ndarray, coding: Coding) -> np.ndarray:
    """Decoded integers with the sign that the header states."""
    return decoded.view(f"{'i' if coding.signed else 'u'}{decoded.dtype.itemsize}")


def _frames(dataset, path: Path, coding: Coding) -> Iterator[np.ndarray]:
    """Decoded words, (H, W) or (H, W, 3) RGB."""
    syntax = dataset.file_meta.TransferSyntaxUID
    frames, size = frame_count(dataset), (int(dataset.Rows), int(dataset.Columns))
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = frames  # 0 and text are not understood by decoders
    if syntax.is_compressed and not syntax.is_deflated:
        check_frames(dataset, frames, size, int(dataset.get("SamplesPerPixel") or 1))
        if syntax == JPEG_EXTENDED and (coding.bits or 8) > 8:
            yield from _gdcm_pixels(path, frames, size)
            return
    elif coding.kind != "colour" and coding.bits and coding.allocated in (8, 16, 32) and syntax.is_little_endian:
        yield from _plain(dataset.PixelData, frames, size, f"<u{coding.allocated // 8}")
        return
    from pydicom.pixels.utils import pixel_array

    decoded = pixel_array(dataset, correct_unused_bits=False)
    for frame in decoded if frames > 1 else [decoded]:
        if frame.shape[:2] != size:
            raise Unreadable(f"its pixels have the shape {frame.shape}, its header states {size}")
        yield frame.astype(frame.dtype.newbyteorder("="), copy=False)


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


class _Grey:
    """Converts the stored values of the grey frames of an object to physical ones."""

    def __init__(self, dataset, coding: Coding, decoding: Decoding):
        self.dataset, self.coding, self.decoding = dataset, coding, decoding
        self.dtype = coding.dtype(hu=decoding.hu, rescale=decoding.rescale)
        self.physical = coding.physical(decoding.rescale)
        self.padding = padding_of(dataset)
        self.table = lookup_table(dataset)

    def image(self, decoded: np.ndarray, stored: np.ndarray, frame: int) -> tuple[np.ndarray, dict]:
        """The image (1, H, W) and the columns of a frame.

        Args:
            decoded: Its words, (H, W).
            stored: The values of their stored bits.
            frame: Number of the frame.
        """
        if stored.ndim != 2:
            raise Unreadable(f"its pixels have the shape {stored.shape}, its header states one grey value per pixel")
        own = rescale_of(self.dataset, frame)
        rescale = own or self.decoding.rescale or (1.0, 0.0)
        columns: dict = {"rescale": rescale_text(rescale)} if len(self.coding.rescales) > 1 else {}
        values = self.table(stored) if self.table else _rescaled(stored, *rescale)
        if self.coding.bits is None:
            values, columns["non_finite"] = self._finite(values, stored)
            padding = None
        else:
            padding = self._padding(decoded, stored, rescale)
        values = self._in_hu(values, padding, own) if self.decoding.hu else self._as_shown(values, padding)
        return self._fitting(values)[None], columns

    def _in_hu(self, values: np.ndarray, padding: np.ndarray | None, own: Rescale | None) -> np.ndarray:
        values = np.where(padding, AIR_HU, values) if padding is not None else values
        if own is None and self.decoding.rescale is not None:
            low, high = np.percentile(values, (5, 95))
            if low < PLAUSIBLE_HU[0] or high < PLAUSIBLE_HU[1]:
                raise Unreadable(
                    "states no rescale slope and intercept, and with those of its series its values are not plausible "
                    f"(5 and 95 % percentile: {low:.0f} and {high:.0f} HU)"
                )
        return np.clip(values, AIR_HU, 32767)

    def _as_shown(self, values: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
        """Turn MONOCHROME1 about the range of the stored bits, so that bright means dense; then padding becomes dark."""
        if self.coding.is_inverted:
            low, high = self.physical or (values.min(), values.max())
            values = low + high - values
        if padding is not None and not padding.all():
            values = np.where(padding, values[~padding].min(), values)
        return values

    def _fitting(self, values: np.ndarray) -> np.ndarray:
        if self.dtype.kind == "f":
            return values.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        if values.min() < limits.min or values.max() > limits.max:
            low, high = self.physical or (limits.min, limits.max)
            raise Unreadable(
                f"values from {values.min()} to {values.max()} lie outside the range that its header states "
                f"({low:.0f} to {high:.0f})"
            )
        return (np.rint(values) if values.dtype.kind == "f" else values).astype(self.dtype)

    def _finite(self, values: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, int]:
        """Replace NaN, infinity and padding of floats by the lowest other value, and count NaN and infinity."""
        unknown = ~np.isfinite(values) | (np.abs(values) >= LARGEST)
        count = int(np.count_nonzero(unknown))
        if self.padding:
            low, high = sorted(np.array(self.padding, stored.dtype))
            unknown |= (stored >= low) & (stored <= high)
        if unknown.all():
            raise Unreadable("none of its pixels is a finite number")
        return (np.where(unknown, values[~unknown].min(), values) if unknown.any() else values), count

    def _padding(self, decoded: np.ndarray, stored: np.ndarray, rescale: Rescale) -> np.ndarray | None:
        """Pixels that the scanner padded, (H, W) bool; None if there are none.

        Padding lies around the image: a region of padding values that does not touch the border is part of the patient, unless
        the value lies beyond the stored bits. Headers write the value with or without a sign.

        Raises:
            Unreadable: If bits above the stored ones are set in so many other pixels that they are no overlay.
        """
        word = _word(decoded, self.coding)
        width, bits = decoded.dtype.itemsize * 8, self.coding.bits or 1
        beyond = word != stored
        if self.coding.shift or not beyond.any():
            beyond = np.zeros_like(beyond)
        elif self.coding.signed:
            beyond &= word & (2**bits - 1) != word  # not the sign alone is missing
        padding = None
        if self.padding is not None:
            low, high = sorted(_with_sign(value, self.coding.signed, width) for value in self.padding)
            if not self._is_clipped(low, high, rescale):
                beyond_padding = beyond & (word >= low) & (word <= high)
                found = beyond_padding | ((stored >= low) & (stored <= high))
                padding = beyond_padding | _outside(found) if found.any() else None
                beyond &= ~beyond_padding
        share = np.count_nonzero(beyond) / max(beyond.size, 1)
        if share > MOST_OVERLAID:
            raise Unreadable(
                f"{share:.0%} of its pixels have bits above the {bits} stored bits that its header states; these are "
                "no overlay"
            )
        return padding

    def _is_clipped(self, low: float, high: float, rescale: Rescale) -> bool:
        """Whether padding is a stored value that is clipped with everything else below air."""
        least, most = self.coding.stored
        stored = least <= low and high <= most and self.table is None
        return self.decoding.hu and stored and rescale[0] > 0 and high * rescale[0] + rescale[1] <= AIR_HU


def _rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Apply slope and intercept. Integers stay integers if both are integral."""
    if stored.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            return stored.astype(np.float64) * slope + intercept
    if slope % 1 or intercept % 1 or abs(slope) * 2**32 + abs(intercept) > 2**62:
        return stored * slope + intercept
    wide = np.int32 if stored.dtype.itemsize <= 2 and abs(slope) < 2**14 and abs(intercept) < 2**30 else np.int64
    return stored.astype(wide) * int(slope) + int(intercept)


def _with_sign(value: float, signed: bool, width: int) -> float:
    """A padding value in the representation of the pixels: headers may write -2000 as 63536, or 63536 as -2000."""
    if signed and value >= 2 ** (width - 1):
        return value - 2**width
    return value + 2**width if not signed and value < 0 else value


def _outside(found: np.ndarray) -> np.ndarray:
    """The regions (H, W) bool that touch the border."""
    from scipy import ndimage

    labelled: Any = ndimage.label(found)
    regions, count = labelled
    border = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    return found if len(border[border > 0]) == count else np.isin(regions, border[border > 0])


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
