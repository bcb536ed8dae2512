"""Headers of DICOM files: what is an image, whose it is, and the columns of its rows.

A header promises sizes before there is any proof of them. An object whose pixels cannot fit into its file, or that has more than
2**30 pixels in all its frames, is refused before memory is asked for.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ssl_transfer.data.readers.dicom_acquisition import acquisition
from ssl_transfer.data.readers.dicom_coding import Coding, Span, coding_of, padding_of, voi_window
from ssl_transfer.data.readers.dicom_geometry import Frame, frames_of, pixel_spacing
from ssl_transfer.data.readers.dicom_mosaic import is_mosaic, mosaic_of
from ssl_transfer.data.readers.dicom_parser import ordinary_header
from ssl_transfer.data.readers.dicom_pixels import PLAIN_BITS, PlainPixels
from ssl_transfer.data.readers.dicom_values import frame_count, group_or_header, number, plain_text, states, text, words
from ssl_transfer.data.readers.reader import Item, Refusal
from ssl_transfer.errors import SourceError

NOT_IMAGES = {"SEG": "a segmentation", "RTDOSE": "a dose grid", "PR": "a presentation state", "KO": "a key object note"}
RLE = "1.2.840.10008.1.2.5"  # the one compression that no native decoder reads
UNDEFINED_LENGTH = 0xFFFFFFFF
MOST_PIXELS = 2**30  # rows x columns x frames of one file: 2 GB of int16
LEAST_FRAME_BYTES = 8  # of a compressed frame: the item tag and its length
PLAIN_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")  # implicit and explicit little endian
GZIP = b"\x1f\x8b"
PIXEL_DATA = b"\xe0\x7f\x10\x00"
PIXEL_GROUP = (b"\xe0\x7f", b"\x7f\xe0")
UNNAMED = "neither SOP class nor modality"
UNCUT_MOSAIC = (
    "a Siemens mosaic (all slices of a volume in one picture) without a readable Siemens header (CSA), which states the number "
    "of slices and their positions"
)
FLOAT_PIXELS = (0x0008, 0x0009)  # elements of the pixel group that hold floats
IDENTITY = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}


@dataclass(slots=True)
class ImageFile:
    """An image file: its item, and the attributes that decide about its units, volume and place in the series.

    Attributes:
        item: The item; its row has no volume, slice or intensity yet.
        coding: How its stored values become physical ones.
        sop_class: SOP class; that of the file meta information if the header states none; empty if neither does.
        image_type: Values of ImageType.
        frames: Its frames.
        burned_in: Whether it states that text is burned into its pixels.
        states_class: Whether the header itself states the SOP class.
        frame_columns: Of an enhanced object, the columns of each frame that are not those of all frames; empty if there are none.
    """

    item: Item
    coding: Coding
    sop_class: str
    image_type: tuple[str, ...]
    frames: list[Frame]
    burned_in: bool
    states_class: bool
    frame_columns: tuple[dict, ...] = ()

    @property
    def modality(self) -> str | None:
        return self.item.row["modality"]


@dataclass(frozen=True)
class Header:
    """A header as it was read.

    Attributes:
        dataset: The pydicom dataset up to the pixels.
        has_pixels: Whether pixels follow.
        is_float: Whether these are floats.
        compressed: Whether they are compressed.
        file_bytes: Size of the file.
        is_cut: Whether the file ends within an element of the header.
        plain: Position and length of the pixels, if they are uncompressed, little-endian and the last element; None otherwise.
    """

    dataset: Any
    has_pixels: bool
    is_float: bool
    compressed: bool
    file_bytes: int
    is_cut: bool = False
    plain: tuple[int, int] | None = None


def read_header(path: Path) -> Header:
    """Read a header.

    Raises:
        SourceError: If the file does not parse as DICOM.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    with open(path, "rb") as file:
        try:
            dataset = ordinary_header(file)
            if dataset is None:
                dataset = pydicom.dcmread(file, stop_before_pixels=True)
        except InvalidDicomError:
            file.seek(0)
            if file.read(2) == GZIP:
                raise SourceError("it is compressed with gzip: decompress it") from None
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)  # a file without a preamble
            if "SOPClassUID" not in dataset and "Rows" not in dataset:
                raise SourceError("no DICM prefix, and no data element that an image has") from None
        begin, tag, layout = file.tell(), file.read(4), file.read(8)
        size = os.fstat(file.fileno()).st_size
    syntax = _transfer_syntax(dataset)
    if syntax is not None and syntax.is_deflated:
        return Header(dataset, bool(dataset.get("Rows")), "BitsStored" not in dataset, True, size)
    has_pixels = tag[:2] in PIXEL_GROUP
    element = int.from_bytes(tag[2:], "little" if tag[:2] == PIXEL_GROUP[0] else "big")
    is_cut = not has_pixels and _ends_within_element(dataset, size)
    compressed = syntax is not None and syntax.is_compressed
    plain = _plain_place(dataset, syntax, begin, tag, layout)
    plain = plain if plain is not None and sum(plain) == size else None
    return Header(dataset, has_pixels, element in FLOAT_PIXELS, compressed, size, is_cut, plain)


