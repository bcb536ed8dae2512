"""The reader of DICOM files and folders of any depth and naming.

Files are recognised by their content, not by their names. The slices of a series are sorted by position along the slice normal,
otherwise by InstanceNumber, otherwise by file name; frames of multi-frame objects become slices.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from ssl_transfer.data.readers.dicom_pixels import decode, frame_count, functional_group, is_ct, pixel_format
from ssl_transfer.data.readers.limits import MAX_MEGAPIXELS
from ssl_transfer.data.readers.masks import Masks
from ssl_transfer.data.readers.matching import suffix
from ssl_transfer.data.readers.reader import Item, Refusal, Scan, Unreadable, is_hidden, walk
from ssl_transfer.data.readers.workers import ordered
from ssl_transfer.domains import DICOM_MODALITIES, UNKNOWN
from ssl_transfer.errors import SourceError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")  # a file with such a suffix that is not DICOM is damaged
NOT_IMAGES = {"SEG": "a segmentation", "RTDOSE": "a dose grid", "PR": "a presentation state", "KO": "a key object note"}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PIXEL_GROUP = b"\xe0\x7f"


class DicomReader:
    """Reads a DICOM file or folder.

    Args:
        root: File or folder.
        modality: Modality (0008,0060) to keep; None: all.
        masks: The `--masks` option: one PNG or TIFF per file.
        mask_names: The `--mask-names` option.
        mask_ignore: The `--mask-ignore` option.
        mask_threshold: The `--mask-threshold` option.
        max_megapixels: Largest size of a mask, in millions of pixels.
        workers: Number of processes that read headers and masks.
    """

    suffixes: ClassVar[tuple[str, ...]] = DICOM_SUFFIXES
    magic: ClassVar[tuple[tuple[int, bytes], ...]] = ((128, b"DICM"), (0, b"\x08\x00"))  # preamble, or group 0008
    reads_folders: ClassVar[bool] = True
    worth_workers: ClassVar[bool] = True

    def __init__(
        self,
        root: Path,
        *,
        modality: str | None = None,
        masks: str | None = None,
        mask_names: str | None = None,
        mask_ignore: str | None = None,
        mask_threshold: float | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
        workers: int | None = None,
    ):
        self.root = Path(root)
        self.modality = modality.upper() if modality else None
        self.workers = workers
        self.masks = Masks(
            masks,
            names=mask_names,
            ignore=mask_ignore,
            threshold=mask_threshold,
            max_megapixels=max_megapixels,
            workers=workers,
        )

    def scan(self) -> Scan:
        """Read all headers. Items are grouped by series and sorted by position."""
        refused: list[Refusal] = []
        images: list[_ImageFile] = []
        for answer in ordered(self._read_header, walk(self.root), "reading headers", self.workers):
            if isinstance(answer, Refusal):
                refused.append(answer)
            else:
                images.append(answer)
        images = _without_screen_captures(images, refused)
        items, refused = self.masks.pair(_in_series_order(images), refused, self.root)
        modalities = sorted({item.row["modality"] or "none" for item in items})
        domain, notes = UNKNOWN, []
        if len(modalities) == 1:
            domain = DICOM_MODALITIES.get(modalities[0], UNKNOWN)
        elif modalities:
            counts = ", ".join(f"{m} {sum((i.row['modality'] or 'none') == m for i in items)}" for m in modalities)
            notes.append(f"mixed modalities: {counts}. --modality keeps one of them")
        in_hu = bool(items) and all(item.row.pop("is_ct") for item in items)
        for item in items:
            item.row.pop("is_ct", None)
        return Scan(
            items,
            refused,
            "hu" if in_hu else "stored",
            domain,
            None,
            self.masks.names,
            self.masks.dtype,
            self.masks.coding.ignored_as,
            notes + self.masks.notes,
        )

    def read(self, item: Item) -> Iterator[tuple[np.ndarray, dict, np.ndarray | None]]:
        """Decode one file; the frames of a multi-frame object are sorted by position."""
        mask = self.masks.read_image(item.mask) if item.mask else None
        if item.mask and mask is not None and (item.n_images > 1 or mask.shape != item.size):
            raise Unreadable(f"its mask {item.mask.name} is {mask.shape}, the image {item.n_images} x {item.size}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if item.n_images == 1:
                for image in decode(item.path):
                    yield image, {}, mask
                return
            frames = list(decode(item.path))
            if len(frames) != item.n_images:
                raise Unreadable(f"{len(frames)} frames, but its header states {item.n_images}")
            positions = _frame_positions(_header(item.path)[0], item.n_images)
        order = range(len(frames)) if None in positions else np.argsort(np.array(positions, float), kind="stable")
        for number, frame in enumerate(order):
            z_mm = positions[frame] if positions[frame] is not None else item.row["z_mm"]
            yield frames[frame], {"slice": item.row["slice"] + number, "z_mm": z_mm}, None

    def _read_header(self, entry: tuple[str, Path]) -> _ImageFile | Refusal:
        file, path = entry
        if is_hidden(file):
            return Refusal(file, "not_an_image", "a hidden file")
        if path.stat().st_size == 0:
            return Refusal(file, "unreadable", "the file is empty (0 bytes)")
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            try:
                header, has_pixels = _header(path)
            except Exception as error:  # a damaged file can raise any error
                damaged = suffix(file) in DICOM_SUFFIXES
                reason = f"cannot be read as DICOM: {str(error)[:200] or type(error).__name__}"
                return Refusal(file, "unreadable" if damaged else "not_an_image", reason)
            try:
                broken = any("end of file" in str(note.message).lower() for note in notes)
                return self._classify(file, path, header, has_pixels, broken)
            except Exception as error:
                return Refusal(file, "unreadable", f"its header is damaged: {str(error)[:200]}", _identity(header))

    def _classify(self, file: str, path: Path, header, has_pixels: bool, broken: bool) -> _ImageFile | Refusal:
        """Decide from the header whether a file is an image to be read."""
        who = _identity(header)
        modality = str(header.get("Modality") or "") or None
        if file.rsplit("/", 1)[-1].upper().startswith("DICOMDIR") or "DirectoryRecordSequence" in header:
            return Refusal(file, "not_an_image", "a DICOMDIR", who)
        if modality in NOT_IMAGES:
            return Refusal(file, "not_an_image", f"{NOT_IMAGES[modality]} ({modality})", who)
        if not has_pixels:
            if broken or header.get("Rows"):
                return Refusal(file, "unreadable", "truncated: its header describes pixels that are not there", who)
            return Refusal(file, "not_an_image", f"no pixel data ({_class_name(header)})", who)
        if not header.get("Rows") or not header.get("Columns"):
            return Refusal(file, "not_an_image", f"pixel data without Rows and Columns ({_class_name(header)})", who)
        kinds = [str(value).upper() for value in _many(header.get("ImageType"))]
        if "LOCALIZER" in kinds or "SCOUT" in kinds:
            return Refusal(file, "localizer", f"ImageType is {'/'.join(kinds)}", who)
        if self.modality and modality != self.modality:
            return Refusal(file, "filtered", f"modality {modality or 'none'}, not {self.modality}", who)
        return _ImageFile(file, path, header)


class _ImageFile:
    """An image file: its item, and the attributes that determine its order in the series."""

    def __init__(self, file: str, path: Path, header):
        pixels = pixel_format(header)
        frames = frame_count(header)
        colour = int(header.get("SamplesPerPixel", 1)) > 1 or header.get("PhotometricInterpretation") == "PALETTE COLOR"
        row = _identity(header) | _columns(header)
        self.instance = _integer(header.get("InstanceNumber"))
        self.position = row["z_mm"]
        self.is_capture = header.get("SOPClassUID", "").startswith(SECONDARY_CAPTURE)
        self.folder = file.rpartition("/")[0]
        self.item = Item(
            file,
            path,
            frames,
            (int(header.Rows), int(header.Columns)),
            3 if colour else 1,
            pixels.dtype,
            row,
            uid=str(header.get("SOPInstanceUID") or "") or None,
        )


def _header(path: Path):
    """Read a header.

    Returns:
        The dataset up to the pixel data, and whether there are pixel data.

    Raises:
        SourceError: If the file does not parse as DICOM.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    with open(path, "rb") as file:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except InvalidDicomError:
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True)  # a file without a preamble
            if "SOPClassUID" not in header and "Rows" not in header:
                raise SourceError("no DICM prefix, and no data element that an image has") from None
        syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
        if syntax is not None and syntax.is_deflated:
            return header, bool(header.get("Rows"))
        tag = file.read(2)
    return header, tag in (PIXEL_GROUP, PIXEL_GROUP[::-1])


