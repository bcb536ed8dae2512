"""The reader of NIfTI volumes, which are reoriented to canonical axes and cut into slices in radiological orientation.

Axial slices have the patient's front at the top and the patient's right at the left; coronal slices have the head at the top and
the patient's right at the left; sagittal slices have the head at the top and the front at the left.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ssl_transfer.data.readers.dicom_grey import AIR_HU
from ssl_transfer.data.readers.finite import replace_non_finite
from ssl_transfer.data.readers.grid import Grid, reorientation, to_canonical
from ssl_transfer.data.readers.hounsfield import (
    SAMPLED_VOXELS,
    Decision,
    Evidence,
    decide_by_domain,
    decide_by_values,
    hu_evidence,
    is_normalised,
    nonnegative_note,
)
from ssl_transfer.data.readers.items import Items, Records, Selected
from ssl_transfer.data.readers.masks import Masks
from ssl_transfer.data.readers.matching import VOLUME_SUFFIXES, leave_out_masks, stem, suffix
from ssl_transfer.data.readers.nifti_file import NiftiFile, NotAVolume, sidecar_modality
from ssl_transfer.data.readers.reader import Item, Refusal, Scan, Unreadable, is_hidden, named_file, walk
from ssl_transfer.data.readers.workers import ordered
from ssl_transfer.errors import UsageError
from ssl_transfer.texts import HashSet

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # axis of the canonical (right, anterior, superior) array


class NiftiReader:
    """Reads a `.nii` or `.nii.gz` file, or all of them below a folder. Each volume of a 4-D file is an item.

    Args:
        root: File or folder.
        domain: For `ct…` values are HU; for other domains they are kept as stored. None: decided by the values of all volumes
            (see `hounsfield`), for which all files are read once more.
        axis: `axial`, `coronal` or `sagittal`.
        masks: The `--masks` option: label volumes of the same grid.
        mask_names: The `--mask-names` option.
        mask_ignore: The `--mask-ignore` option.
        mask_threshold: The `--mask-threshold` option.
        mask_grid: `affine`: a mask has to lie where its volume lies, and is reoriented; `shape`: it has the voxels of the volume
            in the order of the file, whatever its affine.
        workers: Number of processes that read voxels for decisions.
    """

    suffixes: ClassVar[tuple[str, ...]] = VOLUME_SUFFIXES
    magic: ClassVar[tuple[tuple[int, bytes], ...]] = ()
    reads_folders: ClassVar[bool] = True
    worth_workers: ClassVar[bool] = True

    def __init__(
        self,
        root: Path,
        *,
        domain: str | None = None,
        axis: str = "axial",
        masks: str | None = None,
        mask_names: str | None = None,
        mask_ignore: str | None = None,
        mask_threshold: float | None = None,
        mask_grid: Literal["affine", "shape"] = "affine",
        workers: int | None = None,
    ):
        if axis not in AXES:
            raise UsageError(f"--axis {axis}: expected one of {', '.join(sorted(AXES))}.")
        self.root, self.domain, self.axis, self.mask_grid = Path(root), domain, AXES[axis], mask_grid
        self.workers = workers
        self.masks = Masks(masks, names=mask_names, ignore=mask_ignore, threshold=mask_threshold, workers=workers)
        self.in_hu = False
        self.unplaced: list[str] = []  # the first files without sform and qform
        self.n_unplaced = 0
        self.converted: list[str] = []  # the first files whose header states another unit than mm
        self.n_converted = 0
        self.contradictory: list[str] = []  # the first files whose sform and qform differ
        self.n_contradictory = 0

    def scan(self) -> Scan:
        """Read all headers, and voxels where they are needed for decisions: whether values are HU, and the coding of masks."""
        listed = Items()
        refused: list[Refusal] = []
        notes: list[str] = []
        for file, path in walk(self.root):
            answer = self._read_header(file, path)
            if isinstance(answer, Refusal):
                refused.append(answer)
            else:
                listed.extend(answer)
        items, left_out = leave_out_masks(listed, refused, self.masks.option)
        items, refused = self.masks.pair(items, refused, self.root)
        items = self._with_masks_of_their_grid(items, refused)
        items, decision = self._in_one_unit(items, refused)
        self.in_hu = decision.in_hu
        _name(items)
        if self.unplaced:
            examples = ", ".join(map(named_file, self.unplaced))
            notes.append(f"{self.n_unplaced} file(s) state no orientation (neither sform nor qform): {examples}")
        if self.contradictory:
            examples = ", ".join(map(named_file, self.contradictory))
            notes.append(
                f"{self.n_contradictory} file(s) have a qform with other axes or another voxel size than their sform: "
                f"{examples}. sform is used; `fslorient -copyqform2sform FILE` makes it the qform"
            )
        if self.converted:
            examples = ", ".join(map(named_file, self.converted))
            notes.append(
                f"{self.n_converted} file(s) state distances in m or µm, which are converted to mm: {examples}"
            )
        for item in items:
            if self.in_hu:
                item.dtype, item.row["intensity"] = np.dtype(np.int16), "hu"
        return Scan(
            items,
            refused,
            "hu" if self.in_hu else "stored",
            decision.domain,
            None,
            self.masks.names,
            self.masks.dtype,
            self.masks.coding.ignored_as,
            left_out + self.masks.notes + decision.notes + notes,
            patient_per_file=True,
        )

    def read(self, item: Item) -> Iterator[tuple[np.ndarray, dict, np.ndarray | None]]:
        """Decode one volume; yields its slices in ascending canonical order."""
        file = _opened(item.path, item.path.stat().st_mtime_ns)
        grid = Grid(file.shape[:3], file.affine)
        number = int(item.row.get("volume", 0))
        values, replaced = self._values(to_canonical(file.voxels(number), grid), item.dtype)
        mask = self._mask_volume(item, file, number)
        heights = grid.canonical().heights(self.axis)
        for position, height in enumerate(heights):
            columns: dict[str, Any] = {"slice": position, "z_mm": round(float(height), 4)}
            if replaced is not None:
                columns["non_finite"] = int(np.count_nonzero(_display(replaced, self.axis, position)))
            image = np.ascontiguousarray(_display(values, self.axis, position))
            yield image[None], columns, None if mask is None else _display(mask, self.axis, position)

    def _values(self, volume: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None]:
        """The values of a volume in the dtype of the store, and for floats where they were not finite."""
        if volume.dtype.kind != "f":
            volume = np.clip(volume, AIR_HU, 32767) if self.in_hu else volume
            return volume.astype(dtype), None
        if self.in_hu and self.domain is not None and is_normalised(volume):
            low, high = np.nanmin(volume), np.nanmax(volume)
            raise Unreadable(
                f"its values from {low:.3g} to {high:.3g} are no HU, but normalised. Ingest it without --domain {self.domain}"
            )
        finite, _ = replace_non_finite(volume)
        replaced = ~(volume == finite)  # NaN differs from everything
        if self.in_hu:
            finite = np.where(np.isnan(volume), AIR_HU, finite)
            return np.clip(np.rint(finite), AIR_HU, 32767).astype(np.int16), replaced
        return finite.astype(dtype), replaced

    def _read_header(self, file: str, path: Path) -> list[Item] | Refusal:
        """The items of a file, or the reason why it is refused, from its header."""
        if is_hidden(file) or suffix(file) not in VOLUME_SUFFIXES:
            return Refusal(file, "not_an_image", "neither .nii nor .nii.gz")
        try:
            if path.stat().st_size == 0:
                return Refusal(file, "unreadable", "the file is empty (0 bytes)")
            return self._items(file, path, NiftiFile(path))
        except NotAVolume as error:
            return Refusal(file, "not_an_image", str(error))
        except Unreadable as error:
            return Refusal(file, "unreadable", str(error))
        except Exception as error:  # nibabel raises many kinds for a damaged header
            return Refusal(file, "unreadable", f"its header cannot be read: {str(error)[:200] or type(error).__name__}")

    def _items(self, file: str, path: Path, volume: NiftiFile) -> list[Item]:
        """An item for each volume of a file."""
        grid = Grid(volume.shape[:3], volume.affine).canonical()
        rows, columns = (axis for axis in (2, 1, 0) if axis != self.axis)
        row = {
            "spacing_row_mm": grid.spacing[rows],
            "spacing_col_mm": grid.spacing[columns],
            "spacing_slice_mm": grid.thickness(self.axis),
            "bits": volume.dtype.itemsize * 8,
            "rescale": None if (volume.slope, volume.intercept) == (1, 0) else f"{volume.slope:g};{volume.intercept:g}",
        }
        if not volume.has_orientation:
            self.n_unplaced += 1
            self.unplaced = [*self.unplaced, file][:3]
        if volume.forms_differ:
            self.n_contradictory += 1
            self.contradictory = [*self.contradictory, file][:3]
        if volume.mm_per_unit != 1:
            self.n_converted += 1
            self.converted = [*self.converted, file][:3]
        dtype = _dtype(volume)
        if dtype == np.uint8:
            row["intensity"] = "display"
        return [
            Item(
                file,
                path,
                grid.shape[self.axis],
                (grid.shape[rows], grid.shape[columns]),
                1,
                dtype,
                row | {"volume": number},
                depth=(0.0, 255.0) if dtype == np.uint8 else None,
                together=file,
            )
            for number in range(volume.shape[3])
        ]

    def _in_one_unit(self, items: Sequence[Item], refused: list[Refusal]) -> tuple[Sequence[Item], Decision]:
        """Decide whether the source is in HU, and set aside the files that are not of its kind."""
        if self.domain is not None:
            decision = decide_by_domain(self.domain)
            count = sum(items[position].dtype == np.uint8 for position in _first_of_files(items))
            if decision.in_hu and count:
                decision.notes.append(nonnegative_note(self.domain, f"no value of {count} file(s) with 8 bits"))
            return items, decision
        firsts = _first_of_files(items)
        paths = Selected(items, firsts, lambda item: item.path)
        evidence = Records()
        for of_file in ordered(_evidence, paths, "deciding whether values are HU", self.workers, fail=_no_evidence):
            evidence.append(of_file)
        names = Selected(items, firsts, lambda item: item.file)
        decision = decide_by_values(names, evidence)
        aside = {names[position]: reason for position, reason in decision.set_aside.items()}
        for position in decision.set_aside:
            item = items[firsts[position]]
            reason = f"{aside[item.file]}; --domain decides otherwise"
            refused.append(Refusal(item.file, "filtered", reason, dict(item.row)))
        return Items(item for item in items if item.file not in aside) if aside else items, decision

    def _with_masks_of_their_grid(self, items: Sequence[Item], refused: list[Refusal]) -> Sequence[Item]:
        """Refuse volumes whose mask is another grid, by the headers."""
        reasons: dict[str, str] = {}
        for position in _first_of_files(items) if self.masks.option is not None else ():
            item = items[position]
            try:
                if item.mask is not None:
                    self._mask_file(item.mask, _opened(item.path, item.path.stat().st_mtime_ns))
            except Unreadable as error:
                reasons[item.file] = str(error)
                refused.append(Refusal(item.file, "unreadable", str(error), dict(item.row)))
        return Items(item for item in items if item.file not in reasons) if reasons else items

    def _mask_file(self, path: Path, image: NiftiFile) -> tuple[NiftiFile, np.ndarray]:
        """The label volume of a volume, and how its axes are exchanged and flipped to those of the volume's file."""
        if suffix(path.name) not in VOLUME_SUFFIXES:
            raise Unreadable(f"its mask {named_file(path.name)} is not a NIfTI volume")
        try:
            file = _opened(path, path.stat().st_mtime_ns)
            if file.shape[3] not in (1, image.shape[3]):
                raise Unreadable(f"has {file.shape[3]} volumes; expected one, with a value for each class")
            mask, grid = Grid(file.shape[:3], file.affine), Grid(image.shape[:3], image.affine)
            if self.mask_grid == "affine":
                return file, reorientation(mask, grid)
            if mask.shape != grid.shape:
                raise Unreadable(f"has {mask.shape} voxels, the volume {grid.shape}")
            return file, np.array([[0, 1], [1, 1], [2, 1]])
        except Unreadable as error:
            raise Unreadable(f"its mask {named_file(path.name)} {error}") from None

    def _mask_volume(self, item: Item, image: NiftiFile, number: int) -> np.ndarray | None:
        """The mask of a volume in canonical axes, in the values of the store."""
        import nibabel

        if item.mask is None:
            return None
        file, orientation = self._mask_file(item.mask, image)
        values = nibabel.apply_orientation(file.voxels(number if file.shape[3] > 1 else 0), orientation)
        mask = self.masks.coding.apply(values, named_file(item.mask.name))
        return to_canonical(mask, Grid(image.shape[:3], image.affine))


