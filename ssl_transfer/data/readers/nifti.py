"""The reader of NIfTI volumes, which are reoriented to canonical axes and cut into slices in radiological orientation.

Axial slices have the patient's front at the top and the patient's right at the left; coronal slices have the head at the top and
the patient's right at the left; sagittal slices have the head at the top and the front at the left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ssl_transfer.data.readers.dicom_pixels import AIR_HU
from ssl_transfer.data.readers.matching import (
    VOLUME_SUFFIXES,
    class_ids,
    mask_dtype,
    pair_masks,
    read_mask_names,
    stem,
    suffix,
)
from ssl_transfer.data.readers.reader import Item, Refusal, Scan, Unreadable, is_hidden, walk
from ssl_transfer.domains import UNKNOWN
from ssl_transfer.errors import UsageError

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # axis of the canonical (right, anterior, superior) array
LOOKS_LIKE_HU = -500  # air is -1000 HU; volumes of other modalities have no values this low


class NiftiReader:
    """Reads a `.nii` or `.nii.gz` file, or all of them below a folder.

    Args:
        root: File or folder.
        domain: For `ct…` values are HU; for other domains they are kept as stored. None: volumes with values below -500 are read
            as CT, for which all files are read once more.
        axis: `axial`, `coronal` or `sagittal`.
        masks: The `--masks` option: label volumes of the same grid.
        mask_names: The `--mask-names` option.
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
    ):
        if axis not in AXES:
            raise UsageError(f"--axis {axis}: expected one of {', '.join(sorted(AXES))}.")
        self.root, self.domain, self.axis = Path(root), domain, AXES[axis]
        self.masks, self.mask_names = masks, read_mask_names(mask_names)
        self.in_hu = False

    def scan(self) -> Scan:
        """Read all headers, and voxels where they are needed to decide whether values are HU (see `domain`)."""
        items: list[Item] = []
        refused: list[Refusal] = []
        for file, path in walk(self.root):
            answer = self._read_header(file, path)
            if isinstance(answer, Refusal):
                refused.append(answer)
            else:
                items.append(answer)
        items, refused = pair_masks(items, refused, self.root, self.masks)
        domain, notes = self.domain, []
        if domain is not None:
            self.in_hu = domain.startswith("ct")
        elif items and all(_lowest(item.path) <= LOOKS_LIKE_HU for item in items):
            self.in_hu, domain = True, "ct"
            notes.append(
                f"read as CT in HU, because every volume reaches below {LOOKS_LIKE_HU}; --domain overrides this"
            )
        stems = Counter(stem(item.file) for item in items)
        for item in items:
            name = stem(item.file)
            name = name if stems[name] == 1 else f"{item.file.rpartition('/')[0]}/{name}"
            item.row["series"] = name
            item.dtype = np.dtype(np.int16) if self.in_hu else item.dtype
        return Scan(
            items,
            refused,
            "hu" if self.in_hu else "stored",
            domain or UNKNOWN,
            None,
            self.mask_names,
            mask_dtype(items, self.mask_names),
            notes,
            patient_per_file=True,
        )

    def read(self, item: Item) -> Iterator[tuple[np.ndarray, dict, np.ndarray | None]]:
        """Decode one volume; yields its slices in ascending canonical order, volume after volume in 4-D."""
        try:
            volumes, affine = _canonical(item.path)
        except Exception as error:  # a damaged gzip stream, a short file, an odd data type
            raise Unreadable(f"voxels cannot be read: {str(error)[:200] or type(error).__name__}") from None
        masks = self._mask_volume(item.mask, volumes.shape[:3]) if item.mask else None
        in_time = volumes.shape[3] > 1
        for volume in range(volumes.shape[3]):
            for number in range(volumes.shape[self.axis]):
                image = self._values(_display(volumes[..., volume], self.axis, number), item.dtype)
                row = {
                    "slice": number,
                    "z_mm": round(float(affine[self.axis, self.axis] * number + affine[self.axis, 3]), 4),
                }
                if in_time:
                    row["volume"] = volume
                yield image[None], row, None if masks is None else _display(masks, self.axis, number)

    def _values(self, image: np.ndarray, dtype: np.dtype) -> np.ndarray:
        if self.in_hu:
            image = np.nan_to_num(image, nan=AIR_HU)
            return np.clip(np.rint(image), AIR_HU, 32767).astype(np.int16)
        image = np.nan_to_num(image, nan=0.0) if image.dtype.kind == "f" else image
        return image.astype(dtype)

    def _read_header(self, file: str, path: Path) -> Item | Refusal:
        import nibabel

        if is_hidden(file) or suffix(file) not in VOLUME_SUFFIXES:
            return Refusal(file, "not_an_image", "neither .nii nor .nii.gz")
        if path.stat().st_size == 0:
            return Refusal(file, "unreadable", "the file is empty (0 bytes)")
        try:
            image: Any = nibabel.load(path)
            shape, zooms = _canonical_grid(image)
            slope, intercept = image.dataobj.slope, image.dataobj.inter
        except Exception as error:  # nibabel raises many kinds for a damaged header
            return Refusal(file, "unreadable", f"its header cannot be read: {str(error)[:200]}")
        if len(shape) > 4:
            return Refusal(
                file, "not_an_image", f"{len(shape)} dimensions {tuple(shape)}; expected a volume, or volumes in time"
            )
        if image.get_data_dtype().names or image.get_data_dtype().kind == "c":
            return Refusal(file, "not_an_image", f"its voxels are {image.get_data_dtype()}, not a single number each")
        rows, columns = (axis for axis in (2, 1, 0) if axis != self.axis)
        return Item(
            file,
            path,
            shape[self.axis] * shape[3],
            (shape[rows], shape[columns]),
            1,
            _dtype(image.get_data_dtype(), slope, intercept),
            {"spacing_row_mm": zooms[rows], "spacing_col_mm": zooms[columns], "spacing_slice_mm": zooms[self.axis]},
        )

    def _mask_volume(self, mask: Path, shape: tuple[int, ...]) -> np.ndarray:
        if suffix(mask.name) not in VOLUME_SUFFIXES:
            raise Unreadable(f"its mask {mask.name} is not a NIfTI volume")
        try:
            volumes, _ = _canonical(mask)
        except Exception as error:
            raise Unreadable(f"its mask {mask.name} cannot be read: {str(error)[:200]}") from None
        if volumes.shape != (*shape, 1):
            raise Unreadable(f"its mask {mask.name} has the shape {volumes.shape[:3]}, the volume {tuple(shape)}")
        return class_ids(volumes[..., 0], mask.name)