def _identity(header) -> dict:
    names = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
    return {column: str(header.get(name) or "").strip() or None for column, name in names.items()}


def _columns(header) -> dict:
    """The columns of `rows.parquet` that come from the header, without ids and order."""
    body_part = str(header.get("BodyPartExamined") or "").strip()
    measures = functional_group(header, 0, "PixelMeasuresSequence") or header
    spacing = (
        measures.get("PixelSpacing") or header.get("ImagerPixelSpacing") or header.get("NominalScannedPixelSpacing")
    )
    spacing = [_number(value) for value in spacing] if spacing else [None, None]
    window = functional_group(header, 0, "FrameVOILUTSequence") or header
    return {
        "label": body_part.upper() or None,
        "body_part": body_part or None,
        "modality": str(header.get("Modality") or "").strip() or None,
        "spacing_row_mm": spacing[0],
        "spacing_col_mm": spacing[1],
        "z_mm": _frame_positions(header, 1)[0],
        "window_center": _number(_first(window.get("WindowCenter"))),
        "window_width": _number(_first(window.get("WindowWidth"))),
        "manufacturer": str(header.get("Manufacturer") or "").strip() or None,
        "is_ct": is_ct(header),
    }


def _frame_positions(header, frames: int) -> list[float | None]:
    """Position in mm of each frame along the slice normal (from 0020,0037 and 0020,0032); None if unknown."""
    positions: list[float | None] = []
    for frame in range(frames):
        plane_position = functional_group(header, frame, "PlanePositionSequence") or header
        plane = functional_group(header, frame, "PlaneOrientationSequence") or header
        point, axes = plane_position.get("ImagePositionPatient"), plane.get("ImageOrientationPatient")
        if not point or len(point) != 3:
            positions.append(None)
            continue
        axes = np.array([float(v) for v in axes]) if axes and len(axes) == 6 else np.array([1.0, 0, 0, 0, 1, 0])
        normal = np.cross(axes[:3], axes[3:])
        positions.append(round(float(normal @ np.array([float(v) for v in point])), 4))
    return positions


