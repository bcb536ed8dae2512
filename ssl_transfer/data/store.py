"""The image store: an immutable folder of pixels, which are read by position, and rows, which are read by column.

A store contains `pixels-00000.npy …` (plain shards of one dtype and shape, or `.b2` files of blosc2 frames with an offset
index), `masks-*` of the same kind if images have masks, `fingerprints-*.npy` (see `measures.fingerprint`), `rows.parquet`,
`split-<name>.npy` (positions of each split), and `card.json`. The card is written last: a folder without it is not a store.
Opening reads the card and compares a few images with their digests, so it takes milliseconds at any size.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_transfer import __version__
from ssl_transfer.data.card import MaskCard, SplitSize, StoreCard
from ssl_transfer.data.digests import FINGERPRINTS
from ssl_transfer.data.display import STORED_PERCENTILES
from ssl_transfer.data.image_files import ImageFiles, fingerprint_reader
from ssl_transfer.data.images import Positions, images_at
from ssl_transfer.data.integrity import check_at_opening, problems, sample_positions, shard_checksums
from ssl_transfer.data.partial import PartialStore
from ssl_transfer.data.rows import content_digest
from ssl_transfer.data.shards import ShardReader
from ssl_transfer.domains import Domain
from ssl_transfer.errors import StoreError
from ssl_transfer.run import file_digest
from ssl_transfer.texts import hashes

if TYPE_CHECKING:
    import pandas

SPLITS = ("train", "val", "test")


class ImageStore:
    """An opened store. `len(store)` images; `store[i]` is one (C, H, W) array in physical units.

    Args:
        path: Folder that `ingest` wrote.

    Raises:
        StoreError: If the folder is missing or is not a store, if another version wrote it, or if its files are not those that
            were written (see `integrity`; `verify` compares all of them).

    Attributes:
        refused: Files that are not in the store: `file`, `kind`, `reason`. The card has hashes of their names; a store that
            `ingest` returns has the names.
        warnings: What `ingest` warned of, likewise.

    Example:
        >>> store = ImageStore("stores/ct")
        >>> store[0].shape, store.card.units, store.positions("train").shape
        ((1, 32, 32), 'hu', (36,))
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.card = StoreCard.load(self.path)
        self.refused = list(self.card.refused)
        self.warnings = list(self.card.warnings)
        self.shape: tuple[int, int, int] = (self.card.channels, *self.card.size)
        self._pixels = self._reader("pixels", self.shape, self.card.dtype, self.card.images_per_shard)
        masks = self.card.masks
        self._masks = self._reader("masks", self.shape[1:], masks.dtype, masks.images_per_shard) if masks else None
        check_at_opening(
            self.path, self.card, self._reader("pixels", self.shape, self.card.dtype, self.card.images_per_shard)
        )

    def _reader(self, name: str, shape: tuple[int, ...], dtype: str, per_shard: int) -> ShardReader:
        return ShardReader(self.path, name, shape, dtype, per_shard, self.card.compressed, len(self))

    def __len__(self) -> int:
        return self.card.n_images

    def __getitem__(self, position: int | slice) -> np.ndarray:
        return images_at(self, position)

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

    def fingerprints(self, positions: Positions) -> np.ndarray:
        """Fingerprints of the images at `positions`, by which near-duplicates are recognised, uint8 (B, FINGERPRINT_BYTES)."""
        return fingerprint_reader(self.path, len(self)).read(positions)

    def verify(self) -> list[str]:
        """Compare every image and every file with the checksums of the card: one sentence for each difference, none if whole."""
        return list(problems(self.path, self.card, self._pixels, self._masks))

    @property
    def id(self) -> str:
        """Content name: equal images, rows and splits give equal ids."""
        return self.card.id

    @property
    def units(self) -> str:
        """`hu`, `display` (windowed, 0–255), `rgb`, `stored`, or `scaled` (see `StoreCard.value_range`)."""
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
        path = self.path / f"split-{split}.npy"
        try:
            positions = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read ({error}). Copy the store again, or ingest again.") from None
        fits = positions.shape == (self.card.splits[split].images,) and positions.dtype == np.int64
        if not fits or not 0 <= positions[0] <= positions[-1] < len(self):
            raise StoreError(
                f"{path}: has other positions than the {self.card.splits[split].images} of the card. "
                "Copy the store again, or ingest again."
            )
        return positions


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

    Use it as a context manager: on an exception, nothing is left behind, unless an ingest can go on from it.

    Args:
        out: Folder of the store; must not exist.
        shape: Shape (C, H, W) of every image.
        dtype: Dtype of the images.
        mask_dtype: Dtype of the masks; None: a store without masks.
        compress: Whether blosc2 lz4 frames are written instead of plain `.npy` shards.
        partial: The temporary folder, entered; None: the writer has its own, which is deleted in the end.
        start: Images and batches of rows that an interrupted ingest has left in `partial`.

    Attributes:
        rows: The rows that were appended.
    """

    def __init__(
        self,
        out: str | os.PathLike,
        shape,
        dtype,
        mask_dtype=None,
        compress: bool = False,
        *,
        partial: PartialStore | None = None,
        start: tuple[int, int] = (0, 0),
    ):
        self.out, self.start = Path(out), start
        self.shape, self.dtype, self.mask_dtype, self.compress = tuple(shape), np.dtype(dtype), mask_dtype, compress
        self._own = None if partial else PartialStore(self.out)
        self.partial = partial or PartialStore(self.out)

    def __enter__(self) -> StoreWriter:
        if self._own:
            self.partial = self._own.__enter__()
        try:
            if self.start == (0, 0):
                self.partial.remove_images()
            form = (self.shape, self.dtype, self.mask_dtype, self.compress)
            self._files = ImageFiles(self.partial.store, self.partial.folder, *form, start=self.start)
        except BaseException as error:
            if self._own:
                self._own.__exit__(type(error))
            raise
        self.rows = self._files.rows
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._files.abandon()
        if self._own:
            self._own.__exit__(kind, *exception)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def _store(self) -> Path:
        return self.partial.store

    @property
    def images_per_shard(self) -> tuple[int, int]:
        """Images in each shard but the last, of pixels and of masks (0: there are none)."""
        masks = self._files.masks
        return self._files.pixels.images_per_shard, masks.images_per_shard if masks else 0

    def close(self) -> None:
        """Finish the last shards, of a part that is no store."""
        self._files.close()

    def flush(self) -> tuple[int, int]:
        """Write everything to the disk; returns what another writer takes as `start`."""
        return self._files.flush()

    def append(
        self, image: np.ndarray, row: dict, mask: np.ndarray | None = None, digests: dict[str, str] | None = None
    ) -> None:
        """Add one image (C, H, W), its row, and its mask (H, W); no mask means all background. See `ImageFiles.append`."""
        self._files.append(image, row, mask, digests)

    def is_blank(self, position: int) -> bool:
        """Whether an image that was appended has the same value everywhere. Nothing can be appended after that."""
        self._files.close()
        per_shard = self._files.pixels.images_per_shard
        reader = ShardReader(self._store, "pixels", self.shape, self.dtype, per_shard, self.compress)
        image = reader.read([position])
        return bool((image == image.flat[0]).all())

    def finish(
        self,
        splits: np.ndarray,
        *,
        units: str,
        domain: str,
        classes: Sequence[str] | None = None,
        mask_classes: dict[int, str] | None = None,
        mask_ignore: int | None = None,
        refused: Sequence[dict[str, str]] = (),
        warnings: Sequence[str] = (),
        split_by: str = "image",
        split_seed: int | None = None,
        source: str | None = None,
        inputs: str | None = None,
        value_range: tuple[float, float] | None = None,
        decisions: dict[str, Any] | None = None,
        patient_key: str | None = None,
    ) -> ImageStore:
        """Write rows, splits and card, compute the id of the store from its content, and move it to its folder.

        Args:
            splits: Split name of every row, shape (N,).
            mask_classes: Name of each mask value.
            mask_ignore: Mask value of the pixels that are ignored.
            value_range: The one range of all images; None: percentiles of the training pixels.

        The other arguments are attributes of `StoreCard`.
        """
        self._files.close()
        pixels, masks, splits = self._files.pixels, self._files.masks, np.asarray(splits)
        patients = hashes(self.rows.values("patient"))
        checksums, sample = self._checksums()
        path = self.rows.join(self._store, split=splits)
        names = {str(value): name for value, name in (mask_classes or {}).items()}
        card = StoreCard(
            source=source,
            inputs=inputs,
            patient_key=patient_key,
            units=units,
            domain=domain,
            classes=None if classes is None else tuple(classes),
            refused=tuple(refused),
            warnings=tuple(warnings),
            split_by=split_by,
            split_seed=split_seed,
            version=__version__,
            value_range=value_range or self._value_range(np.flatnonzero(splits == "train")),
            n_images=len(self.rows),
            n_patients=_count(patients),
            channels=self.shape[0],
            size=self.shape[1:],
            dtype=pixels.dtype.str,
            compressed=self.compress,
            images_per_shard=pixels.images_per_shard,
            shards=pixels.shards,
            splits=self._write_splits(splits, patients),
            n_refused=len(refused),
            labels=_counts(self.rows.values("label")),
            masks=MaskCard(masks.dtype.str, masks.images_per_shard, names, mask_ignore) if masks else None,
            decisions=decisions or {},
            checksums={},
            sample=sample,
            id="",
        )
        whole = (path, *sorted(self._store.glob("split-*.npy")), *sorted(self._store.glob(f"{FINGERPRINTS}-*.npy")))
        others = {file.name: file_digest(file) for file in whole}
        identity = {key: getattr(card, key) for key in ("units", "domain", "classes", "size", "channels", "dtype")}
        content = content_digest(path, json.dumps(identity, sort_keys=True))
        replace(card, id=content, checksums=others | checksums).save(self._store)
        self.partial.publish()
        return ImageStore(self.out)

    def _checksums(self) -> tuple[dict[str, str], dict[str, str]]:
        """Checksum of each shard, and the digests of the images of the sample by position."""
        wanted = set(sample_positions(len(self.rows)))
        sample: dict[str, str] = {}

        def noted(digests: Iterable[str]) -> Iterator[str]:
            for position, digest in enumerate(digests):
                if position in wanted:
                    sample[str(position)] = digest
                yield digest

        pixels, masks = self._files.pixels, self._files.masks
        digests = noted(self.rows.values("pixel_digest"))
        checksums = shard_checksums(digests, "pixels", pixels.images_per_shard, self.compress)
        if masks is not None:
            digests = self.rows.values("mask_digest")
            checksums |= shard_checksums(digests, "masks", masks.images_per_shard, self.compress)
        return checksums, sample

    def _write_splits(self, splits: np.ndarray, patients: np.ndarray) -> dict[str, SplitSize]:
        """Write the positions of each split."""
        known = _count(patients) is not None
        sizes = {}
        for split in SPLITS:
            positions = np.flatnonzero(splits == split).astype(np.int64)
            if len(positions):
                np.save(self._store / f"split-{split}.npy", positions)
                sizes[split] = SplitSize(len(positions), _count(patients[positions]) if known else None)
        return sizes

    def _value_range(self, train: np.ndarray) -> tuple[float, float]:
        """0.5 and 99.5 percentile of a sample: some thousand pixels of each of up to 256 training images, with a fixed seed."""
        positions = np.sort(np.random.default_rng(0).permutation(train)[:256])
        per_shard = self._files.pixels.images_per_shard
        reader = ShardReader(self._store, "pixels", self.shape, self.dtype, per_shard, self.compress)
        stride = max(1, self.shape[1] * self.shape[2] // 4096) | 1  # odd, so that all columns are sampled
        thinned = [reader.read([position]).reshape(self.shape[0], -1)[:, ::stride].ravel() for position in positions]
        if not thinned:
            return 0.0, 0.0
        low, high = np.nanpercentile(np.concatenate(thinned).astype(np.float64), STORED_PERCENTILES)
        return round(float(low), 4), round(float(high), 4)


def _count(patients: np.ndarray) -> int | None:
    """Number of patients, from their hashes; None if one or more are unknown."""
    return None if (patients == hash(None)).any() else len(np.unique(patients))


def _counts(labels: Iterable[Any]) -> dict[str, int]:
    """Images by label, sorted."""
    counts = Counter(str(label) for label in labels if label is not None)
    return dict(sorted(counts.items()))
