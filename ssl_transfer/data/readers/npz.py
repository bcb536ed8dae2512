"""`.npz` archives in MedMNIST's layout: `{train,val,test}_{images,labels}`, optionally `_groups`, `_masks` and more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from ssl_transfer.data.readers.matching import class_ids, read_mask_names
from ssl_transfer.data.readers.reader import Item, Scan
from ssl_transfer.domains import UNKNOWN
from ssl_transfer.errors import SourceError

LOOKS_LIKE_HU = -500
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "test": "test"}
ROW_NAMES = {"files": "file", "groups": "patient", "slice_index": "slice"}  # array -> column; others keep their names


class NpzReader:
    """Reads one `.npz` file. Pickled objects in it are refused.

    An array `<split>_<name>` with one value per image becomes the column `<name>`; if there is an array `<name>_names`, values
    are replaced by their names. Without splits, the arrays are `images`, `labels`, ….

    Args:
        root: The file.
        domain: For `ct…` int16 values are HU. None: int16 values are HU if some are below -500.
        mask_names: The `--mask-names` option; without it, names are those of the array `mask_names` (from value 0).
    """

    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    magic: ClassVar[tuple[tuple[int, bytes], ...]] = ()
    reads_folders: ClassVar[bool] = False
    worth_workers: ClassVar[bool] = (
        False  # a single archive, decoded once: moving its images between processes costs more than it saves
    )

    def __init__(self, root: Path, *, domain: str | None = None, mask_names: str | None = None):
        self.root, self.domain, self.mask_names = Path(root), domain, read_mask_names(mask_names)
        self._loaded: tuple[str, np.ndarray, np.ndarray | None] | None = None

    def scan(self) -> Scan:
        """Load all arrays; images of one split at a time, for their shape and range."""
        archive = self._open()
        prefixes = _prefixes(archive.files, self.root)
        items: list[Item] = []
        notes: list[str] = []
        lowest, has_masks = 0.0, False
        for prefix in prefixes:
            images = _as_nhwc(self._array(archive, f"{prefix}images"), f"{self.root}: {prefix}images")
            if images.dtype == np.int16 and len(images):
                lowest = min(lowest, float(images.min()))
            items += self._items(archive, prefix, images, notes)
            has_masks |= f"{prefix}masks" in archive.files
        in_hu = all(item.dtype == np.int16 for item in items) and (
            self.domain.startswith("ct") if self.domain else lowest <= LOOKS_LIKE_HU
        )
        units = "display" if all(item.dtype == np.uint8 for item in items) else "stored"
        if in_hu and not self.domain:
            notes.append(f"read as CT in HU, because values reach below {LOOKS_LIKE_HU}; --domain overrides this")
        names = self._names(archive, "mask_names")
        return Scan(
            items,
            [],
            "hu" if in_hu else units,
            self.domain or ("ct" if in_hu else UNKNOWN),
            self._names(archive, "class_names"),
            self.mask_names or {value: name for value, name in enumerate(names or []) if value},
            self._mask_dtype(archive, prefixes) if has_masks else None,
            notes,
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
        image = image.astype(np.uint8) * 255 if image.dtype == bool else image.astype(item.dtype)
        mask = None if masks is None else class_ids(np.squeeze(masks[int(position)]), "array")
        yield np.ascontiguousarray(image), {}, mask

    def _open(self):
        try:
            return np.load(self.root, allow_pickle=False)
        except Exception as error:  # a short file, a text file, a pickled array: numpy raises many kinds
            raise SourceError(
                f"{self.root}: cannot be read as .npz ({str(error)[:200]}). Is the file complete?"
            ) from None

    def _array(self, archive, key: str) -> np.ndarray:
        try:
            return archive[key]
        except Exception as error:
            raise SourceError(
                f"{self.root}: array '{key}' cannot be read ({str(error)[:200]}). Pickled objects are refused; "
                "save plain arrays."
            ) from None

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
        items = []
        for position in range(len(images)):
            row = {name: values[position] for name, values in columns.items()}
            file = row.pop("file", None) or f"{prefix.rstrip('_') or 'images'}/{position:06d}"
            if split:
                row["split"] = split
            dtype = np.dtype(np.uint8 if images.dtype == bool else images.dtype)
            dtype = dtype if dtype in (np.uint8, np.int16) else np.dtype(np.float32)
            path = self.root / f"{prefix}#{position}"
            items.append(Item(str(file), path, 1, images.shape[1:3], images.shape[3], dtype, row))
        return items

    def _columns(self, archive, name: str, array: np.ndarray, notes: list[str]) -> dict[str, list]:
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if name == "labels":
            names = self._names(archive, "class_names")
            if array.ndim == 2:  # several labels per image
                return {f"label_{k}": array[:, k].tolist() for k in range(array.shape[1])}
            return {"label": _named(array, names, f"{self.root}: labels")}
        if array.ndim != 1:
            notes.append(f"{name} of shape {array.shape} left out: not one value per image")
            return {}
        column = ROW_NAMES.get(name, name)
        if column in ("patient", "file"):
            return {column: [str(value) for value in array]}
        names = self._names(archive, f"{name}_names")
        return {column: _named(array, names, f"{self.root}: {name}") if names else array.tolist()}

    def _mask_dtype(self, archive, prefixes: list[str]) -> np.dtype:
        """Dtype from the largest mask value, since arrays often have wider dtypes than they need."""
        highest = max(int(self._array(archive, f"{p}masks").max()) for p in prefixes if f"{p}masks" in archive.files)
        return np.dtype(np.uint8 if highest < 256 else np.uint16)


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
        raise SourceError(f"{where} has the shape {images.shape}; expected (N, H, W), (N, H, W, 1) or (N, H, W, 3).")
    if images.dtype.kind not in "buif":
        raise SourceError(f"{where} holds {images.dtype}; expected numbers.")
    return images


def _named(values: np.ndarray, names: list[str] | None, where: str) -> list[str]:
    """Class names of integer labels, or the values as text if there are no names."""
    if not names or values.dtype.kind not in "iu":
        return [str(value) for value in values]
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < len(names):
        raise SourceError(f"{where} run from {values.min()} to {values.max()}, but there are {len(names)} names.")
    return [names[value] for value in values]