def _in_series_order(images: list[_ImageFile]) -> list[Item]:
    """Items grouped by series (in the order of their first files), with slices numbered by position."""
    series: dict[tuple, list[_ImageFile]] = defaultdict(list)
    for image in images:
        row = image.item.row
        series[(row["patient"], row["study"], row["series"] or image.folder)].append(image)
    items: list[Item] = []
    for members in series.values():
        if all(image.position is not None for image in members):
            members.sort(key=lambda image: (image.position, image.instance or 0, image.item.file))
        elif all(image.instance is not None for image in members):
            members.sort(key=lambda image: (image.instance, image.item.file))
        number = 0
        for image in members:
            image.item.row["slice"] = number
            number += image.item.n_images
            items.append(image.item)
    return items


def _without_screen_captures(images: list[_ImageFile], refused: list[Refusal]) -> list[_ImageFile]:
    """Refuse screen captures among CT images (dose reports, screenshots): they are not in HU."""
    if not any(image.item.row["is_ct"] for image in images):
        return images
    reason = "a screen capture among CT images, not in Hounsfield units"
    kept = []
    for image in images:
        if image.is_capture and image.item.row["modality"] == "CT":
            refused.append(Refusal(image.item.file, "filtered", reason, image.item.row))
        else:
            kept.append(image)
    return kept


def _class_name(header) -> str:
    uid = header.get("SOPClassUID")
    return uid.name if uid else f"modality {header.get('Modality') or 'unknown'}"


def _many(value) -> list:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _first(value):
    return value[0] if value is not None and not isinstance(value, (str, float, int)) and len(value) else value


def _number(value) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _integer(value) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
