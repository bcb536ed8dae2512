"""Grey values of DICOM frames: from stored words to physical values, with padding, overlays and MONOCHROME1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_transfer.data.readers.dicom_coding import Coding, LookupTable, Rescale, Span, rescale_text
from ssl_transfer.data.readers.reader import Unreadable

AIR_HU = -1024  # below this is scanner padding, not air
LUNG_HU, WATER_HU = -500, 0
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


def signed_words(decoded: np.ndarray, coding: Coding) -> np.ndarray:
    """Decoded integers of any shape with the sign that the header states."""
    return decoded.view(f"{'i' if coding.signed else 'u'}{decoded.dtype.itemsize}")


def stored_values(words: np.ndarray, coding: Coding) -> np.ndarray:
    """The values of the stored bits, without overlays and other bits of the word, with the sign of two's complement.

    Where the header places the value in the upper bits, but bits below it are in use and no others above the lower ones, the
    value is in the lower bits.

    Args:
        words: Integers of any shape; see `signed_words`.
        coding: The coding of the object.

    Returns:
        The words themselves if nothing is removed.
    """
    width, bits = words.dtype.itemsize * 8, coding.bits or 1
    if bits >= width:
        return words
    shift = coding.shift if coding.shift + bits <= width else 0
    low, high = coding.stored
    is_low = words.size > 0 and words.max() <= high and (not coding.signed or words.min() >= low)
    if is_low and (not coding.shift or (words & (2**shift - 1)).any()):
        return words
    return (words << (width - bits - shift)) >> (width - bits)


class GreyFrames:
    """Converts the stored values of the grey frames of an object to physical ones.

    Args:
        coding: The coding of the object.
        decoding: What `scan` decided.
        padding: Lowest and highest stored value of the padding; None without one.
        table: Modality lookup table; None without one.
    """

    def __init__(self, coding: Coding, decoding: Decoding, padding: Span | None, table: LookupTable | None = None):
        self.coding, self.decoding, self.padding, self.table = coding, decoding, padding, table
        self.dtype = coding.dtype(hu=decoding.hu, rescale=decoding.rescale)
        self.physical = coding.physical(decoding.rescale)

    def image(self, decoded: np.ndarray, own: Rescale | None) -> tuple[np.ndarray, dict]:
        """The image (1, H, W) and the columns of a frame.

        Args:
            decoded: Its words or floats, (H, W), as they are decoded; they are overwritten, if they can be.
            own: Rescale slope and intercept that the frame states; None: none.
        """
        is_float = self.coding.bits is None
        words = decoded if is_float else signed_words(decoded, self.coding)
        stored = words if is_float else stored_values(words, self.coding)
        if stored.ndim != 2:
            raise Unreadable(f"its pixels have the shape {stored.shape}, its header states one grey value per pixel")
        rescale = own or self.decoding.rescale or (1.0, 0.0)
        columns: dict = {"rescale": rescale_text(rescale)} if len(self.coding.rescales) > 1 else {}
        padding = (
            None if is_float else self._padding(words, stored, rescale)
        )  # first: rescaling may overwrite the words
        values = self.table(stored) if self.table else _rescaled(stored, *rescale)
        if is_float:
            values, columns["non_finite"] = self._finite(values, stored)
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
        if values.dtype == np.int16:  # finding the minimum takes a tenth of the time of the maximum
            return np.maximum(values, AIR_HU, out=values) if values.min(initial=0) < AIR_HU else values
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
        if self.dtype.kind == "f" or values.dtype == self.dtype:
            return values.astype(self.dtype, copy=False)
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

    def _padding(self, words: np.ndarray, stored: np.ndarray, rescale: Rescale) -> np.ndarray | None:
        """Pixels that the scanner padded, (H, W) bool; None if there are none.

        Padding lies around the image: a region of padding values that does not touch the border is part of the patient, unless
        the value lies beyond the stored bits. Headers write the value with or without a sign.

        Raises:
            Unreadable: If bits above the stored ones are set in so many other pixels that they are no overlay.
        """
        width, bits = words.dtype.itemsize * 8, self.coding.bits or 1
        beyond = None if stored is words or self.coding.shift else words != stored
        if beyond is not None and self.coding.signed:
            beyond &= words & (2**bits - 1) != words  # not the sign alone is missing
        padding = None
        if self.padding is not None:
            low, high = sorted(_with_sign(value, self.coding.signed, width) for value in self.padding)
            if not self._is_clipped(low, high, rescale) and not self._is_tissue(low, high, rescale):
                found = (stored >= low) & (stored <= high)
                padding = _outside(found) if beyond is None and found.any() else None
                if beyond is not None:
                    beyond_padding = beyond & (words >= low) & (words <= high)
                    found |= beyond_padding
                    padding = beyond_padding | _outside(found) if found.any() else None
                    beyond &= ~beyond_padding
        share = 0 if beyond is None else np.count_nonzero(beyond) / max(beyond.size, 1)
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

    def _is_tissue(self, low: float, high: float, rescale: Rescale) -> bool:
        """Whether a range of padding reaches from lung to water: a header that calls a patient padding is not believed."""
        ends = sorted(end * rescale[0] + rescale[1] for end in (low, high))
        return self.decoding.hu and self.table is None and ends[0] < LUNG_HU and ends[1] > WATER_HU


def _rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Apply slope and intercept. Integers stay integers if both are integral."""
    if stored.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            return stored.astype(np.float64) * slope + intercept
    if slope % 1 or intercept % 1 or abs(slope) * 2**32 + abs(intercept) > 2**62:
        return stored * slope + intercept
    if slope == 1 and stored.dtype.itemsize <= 2 and stored.size:
        ends = [int(end) + by for end in (stored.min(), stored.max()) for by in (0, int(intercept))]
        if min(*ends, int(intercept)) >= -(2**15) and max(*ends, int(intercept)) < 2**15:
            in_place = stored.dtype.itemsize == 2 and stored.flags.writeable
            values = stored.view(np.int16) if in_place else stored.astype(np.int16)  # a quarter of the traffic of int32
            values += int(intercept)
            return values
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