def _plain_place(dataset, syntax: Any | None, begin: int, tag: bytes, layout: bytes) -> tuple[int, int] | None:
    """Position and length of uncompressed little-endian pixels; None for others.

    Args:
        dataset: The header.
        syntax: Its transfer syntax; None if it is not stated.
        begin: Position of the element behind the header.
        tag: Its tag.
        layout: The eight bytes behind: its value representation, if that is explicit, and its length.
    """
    if syntax not in PLAIN_SYNTAXES or tag != PIXEL_DATA or len(layout) < 8:
        return None
    if dataset.original_encoding[0]:
        return begin + 8, int.from_bytes(layout[:4], "little")
    return (begin + 12, int.from_bytes(layout[4:], "little")) if layout[:2] in (b"OW", b"OB") else None


def _transfer_syntax(dataset) -> Any | None:
    """The transfer syntax; None if it is not stated, or is none of the standard."""
    if not hasattr(dataset, "file_meta"):
        return None
    if plain := plain_text(dataset.file_meta, "TransferSyntaxUID"):
        return _of_the_standard(plain)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    return None if syntax is None else _of_the_standard(syntax)


@lru_cache(maxsize=256)
def _of_the_standard(syntax: str) -> Any | None:
    """A transfer syntax of the standard as a UID; None for others."""
    from pydicom.uid import UID

    uid = UID(syntax)
    return uid if not uid.is_private and uid.is_transfer_syntax else None


def _ends_within_element(dataset, file_bytes: int) -> bool:
    """Whether the last element of a header has fewer bytes than it states, or is followed by bytes that are no element."""
    from pydicom.dataelem import RawDataElement

    last = dataset.get_item(max(dataset.keys())) if len(dataset) else None
    if last is None:
        return True
    if not isinstance(last, RawDataElement) or last.length == UNDEFINED_LENGTH:
        return False
    return last.value_tell + last.length != file_bytes


