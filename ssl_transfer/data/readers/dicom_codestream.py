"""Size and precision of compressed frames, from their own headers, before a decoder sees them.

Decoders believe the codestream: a damaged one can ask for any amount of memory or time. It has to agree with the DICOM header.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ssl_transfer.data.readers.reader import Unreadable

MOST_TILES = 65_535  # ISO/IEC 15444-1: tile indices have 16 bits
J2K_START, JPEG_START = b"\xff\x4f\xff\x51", b"\xff\xd8"
FRAME_MARKERS = {
    0xC0,
    0xC1,
    0xC2,
    0xC3,
    0xC5,
    0xC6,
    0xC7,
    0xC9,
    0xCA,
    0xCB,
    0xCD,
    0xCE,
    0xCF,
    0xF7,
}  # SOF0 … SOF15, SOF55
ALONE = {0x01, *range(0xD0, 0xDA)}  # markers without a segment


@dataclass(frozen=True)
class Codestream:
    """What the header of a codestream states.

    Attributes:
        height, width: Size of the image.
        components: Samples per pixel.
        precision: Bits of a sample.
        tiles: Number of tiles (JPEG 2000); 1 otherwise.
    """

    height: int
    width: int
    components: int
    precision: int
    tiles: int = 1


def codestream_of(frame: bytes) -> Codestream | None:
    """The header of a JPEG, JPEG-LS or JPEG 2000 codestream; None for another coding, or if there is no such header."""
    start = frame.find(J2K_START, 0, 4096)  # behind the boxes of a JP2 file, if it is one
    try:
        if start >= 0 and not frame.startswith(JPEG_START):
            return _jpeg_2000(frame[start + 4 :])
        if frame.startswith(JPEG_START):
            return _jpeg(frame)
    except (struct.error, IndexError, ZeroDivisionError):
        return None
    return None


def _jpeg_2000(siz: bytes) -> Codestream:
    x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components = struct.unpack_from(">8IH", siz, 4)
    tiles = math.ceil((x - tile_x0) / tile_x) * math.ceil((y - tile_y0) / tile_y)
    return Codestream(y - y0, x - x0, components, (siz[38] & 0x7F) + 1, tiles)


def _jpeg(frame: bytes) -> Codestream | None:
    offset = 2
    while offset + 4 <= len(frame):
        if frame[offset] != 0xFF:
            return None
        marker = frame[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
        elif marker in ALONE:
            offset += 2
        elif marker in FRAME_MARKERS:
            precision, height, width, components = struct.unpack_from(">BHHB", frame, offset + 4)
            return Codestream(height, width, components, precision)
        else:
            offset += 2 + struct.unpack_from(">H", frame, offset + 2)[0]
    return None


def check_frames(dataset, frames: int, size: tuple[int, int], samples: int) -> None:
    """Compare the codestream of every frame with the header of its object.

    Args:
        dataset: The object, with compressed pixels.
        frames: Number of frames.
        size: Rows and columns.
        samples: Samples per pixel.

    Raises:
        Unreadable: If a codestream has another size, or more tiles than the standard allows.
    """
    for number, frame in enumerate(_frames(dataset, frames)):
        found = codestream_of(frame)
        if found is None:
            continue
        if found.tiles > MOST_TILES:
            raise Unreadable(
                f"pixels cannot be decoded: frame {number} has {found.tiles} tiles, more than {MOST_TILES}"
            )
        stated = (*size, samples)
        if (found.height, found.width, found.components) != stated and found.height:  # a height of 0 comes later (DNL)
            shape = f"{found.height} x {found.width} x {found.components}"
            raise Unreadable(
                f"pixels cannot be decoded: frame {number} is compressed as {shape}, its header states "
                f"{' x '.join(map(str, stated))}"
            )


def _frames(dataset, frames: int) -> Iterator[bytes]:
    from pydicom.encaps import generate_frames

    try:
        yield from generate_frames(dataset.PixelData, number_of_frames=frames)
    except Exception:  # pydicom says what is wrong when it decodes
        return
