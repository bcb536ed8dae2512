"""Room on the disk, estimated before hours of work."""

from __future__ import annotations

import shutil
from pathlib import Path

from ssl_transfer.errors import OutputError

ROW_BYTES = 600  # of an image besides its pixels: its row, twice
LEAST_RATIO = 4.0  # of compression that is assumed: blosc2 makes CT 2.3 times smaller, and masks and flat pictures more


def check_space(folder: Path, out: Path, images: int, image_bytes: int, *, compress: bool, written: int = 0) -> None:
    """Refuse a store for which the disk has no room.

    Args:
        folder: A folder that exists, on the disk of the store.
        out: Folder of the store, for the message.
        images: Number of images, by the headers.
        image_bytes: Bytes of an image and its mask.
        compress: Whether the store is compressed: then it is refused only if it could not fit at a ratio of 4.
        written: Number of images that are written already.

    Raises:
        OutputError: If less is free than the store takes.
    """
    needed = (images - written) * (image_bytes / (LEAST_RATIO if compress else 1) + ROW_BYTES)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{out}: {images - written:,} images take {'at least ' if compress else ''}{size_text(needed)}, but only "
            f"{size_text(free)} are free on this disk. Free some, give another --out, a smaller --size, or --compress."
        )


def size_text(size: float) -> str:
    """A number of bytes as text: 820 kB, 41.5 MB, 1.6 TB.

    Example:
        >>> size_text(41_500_000)
        '41.5 MB'
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"
