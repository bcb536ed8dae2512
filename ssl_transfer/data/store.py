"""The image store: an immutable folder of pixels, which are read by position, and rows, which are read by column.

A store contains `pixels-00000.npy …` (plain shards of one dtype and shape, or `.b2` files of blosc2 frames with an offset
index), `masks-*` of the same kind if images have masks, `rows.parquet`, `split-<name>.npy` (positions of each split), and
`card.json`. The card is written last: a folder without it is not a store. Opening reads only the card, so it takes milliseconds
at any size.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssl_transfer import __version__
from ssl_transfer.data.card import MaskCard, SplitSize, StoreCard
from ssl_transfer.data.images import Positions
from ssl_transfer.data.shards import ShardReader, ShardWriter
from ssl_transfer.domains import Domain
from ssl_transfer.errors import StoreError

if TYPE_CHECKING:
    import pandas

SPLITS = ("train", "val", "test")
UNITS = ("hu", "display", "rgb", "stored")


def pixel_digest(image: np.ndarray) -> str:
    """Name an image by its content: 32 hex digits of its shape, dtype and bytes."""
    digest = hashlib.blake2b(f"{image.shape}{image.dtype.str}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


class ImageStore:
    """An opened store. `len(store)` images; `store[i]` is one (C, H, W) array in physical units.

    Args:
        path: Folder that `ingest` wrote.

    Raises:
        StoreError: If the folder is missing, is not a store, or was written by a newer version.

    Example:
        >>> store = ImageStore("stores/ct")
        >>> store[0].shape, store.card.units, store.positions("train").shape
        ((1, 32, 32), 'hu', (36,))
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.card = StoreCard.load(self.path)
        self.shape: tuple[int, int, int] = (self.card.channels, *self.card.size)
        self._pixels = self._reader("pixels", self.shape, self.card.dtype, self.card.images_per_shard)
        masks = self.card.masks
        self._masks = self._reader("masks", self.shape[1:], masks.dtype, masks.images_per_shard) if masks else None

    def _reader(self, name: str, shape: tuple[int, ...], dtype: str, per_shard: int) -> ShardReader:
        return ShardReader(self.path, name, shape, dtype, per_shard, self.card.compressed, len(self))

    def __len__(self) -> int:
        return self.card.n_images

    def __getitem__(self, position: int) -> np.ndarray:
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.path}: position {position} of {len(self)} images")
        return self._pixels.read([position % len(self)])[0]

    def read(self, positions: Positions) -> np.ndarray:
        """Images at `positions` (all in [0, len)), shape (B, C, H, W), in physical units."""
        return self._pixels.read(positions)

    def masks(self, positions: Positions) -> np.ndarray:
        """Masks at `positions`, shape (B, H, W), class ids; 0 is background.

        Raises:
            StoreError: If the store has no masks.
        """
        if self._masks is None:
            raise StoreError(f"{self.path}: this store has no masks. Ingest again with --masks PATH or PATTERN.")
        return self._masks.read(positions)

    @property
    def id(self) -> str:
        """Content name: equal images, rows and splits give equal ids."""
        return self.card.id

    @property
    def units(self) -> str:
        """`hu`, `display` (windowed, 0–255), `rgb` or `stored`."""
        return self.card.units

    @property
    def domain(self) -> Domain:
        """Where the images come from."""
        return Domain.parse(self.card.domain)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of `rows.parquet`."""
        import pyarrow.parquet as parquet

        return parquet.read_schema(self.path / "rows.parquet").names

    @property
    def rows(self) -> pandas.DataFrame:
        """All rows as a pandas frame: patient, series, slice, split, label, pixel_digest, file, …"""
        import pandas

        return pandas.read_parquet(self.path / "rows.parquet")

    def column(self, name: str) -> np.ndarray:
        """One column of the rows, shape (N,); missing values are None or NaN.

        Raises:
            StoreError: If there is no such column.
        """
        import pyarrow.parquet as parquet

        if name not in self.columns:
            raise StoreError(f"{self.path}: no column '{name}' in rows.parquet. Columns: {', '.join(self.columns)}.")
        table = parquet.read_table(self.path / "rows.parquet", columns=[name])
        return table.column(0).to_pandas().to_numpy()

    def positions(self, split: str) -> np.ndarray:
        """Positions of the rows of one split, ascending; int64, shape (n,), memory-mapped.

        Raises:
            StoreError: If the store has no such split.
        """
        if split not in self.card.splits:
            raise StoreError(
                f"{self.path}: no '{split}' split; this store has {', '.join(self.card.splits)}. "
                "Ingest again with --resplit, or with more patients."
            )
        return np.load(self.path / f"split-{split}.npy", mmap_mode="r")


def class_codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes of a column as sorted strings, and the class code of each row, int64; −1 if it has no class."""
    import pandas

    present = pandas.notna(values)
    codes = np.full(len(values), -1, np.int64)
    classes, codes[present] = np.unique(values[present].astype(str), return_inverse=True)
    return classes, codes


def open_store(path: str | Path) -> ImageStore:
    """Open a store.

    Raises:
        StoreError: If there is no store, or it is damaged.
    """
    return ImageStore(path)


