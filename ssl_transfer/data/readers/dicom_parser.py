"""Headers of ordinary DICOM files, parsed in a fifth of the time that pydicom takes, into the same dataset.

Ordinary are files with a preamble and explicit little-endian elements in ascending order, without sequences of undefined length
before the pixels. All others are left to pydicom.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from functools import lru_cache
from typing import Any, BinaryIO

HEAD_BYTES = 2**15  # that are read at once; longer headers are not ordinary
META_START = 132  # behind preamble and prefix
ELEMENT, LENGTH = struct.Struct("<HH2sH"), struct.Struct("<I")
SHORT = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FL", "FD", "IS"),
    *("LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"),
)
LONG = (
    "OB",
    "OD",
    "OF",
    "OL",
    "OV",
    "OW",
    "SQ",
    "SV",
    "UC",
    "UR",
    "UT",
    "UV",
)  # value representations with four bytes of length
NAMES = {name.encode(): name for name in (*SHORT, *LONG)}
IS_LONG = frozenset(name.encode() for name in LONG)
UNDEFINED_LENGTH = 0xFFFFFFFF
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
EXPLICIT = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5")  # and those that begin with
ENCAPSULATED = "1.2.840.10008.1.2.4."
TRANSFER_SYNTAX, CHARACTER_SET = 0x00020010, 0x00080005


def ordinary_header(file: BinaryIO) -> Any | None:
    """The dataset up to the pixels, as `pydicom.dcmread(file, stop_before_pixels=True)` returns it; None for other files.

    Args:
        file: At its start; left at the element of the pixels, or at its start.
    """
    content, parsed = file.read(HEAD_BYTES), None
    if content[128:META_START] == b"DICM":
        with suppress(Exception):  # pydicom raises it again, or reads the file all the same
            parsed = _parsed(content)
    file.seek(0 if parsed is None else parsed[1])
    return None if parsed is None else parsed[0]


def _parsed(content: bytes) -> tuple[Any, int] | None:
    """The dataset of a header, and where its pixels begin."""
    from pydicom.charset import default_encoding
    from pydicom.dataset import Dataset, FileMetaDataset

    meta, start = _elements(content, META_START, is_meta=True)
    syntax = meta[TRANSFER_SYNTAX].value if TRANSFER_SYNTAX in meta else None
    name = syntax.rstrip(b"\0 ").decode("latin-1") if syntax else ""
    if name not in EXPLICIT and not name.startswith(ENCAPSULATED):
        return None
    elements, end = _elements(content, start, is_meta=False)
    if end is None:
        return None
    dataset, encoding = Dataset(elements), default_encoding
    if CHARACTER_SET in elements:
        encoding = list(_encodings(elements[CHARACTER_SET]._replace(value_tell=0)))
    dataset.set_original_encoding(False, True, encoding)
    dataset.file_meta = FileMetaDataset(meta)
    return dataset, end


@lru_cache(maxsize=256)
def _encodings(element: Any) -> tuple[str, ...]:
    """Python's names of the character sets of an element; the files of an archive have the same few."""
    from pydicom.charset import convert_encodings
    from pydicom.dataelem import convert_raw_data_element

    return tuple(convert_encodings(convert_raw_data_element(element).value))


@lru_cache(maxsize=2**14)
def tag_of(code: int) -> Any:
    """The tag of a number; always the same object, which dictionaries find without a comparison in Python."""
    from pydicom.tag import BaseTag

    return BaseTag(code)


def _elements(content: bytes, start: int | None, *, is_meta: bool) -> tuple[dict, int | None]:
    """Elements by tag, and where they end: at the first one that is no meta information, or at the pixels; None: nowhere."""
    from pydicom.dataelem import RawDataElement, empty_value_for_VR

    elements: dict = {}
    position, before = start or 0, 0
    while start is not None and position + 12 <= len(content):
        group, number, kind, length = ELEMENT.unpack_from(content, position)
        code = group << 16 | number
        if group != 2 if is_meta else code in PIXELS:
            return elements, position
        name, begin = NAMES.get(kind), position + 8
        if kind in IS_LONG:
            begin = position + 12
            [length] = LENGTH.unpack_from(content, position + 8)
        position = begin + length
        if name is None or code <= before or length == UNDEFINED_LENGTH or position > len(content):
            break
        tag, before = tag_of(code), code
        value: Any = content[begin:position] if length else empty_value_for_VR(name, raw=True)
        elements[tag] = RawDataElement(tag, name, length, value, begin, False, True)
    return elements, None
