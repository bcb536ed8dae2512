"""The image store: pixels read by position, rows read by column, both immutable.

A store is a folder: `pixels-00000.npy …` (plain shards, one dtype and shape; or `.b2` files of blosc2 frames
with an offset index), `masks-*` of the same kind where images have masks, `rows.parquet`,
`split-<name>.npy` (positions of each split), and `card.json`, which is written last: a folder
without it is no store. Opening reads the card alone, so it costs milliseconds at any size.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_transfer.domains import Domain
from ssl_transfer.errors import StoreError

SCHEMA = 1
SPLITS = ("train", "val", "test")
UNITS = ("hu", "display", "rgb", "stored")
SHARD_BYTES = 256 * 2**20
OPEN_SHARDS = 256  # file descriptors kept open per process


def pixel_digest(image: np.ndarray) -> str:
    """Name an image by its content: 32 hex digits of its shape, dtype and bytes."""
    digest = hashlib.blake2b(f"{image.shape}{image.dtype.str}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


class ShardWriter:
    """Appends images of one shape and dtype to numbered shards in `folder`."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, compress: bool):
        self.folder, self.name, self.shape = folder, name, tuple(shape)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.compress = compress
        self.image_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self.images_per_shard = max(1, SHARD_BYTES // self.image_bytes)
        self.count = self.shards = self._in_shard = 0
        self._file = None
        self._offsets: list[int] = []

    def append(self, image: np.ndarray) -> None:
        """Write one image; shape and dtype must be the shard's own."""
        if image.shape != self.shape:
            raise ValueError(f"{self.name}: image of shape {image.shape}, store of shape {self.shape}")
        if self._file is None:
            self._open()
        image = np.ascontiguousarray(image, dtype=self.dtype)
        if self.compress:
            import blosc2

            frame = blosc2.compress2(
                image.reshape(-1), codec=blosc2.Codec.LZ4, clevel=5, typesize=self.dtype.itemsize,
                filters=[blosc2.Filter.BITSHUFFLE], nthreads=1,
            )  # fmt: skip
            self._file.write(frame)
            self._offsets.append(self._offsets[-1] + len(frame))
        else:
            self._file.write(image.data)
        self.count += 1
        self._in_shard += 1
        if self._in_shard == self.images_per_shard:
            self._close()

    def close(self) -> None:
        """Finish the last shard."""
        if self._file is not None:
            self._close()

    def _open(self) -> None:
        suffix = "b2" if self.compress else "npy"
        self._file = open(self.folder / f"{self.name}-{self.shards:05d}.{suffix}", "wb")  # noqa: SIM115
        self._offsets = [0]
        if not self.compress:
            self._write_header(self.images_per_shard)

    def _write_header(self, images: int) -> None:
        """numpy pads the header so that the first axis can be rewritten in place with any count."""
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (images, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _close(self) -> None:
        if self.compress:
            np.save(self.folder / f"{self.name}-{self.shards:05d}.offsets.npy", np.array(self._offsets, np.int64))
        elif self._in_shard != self.images_per_shard:
            self._file.seek(0)
            self._write_header(self._in_shard)
        self._file.close()
        self._file, self._in_shard = None, 0
        self.shards += 1


class ShardReader:
    """Reads images by position from the shards that a `ShardWriter` wrote.

    Positional reads (`pread`), not page faults: on a cold cache they are ten times faster, and one descriptor
    serves threads and forked workers alike.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], dtype: str, per_shard: int, compressed: bool):
        self.folder, self.name, self.shape = folder, name, tuple(shape)
        self.dtype, self.per_shard, self.compressed = np.dtype(dtype), per_shard, compressed
        self.image_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self._open: OrderedDict[int, tuple[int, int | np.ndarray]] = OrderedDict()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}  # descriptors do not travel between processes

    def read(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the images at `positions`, shape (B, *shape)."""
        batch = np.empty((len(positions), *self.shape), self.dtype)
        flat = batch.reshape(len(positions), -1).view(np.uint8)
        for image, position in zip(flat, np.asarray(positions, np.int64).tolist(), strict=True):
            self._read_one(*divmod(position, self.per_shard), image)
        return batch

    def _read_one(self, shard: int, index: int, into: np.ndarray) -> None:
        descriptor, layout = self._shard(shard)
        if self.compressed:
            import blosc2

            start, end = int(layout[index]), int(layout[index + 1])
            blosc2.decompress2(os.pread(descriptor, end - start, start), dst=into, nthreads=1)
            return
        offset = layout + index * self.image_bytes
        done = os.preadv(descriptor, [into], offset)
        while done < self.image_bytes:  # a read may stop early; zero bytes mean that the file ends here
            more = os.preadv(descriptor, [into[done:]], offset + done)
            if more == 0:
                raise StoreError(
                    f"{self.folder}: shard {self.name}-{shard:05d} ends before image {index}: it was truncated. "
                    "Ingest the source again."
                )
            done += more

    def _shard(self, shard: int) -> tuple[int, int | np.ndarray]:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        path = self.folder / f"{self.name}-{shard:05d}.{'b2' if self.compressed else 'npy'}"
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise StoreError(f"{self.folder}: shard {path.name} is missing. Ingest the source again.") from None
        if self.compressed:
            layout = np.load(path.with_suffix(".offsets.npy"), mmap_mode="r")
        else:
            with open(path, "rb") as file:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                layout = file.tell()
        self._open[shard] = (descriptor, layout)
        if len(self._open) > OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1][0])
        return descriptor, layout

    def __del__(self) -> None:
        for descriptor, _ in self._open.values():
            os.close(descriptor)


