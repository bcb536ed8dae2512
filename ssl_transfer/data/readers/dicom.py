"""The reader of DICOM files and folders of any depth and naming.

Files are recognised by their content, not by their names. Series are divided into volumes (`dicom_volumes`), whose slices are
sorted by position along the slice normal, otherwise by InstanceNumber, otherwise by file name; frames of multi-frame objects
become slices. What is in HU is decided for each series (`dicom_series`).
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, cast

import numpy as np

from ssl_transfer.data.readers.dicom_archive import StoredSeries
from ssl_transfer.data.readers.dicom_coding import rescale_from
from ssl_transfer.data.readers.dicom_grey import Decoding
from ssl_transfer.data.readers.dicom_header import ImageFile, classify, known_identity, read_header, starts_as_dicom
from ssl_transfer.data.readers.dicom_pixels import decode, decode_plain
from ssl_transfer.data.readers.dicom_series import UnitPolicy, judge_series
from ssl_transfer.data.readers.dicom_volumes import divide, spacing_of
from ssl_transfer.data.readers.items import Items
from ssl_transfer.data.readers.limits import MAX_MEGAPIXELS
from ssl_transfer.data.readers.masks import Masks
from ssl_transfer.data.readers.matching import suffix
from ssl_transfer.data.readers.reader import (
    Item,
    Refusal,
    Scan,
    Unreadable,
    is_hidden,
    missing_content,
    named_file,
    refused_entries,
    walk,
)
from ssl_transfer.data.readers.workers import ordered, warm_workers
from ssl_transfer.domains import DICOM_MODALITIES, UNKNOWN

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")  # a file with such a suffix that is not DICOM is damaged
MEASURED_BY_SERIES = ("MR", "CT", "PT", "NM")  # modalities whose slices and volumes share one intensity scale


class DicomReader:
    """Reads a DICOM file or folder.

    Args:
        root: File or folder.
        modality: Modality (0008,0060) to keep; None: all.
        domain: For `ct…` only images in HU are kept, for other domains all images as stored; None: decided by the headers.
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
        domain: str | None = None,
        masks: str | None = None,
        mask_names: str | None = None,
        mask_ignore: str | None = None,
        mask_threshold: float | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
        workers: int | None = None,
    ):
        self.root = Path(root)
        self.modality = modality.upper() if modality else None
        self.domain = domain
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
        """Read all headers, decide units, and divide series into volumes. Items are in the order of volumes and slices."""
        files = walk(self.root)
        refused = list(files.refused)
        images, natives = StoredSeries(), 0
        for answer in ordered(self._read_header, files, "reading headers", self.workers, fail=_unreadable):
            if isinstance(answer, Refusal):
                refused.append(answer)
            else:
                images.append(answer)
                natives += answer.item.native
                warm_workers(natives)
        policy = UnitPolicy(self.domain)
        for series in images:
            policy.count(judge_series(series))
        listed = Items()
        content: Counter[str] = Counter()
        for number, series in enumerate(images):
            settled = [(one.image, policy.settle(one)) for one in judge_series(series)]
            refused += [refusal for _, refusal in settled if refusal]
            members = [image for image, refusal in settled if not refusal]
            listed.extend(_in_volumes(members, number))
            content.update(_content(members))
        items, refused = self.masks.pair(cast("list[Item]", listed), refused, self.root)
        domain, notes = _domain(items)
        return Scan(
            items,
            refused,
            "hu" if items and policy.in_hu else "stored",
            domain,
            None,
            self.masks.names,
            self.masks.dtype,
            self.masks.coding.ignored_as,
            [
                *notes,
                *refused_entries(files),
                *self.masks.notes,
                *policy.warnings(),
                *_geometry_notes(items),
                *_content_notes(content),
            ],
        )

    def read(self, item: Item) -> Iterator[tuple[np.ndarray, dict, np.ndarray | None]]:
        """Decode one file; the frames of a multi-frame object are in the order of its volumes and slices."""
        mask = self.masks.read_image(item.mask) if item.mask else None
        if item.mask and mask is not None and (item.n_images > 1 or mask.shape != item.size):
            raise Unreadable(
                f"its mask {named_file(item.mask.name)} is {mask.shape}, the image {item.n_images} x {item.size}"
            )
        decoding = Decoding(item.row.get("intensity") == "hu", rescale_from(item.row.get("rescale")))
        if item.pixels and (decoded := decode_plain(item.path, item.size, item.pixels, decoding)):
            image, columns = _checked(item, *decoded)
            yield image, columns, mask
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = [_checked(item, *frame) for frame in decode(item.path, decoding)]
        if len(frames) != item.n_images:
            raise Unreadable(f"{len(frames)} frames, but its header states {item.n_images}")
        for number, columns in item.plan or ((0, {}),):
            image, own = frames[number]
            yield image, own | columns, mask

    def _read_header(self, entry: tuple[str, Path]) -> ImageFile | Refusal:
        file, path = entry
        if is_hidden(file):
            return Refusal(file, "not_an_image", "a hidden file")
        if missing := missing_content(file, path):
            return missing
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            try:
                header = read_header(path)
            except OSError as error:  # locked, gone since, or a damaged disk: nothing is known about what it is
                return Refusal(file, "unreadable", f"it cannot be opened: {error.strerror or error}")
            except Exception as error:  # a damaged file can raise any error
                damaged = suffix(file.lower().removesuffix(".gz")) in DICOM_SUFFIXES or starts_as_dicom(path)
                reason = f"cannot be read as DICOM: {str(error)[:200] or type(error).__name__}"
                return Refusal(file, "unreadable" if damaged else "not_an_image", reason)
            try:
                broken = any("end of file" in str(note.message).lower() for note in notes)
                image = classify(file, path, header, broken=broken)
            except Exception as error:
                reason = f"its header is damaged: {str(error)[:200] or type(error).__name__}"
                return Refusal(file, "unreadable", reason, known_identity(header.dataset))
        if self.modality and isinstance(image, ImageFile) and image.modality != self.modality:
            reason = f"modality {image.modality or 'none'}, not {self.modality}"
            return Refusal(file, "filtered", reason, image.item.row)
        return image


