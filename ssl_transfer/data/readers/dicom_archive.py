"""The image files of a DICOM archive, by series, of which the first ones are in memory and the others in a file."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from ssl_transfer.data.readers.dicom_header import ImageFile
from ssl_transfer.data.readers.items import IN_MEMORY, Records
from ssl_transfer.texts import Partition


class StoredSeries:
    """Appends image files in any order, and iterates over their series. Memory: sixteen bytes a file behind the first 10,000.

    Series are told apart by patient, study and series (or folder, where there is no series id), and are in the order of their
    first files. What is changed in an image file is not kept.
    """

    def __init__(self) -> None:
        self._head: list[ImageFile] = []
        self._files = Records()
        self._series = array("q")

    def append(self, image: ImageFile) -> None:
        """Add an image file."""
        row = image.item.row
        key = row["patient"], row["study"], row["series"] or image.item.file.rpartition("/")[0]
        self._series.append(hash(key))
        (self._head if len(self._series) <= IN_MEMORY else self._files).append(image)

    def __iter__(self) -> Iterator[list[ImageFile]]:
        for members in Partition(np.asarray(self._series)):
            yield [self._image(position) for position in members.tolist()]

    def _image(self, position: int) -> ImageFile:
        return self._head[position] if position < len(self._head) else self._files[position - len(self._head)]
