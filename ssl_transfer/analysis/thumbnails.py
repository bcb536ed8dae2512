"""Thumbnails: images of a store as small 8-bit pictures, for pages with very many of them."""

from __future__ import annotations

import numpy as np

from ssl_transfer.data.display import displayed
from ssl_transfer.data.images import Images
from ssl_transfer.errors import UsageError

BATCH_PIXELS = 2**24  # pixels per batch, over all channels


def thumbnails(store: Images, rows: np.ndarray | None = None, px: int = 32) -> np.ndarray:
    """Shrink images to a square, with their aspect ratio kept and black padding.

    HU are shown in the soft-tissue window (400/40), `display` and `rgb` values unchanged, `stored` and `scaled`
    values in the value range of the store, as on a contact sheet. Images are read in batches.

    Args:
        store: The store.
        rows: Positions of the images, shape (n,); None: all images.
        px: Side of the square in pixels, at least 1.

    Returns:
        uint8 (n, px, px), or (n, px, px, 3) for three channels.

    Raises:
        UsageError: If `px` is less than 1 or a position is not in the store.
    """
    rows = np.arange(len(store)) if rows is None else np.asarray(rows, np.int64)
    if px < 1:
        raise UsageError(f"{store.path}: found px={px}, expected a thumbnail size of at least 1 pixel.")
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(store):
        invalid = rows[(rows < 0) | (rows >= len(store))][0]
        raise UsageError(f"{store.path}: there is no image {invalid}; positions go from 0 to {len(store) - 1}.")
    channels = store.shape[0]
    pictures = np.zeros((len(rows), px, px, 3) if channels == 3 else (len(rows), px, px), np.uint8)
    step = max(1, BATCH_PIXELS // int(np.prod(store.shape)))
    for start in range(0, len(rows), step):
        images = store.read(rows[start : start + step])
        for index, image in enumerate(images, start):
            _shrunk(displayed(image, store.units, store.card.value_range), pictures[index])
    return pictures


def _shrunk(picture: np.ndarray, tile: np.ndarray) -> None:
    """Write a picture into the middle of a tile."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = len(tile) / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (len(tile) - height) // 2, (len(tile) - width) // 2
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    tile[top : top + height, left : left + width] = np.asarray(resized)