class StoreWriter:
    """Writes a store into a temporary folder, which is renamed to its final name when the store is complete.

    Use it as a context manager: on an exception, nothing is left behind.

    Args:
        out: Folder of the store; must not exist.
        shape: Shape (C, H, W) of every image.
        dtype: Dtype of the images.
        mask_dtype: Dtype of the masks; None: a store without masks.
        compress: Whether blosc2 lz4 frames are written instead of plain `.npy` shards.
    """

    def __init__(self, out: str | os.PathLike, shape, dtype, mask_dtype=None, compress: bool = False):
        self.out = Path(out)
        self.folder = self.out.parent / f".{self.out.name}.partial"
        self.shape, self.dtype, self.mask_dtype, self.compress = tuple(shape), np.dtype(dtype), mask_dtype, compress
        self.rows: list[dict] = []

    def __enter__(self) -> StoreWriter:
        shutil.rmtree(self.folder, ignore_errors=True)  # left by an ingest that was killed
        self.folder.mkdir(parents=True)
        self._pixels = ShardWriter(self.folder, "pixels", self.shape, self.dtype, self.compress)
        self._masks = (
            ShardWriter(self.folder, "masks", self.shape[1:], self.mask_dtype, self.compress)
            if self.mask_dtype is not None
            else None
        )
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def append(self, image: np.ndarray, row: dict, mask: np.ndarray | None = None) -> None:
        """Add one image (C, H, W), its row, and its mask (H, W); no mask means all background."""
        self._pixels.append(image)
        row["pixel_digest"] = pixel_digest(image)
        if self._masks is not None:
            mask = np.zeros(self.shape[1:], self.mask_dtype) if mask is None else mask
            self._masks.append(mask)
            row["mask_digest"] = pixel_digest(mask)
        self.rows.append(row)

    def finish(
        self,
        splits: np.ndarray,
        *,
        units: str,
        domain: str,
        classes: Sequence[str] | None = None,
        mask_classes: dict[int, str] | None = None,
        refused: Sequence[dict[str, str]] = (),
        warnings: Sequence[str] = (),
        split_by: str = "image",
        split_seed: int | None = None,
        source: str | None = None,
        inputs: str | None = None,
    ) -> ImageStore:
        """Write rows, splits and card, compute the id of the store from its content, and move it to its folder.

        Args:
            splits: Split name of every row, shape (N,).
            mask_classes: Name of each mask value.

        The other arguments are attributes of `StoreCard`.
        """
        self._pixels.close()
        if self._masks is not None:
            self._masks.close()
        frame, sizes = self._write_rows(np.asarray(splits))
        masks = None
        if self._masks is not None:
            names = {str(value): name for value, name in (mask_classes or {}).items()}
            masks = MaskCard(self._masks.dtype.str, self._masks.images_per_shard, names)
        card = StoreCard(
            source=source,
            inputs=inputs,
            units=units,
            domain=domain,
            classes=None if classes is None else tuple(classes),
            refused=tuple(refused),
            warnings=tuple(warnings),
            split_by=split_by,
            split_seed=split_seed,
            version=__version__,
            value_range=self._value_range(np.flatnonzero(np.asarray(splits) == "train")),
            n_images=len(frame),
            n_patients=int(frame["patient"].nunique()) if frame["patient"].notna().all() else None,
            channels=self.shape[0],
            size=self.shape[1:],
            dtype=self._pixels.dtype.str,
            compressed=self.compress,
            images_per_shard=self._pixels.images_per_shard,
            shards=self._pixels.shards,
            splits=sizes,
            n_refused=len(refused),
            labels={str(label): int(n) for label, n in frame["label"].value_counts().sort_index().items()},
            masks=masks,
            id="",
        )
        replace(card, id=_content_id(frame, card)).save(self.folder)
        self.folder.rename(self.out)
        return ImageStore(self.out)

    def _write_rows(self, splits: np.ndarray) -> tuple[pandas.DataFrame, dict[str, SplitSize]]:
        """Write `rows.parquet` and the positions of each split."""
        import pandas

        frame = pandas.DataFrame(self.rows).assign(split=splits)
        leading = ["label", "patient", "series", "slice", "split", "pixel_digest"]
        for name in leading:
            if name not in frame:
                frame[name] = None
        frame = frame[leading + [name for name in frame if name not in leading]]
        frame.to_parquet(self.folder / "rows.parquet", index=False)
        patients_known = frame["patient"].notna().all()
        sizes = {}
        for split in SPLITS:
            positions = np.flatnonzero(splits == split).astype(np.int64)
            if len(positions):
                np.save(self.folder / f"split-{split}.npy", positions)
                patients = int(frame["patient"].iloc[positions].nunique()) if patients_known else None
                sizes[split] = SplitSize(len(positions), patients)
        return frame, sizes

    def _value_range(self, train: np.ndarray) -> tuple[float, float]:
        """0.5 and 99.5 percentile of a sample: some thousand pixels of each of up to 256 training images, with a fixed seed."""
        positions = np.sort(np.random.default_rng(0).permutation(train)[:256])
        reader = ShardReader(
            self.folder, "pixels", self.shape, self.dtype, self._pixels.images_per_shard, self.compress
        )
        stride = max(1, self.shape[1] * self.shape[2] // 4096) | 1  # odd, so that all columns are sampled
        thinned = [reader.read([position]).reshape(self.shape[0], -1)[:, ::stride].ravel() for position in positions]
        if not thinned:
            return 0.0, 0.0
        low, high = np.nanpercentile(np.concatenate(thinned).astype(np.float64), [0.5, 99.5])
        return round(float(low), 4), round(float(high), 4)


def _content_id(frame: pandas.DataFrame, card: StoreCard) -> str:
    """Hash of the content of images and rows, independent of file paths and of the encoding of the shards."""
    identity = {key: getattr(card, key) for key in ("units", "domain", "classes", "size", "channels", "dtype")}
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16)
    for name in sorted(set(frame.columns) - {"file"}):
        digest.update(name.encode())
        digest.update("\x1f".join(map(str, frame[name])).encode())
    return digest.hexdigest()
