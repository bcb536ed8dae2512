"""One NIfTI file: its header, checked, and its voxels.

nibabel reads the header. Compressed voxels are decompressed to the end of the file, because only there does gzip compare the
checksum; plain ones are memory-mapped.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.readers.limits import check_promise
from ssl_transfer.data.readers.reader import Unreadable

CHUNK_BYTES = 2**24
TRAILING_BYTES = 2**24  # after the voxels: extensions of other programs; more is no volume of this header
CIFTI_INTENTS = range(3000, 3100)
SPACE_UNITS = {1: 1000.0, 3: 0.001}  # of `xyzt_units`, in mm: metre and micrometre; everything else is mm
FLAT = 1e-6  # smallest volume of a voxel, relative to that of a box with its edges


class NotAVolume(Unreadable):
    """A sound NIfTI file that contains something else than volumes."""


class NiftiFile:
    """An opened NIfTI file.

    Args:
        path: A `.nii` or `.nii.gz` file.

    Attributes:
        shape: Voxels along the axes of the file and number of volumes, (I, J, K, T).
        affine: From voxel indices to mm, (4, 4); of sform, else qform, else nibabel's default.
        mm_per_unit: mm of the unit of space that the header states; the affine is converted by it.
        has_orientation: Whether sform or qform is set.
        forms_differ: Whether both are set, and disagree about the directions of the axes or the size of voxels.
        dtype: Dtype of the stored voxels.
        slope, intercept: Value = slope · stored + intercept.

    Raises:
        NotAVolume: If it contains CIFTI, colours, complex numbers, or more than four dimensions.
        Unreadable: If its header is damaged, or promises more than the file can hold.
    """

    def __init__(self, path: Path):
        import nibabel

        self.path = path
        try:
            self._image: Any = nibabel.load(path)
        except Exception as error:  # nibabel raises many kinds for a damaged header
            raise Unreadable(f"its header cannot be read: {str(error)[:200] or type(error).__name__}") from None
        header = self._image.header
        if isinstance(self._image, nibabel.Cifti2Image) or _intent(header) in CIFTI_INTENTS:
            raise NotAVolume(
                "it is CIFTI: values on a cortical surface and in subcortical voxels, not a volume. Export its volume with "
                "`wb_command -cifti-separate`"
            )
        self.dtype = header.get_data_dtype()
        self.shape = _four(self._image.shape)
        if self.dtype.names or self.dtype.kind not in "buif":
            raise NotAVolume(f"its voxels are {self.dtype}, not a single number each")
        self.slope, self.intercept = self._image.dataobj.slope, self._image.dataobj.inter
        self.mm_per_unit = SPACE_UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
        self.affine = np.asarray(self._image.affine, float)
        self.affine[:3] *= self.mm_per_unit
        edges = np.linalg.norm(self.affine[:3, :3], axis=0)
        volume = abs(np.linalg.det(self.affine[:3, :3] / np.where(edges > 0, edges, 1)))
        if not np.isfinite(self.affine).all() or volume < FLAT:
            raise Unreadable(f"its affine {np.round(self.affine[:3], 3).tolist()} places no voxels in space")
        self.has_orientation = bool(int(header["sform_code"]) or int(header["qform_code"]))
        self.forms_differ = _forms_differ(header)
        self._promised = self._image.dataobj.offset + math.prod(self.shape) * self.dtype.itemsize
        self.is_compressed = path.name.lower().endswith(".gz")
        check_promise(self._promised, path.stat().st_size, compressed=self.is_compressed)
        self._stored: np.ndarray | None = None

    def voxels(self, volume: int) -> np.ndarray:
        """Values of one volume along the axes of the file, (I, J, K), scaled by slope and intercept.

        Raises:
            Unreadable: If the file is cut off, or its checksum is wrong.
        """
        from nibabel.volumeutils import apply_read_scaling

        if self._stored is None:
            self._stored = self._load()
        return apply_read_scaling(self._stored[..., volume], self.slope, self.intercept)

    def sample(self, most: int) -> np.ndarray:
        """About `most` values of all volumes, evenly spaced; of a compressed file only from the first 256 MB.

        Raises:
            Unreadable: If the file is cut off.
        """
        from nibabel.volumeutils import apply_read_scaling

        stored = self._load(2**28) if self.is_compressed else self._load()
        flat = stored.reshape(-1, order="F")
        step = max(1, flat.size // most) | 1  # odd, so that all columns are sampled
        return apply_read_scaling(flat[::step], self.slope, self.intercept)

    def _load(self, most: int | None = None) -> np.ndarray:
        """Stored voxels, (I, J, K, T), or flat, if only the first `most` bytes are read."""
        offset = self._image.dataobj.offset
        try:
            if not self.is_compressed:
                return np.memmap(self.path, self.dtype, "r", offset, self.shape, "F")
            whole = most is None or self._promised <= most
            data = _decompressed(self.path, self._promised if whole else int(most or 0), verify=whole)
        except (OSError, EOFError, ValueError) as error:
            raise Unreadable(f"voxels cannot be read: {str(error)[:200] or type(error).__name__}") from None
        if whole:
            return np.ndarray(self.shape, self.dtype, data, offset, order="F")
        return np.frombuffer(data, self.dtype, (len(data) - offset) // self.dtype.itemsize, offset)


def _decompressed(path: Path, length: int, *, verify: bool) -> bytearray:
    """The first `length` bytes of a gzip file; `verify` reads on to its end, where the checksum stands."""
    data = bytearray(length)
    view, position = memoryview(data), 0
    with gzip.open(path, "rb") as file:
        for start in range(0, length, CHUNK_BYTES):
            position += _fill(file, view[start : start + CHUNK_BYTES])
        if position < length:
            raise EOFError(f"its header promises {length:,} bytes, {position:,} are in it")
        trailing = 0
        while verify and (rest := len(file.read(CHUNK_BYTES))):
            trailing += rest
            if trailing > TRAILING_BYTES:
                raise ValueError(f"more than {trailing:,} bytes follow the {length:,} that its header promises")
    return data


def _fill(file: Any, view: memoryview) -> int:
    """Read into a buffer until it is full or the file ends; the number of bytes read."""
    position = 0
    while position < len(view) and (count := file.readinto(view[position:])):
        position += count
    return position


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A shape as (I, J, K, T)."""
    if not shape or min(shape) < 1:
        raise Unreadable(f"its header has the shape {tuple(shape)}, which has no voxels")
    kept = list(shape)
    while len(kept) > 4 and kept[-1] == 1:
        kept.pop()
    if len(kept) == 5 and kept[3] == 1:
        raise NotAVolume(f"its shape {tuple(shape)} has vectors as voxels; expected a single number each")
    if len(kept) > 4:
        raise NotAVolume(f"{len(kept)} dimensions {tuple(shape)}; expected a volume, or volumes in time")
    first, second, third, volumes = [*(int(count) for count in kept), 1, 1, 1][:4]
    return first, second, third, volumes


