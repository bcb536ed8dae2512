"""Limits on what a header promises, checked before memory is asked for."""

from __future__ import annotations

from ssl_transfer.data.readers.reader import Unreadable

MAX_MEGAPIXELS = 256.0  # of one picture: 768 MB in colour
BOMB_BYTES = 2**30  # smaller files are never taken for decompression bombs
BOMB_RATIO = 900  # deflate reaches 1032 with zeros alone; images stay below 10, sparse masks below 600


def check_megapixels(height: int, width: int, most: float) -> None:
    """Refuse a picture that is too large to be decoded.

    Args:
        height, width: Size in pixels, by the header.
        most: The `--max-megapixels` option.

    Raises:
        Unreadable: If it has more pixels.
    """
    megapixels = height * width / 1e6
    if megapixels > most:
        raise Unreadable(
            f"{height} x {width} pixels are {megapixels:.1f} megapixels, more than the limit of {most:g}. "
            f"To read it, ingest with --max-megapixels {int(megapixels) + 1}"
        )


def check_promise(promised: int, held: int, *, compressed: bool) -> None:
    """Compare the bytes that a header promises with the size of the file.

    Args:
        promised: Bytes of the decoded arrays and what stands before them, by the header.
        held: Size of the file in bytes.
        compressed: Whether the file is compressed.

    Raises:
        Unreadable: If the file cannot hold them, or holds them only as a decompression bomb does.
    """
    if not compressed and promised > held:
        raise Unreadable(f"its header promises {promised:,} bytes, the file has {held:,}. Is it complete?")
    if compressed and promised > BOMB_BYTES and promised > BOMB_RATIO * held:
        raise Unreadable(
            f"its header promises {promised:,} bytes in a file of {held:,}, which only a decompression bomb or a constant "
            "image has. If it is meant so, decompress it and ingest the result"
        )
