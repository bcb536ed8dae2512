"""Values of DICOM data elements as real files have them: text in place of numbers, decimal commas, one value for two.

An element that does not hold what the standard asks for is unknown: a side field never costs the image.
"""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import Any

from ssl_transfer.data.readers.dicom_parser import tag_of

TEXT_NUMBERS = ("DS", "IS")  # value representations that write numbers as text
CODES = ("AS", "CS", "DA", "TM", "DT")  # that are ASCII, whose values are joined as they stand
NAMES = ("LO", "SH", "UI")  # of which one value is read as it stands, if it is ASCII
ESCAPE = 0x1B  # begins another character set


def numbers(header, keyword: str) -> list[float]:
    """All values of an element as finite numbers; empty if it is absent or if one of its values is not a number.

    A comma is read as a decimal comma, but `0.586,0.195` as two values, because each part has a decimal point.

    Args:
        header: A pydicom dataset.
        keyword: Keyword of the element, such as `PixelSpacing`.
    """
    values = []
    for value in _raw_values(header, keyword):
        found = _parsed(value) if isinstance(value, str) else _plain(value)
        if found is None:
            return []
        values += found
    return values


def number(header, keyword: str) -> float | None:
    """The first value of an element as a finite number; None if it is absent or not a number."""
    values = _raw_values(header, keyword)
    if not values:
        return None
    found = _parsed(values[0]) if isinstance(values[0], str) else _plain(values[0])
    return found[0] if found else None


def text(header, keyword: str) -> str | None:
    """An element as text without blanks around it, several values joined by a backslash; None if empty or unreadable."""
    try:
        plain = plain_text(header, keyword)
        if plain is not None:
            return plain.strip(" \0") or None
        value = header.get(keyword)
    except Exception:  # an unknown value representation, bytes of another character set, …
        return None
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    joined = "\\".join(str(part) for part in value) if _is_several(value) else str(value)
    return joined.strip(" \0") or None


def words(header, keyword: str) -> list[str]:
    """The values of an element in capital letters, such as those of ImageType."""
    return [word.strip() for word in (text(header, keyword) or "").upper().split("\\") if word.strip()]


def frame_count(header) -> int:
    """Number of frames; 1 if the header does not state it, or states 0 or something else that is not a number."""
    return int(number(header, "NumberOfFrames") or 1)


def states(header, keyword: str) -> bool:
    """Whether a header has an element: what `keyword in header` says, without a search for the keyword's tag each time."""
    return _dictionary(keyword)[0] in header.keys()  # noqa: SIM118


def is_enhanced(header) -> bool:
    """Whether an object states attributes of its frames in functional groups."""
    return states(header, "PerFrameFunctionalGroupsSequence") or states(header, "SharedFunctionalGroupsSequence")


def functional_group(header, frame: int, macro: str) -> Any | None:
    """A functional group of an enhanced object: that of the frame, otherwise the shared one, otherwise None."""
    if not is_enhanced(header):
        return None
    frames = _sequence(header, "PerFrameFunctionalGroupsSequence")
    shared = _sequence(header, "SharedFunctionalGroupsSequence")
    for group in (frames[frame] if frame < len(frames) else None, shared[0] if shared else None):
        items = _sequence(group, macro) if group is not None else []
        if items:
            return items[0]
    return None


def group_or_header(header, frame: int, macro: str) -> Any:
    """A functional group of the frame; the header itself, where ordinary objects have the same elements, if there is none."""
    return functional_group(header, frame, macro) or header


def first_item(header, keyword: str) -> Any | None:
    """The first item of a sequence; None if there is none."""
    return next(iter(_sequence(header, keyword)), None)


def _sequence(header, keyword: str) -> Any:
    if not states(header, keyword):
        return []
    try:
        return header.get(keyword) or []
    except Exception:  # a sequence that cannot be parsed
        return []


@cache
def _dictionary(keyword: str) -> tuple[Any, str]:
    """Tag and value representation of a keyword, by the standard."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_of(tag_for_keyword(keyword) or 0)
    return tag, dictionary_VR(tag)


def _raw_element(header, keyword: str) -> Any | None:
    """A data element as it was read; None if it is absent."""
    return header.get_item(_dictionary(keyword)[0])


def plain_text(header, keyword: str) -> str | None:
    """The text of an element that pydicom need not convert, which takes 50 µs; None: it has to be converted.

    Raises:
        Exception: If it cannot be read.
    """
    element = _raw_element(header, keyword)
    if element is None:
        return ""
    value, stated = element.value, element.VR
    if type(value) is not bytes or not value.isascii() or ESCAPE in value:
        return None
    kind = stated or _dictionary(keyword)[1]
    if kind in CODES or (kind in NAMES and b"\\" not in value):
        return value.decode("ascii").rstrip("\0 ")
    return None


def _raw_values(header, keyword: str) -> list:
    try:
        element = _raw_element(header, keyword)
        if element is None:
            return []
        tag, usual = _dictionary(keyword)
        value, stated = element.value, element.VR
        if type(value) is bytes and usual in TEXT_NUMBERS and stated not in ("FD", "FL"):
            value = value.decode("latin-1")
        elif type(value) is bytes and (stated or usual) == "US" and value and len(value) % 2 == 0:
            order = "<" if element.is_little_endian else ">"
            return list(struct.unpack(f"{order}{len(value) // 2}H", value))
        else:
            value = header[tag].value
    except Exception:
        return []
    if value is None:
        return []
    if isinstance(value, str):
        return [part for part in (part.strip(" \0") for part in value.split("\\")) if part]
    return list(value) if _is_several(value) else [value]


def _is_several(value) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes)) and not hasattr(value, "components")


def _parsed(written: str) -> list[float] | None:
    """The number that a text holds, or two with decimal points and a comma between; None if it is not a number."""
    if "," not in written:
        return _all_finite([written])
    parts = written.split(",")
    if len(parts) == 2 and all("." in part for part in parts):
        return _all_finite(parts)
    return _all_finite([written.replace(",", ".")])


def _plain(value) -> list[float] | None:
    if isinstance(value, bytes):  # US or SS whose sign pydicom could not decide
        return [float(int.from_bytes(value[:2], "little"))] if len(value) >= 2 else None
    return _all_finite([value])


def _all_finite(values: list) -> list[float] | None:
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if all(map(math.isfinite, found)) else None
