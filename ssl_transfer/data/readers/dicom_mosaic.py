"""Siemens mosaics: all slices of a volume in one picture, tile by tile, as scanners write functional and diffusion MR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssl_transfer.data.readers.dicom_geometry import Frame
from ssl_transfer.data.readers.dicom_values import words

MOSAIC = "MOSAIC"  # value of ImageType


@dataclass(frozen=True)
class Mosaic:
    """The tiles of a picture, row by row.

    Attributes:
        size: Height and width of a tile.
        across: Number of tiles in a row, and of rows.
        points: Position of the first pixel of each slice in mm.
    """

    size: tuple[int, int]
    across: int
    points: tuple[tuple[float, float, float], ...]

    def frames(self, frame: Frame) -> list[Frame]:
        """The slices, from the frame of the whole picture."""
        return [replace(frame, point=point) for point in self.points]

    def tiles(self, picture: np.ndarray) -> Iterator[np.ndarray]:
        """Cut a picture (C, H, W) into its slices (C, h, w)."""
        height, width = self.size
        for number in range(len(self.points)):
            row, column = divmod(number, self.across)
            yield picture[:, row * height : (row + 1) * height, column * width : (column + 1) * width]


def is_mosaic(dataset) -> bool:
    """Whether an object states that it is a mosaic."""
    return MOSAIC in words(dataset, "ImageType")


def mosaic_of(dataset) -> Mosaic | None:
    """The tiles of a mosaic; None if its Siemens header (CSA), which states their number and positions, cannot be read."""
    from nibabel.nicom.dicomwrappers import wrapper_from_data

    try:
        wrapper: Any = wrapper_from_data(dataset)
        rows, columns, count = wrapper.image_shape
        first, step = np.array(wrapper.image_position), wrapper.slice_normal * wrapper.voxel_sizes[2]
        lines = [np.round(first + number * step, 6).tolist() for number in range(count)]
        points = tuple((float(x), float(y), float(z)) for x, y, z in lines)
        across = int(wrapper.mosaic_size)
    except Exception:  # another manufacturer, no CSA header, or a damaged one
        return None
    return Mosaic((int(rows), int(columns)), across, points) if rows and columns and count > 1 else None
