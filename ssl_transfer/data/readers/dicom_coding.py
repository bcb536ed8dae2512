"""How the stored values of a DICOM object become physical ones, as its header states it: bits, rescale, padding, window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ssl_transfer.data.readers.dicom_values import frame_count, group_or_header, number, states, text, words

Rescale = tuple[float, float]  # slope, intercept
Span = tuple[float, float]  # lowest and highest value
SUPPLEMENTAL = ("COLOR", "MIXED")  # PixelPresentation of grey images whose highest values are colours


@dataclass(frozen=True)  # without slots, which take longer to pickle
class Coding:
    """The attributes of an object that determine its physical values.

    Attributes:
        kind: `grey`, `colour`, or `palette` (indices of colours).
        photometric: PhotometricInterpretation.
        allocated: Bits of a stored word.
        bits: Bits of it that hold the value; None for floats.
        high_bit: Position of the highest of these bits.
        signed: Whether the value is in two's complement.
        rescales: The different rescale slopes and intercepts of the frames; None for frames that state none.
        rescale_type: RescaleType or the type of the modality lookup table in capital letters, such as HU, US or OD; None if it is
            not stated. Different ones of frames are joined, as in `HU, US`.
        table: Smallest and largest entry of the modality lookup table; None without one.
    """

    kind: Literal["grey", "colour", "palette"]
    photometric: str
    allocated: int
    bits: int | None
    high_bit: int
    signed: bool
    rescales: tuple[Rescale | None, ...]
    rescale_type: str | None
    table: Span | None

    @property
    def shift(self) -> int:
        """Number of unused bits below the value."""
        return max(0, self.high_bit + 1 - (self.bits or 0))

    @property
    def is_inverted(self) -> bool:
        """Whether the smallest value is shown white."""
        return self.photometric == "MONOCHROME1"

    @property
    def stored(self) -> Span:
        """Lowest and highest stored value of the bits."""
        bits = self.bits or 1
        return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if self.signed else (0, 2**bits - 1)

    def physical(self, rescale: Rescale | None = None) -> Span | None:
        """Lowest and highest value that the bits can hold after the modality transformation; None for floats.

        Args:
            rescale: Slope and intercept of frames that state none.
        """
        if self.bits is None:
            return None
        if self.table:
            return self.table
        pairs = [own or rescale or (1.0, 0.0) for own in self.rescales]
        ends = [end * slope + intercept for slope, intercept in pairs for end in self.stored]
        return min(ends), max(ends)

    def dtype(self, *, hu: bool, rescale: Rescale | None = None) -> np.dtype:
        """Dtype of decoded images: int16 for HU, uint8 for colour, otherwise the smallest of uint8, int16 and float32."""
        if self.kind != "grey":
            return np.dtype(np.uint8)
        if hu:
            return np.dtype(np.int16)
        span = self.physical(rescale)
        if span is None or any(part % 1 for pair in (*self.rescales, rescale) if pair for part in pair):
            return np.dtype(np.float32)
        fitting = (d for d in (np.uint8, np.int16) if np.iinfo(d).min <= span[0] and span[1] <= np.iinfo(d).max)
        return np.dtype(next(fitting, np.float32))


def coding_of(header, *, is_float: bool) -> Coding:
    """The coding of an object.

    Args:
        header: Its dataset, with or without pixels.
        is_float: Whether its pixels are Float Pixel Data or Double Float Pixel Data.

    Raises:
        ValueError: If its attributes contradict each other.
    """
    photometric = (text(header, "PhotometricInterpretation") or "MONOCHROME2").upper()
    samples = int(number(header, "SamplesPerPixel") or 1)
    allocated = int(number(header, "BitsAllocated") or (32 if is_float else 0))
    bits = int(number(header, "BitsStored") or allocated)
    high_bit = number(header, "HighBit")
    if not is_float and not 1 <= bits <= allocated:
        raise ValueError(f"BitsStored is {bits}, BitsAllocated {allocated}")
    if (samples > 1) != photometric.startswith(("RGB", "YBR")):
        raise ValueError(f"PhotometricInterpretation {photometric} with {samples} sample(s) per pixel cannot be read")
    table = lookup_table(header)
    return Coding(
        kind_of(header, photometric, samples),
        photometric,
        allocated,
        None if is_float else bits,
        bits - 1 if high_bit is None or not bits - 1 <= high_bit < allocated else int(high_bit),
        bool(number(header, "PixelRepresentation") or 0),
        _rescales(header),
        ((table.type if table else None) or _rescale_type(header) or "").upper() or None,
        table.span if table else None,
    )


def kind_of(header, photometric: str, samples: int) -> Literal["grey", "colour", "palette"]:
    """Whether an object is grey, in colour, or indices of a palette (also a supplemental one)."""
    if samples > 1:
        return "colour"
    mixed = words(header, "PixelPresentation")[:1]
    supplemental = bool(mixed) and mixed[0] in SUPPLEMENTAL and states(header, "RedPaletteColorLookupTableDescriptor")
    return "palette" if photometric == "PALETTE COLOR" or supplemental else "grey"


def rescale_of(header, frame: int) -> Rescale | None:
    """Rescale slope and intercept of a frame; None unless both are stated as numbers and the slope is not 0."""
    holder = group_or_header(header, frame, "PixelValueTransformationSequence")
    slope, intercept = number(holder, "RescaleSlope"), number(holder, "RescaleIntercept")
    if holder is not header and (slope is None or intercept is None):
        slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    return None if not slope or intercept is None else (slope, intercept)


def rescale_text(rescale: Rescale) -> str:
    """The text of the column `rescale`: slope and intercept with a semicolon between."""
    return f"{rescale[0]:.10g};{rescale[1]:.10g}"


def rescale_from(written: str | None) -> Rescale | None:
    """The rescale of the column `rescale`; None for a lookup table, or if there is none."""
    if written is None or written == "table":
        return None
    slope, _, intercept = written.partition(";")
    return float(slope), float(intercept)


def _rescales(header) -> tuple[Rescale | None, ...]:
    frames = frame_count(header) if states(header, "PerFrameFunctionalGroupsSequence") else 1
    return tuple(dict.fromkeys(rescale_of(header, frame) for frame in range(frames)))


def _rescale_type(header) -> str | None:
    """RescaleType of the object, or those of its frames."""
    stated = text(header, "RescaleType")
    if not states(header, "PerFrameFunctionalGroupsSequence"):
        return stated
    groups = (
        group_or_header(header, frame, "PixelValueTransformationSequence") for frame in range(frame_count(header))
    )
    of_frames = {(text(group, "RescaleType") or "").upper() for group in groups} - {""}
    return ", ".join(sorted(of_frames)) or stated


@dataclass(frozen=True)
class LookupTable:
    """A modality or VOI lookup table.

    Attributes:
        first: Value of the first entry; smaller values have this entry, values beyond the last entry have the last one.
        entries: Output values, int64, shape (n,).
        type: Units of the output, such as HU; None if not stated.
    """

    first: int
    entries: np.ndarray
    type: str | None

    @property
    def span(self) -> Span:
        return float(self.entries.min()), float(self.entries.max())

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """Look up integer values of any shape."""
        return self.entries[np.clip(stored.astype(np.int64) - self.first, 0, len(self.entries) - 1)]


def lookup_table(header) -> LookupTable | None:
    """The modality lookup table of an object; None without one.

    Raises:
        ValueError: If its descriptor and its data contradict each other.
    """
    sequence = header.get("ModalityLUTSequence") if states(header, "ModalityLUTSequence") else None
    if not sequence:
        return None
    count, first, bits = _descriptor(sequence[0])
    data: Any = sequence[0].get("LUTData")
    if isinstance(data, bytes):
        packed = bits <= 8 and len(data) < 2 * count
        data = np.frombuffer(data, np.uint8 if packed else "<u2")
    entries = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    if bits <= 8 and len(entries) < count:  # two entries to a word
        entries = np.stack([entries & 255, entries >> 8], 1).ravel()
    if len(entries) < count:
        raise ValueError(f"its modality lookup table has {len(entries)} entries, its descriptor states {count}")
    signed_input = bool(number(header, "PixelRepresentation"))
    first = first - 65536 if signed_input and first > 32767 else first
    return LookupTable(first, entries[:count], text(sequence[0], "ModalityLUTType"))


def _descriptor(item) -> tuple[int, int, int]:
    """Number of entries, value of the first one, and bits of an entry."""
    values = [int(value) for value in item["LUTDescriptor"].value]
    return values[0] % 65536 or 65536, values[1], values[2]


def voi_window(header, physical: Span | None, frame: int = 0) -> Span | None:
    """Lowest and highest physical value of the first VOI window of a frame, or else of the input of the VOI lookup table.

    Windows of the functions LINEAR (PS3.3 C.11.2.1.2), LINEAR_EXACT and SIGMOID are read; a sigmoid as the line of its window.

    Args:
        header: The dataset of the object.
        physical: Lowest and highest value that its bits can hold; a window outside of it is not meant.
        frame: Number of the frame, for enhanced objects: their window is that of the frame, else the one of all frames.
    """
    holder = group_or_header(header, frame, "FrameVOILUTSequence")
    center, width = number(holder, "WindowCenter"), number(holder, "WindowWidth")
    span = None
    if center is not None and width is not None and width > 0:
        exact = (words(holder, "VOILUTFunction") or ["LINEAR"])[0] != "LINEAR"
        low = center - width / 2 if exact else center - 0.5 - (width - 1) / 2
        span = low, low + (width if exact else width - 1)
    if span is None or span[0] >= span[1]:
        span = _voi_table(header, physical)
    if span is None or (physical and (span[1] <= physical[0] or span[0] >= physical[1])):
        return None
    return span


def _voi_table(header, physical: Span | None) -> Span | None:
    """Range of the input values of the first VOI lookup table."""
    try:
        sequence = header.get("VOILUTSequence") if states(header, "VOILUTSequence") else None
        if not sequence:
            return None
        count, first, _ = _descriptor(sequence[0])
    except Exception:  # without a readable table there is no window
        return None
    if first > 32767 and physical and physical[0] < 0:
        first -= 65536  # a signed value that was written as an unsigned one
    return (float(first), float(first + count - 1)) if count > 1 else None


def padding_of(header) -> tuple[float, float] | None:
    """Lowest and highest stored value of the padding, as the header writes them; None if it states none."""
    for value, limit in (
        ("PixelPaddingValue", "PixelPaddingRangeLimit"),
        ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
        ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
    ):
        first = number(header, value)
        if first is not None:
            last = number(header, limit)
            return first, first if last is None else last
    return None
