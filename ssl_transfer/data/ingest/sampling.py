"""What intensity ranges by percentile, and depths in use, are measured from: a sample of the pixels of a source."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from ssl_transfer.data.display import STORED_PERCENTILES
from ssl_transfer.data.readers.reader import Item, Reader, Unreadable
from ssl_transfer.texts import Partition

Span = tuple[float, float]
DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits of detectors
SAMPLED_IMAGES, SAMPLED_PIXELS = 32, 4096  # of a series, and of each of these images


def sampled(images: Sequence[np.ndarray], most: int = SAMPLED_IMAGES, shift: float = 0.5) -> np.ndarray:
    """Finite values of up to `most` images (C, H, W), evenly spaced: of each about 4,096 pixels, float64, shape (n,).

    Args:
        images: Images of one item.
        most: How many are sampled.
        shift: Where the first one is between the ends of its share, from 0 to 1: of many time points, each gives other slices.
    """
    thinned = [np.zeros(0)]
    for position in evenly_spaced(len(images), most, shift):
        flat = images[position].reshape(len(images[position]), -1)
        stride = max(1, flat.shape[1] // SAMPLED_PIXELS) | 1  # odd, so that all columns are sampled
        thinned.append(flat[:, ::stride].ravel().astype(np.float64))
    values = np.concatenate(thinned)
    return values[np.isfinite(values)]


def percentile_range(values: np.ndarray) -> Span:
    """The 0.5 and 99.5 percentile of values, to six significant digits.

    Where they are equal, as in an image that is mostly background, the range is that from the smallest to the largest value.

    Args:
        values: Finite values, shape (n,).

    Returns:
        Two values that differ.
    """
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, STORED_PERCENTILES)
    if low == high:
        low, high = values.min(), values.max()
    low, high = (float(f"{value:.6g}") for value in (low, high))
    return low, high if high > low else low + 1.0


def depth_in_use(depth: Span, bits: int, lowest: float, highest: float, *, inverted: bool = False) -> Span:
    """The range of the smallest usual depth that contains the values of files which were stored with more bits.

    Args:
        depth: Lowest and highest value that the stored bits can hold.
        bits: Number of stored bits.
        lowest: Smallest value of the files.
        highest: Their largest value.
        inverted: Whether values were turned (MONOCHROME1, WhiteIsZero): those of fewer bits lie at the upper end of the depth,
            unless they were turned before within all bits.

    Example:
        >>> depth_in_use((0, 65535), 16, 12, 3071)
        (0.0, 4095.0)
        >>> depth_in_use((0, 65535), 16, 61440, 65535, inverted=True)
        (61440.0, 65535.0)
    """
    low, high = map(float, depth)
    step = (high - low) / (2**bits - 1)
    zero = low + 2 ** (bits - 1) * step
    if low < 0 and abs(zero) < step / 2 and not inverted:  # signed
        if lowest < zero:
            return low, high
        low = zero
    at_top = inverted and high - lowest < highest - low
    used = round((high - lowest if at_top else highest - low) / step)
    levels = 2 ** min(next((d for d in DEPTHS if used < 2**d), bits), bits) - 1
    return (high - levels * step, high) if at_top else (low, low + levels * step)


def evenly_spaced(count: int, most: int, shift: float = 0.5) -> list[int]:
    """Up to `most` positions below `count`, evenly spaced, ascending; `shift` is that of the first one within its share."""
    kept = min(count, most)
    return [int((k + shift) * count / kept) for k in range(kept)]


def pixel_bytes(item: Item) -> int:
    """Size of the pixels of an item."""
    return item.n_images * item.channels * item.size[0] * item.size[1] * np.dtype(item.dtype).itemsize


def is_native(item: Item) -> bool:
    """Whether a native decoder reads an item."""
    return item.native


class RangeGroups(Sequence[np.ndarray]):
    """Positions of the items that share a range: those of a series, or of a volume.

    Args:
        positions: Positions of items, ascending, shape (n,).
        keys: What the items of a group share, a hash, shape (n,).

    Attributes:
        numbers: Number of the group of each position, shape (n,).
    """

    def __init__(self, positions: array, keys: array):
        self._positions, self._parts = np.asarray(positions), Partition(np.asarray(keys))
        self.numbers = self._parts.numbers

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number):
        return self._positions[self._parts[number]]


class Samples(Sequence[list[Item]]):
    """The items of each of some groups that are read to measure its range."""

    def __init__(self, items: Sequence[Item], groups: RangeGroups, chosen: np.ndarray):
        self.items, self.groups, self.chosen = items, groups, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[k] for k in range(*number.indices(len(self)))]
        positions = self.groups[self.chosen[number]]
        return [self.items[positions[k]] for k in evenly_spaced(len(positions), SAMPLED_IMAGES)]


class Extremes:
    """Smallest and largest finite value of an item; None if it cannot be read. It is pickled for worker processes."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def __call__(self, item: Item) -> Span | None:
        try:
            values = [image[np.isfinite(image)] for image, _, _ in self.reader.read(item)]
        except Unreadable:
            return None  # listed when it is to be written
        values = [of_image for of_image in values if of_image.size]
        if not values:
            return None
        return float(min(of_image.min() for of_image in values)), float(max(of_image.max() for of_image in values))


class Percentiles:
    """The range of items that share one; None if none can be read. It is pickled for worker processes."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def __call__(self, items: Sequence[Item]) -> Span | None:
        values = []
        for number, item in enumerate(items):
            try:
                images = [image for image, _, _ in self.reader.read(item)]
            except Unreadable:
                continue  # listed when it is to be written
            values.append(sampled(images, max(1, SAMPLED_IMAGES // len(items)), (number + 0.5) / len(items)))
        return percentile_range(np.concatenate(values)) if values else None