def _checked(item: Item, image: np.ndarray, columns: dict) -> tuple[np.ndarray, dict]:
    """Refuse pixels of another layout than the header states."""
    if image.shape != (item.channels, *item.size) or image.dtype != item.dtype:
        stated = f"{item.channels} x {item.size[0]} x {item.size[1]} {item.dtype}"
        raise Unreadable(
            f"its pixels are {' x '.join(map(str, image.shape))} {image.dtype}, its header states {stated}"
        )
    return image, columns


def _unreadable(entry: tuple[str, Path], reason: str) -> Refusal:
    return Refusal(entry[0], "unreadable", reason)


def _in_volumes(members: Sequence[ImageFile], number: int) -> list[Item]:
    """Write volume, slice and spacing into the items of a series, and return them in this order."""
    originals, copies = _apart(members)
    plans: dict[int, list[tuple[int, dict]]] = defaultdict(list)
    scales: dict[tuple, str] = {}  # what is measured -> name of the scale
    scale_of: dict[int, str] = {}
    for volume, slices in enumerate(divide(originals)):
        scale = scales.setdefault(slices[0].frame.quantity, f"{number}/{len(scales)}")
        spacing = spacing_of(slices)
        for place, slice_ in enumerate(slices):
            columns = {
                "volume": volume,
                "slice": place,
                "z_mm": slice_.z_mm,
                "spacing_slice_mm": spacing.mm if len(slices) > 1 else None,
                "geometry": spacing.irregular,
            }
            if slice_.image.frame_columns:
                columns |= slice_.image.frame_columns[slice_.number]
            plans[id(slice_.image)].append((slice_.number, columns))
            scale_of.setdefault(id(slice_.image), scale)
    items = []
    for image in sorted(originals, key=lambda image: _place(plans[id(image)][0][1])):
        for same in (image, *copies.get(id(image), ())):
            items.append(_planned(same, plans[id(image)], scale_of[id(image)]))
    return items