def starts_as_dicom(path: Path) -> bool:
    """Whether a file has the DICM prefix: if it cannot be read, it is a damaged DICOM file, whatever its name."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def identity(dataset) -> dict[str, str | None]:
    """Raw ids of patient, study and series.

    Raises:
        Exception: If one cannot be read; without a readable id, a file cannot be kept apart from others.
    """
    stated = ((column, plain_text(dataset, name), name) for column, name in IDENTITY.items())
    return {
        column: (str(dataset.get(name) or "") if plain is None else plain).strip() or None
        for column, plain, name in stated
    }


def known_identity(dataset) -> dict[str, str | None]:
    """The ids that can be read, for refusals."""
    return {column: text(dataset, name) for column, name in IDENTITY.items()}


def classify(file: str, path: Path, header: Header, *, broken: bool) -> ImageFile | Refusal:
    """Decide from the header whether a file is an image to be read.

    Args:
        file: Name of the file, relative to the root.
        path: Its path.
        header: Its header.
        broken: Whether the file ended before its header did.

    Raises:
        Exception: If an element that every image needs is damaged.
    """
    dataset = header.dataset
    row = identity(dataset)
    kind, reason = _not_an_image(file, header, broken) or _not_to_be_read(header) or (None, None)
    if kind and reason:
        return Refusal(file, kind, reason, row)
    coding = coding_of(dataset, is_float=header.is_float)
    height, width = number(dataset, "Rows"), number(dataset, "Columns")
    size, frames = (int(height or dataset.Rows), int(width or dataset.Columns)), frames_of(dataset, 1)
    kind, reason = _impossible(size, coding, header) or (None, None)
    if kind and reason:
        return Refusal(file, kind, reason, row)
    is_one_frame = False
    if is_mosaic(dataset):
        mosaic = mosaic_of(dataset)
        if mosaic is None:
            return Refusal(file, "filtered", UNCUT_MOSAIC, row)
        size, frames = mosaic.size, mosaic.frames(frames[0])
    elif frame_count(dataset) > 1 or states(dataset, "PerFrameFunctionalGroupsSequence"):
        frames = frames_of(dataset, frame_count(dataset))
    else:
        is_one_frame = True
    item = Item(
        file, path, len(frames), size, 1 if coding.kind == "grey" else 3, coding.dtype(hu=False), row | columns(dataset)
    )
    if is_one_frame and coding.kind == "grey" and header.plain:
        item.pixels = _plain_pixels(header, coding, size)
    item.native = header.compressed and dataset.file_meta.TransferSyntaxUID != RLE
    image = _image_file(item, coding, frames, dataset)
    if states(dataset, "PerFrameFunctionalGroupsSequence"):
        image.frame_columns = _frame_columns(dataset, len(frames))
        item.windows = _frame_windows(dataset, item, len(frames)) if coding.kind == "grey" else None
    return image


def _plain_pixels(header: Header, coding: Coding, size: tuple[int, int]) -> PlainPixels | None:
    """The pixels of one uncompressed grey frame; None if they cannot be read without their header."""
    start, length = header.plain or (0, 0)
    fits = coding.bits and not coding.table and coding.allocated in PLAIN_BITS
    if not fits or length < math.prod(size) * coding.allocated // 8:
        return None
    return PlainPixels(start, length, coding, padding_of(header.dataset))


def _image_file(item: Item, coding: Coding, frames: list[Frame], dataset) -> ImageFile:
    item.uid = text(dataset, "SOPInstanceUID")
    item.row |= {"bits": coding.bits, "photometric": coding.photometric, "padding": _padding_text(dataset)}
    item.depth = coding.physical()
    item.window = voi_window(dataset, item.depth) if coding.kind == "grey" else None
    stated = text(dataset, "SOPClassUID")
    kinds = tuple(words(dataset, "ImageType"))
    burned_in = text(dataset, "BurnedInAnnotation") == "YES"
    return ImageFile(item, coding, stated or _meta_class(dataset), kinds, frames, burned_in, stated is not None)


def columns(dataset, frame: int = 0) -> dict[str, Any]:
    """The columns of `rows.parquet` that come from the header, without ids, order and intensity."""
    body_part = text(dataset, "BodyPartExamined")
    spacing, at_detector = pixel_spacing(dataset, frame)
    window = group_or_header(dataset, frame, "FrameVOILUTSequence")
    return {
        "label": body_part.upper() if body_part else None,
        "body_part": body_part,
        "modality": (text(dataset, "Modality") or "").upper() or None,
        "spacing_row_mm": spacing[0],
        "spacing_col_mm": spacing[1],
        "spacing_at": None if spacing[0] is None else "detector" if at_detector else "patient",
        "window_center": number(window, "WindowCenter"),
        "window_width": number(window, "WindowWidth"),
    } | acquisition(dataset, frame)


def _frame_columns(dataset, frames: int) -> tuple[dict, ...]:
    """The columns of each frame that are not those of all frames; empty if there are none."""
    rows = [columns(dataset, frame) for frame in range(frames)]
    different = [name for name, value in rows[0].items() if any(row[name] != value for row in rows)]
    return tuple({name: row[name] for name in different} for row in rows) if different else ()


def _frame_windows(dataset, item: Item, frames: int) -> tuple[Span | None, ...] | None:
    """The VOI window of each frame; None if that of the item is that of all."""
    windows = tuple(voi_window(dataset, item.depth, frame) for frame in range(frames))
    return None if set(windows) == {item.window} else windows


def _not_an_image(file: str, header: Header, broken: bool) -> tuple[str, str] | None:
    """Kind and reason of the refusal of a file that has no image, or whose image is not there."""
    dataset = header.dataset
    modality = text(dataset, "Modality")
    if file.rsplit("/", 1)[-1].upper().startswith("DICOMDIR") or states(dataset, "DirectoryRecordSequence"):
        return "not_an_image", "a DICOMDIR"
    if modality in NOT_IMAGES:
        return "not_an_image", f"{NOT_IMAGES[modality]} ({modality})"
    rows, columns = number(dataset, "Rows"), number(dataset, "Columns")
    if header.has_pixels:
        if not rows or not columns:
            return "not_an_image", f"pixel data without Rows and Columns ({_class_name(dataset)})"
        return None
    name = _class_name(dataset)
    if rows:
        return "unreadable", "truncated: its header describes pixels that are not there"
    if broken or (header.is_cut and ("Image Storage" in name or name == UNNAMED)):
        return "unreadable", f"truncated: the file ends within its header ({name})"
    return "not_an_image", f"no pixel data ({name})"


def _not_to_be_read(header: Header) -> tuple[str, str] | None:
    """Kind and reason of the refusal of an image that is no slice or projection of a patient."""
    kinds = words(header.dataset, "ImageType")
    if "LOCALIZER" in kinds or "SCOUT" in kinds:
        return "localizer", f"ImageType is {'/'.join(kinds)}"
    return None


def _impossible(size: tuple[int, int], coding: Coding, header: Header) -> tuple[str, str] | None:
    """Kind and reason of the refusal of an image whose pixels cannot be in the file, or are too many; None otherwise."""
    frames, samples = frame_count(header.dataset), int(number(header.dataset, "SamplesPerPixel") or 1)
    shape = f"{frames} frames of {size[0]} x {size[1]} pixels"
    if frames < 1 or min(size) < 1:
        return "unreadable", f"its header states {shape}"
    half = coding.photometric.endswith("_422")  # two pixels share their colour
    promised = math.prod(size) * frames * samples * max(coding.allocated, 1) / 8 * (2 / 3 if half else 1)
    if header.compressed:
        promised = frames * LEAST_FRAME_BYTES
    if promised > header.file_bytes:
        return "unreadable", f"truncated: its header states {shape}, but the file has only {header.file_bytes} bytes"
    if math.prod(size) * frames > MOST_PIXELS:
        return "filtered", f"{shape} are more than {MOST_PIXELS} pixels in one file"
    return None


def _padding_text(dataset) -> str | None:
    padding = padding_of(dataset)
    if padding is None:
        return None
    return f"{padding[0]:g}" if padding[0] == padding[1] else f"{padding[0]:g}..{padding[1]:g}"


def _meta_class(dataset) -> str:
    meta = getattr(dataset, "file_meta", None)
    return (text(meta, "MediaStorageSOPClassUID") if meta is not None else None) or ""


def _class_name(dataset) -> str:
    from pydicom.uid import UID

    uid = text(dataset, "SOPClassUID") or _meta_class(dataset)
    modality = text(dataset, "Modality")
    return UID(uid).name if uid else f"modality {modality}" if modality else UNNAMED