def _canonical_grid(image) -> tuple[list[int], list[float]]:
    """Shape (X, Y, Z, T) and spacing in mm in canonical axis order, from the header."""
    import nibabel
    from nibabel.affines import voxel_sizes

    shape = [*image.shape, 1, 1, 1][: max(len(image.shape), 4)]
    while len(shape) > 4 and shape[-1] == 1:
        shape.pop()
    source_axes = [int(axis) for axis in np.argsort(nibabel.io_orientation(image.affine)[:, 0])]
    zooms = voxel_sizes(image.affine)
    return [*(int(shape[axis]) for axis in source_axes), *shape[3:]], [round(float(zooms[a]), 5) for a in source_axes]


def _canonical(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (X, Y, Z, T) with axes towards right, anterior and superior, and the affine (4, 4)."""
    import nibabel

    image: Any = nibabel.load(path)
    voxels = np.asanyarray(image.dataobj)
    voxels = voxels.reshape([*voxels.shape, 1, 1, 1][:4]) if voxels.ndim < 4 else voxels.reshape(voxels.shape[:4])
    orientation = nibabel.io_orientation(image.affine)
    affine = image.affine @ nibabel.orientations.inv_ornt_aff(orientation, voxels.shape[:3])
    return nibabel.apply_orientation(voxels, orientation), affine


def _display(volume: np.ndarray, axis: int, number: int) -> np.ndarray:
    """One slice of a canonical volume as it is displayed, (rows, columns); both remaining axes are reversed."""
    return np.flip(np.take(volume, number, axis)).T


def _dtype(stored: np.dtype, slope: float, intercept: float) -> np.dtype:
    """Smallest dtype of stores that can represent the values according to the header."""
    if stored.kind in "iu" and slope == 1 and intercept == 0:
        for dtype in (np.uint8, np.int16):
            if np.can_cast(stored, dtype):
                return np.dtype(dtype)
    return np.dtype(np.float32)


def _lowest(path: Path) -> float:
    """Smallest voxel; +inf if the header rules negative values out or the voxels cannot be read."""
    import nibabel

    try:
        image: Any = nibabel.load(path)
        if image.get_data_dtype().kind == "u" and image.dataobj.inter >= 0 and image.dataobj.slope > 0:
            return np.inf
        return float(np.nanmin(np.asanyarray(image.dataobj)))
    except Exception:  # `read` reports the reason; such a file does not decide for the others
        return -np.inf