def _forms_differ(header: Any) -> bool:
    """Whether sform and qform are set, and differ in the directions of axes or by more than a tenth in the size of a voxel."""
    from nibabel import io_orientation

    if not int(header["sform_code"]) or not int(header["qform_code"]):
        return False
    try:
        sform, qform = header.get_sform(), header.get_qform()
        sizes, others = (np.linalg.norm(form[:3, :3], axis=0) for form in (sform, qform))
        return bool(
            (io_orientation(sform) != io_orientation(qform)).any() or (np.abs(sizes - others) > 0.1 * sizes).any()
        )
    except Exception:  # a quaternion of no rotation: qform says nothing
        return False


def _intent(header: Any) -> int:
    try:
        return int(header["intent_code"])
    except (KeyError, ValueError):
        return 0


def sidecar(path: Path) -> Path:
    """Path of the JSON file beside a volume, as dcm2niix writes it, which need not exist."""
    return path.with_name(path.name.split(".nii")[0] + ".json")


def sidecar_modality(path: Path) -> str | None:
    """`Modality` in the JSON file beside a volume, as dcm2niix writes it: `CT`, `MR`, `PT`; None if there is none."""
    import json

    file = sidecar(path)
    try:
        modality = json.loads(file.read_text()).get("Modality") if file.is_file() else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return str(modality).upper() if modality else None
