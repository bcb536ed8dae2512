"""Images on their way into a store: shards of pixels and masks, and batches of rows, which stay in step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.digests import FINGERPRINTS, pixel_digest
from ssl_transfer.data.rows import RowBatches
from ssl_transfer.data.shards import SHARD_BYTES, ShardReader, ShardWriter
from ssl_transfer.measures.fingerprint import FINGERPRINT_BYTES, fingerprint


def fingerprint_reader(folder: Path, images: int | None = None) -> ShardReader:
    """Reads the fingerprints of the images of a store, uint8 (B, FINGERPRINT_BYTES); `images`: see `ShardReader`."""
    per_shard = SHARD_BYTES // FINGERPRINT_BYTES
    return ShardReader(folder, FINGERPRINTS, (FINGERPRINT_BYTES,), "|u1", per_shard, False, images)


class ImageFiles:
    """Appends images with their rows and masks.

    Args:
        shards: Folder of the shards; it is made.
        batches: Folder of the batches of rows.
        shape: Shape (C, H, W) of every image.
        dtype: Dtype of the images.
        mask_dtype: Dtype of the masks; None: there are none.
        compress: Whether blosc2 frames are written.
        start: What `flush` returned last before an ingest was interrupted: images and batches that are there already.

    Raises:
        ValueError, OSError: If what `start` states is not there.

    Attributes:
        pixels, fingerprints, masks: Writers of the shards.
        rows: The rows.
    """

    def __init__(
        self,
        shards: Path,
        batches: Path,
        shape: tuple[int, ...],
        dtype: np.dtype,
        mask_dtype: np.dtype | None,
        compress: bool,
        *,
        start: tuple[int, int] = (0, 0),
    ):
        shards.mkdir(parents=True, exist_ok=True)
        images, n_batches = start
        self.rows = RowBatches(batches, n_batches)
        if len(self.rows) != images:
            raise ValueError(f"{batches}: {len(self.rows)} rows for {images} images")
        self.shape, self.mask_dtype = tuple(shape), None if mask_dtype is None else np.dtype(mask_dtype)
        self.pixels = ShardWriter(shards, "pixels", self.shape, np.dtype(dtype), compress, images)
        code = (FINGERPRINT_BYTES,)
        self.fingerprints = ShardWriter(shards, FINGERPRINTS, code, np.dtype("u1"), False, images)
        self.masks = None
        if self.mask_dtype is not None:
            self.masks = ShardWriter(shards, "masks", self.shape[1:], self.mask_dtype, compress, images)

    def __len__(self) -> int:
        return self.pixels.count

    def append(
        self,
        image: np.ndarray,
        row: dict[str, Any],
        mask: np.ndarray | None = None,
        digests: dict[str, str] | None = None,
    ) -> None:
        """Add one image (C, H, W), its row, and its mask (H, W); no mask means all background.

        The fingerprint is that of the row, if a worker process has computed it.

        Args:
            digests: Columns `pixel_digest` and `mask_digest`, where they are known already; see `pixel_digest`.
        """
        if self.masks is not None and mask is None:
            mask = np.zeros(self.shape[1:], self.mask_dtype)
        self.pixels.append(image)
        if self.masks is not None and mask is not None:
            self.masks.append(mask)
        columns = row | (digests or {})
        known: Any = columns.pop(FINGERPRINTS, None)
        self.fingerprints.append(fingerprint(image) if known is None else known)
        if "pixel_digest" not in columns:
            columns["pixel_digest"] = pixel_digest(image)
        if mask is not None and self.masks is not None and "mask_digest" not in columns:
            columns["mask_digest"] = pixel_digest(mask)
        self.rows.append(columns)

    def flush(self) -> tuple[int, int]:
        """Write everything to the disk; returns the number of images and of batches."""
        self.pixels.flush()
        self.fingerprints.flush()
        if self.masks is not None:
            self.masks.flush()
        return len(self), self.rows.flush()

    def close(self) -> None:
        """Finish the last shards and the last batch."""
        self.pixels.close()
        self.fingerprints.close()
        if self.masks is not None:
            self.masks.close()
        self.rows.flush()

    def abandon(self) -> None:
        """Close files without finishing them."""
        self.pixels.abandon()
        self.fingerprints.abandon()
        if self.masks is not None:
            self.masks.abandon()