def _apart(members: Sequence[ImageFile]) -> tuple[list[ImageFile], dict[int, list[ImageFile]]]:
    """Files apart from those with the same SOPInstanceUID as an earlier one, which lie where that one lies."""
    first: dict[tuple, ImageFile] = {}
    copies: dict[int, list[ImageFile]] = defaultdict(list)
    originals = []
    for image in members:
        original = first.setdefault((image.item.uid, image.item.n_images), image)
        if image.item.uid is None or original is image:
            originals.append(image)
        else:
            copies[id(original)].append(image)
    return originals, copies


def _planned(image: ImageFile, plan: list[tuple[int, dict]], scale: str) -> Item:
    item = image.item
    item.row |= plan[0][1]
    if item.n_images > 1:
        item.plan = plan
    if item.row["modality"] in MEASURED_BY_SERIES:
        item.together = scale
    return item


def _place(columns: dict) -> tuple[int, int]:
    return columns["volume"], columns["slice"]


def _domain(items: Sequence[Item]) -> tuple[str, list[str]]:
    """The domain of the images by their modality, and a warning if there are several."""
    counts = Counter(item.row["modality"] or "none" for item in items)
    if len(counts) == 1:
        return DICOM_MODALITIES.get(next(iter(counts)), UNKNOWN), []
    if not counts:
        return UNKNOWN, []
    listed = ", ".join(f"{modality} {counts[modality]}" for modality in sorted(counts))
    return UNKNOWN, [f"mixed modalities: {listed}. --modality keeps one of them"]


def _geometry_notes(items: Sequence[Item]) -> list[str]:
    """Warnings about volumes whose slices are not evenly spaced along the normal."""
    volumes: dict[str, set] = defaultdict(set)
    for item in items:
        for _, columns in item.plan or ((0, item.row),):
            if columns["geometry"]:
                series = tuple(item.row[name] for name in ("patient", "study", "series"))
                volumes[columns["geometry"]].add(hash((*series, columns["volume"])))
    return [
        f"{len(found)} volume(s) with {GEOMETRY.get(word, word)}: the distance between their slices is unknown "
        f"(column geometry: {word})"
        for word, found in sorted(volumes.items())
    ]


GEOMETRY = {
    "repeated": "several slices at one position, and nothing in their headers that divides them into volumes",
    "gap": "missing slices",
    "uneven": "unevenly spaced slices",
    "tilt": "slices that shift within their planes (tilted gantry)",
    "incomplete": "slices without a position",
}


def _content(images: Sequence[ImageFile]) -> dict[str, int]:
    """Counts of what headers say of the pixels."""
    return {
        "burned": sum(image.item.n_images for image in images if image.burned_in),
        "floats": sum(image.coding.bits is None for image in images),
        "at_detector": sum(image.item.row["spacing_at"] == "detector" for image in images),
    }


def _content_notes(content: Counter[str]) -> list[str]:
    """Warnings about what headers say of the pixels: burned-in text, floats, spacing at the detector."""
    burned, floats, at_detector = (content[name] for name in ("burned", "floats", "at_detector"))
    notes = []
    if burned:
        notes.append(
            f"{burned} image(s) state burned-in annotations (BurnedInAnnotation YES): text in their pixels may name the patient. "
            "Look at them before you share the store"
        )
    if floats:
        notes.append(
            f"{floats} file(s) have floating-point pixels: NaN, infinity and padding become the lowest other value of their "
            "image (column non_finite)"
        )
    if at_detector:
        notes.append(
            f"{at_detector} image(s) state their pixel spacing at the detector and no magnification: distances in the patient "
            "are smaller (column spacing_at)"
        )
    return notes
