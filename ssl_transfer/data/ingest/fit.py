"""The common size, channels and dtype of a store, and the conversion of the images of a mixed folder to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssl_transfer.data.display import DISPLAY_RANGE, LUMINANCE, SCALED_RANGE
from ssl_transfer.data.ingest.ranges import Ranges
from ssl_transfer.data.readers.dicom_grey import AIR_HU
from ssl_transfer.data.readers.reader import Item, Unreadable

DTYPES = (np.uint8, np.int16, np.float32)


@dataclass(frozen=True)
class Fit:
    """The form of all images of a store.

    Attributes:
        size: Height and width.
        channels: 1 or 3.
        dtype: Dtype of the images.
        mask_dtype: Dtype of the masks; None without masks.
        scaled: Whether the range of each image becomes 0 to 10000.
        fill: Value of the padding: air for HU, the low end of a store's one range, otherwise 0. The minimum of the image is used
            if it is lower.
    """

    size: tuple[int, int]
    channels: int
    dtype: np.dtype
    mask_dtype: np.dtype | None
    fill: float
    scaled: bool = False

    def in_range(self, ranges: Ranges) -> Fit:
        """This form, for images with intensity ranges."""
        if ranges.units == "scaled":
            assert ranges.dtype is not None
            return replace(self, dtype=ranges.dtype, fill=0, scaled=True)
        return replace(self, fill=ranges.value_range[0]) if ranges.value_range else self

    def image(self, image: np.ndarray, span: tuple[float, float] | None = None) -> np.ndarray:
        """Convert an image (C, H, W): colour to luminance or repeated grey, resample at constant aspect ratio, pad.

        Args:
            image: Physical values.
            span: The physical values that become 0 and 10000 if the store is scaled.
        """
        if self.scaled:
            image = _scaled(image, span or DISPLAY_RANGE)
        if image.shape[0] == 3 and self.channels == 1:
            grey = np.tensordot(np.array(LUMINANCE, np.float32), image.astype(np.float32), 1)[None]
            image = grey if image.dtype.kind == "f" else np.rint(grey).astype(image.dtype)
        elif image.shape[0] == 1 and self.channels == 3:
            image = np.repeat(image, 3, axis=0)
        if image.shape[1:] != self.size:
            fill = min(self.fill, image.min())  # a CT among other modalities has air below 0
            image = np.stack([self._padded(_resample(plane, self._inner(plane.shape)), fill) for plane in image])
        if self.scaled and self.dtype.kind != "f":
            limits = np.iinfo(self.dtype)
            image = np.clip(np.rint(image), limits.min, limits.max)
        return np.ascontiguousarray(image, dtype=self.dtype)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Resample a mask (H, W) of class ids by nearest neighbour, and pad it.

        Raises:
            Unreadable: If an id does not fit the dtype of the masks.
        """
        if mask.size and mask.max() > np.iinfo(self.mask_dtype).max:
            raise Unreadable(f"its mask has the value {mask.max()}, but its header allows at most 255")
        if mask.shape != self.size:
            height, width = self._inner(mask.shape)
            rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
            columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
            mask = self._padded(mask[np.ix_(rows, columns)], 0)
        return np.ascontiguousarray(mask, dtype=self.mask_dtype)

    def spacing(self, row: dict, size: tuple[int, int]) -> dict:
        """Spacing in mm of the resampled pixels, from the spacing of an image of `size`; empty if unknown."""
        if size == self.size:
            return {}
        inner = self._inner(size)
        names = ("spacing_row_mm", "spacing_col_mm")
        return {n: row[n] * a / b for n, a, b in zip(names, size, inner, strict=True) if row.get(n) is not None}

    def _inner(self, size: Sequence[int]) -> tuple[int, int]:
        scale = min(self.size[0] / size[0], self.size[1] / size[1])
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def _padded(self, plane: np.ndarray, fill: float) -> np.ndarray:
        height, width = plane.shape
        top, left = (self.size[0] - height) // 2, (self.size[1] - width) // 2
        canvas = np.full(self.size, fill, plane.dtype)
        canvas[top : top + height, left : left + width] = plane
        return canvas


def choose_fit(items: Sequence[Item], units: str, size: int | None, channels: int | None, mask_dtype) -> Fit:
    """Choose the form of a store.

    Args:
        items: Items of the source.
        units: Units of the grey values; `hu` is padded with air.
        size: Height and width; None: the most common shape (of two equally common shapes, the larger one).
        channels: 1 or 3; None: 3 if all images are colour, otherwise 1.
        mask_dtype: Dtype of the masks of the source.
    """
    shapes: Counter = Counter()
    for item in items:
        shapes[tuple(int(n) for n in item.size)] += item.n_images
    chosen = (size, size) if size else max(shapes, key=lambda shape: (shapes[shape], shape))
    channels = channels or (3 if all(item.channels == 3 for item in items) else 1)
    dtypes = {np.dtype(item.dtype) for item in items}
    dtype = next(d for d in DTYPES if all(np.can_cast(dtype, d) for dtype in dtypes))
    return Fit(chosen, channels, np.dtype(dtype), mask_dtype, AIR_HU if units == "hu" else 0)


def _scaled(image: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """Map the ends of a range to 0 and 10000, linearly; float32."""
    low, high = span
    return ((image.astype(np.float64) - low) * (SCALED_RANGE[1] / (high - low))).astype(np.float32)


def _resample(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample linearly. For smaller sizes, the kernel is widened to prevent aliasing."""
    from PIL import Image

    if plane.shape == size:
        return plane
    resized = np.asarray(
        Image.fromarray(plane.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    )
    if plane.dtype.kind == "f":
        return resized.astype(plane.dtype)
    limits = np.iinfo(plane.dtype)
    return np.clip(np.rint(resized), limits.min, limits.max).astype(plane.dtype)
