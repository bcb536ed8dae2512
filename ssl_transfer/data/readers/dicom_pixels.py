"""DICOM pixels in physical units: decoding, rescaling to HU, colour, frames.

CT is converted to HU, and colour of any coding to 8-bit RGB. Everything else keeps its stored values, rescaled if the file has a
rescale slope and intercept. `pixel_format` derives from the header what `decode` yields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_transfer.data.readers.reader import Unreadable

AIR_HU = -1024  # below this is scanner padding, not air
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
CT_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # legacy converted enhanced CT
)


@dataclass(frozen=True)
class PixelFormat:
    """Format of decoded pixels: dtype, range of integral values, and whether they are HU."""

    dtype: np.dtype
    low: float
    high: float
    is_ct: bool


def is_ct(header) -> bool:
    """True if the object's values are Hounsfield units: a CT image, not a screen capture of one."""
    return header.get("Modality") == "CT" and header.get("SOPClassUID") in CT_IMAGES


def pixel_format(header) -> PixelFormat:
    """The format that `decode` yields, from the header of a grey or colour object (a pydicom dataset without pixels)."""
    if int(header.get("SamplesPerPixel", 1)) > 1 or header.get("PhotometricInterpretation") == "PALETTE COLOR":
        return PixelFormat(np.dtype(np.uint8), 0, 255, False)
    ct = is_ct(header)
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header or "BitsStored" not in header:
        return PixelFormat(np.dtype(np.float32), 0, 0, ct)
    low, high = _stored_range(header)
    rescales = [rescale(header, frame) for frame in range(frame_count(header))]
    if any(slope % 1 or intercept % 1 for slope, intercept in rescales):
        return PixelFormat(np.dtype(np.float32), low, high, ct)
    ends = [end * slope + intercept for slope, intercept in rescales for end in (low, high)]
    low, high = min(ends), max(ends)
    if ct:
        return PixelFormat(np.dtype(np.int16), AIR_HU, 32767, True)
    for dtype in (np.uint8, np.int16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return PixelFormat(np.dtype(dtype), low, high, False)
    return PixelFormat(np.dtype(np.float32), low, high, False)


def _stored_range(header) -> tuple[int, int]:
    """Smallest and largest value of the stored bits, or of the modality lookup table's entries."""
    table = header.get("ModalityLUTSequence")
    if table:
        return 0, 2 ** int(table[0].LUTDescriptor[2]) - 1
    bits = int(header.BitsStored)
    if int(header.get("PixelRepresentation", 0)):
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def frame_count(header) -> int:
    """Number of frames; 1 if the header does not state it."""
    return int(header.get("NumberOfFrames") or 1)


def functional_group(header, frame: int, macro: str):
    """A functional group of an enhanced object: that of the frame, otherwise the shared one, otherwise None."""
    frames = header.get("PerFrameFunctionalGroupsSequence")
    shared = header.get("SharedFunctionalGroupsSequence")
    for group in (frames[frame] if frames and frame < len(frames) else None, shared[0] if shared else None):
        if group is not None and group.get(macro):
            return group[macro].value[0]
    return None


def rescale(header, frame: int) -> tuple[float, float]:
    """Rescale slope and intercept of a frame; (1, 0) if there are none, or if there is a lookup table instead."""
    if header.get("ModalityLUTSequence"):
        return 1.0, 0.0
    holder = functional_group(header, frame, "PixelValueTransformationSequence") or header
    slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
    return float(1 if slope is None else slope), float(0 if intercept is None else intercept)


def decode(path: Path) -> Iterator[np.ndarray]:
    """Decode every frame of a file.

    Yields:
        Images in physical units, (1, H, W) of the dtype of `pixel_format`, or (3, H, W) uint8 for colour; one per frame, in
        the order of the file.

    Raises:
        Unreadable: If the pixels cannot be decoded, or contradict the header.
    """
    import pydicom

    try:
        dataset = pydicom.dcmread(path, force=True)
        _complete_meta(dataset)
        expected = pixel_format(dataset)
        for number, stored in enumerate(_frames(dataset, path)):
            if stored.ndim == 3 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
                yield _colour(stored, dataset)
            else:
                yield _grey(stored, dataset, number, expected)[None]
    except Unreadable:
        raise
    except Exception as error:  # decoders raise many kinds of errors; each becomes a line in the store's card
        raise Unreadable(_first_line(error)) from None


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


def _frames(dataset, path: Path) -> Iterator[np.ndarray]:
    """Stored values, (H, W) or (H, W, 3) RGB."""
    twelve_bit = int(dataset.get("BitsStored", 8)) > 8
    if dataset.file_meta.TransferSyntaxUID == JPEG_EXTENDED and twelve_bit and frame_count(dataset) == 1:
        yield _gdcm_pixels(path, dataset)
    elif frame_count(dataset) == 1:
        yield dataset.pixel_array
    else:
        yield from dataset.pixel_array


def _gdcm_pixels(path: Path, dataset) -> np.ndarray:
    """12-bit JPEG Extended: GDCM decodes it, but pydicom's plugin for GDCM does not offer it."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise Unreadable("pixels cannot be decoded: GDCM cannot read this file")
    image = reader.GetImage()
    kind = {"UINT16": np.uint16, "INT16": np.int16, "UINT8": np.uint8}[image.GetPixelFormat().GetScalarTypeAsString()]
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM's binding returns bytes as text
    return np.frombuffer(buffer, kind).reshape(int(dataset.Rows), int(dataset.Columns))


def _colour(stored: np.ndarray, dataset) -> np.ndarray:
    """Convert RGB of 8, 16 or 32 bits, or palette indices, to (3, H, W) uint8."""
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        stored = apply_color_lut(stored, dataset)
        bits = stored.dtype.itemsize * 8
    else:
        bits = int(dataset.BitsStored)
    if stored.shape[-1] == 4:
        stored = stored[..., :3]  # alpha
    return np.ascontiguousarray(np.moveaxis((stored >> max(bits - 8, 0)).astype(np.uint8), -1, 0))


def _grey(stored: np.ndarray, dataset, frame: int, expected: PixelFormat) -> np.ndarray:
    """Convert stored values (H, W) to physical values of the expected dtype."""
    padding = _padding(stored, dataset)
    values = _rescaled(stored, dataset, frame)
    if expected.is_ct:
        values = np.where(padding, AIR_HU, values) if padding is not None else values
        return np.clip(values, AIR_HU, 32767).astype(expected.dtype)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":  # dense tissue is shown bright
        values = expected.low + expected.high - values
    if padding is not None and not padding.all():
        values = np.where(padding, values[~padding].min(), values)
    if expected.dtype.kind != "f":
        limits = np.iinfo(expected.dtype)
        if values.min() < limits.min or values.max() > limits.max:
            raise Unreadable(
                f"values from {values.min()} to {values.max()} lie outside the range that its header states "
                f"({expected.low:.0f} to {expected.high:.0f})"
            )
    return values.astype(expected.dtype)


def _rescaled(stored: np.ndarray, dataset, frame: int) -> np.ndarray:
    """Apply the modality LUT, a table or slope and intercept. Integers stay integers if slope and intercept are integral."""
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return apply_modality_lut(stored, dataset)
    if stored.dtype.kind == "f":
        slope, intercept = rescale(dataset, frame)
        return stored * slope + intercept
    slope, intercept = rescale(dataset, frame)
    if slope % 1 or intercept % 1:
        return stored * slope + intercept
    return stored.astype(np.int64) * int(slope) + int(intercept)


def _padding(stored: np.ndarray, dataset) -> np.ndarray | None:
    """Mask of the pixels that the scanner padded, (H, W) bool; None if the header has no padding value, or no pixel has it."""
    value = dataset.get("PixelPaddingValue")
    if value is None or not isinstance(value, (int, float)):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    limit = value if limit is None or not isinstance(limit, (int, float)) else limit
    low, high = sorted((value, limit))
    inside = (stored >= low) & (stored <= high)
    return inside if inside.any() else None