@lru_cache(maxsize=2)  # the volumes of a file follow each other, and so do those of its mask
def _opened(path: Path, mtime_ns: int) -> NiftiFile:
    return NiftiFile(path)


def _evidence(path: Path) -> Evidence:
    """What the values of a file say about HU."""
    try:
        file = NiftiFile(path)
        if file.dtype.kind == "u" and file.intercept >= 0 and file.slope > 0:
            return hu_evidence(np.zeros(1), sidecar_modality(path))  # the header rules negative values out
        return hu_evidence(file.sample(SAMPLED_VOXELS), sidecar_modality(path))
    except Exception:  # `read` reports the reason; such a file does not decide for the others
        return _no_evidence(path, "it cannot be read")


def _no_evidence(path: Path, reason: str) -> Evidence:
    return Evidence("fits", reason)


def _first_of_files(items: Sequence[Item]) -> array:
    """Positions of the first volume of each file; the volumes of a file follow each other."""
    firsts, before = array("q"), None
    for position, item in enumerate(items):
        if item.file != before:
            firsts.append(position)
        before = item.file
    return firsts


def _name(items: Sequence[Item]) -> None:
    """Series of every volume: the name of its file, with its folder if others have the same name."""
    several = HashSet.repeated(Selected(items, _first_of_files(items), lambda item: stem(item.file)))
    for item in items:
        name = stem(item.file)
        item.row["series"] = f"{item.file.rpartition('/')[0]}/{name}" if name in several else name


def _display(volume: np.ndarray, axis: int, number: int) -> np.ndarray:
    """One slice of a canonical volume as it is displayed, (rows, columns); both remaining axes are reversed."""
    return np.flip(np.take(volume, number, axis)).T


def _dtype(file: NiftiFile) -> np.dtype:
    """Smallest dtype of stores that can represent the values according to the header."""
    if file.dtype.kind in "biu" and file.slope == 1 and file.intercept == 0:
        for dtype in (np.uint8, np.int16):
            if np.can_cast(file.dtype, dtype):
                return np.dtype(dtype)
    return np.dtype(np.float32)
