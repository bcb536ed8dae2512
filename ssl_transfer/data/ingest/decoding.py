"""What a worker process does with a file of a source. It imports little, since every worker does so at its start."""

from __future__ import annotations

import numpy as np

from ssl_transfer.data.digests import FINGERPRINTS, pixel_digest
from ssl_transfer.data.display import SCALED_RANGE
from ssl_transfer.data.ingest.fit import Fit
from ssl_transfer.data.ingest.ranges import span_of, stated_span
from ssl_transfer.data.ingest.sampling import Span
from ssl_transfer.data.readers.reader import Item, Reader, Unreadable
from ssl_transfer.measures.fingerprint import fingerprint

Written = tuple[np.ndarray, dict, np.ndarray | None, dict[str, str]]  # image, columns, mask, digests


class Decoding:
    """Decodes and fits an item. It is pickled for worker processes."""

    def __init__(self, reader: Reader, fit: Fit):
        self.reader, self.fit = reader, fit

    def __call__(self, item: Item) -> list[Written] | str:
        """Images with columns, masks and digests; or the reason why the item cannot be read."""
        try:
            frames = list(self.reader.read(item))
            if not frames:
                return "there is no image in it"
            spacing = self.fit.spacing(item.row, item.size)
            of_item = span_of(item, [image for image, _, _ in frames])
            return [
                self._written(image, columns | spacing, mask, stated_span(columns) or of_item)
                for image, columns, mask in frames
            ]
        except Unreadable as error:
            return str(error)

    def _written(self, image: np.ndarray, columns: dict, mask: np.ndarray | None, span: Span | None) -> Written:
        image = self.fit.image(image, span)
        if span is not None:
            columns |= {"range_low": span[0], "range_high": span[1]}
        digests = {"pixel_digest": pixel_digest(image)}
        if mask is not None:
            mask = self.fit.mask(mask)
            digests["mask_digest"] = pixel_digest(mask)
        seen = (
            np.clip(image, *SCALED_RANGE) if self.fit.scaled else image
        )  # as in a picture of it, and never taken for HU
        return image, columns | {FINGERPRINTS: fingerprint(seen)}, mask, digests
