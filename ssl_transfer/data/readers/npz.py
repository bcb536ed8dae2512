"""`.npz` archives in MedMNIST's layout: `{train,val,test}_{images,labels}`, optionally `_groups`, `_masks` and more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ssl_transfer.csv_table import shown, without_missing
from ssl_transfer.data.readers.dicom_grey import AIR_HU
from ssl_transfer.data.readers.finite import replace_non_finite
from ssl_transfer.data.readers.hounsfield import (
    LOW,
    SAMPLED_VOXELS,
    Evidence,
    hu_evidence,
    is_normalised,
    nonnegative_note,
)
from ssl_transfer.data.readers.limits import check_promise
from ssl_transfer.data.readers.mask_files import count_values
from ssl_transfer.data.readers.masks import Masks
from ssl_transfer.data.readers.reader import Item, Scan
from ssl_transfer.domains import UNKNOWN
from ssl_transfer.errors import SourceError

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "test": "test"}
COLOUR_DEPTHS = (8, 10, 12, 14, 16)
ROW_NAMES = {"files": "file", "groups": "patient", "slice_index": "slice"}  # array -> column; others keep their names


class NpzReader:
    """Reads one `.npz` file. Pickled objects in it are refused.

    An array `<split>_<name>` with one value per image becomes the column `<name>`; if there is an array `<name>_names`, values
    are replaced by their names. Without splits, the arrays are `images`, `labels`, ….

    Args:
        root: The file.
        domain: For `ct…` values with a sign are HU, unless they are normalised. None: they are if they have a peak of air (see
            `hounsfield`).
        mask_names: The `--mask-names` option; without it, names are those of the array `mask_names` (from value 0).
        mask_ignore: The `--mask-ignore` option.
        mask_threshold: The `--mask-threshold` option.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    magic: ClassVar[tuple[tuple[int, bytes], ...]] = ()
    reads_folders: ClassVar[bool] = False
    worth_workers: ClassVar[bool] = (
        False  # a single archive, decoded once: moving its images between processes costs more than it saves
    )

    def __init__(
        self,
        root: Path,
        *,
        domain: str | None = None,
        mask_names: str | None = None,
        mask_ignore: str | None = None,
        mask_threshold: float | None = None,
    ):
        self.root, self.domain = Path(root), domain
        self.masks = Masks(names=mask_names, ignore=mask_ignore, threshold=mask_threshold)
        self._loaded: tuple[str, np.ndarray, np.ndarray | None] | None = None
        self._colour_factor: float | None = None  # of colours that are not uint8

    def scan(self) -> Scan:
        """Load all arrays; images of one split at a time, for their shape and range."""
        archive = self._open()
        prefixes = _prefixes(archive.files, self.root)
        items: list[Item] = []
        notes: list[str] = []
        samples: list[np.ndarray] = []
        colours: list[np.ndarray] = []  # lowest and highest values, in the type of the array
        for prefix in prefixes:
            images = _as_nhwc(self._array(archive, f"{prefix}images"), f"{self.root}: {prefix}images")
            samples.append(images.reshape(-1)[:: max(1, images.size // SAMPLED_VOXELS) | 1])
            items += self._items(archive, prefix, images, notes)
            if images.shape[3] == 3 and images.dtype not in (np.uint8, bool):
                finite = images[np.isfinite(images)]
                colours.append(np.array([finite.min(initial=0), finite.max(initial=0)]))
        in_hu = self._is_hu(items, samples, notes)
        if colours and not in_hu:
            self._decide_colours(items, np.concatenate(colours), notes)
        units = "display" if all(item.dtype == np.uint8 for item in items) else "stored"
        for item in items:
            if in_hu:
                item.dtype, item.row["intensity"] = np.dtype(np.int16), "hu"
        self._decide_masks(archive, prefixes)
        return Scan(
            items,
            [],
            "hu" if in_hu else units,
            self.domain or ("ct" if in_hu else UNKNOWN),
            self._names(archive, "class_names"),
            self.masks.names,
            self.masks.dtype,
            self.masks.coding.ignored_as,
            notes + self.masks.notes,
        )

    def read(self, item: Item) -> Iterator[tuple[np.ndarray, dict, np.ndarray | None]]:
        """Yield one image. The arrays of its split stay loaded until an image of another split is read."""
        prefix, position = item.path.name.rsplit("#", 1)
        if self._loaded is None or self._loaded[0] != prefix:
            archive = self._open()
            images = _as_nhwc(self._array(archive, f"{prefix}images"), prefix)
            masks = self._array(archive, f"{prefix}masks") if f"{prefix}masks" in archive.files else None
            self._loaded = prefix, images, masks
        _, images, masks = self._loaded
        image = np.moveaxis(images[int(position)], -1, 0)
        columns = {}
        in_hu = item.row.get("intensity") == "hu"
        unknown = np.isnan(image) if in_hu and image.dtype.kind == "f" else None
        if image.dtype.kind == "f":
            with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is replaced
                image, columns["non_finite"] = replace_non_finite(image.astype(np.float32))
        if self._colour_factor is not None and item.channels == 3 and images.dtype not in (np.uint8, bool):
            scaled = image * self._colour_factor
            image = np.clip(np.rint(scaled) if images.dtype.kind == "f" else np.floor(scaled), 0, 255)
        if in_hu:
            image = np.rint(image) if unknown is None else np.where(unknown, AIR_HU, np.rint(image))
            image = np.clip(image, AIR_HU, 32767)
        image = image.astype(np.uint8) * 255 if image.dtype == bool else image.astype(item.dtype)
        mask = None
        if masks is not None:
            values = masks[int(position)].reshape(images.shape[1:3])
            mask = self.masks.coding.apply(values, f"{prefix}masks[{position}]")
        yield np.ascontiguousarray(image), columns, mask

    def _decide_colours(self, items: list[Item], values: np.ndarray, notes: list[str]) -> None:
        """Make 8-bit colours of others: floats from 0 to 1 or from 0 to 255, and integers in the depth that they use.

        Args:
            items: The items; those in colour become uint8.
            values: Smallest and largest values of all colours.
            notes: A warning is appended.

        Raises:
            SourceError: If they are neither.
        """
        lowest, highest = float(values.min()), float(values.max())
        is_float = values.dtype.kind == "f"
        known = 255.0 if is_float else 2.0**16 - 1
        if lowest < 0 or highest > known:
            raise SourceError(
                f"{self.root}: colours have values from {lowest:g} to {highest:g}. Expected floats from 0 to 1 or from 0 to "
                "255, or integers from 0 to 65535: save them as uint8."
            )
        bits = 8 if is_float else next(depth for depth in COLOUR_DEPTHS if highest < 2**depth)
        self._colour_factor = (255.0 if highest <= 1 else 1.0) if is_float else 2.0 ** (8 - bits)
        scale = ("0 to 1" if highest <= 1 else "0 to 255") if is_float else f"{bits} bits"
        notes.append(f"colours of {values.dtype} are stored with 8 bits, read on the scale of {scale}")
        for item in items:
            if item.channels == 3:
                item.dtype, item.depth, item.together = np.dtype(np.uint8), (0.0, 255.0), None
                item.row |= {"intensity": "colour", "bits": bits}

    def _is_hu(self, items: list[Item], samples: list[np.ndarray], notes: list[str]) -> bool:
        """Whether values are HU, by the domain or the values: those of grey images with a sign can be."""
        is_ct = self.domain is not None and self.domain.startswith("ct")
        if self.domain is not None and not is_ct:
            return False
        types = sorted({str(sample.dtype) for sample in samples})
        can_be = [sample.dtype.kind in "if" for sample in samples]
        if not all(can_be) or any(item.channels != 1 for item in items):
            if is_ct or any(
                hu_evidence(sample).verdict == "ct" for sample, can in zip(samples, can_be, strict=True) if can
            ):
                notes.append(
                    f"not read as HU: values are {' and '.join(types)}; expected grey ones with a sign in all splits"
                )
            return False
        values = np.concatenate([sample.astype(np.float64) for sample in samples])
        evidence = hu_evidence(values)
        if is_ct:
            return self._is_hu_by_domain(values, evidence, notes)
        if evidence.verdict == "ct":
            notes.append(f"read as CT in HU, because {evidence.reason}; --domain overrides this")
        elif evidence.lowest < (0 if types == ["int16"] else LOW):
            notes.append(f"not read as HU: {evidence.reason}; --domain ct overrides this")
        return evidence.verdict == "ct"

    def _is_hu_by_domain(self, values: np.ndarray, evidence: Evidence, notes: list[str]) -> bool:
        """Whether values are HU if the domain is CT: all are but those that are normalised."""
        if is_normalised(values):
            notes.append(
                f"not read as HU: values from {np.nanmin(values):.3g} to {np.nanmax(values):.3g} are normalised"
            )
            return False
        if evidence.lowest >= 0:
            notes.append(nonnegative_note(str(self.domain), "no value"))
        return True

    def _decide_masks(self, archive, prefixes: list[str]) -> None:
        """Check the masks' shape, and decide on the coding of their values."""
        counts: Counter[float] = Counter()
        for prefix in prefixes:
            if f"{prefix}masks" not in archive.files:
                continue
            masks, shape = self._array(archive, f"{prefix}masks"), self._shape(archive, f"{prefix}images")
            if masks.shape[: len(shape[:3])] != shape[:3] or masks.size != np.prod(shape[:3]):
                raise SourceError(
                    f"{self.root}: {prefix}masks has the shape {masks.shape}, {prefix}images {shape}. Expected a mask of the "
                    "same height and width for every image."
                )
            counts.update(count_values(masks))
        if not counts:
            return
        names = self._names(archive, "mask_names")
        if not self.masks.names and names:
            self.masks.names = {value: name for value, name in enumerate(names) if value}
        self.masks.decide(counts, f"{self.root}: masks: ")

    def _open(self):
        try:
            archive = np.load(self.root, allow_pickle=False)
            for entry in archive.zip.infolist():
                compressed = entry.compress_type != 0
                check_promise(entry.file_size, entry.compress_size, compressed=compressed)
            return archive
        except Exception as error:  # a short file, a text file, a pickled array: numpy raises many kinds
            raise SourceError(
                f"{self.root}: cannot be read as .npz ({str(error)[:200]}). Is the file complete?"
            ) from None

    def _shape(self, archive, key: str) -> tuple[int, ...]:
        """Shape of an array by its header, which is checked against the size of the entry.

        Raises:
            SourceError: If the header is damaged, or promises more than the archive holds.
        """
        from numpy.lib import format as npy

        name = f"{key}.npy" if f"{key}.npy" in archive.zip.namelist() else key
        try:
            with archive.zip.open(name) as file:
                version = npy.read_magic(file)
                shape, _, dtype = (
                    npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
                )
            if dtype.hasobject:
                raise ValueError("it holds Python objects, which are refused; save plain numbers or text")
            check_promise(math.prod(shape) * dtype.itemsize, archive.zip.getinfo(name).file_size, compressed=False)
        except Exception as error:
            raise SourceError(f"{self.root}: array '{key}' cannot be read ({str(error)[:200]}).") from None
        return shape

    def _array(self, archive, key: str) -> np.ndarray:
        self._shape(archive, key)
        try:
            return archive[key]
        except Exception as error:
            raise SourceError(f"{self.root}: array '{key}' cannot be read ({str(error)[:200]}).") from None

    def _names(self, archive, key: str) -> list[str] | None:
        return [str(name) for name in self._array(archive, key)] if key in archive.files else None

    def _items(self, archive, prefix: str, images: np.ndarray, notes: list[str]) -> list[Item]:
        """One item per image of a split, with its columns."""
        columns: dict[str, list] = {}
        for key in archive.files:
            name = key.removeprefix(prefix)
            if not key.startswith(prefix) or name in ("images", "masks") or (not prefix and name.endswith("_names")):
                continue
            array = self._array(archive, key)
            if array.ndim == 0 or len(array) != len(images):
                if name in ("labels", "groups"):
                    raise SourceError(f"{self.root}: {key} has {array.shape}, {prefix}images {len(images)} images.")
                notes.append(f"{key} of shape {array.shape} left out: not one value per image")
                continue
            columns |= self._columns(archive, name, array, notes)
        split = SPLIT_NAMES.get(prefix.rstrip("_"))
        if not split and "split" in columns:
            columns["split"] = _split_names(columns["split"], f"{self.root}: split")
        dtype = np.dtype(np.uint8 if images.dtype == bool else images.dtype)
        dtype = dtype if dtype in (np.uint8, np.int16) else np.dtype(np.float32)
        facts: dict[str, Any] = {"bits": 1 if images.dtype == bool else images.dtype.itemsize * 8}
        if dtype == np.uint8:
            facts["intensity"] = "colour" if images.shape[3] == 3 else "display"
        depth = (0.0, 2.0 ** facts["bits"] - 1) if images.dtype.kind == "u" else None
        items = []
        for position in range(len(images)):
            row = facts | {name: values[position] for name, values in columns.items()}
            file = row.pop("file", None) or f"{prefix.rstrip('_') or 'images'}/{position:06d}"
            if split:
                row["split"] = split
            path = self.root / f"{prefix}#{position}"
            together = None if dtype == np.uint8 else self.root.name  # an archive has one scale
            size, channels = images.shape[1:3], images.shape[3]
            items.append(Item(str(file), path, 1, size, channels, dtype, row, depth=depth, together=together))
        return items

    def _columns(self, archive, name: str, array: np.ndarray, notes: list[str]) -> dict[str, list]:
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if name == "labels":
            names = self._names(archive, "class_names")
            if array.ndim == 2:  # several labels per image
                return {f"label_{k}": array[:, k].tolist() for k in range(array.shape[1])}
            return {"label": self._texts(array, names, name, notes)}
        if array.ndim != 1:
            notes.append(f"{name} of shape {array.shape} left out: not one value per image")
            return {}
        column = ROW_NAMES.get(name, name)
        names = self._names(archive, f"{name}_names")
        if names or column in ("patient", "file") or array.dtype.kind == "S":
            return {column: self._texts(array, names, name, notes)}
        return {column: array.tolist()}

    def _texts(self, values: np.ndarray, names: list[str] | None, what: str, notes: list[str]) -> list[str | None]:
        """Names of the values, or the values as text; None where one is missing, as in a label table."""
        texts, found = without_missing(_as_text(values, names, f"{self.root}: {what}"))
        if found:
            counts = ", ".join(f"{shown(word)} ({count})" for word, count in found.most_common())
            notes.append(f"{what}: read as missing: {counts}")
        return texts


def _prefixes(keys: list[str], path: Path) -> list[str]:
    """`train_`, `val_` … in that order, or the empty prefix for an archive without splits."""
    prefixes = [f"{name}_" for name in SPLIT_NAMES if f"{name}_images" in keys]
    if prefixes:
        return prefixes
    if "images" in keys:
        return [""]
    raise SourceError(
        f"{path}: no array is called train_images, val_images, test_images or images. "
        f"Found: {', '.join(keys) or 'none'}."
    )


def _as_nhwc(images: np.ndarray, where: str) -> np.ndarray:
    """Reshape (N, H, W) or (N, H, W, C) to (N, H, W, C) with one or three channels."""
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        first = images.ndim == 4 and images.shape[1] in (1, 3)
        advice = " If channels come first, save np.moveaxis(images, 1, -1)." if first else ""
        raise SourceError(
            f"{where} has the shape {images.shape}; expected (N, H, W), (N, H, W, 1) or (N, H, W, 3).{advice}"
        )
    if images.dtype.kind not in "buif":
        raise SourceError(f"{where} holds {images.dtype}; expected numbers.")
    if images.shape[1] < 1 or images.shape[2] < 1:
        raise SourceError(f"{where} has the shape {images.shape}, which has no pixels.")
    return images


def _split_names(values: list, where: str) -> list[str]:
    """Splits of an array, as a store names them."""
    unknown = sorted({str(value) for value in values} - set(SPLIT_NAMES))
    if unknown:
        raise SourceError(f"{where} has the values {', '.join(unknown[:3])}; expected {', '.join(SPLIT_NAMES)}.")
    return [SPLIT_NAMES[str(value)] for value in values]


def _as_text(values: np.ndarray, names: list[str] | None, where: str) -> list[str]:
    """Class names of whole numbers, or the values as text if there are no names: `1` and `1.0` are one class, NaN is missing."""
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "replace") for value in values.tolist()]
    if values.dtype.kind == "f":
        plain = [
            "nan" if value != value else f"{value:.0f}" if value % 1 == 0 else str(value) for value in values.tolist()
        ]
    else:
        plain = [str(value) for value in values]
    if not names or values.dtype.kind not in "iuf":
        return plain
    present = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    if present.size and ((present % 1 != 0).any() or not 0 <= present.min() <= present.max() < len(names)):
        raise SourceError(f"{where} run from {present.min()} to {present.max()}, but there are {len(names)} names.")
    return [text if text == "nan" else names[int(text)] for text in plain]