class ImageStore:
    """An opened store. `len(store)` images; `store[i]` is one (C, H, W) array in physical units.

    Args:
        path: Folder that `ingest` wrote.

    Raises:
        StoreError: If the folder is missing, is no store, or was written by a newer version.

    Example:
        >>> store = ImageStore("stores/mednist_ct")                      # doctest: +SKIP
        >>> store[0].shape, store.card["units"], store.positions("train").shape     # doctest: +SKIP
        ((1, 64, 64), 'display', (9600,))
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.card = _read_card(self.path)
        self.shape: tuple[int, int, int] = (self.card["channels"], *self.card["size"])
        self._pixels = self._reader("pixels", self.shape, self.card["dtype"], self.card["images_per_shard"])
        masks = self.card["masks"]
        self._masks = (
            self._reader("masks", self.shape[1:], masks["dtype"], masks["images_per_shard"]) if masks else None
        )

    def _reader(self, name: str, shape: tuple[int, ...], dtype: str, per_shard: int) -> ShardReader:
        return ShardReader(self.path, name, shape, dtype, per_shard, self.card["compressed"])

    def __len__(self) -> int:
        return self.card["n_images"]

    def __getitem__(self, position: int) -> np.ndarray:
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.path}: position {position} of {len(self)} images")
        return self._pixels.read([position % len(self)])[0]

    def __getitems__(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images at `positions` (all in [0, len)), shape (B, C, H, W), in physical units."""
        return self._pixels.read(positions)

    def masks(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
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
        return self.card["id"]

    @property
    def units(self) -> str:
        """`hu`, `display` (windowed, 0–255), `rgb` or `stored`."""
        return self.card["units"]

    @property
    def domain(self) -> Domain:
        """Where the images come from."""
        return Domain.parse(self.card["domain"])

    @property
    def columns(self) -> list[str]:
        """Names of the columns of `rows.parquet`."""
        import pyarrow.parquet as parquet

        return parquet.read_schema(self.path / "rows.parquet").names

    @property
    def rows(self):
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
        if split not in self.card["splits"]:
            raise StoreError(
                f"{self.path}: no '{split}' split; this store has {', '.join(self.card['splits'])}. "
                "Ingest again with --resplit, or with more patients."
            )
        return np.load(self.path / f"split-{split}.npy", mmap_mode="r")


def _read_card(path: Path) -> dict:
    if not path.exists():
        raise StoreError(f"{path}: there is no such store. Make it with: ssl-transfer ingest SOURCE --out {path}")
    try:
        card = json.loads((path / "card.json").read_text())
    except (OSError, ValueError):
        card = None
    if not isinstance(card, dict) or card.get("kind") != "store":
        raise StoreError(
            f"{path}: this is no image store (a store is a folder with a card.json that ingest wrote). "
            f"Make one with: ssl-transfer ingest {path} --out stores/NAME"
        )
    if card["schema"] != SCHEMA:
        raise StoreError(f"{path}: store schema {card['schema']}, this version reads {SCHEMA}. Update ssl_transfer.")
    return card


class StoreWriter:
    """Writes a store beside its final place and moves it there when it is whole.

    Use as a context manager: on an exception nothing is left behind. `finish` needs the split of every row.

    Args:
        out: The store's folder; must not exist.
        shape: (C, H, W) of every image.
        dtype: Of every image.
        mask_dtype: Of every mask, or None for a store without masks.
        compress: Write blosc2 lz4 frames in place of plain `.npy` shards.
    """

    def __init__(self, out: str | os.PathLike, shape, dtype, mask_dtype=None, compress: bool = False):
        self.out = Path(out)
        self.folder = self.out.parent / f".{self.out.name}.partial"
        self.shape, self.dtype, self.mask_dtype, self.compress = tuple(shape), np.dtype(dtype), mask_dtype, compress
        self.rows: list[dict] = []

    def __enter__(self) -> StoreWriter:
        shutil.rmtree(self.folder, ignore_errors=True)  # what a killed ingest left
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

    def finish(self, splits: np.ndarray, card: dict) -> ImageStore:
        """Write rows, splits and card, name the store by its content, and move it to its place.

        Args:
            splits: Split name of every row, shape (N,).
            card: `units`, `domain`, `classes`, `mask_classes`, `refused`, `warnings`, `split_by`, `source`.

        `value_range` is added to it: the 0.5 and 99.5 percentile of a sample of the training pixels.
        """
        import pandas

        self._pixels.close()
        if self._masks is not None:
            self._masks.close()
        frame = pandas.DataFrame(self.rows).assign(split=splits)
        leading = ["label", "patient", "series", "slice", "split", "pixel_digest"]
        for name in leading:
            if name not in frame:
                frame[name] = None
        frame = frame[leading + [name for name in frame if name not in leading]]
        frame.to_parquet(self.folder / "rows.parquet", index=False)
        known_patients = frame["patient"].notna().all()
        counts = {}
        for split in SPLITS:
            positions = np.flatnonzero(np.asarray(splits) == split).astype(np.int64)
            if len(positions):
                np.save(self.folder / f"split-{split}.npy", positions)
                patients = int(frame["patient"].iloc[positions].nunique()) if known_patients else None
                counts[split] = {"images": len(positions), "patients": patients}
        masks = card.pop("mask_classes")
        card["value_range"] = self._value_range(np.flatnonzero(np.asarray(splits) == "train"))
        card |= {
            "schema": SCHEMA, "kind": "store", "n_images": len(frame),
            "n_patients": int(frame["patient"].nunique()) if known_patients else None,
            "channels": self.shape[0], "size": list(self.shape[1:]), "dtype": self._pixels.dtype.str,
            "compressed": self.compress, "images_per_shard": self._pixels.images_per_shard,
            "shards": self._pixels.shards, "splits": counts, "n_refused": len(card["refused"]),
            "labels": {str(k): int(n) for k, n in frame["label"].value_counts().sort_index().items()},
            "masks": None if self._masks is None else {
                "dtype": self._masks.dtype.str, "images_per_shard": self._masks.images_per_shard, "classes": masks,
            },
        }  # fmt: skip
        card["id"] = _content_id(frame, card)
        (self.folder / "card.json").write_text(json.dumps(card, indent=1))
        self.folder.rename(self.out)
        return ImageStore(self.out)

    def _value_range(self, train: np.ndarray) -> list[float]:
        """Percentiles of up to 256 training images, each thinned to some thousand pixels, chosen by a fixed seed."""
        positions = np.sort(np.random.default_rng(0).permutation(train)[:256])
        reader = ShardReader(
            self.folder, "pixels", self.shape, self.dtype, self._pixels.images_per_shard, self.compress
        )  # fmt: skip
        stride = max(1, self.shape[1] * self.shape[2] // 4096) | 1  # odd, so that it walks over all columns
        thinned = [reader.read([position]).reshape(self.shape[0], -1)[:, ::stride].ravel() for position in positions]
        if not thinned:
            return [0.0, 0.0]
        low, high = np.nanpercentile(np.concatenate(thinned).astype(np.float64), [0.5, 99.5])
        return [round(float(low), 4), round(float(high), 4)]


def _content_id(frame, card: dict) -> str:
    """Hash what the images and rows are; not where the files lay or how the shards are coded."""
    identity = {key: card[key] for key in ("units", "domain", "classes", "size", "channels", "dtype")}
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16)
    for name in sorted(set(frame.columns) - {"file"}):
        digest.update(name.encode())
        digest.update("\x1f".join(map(str, frame[name])).encode())
    return digest.hexdigest()
