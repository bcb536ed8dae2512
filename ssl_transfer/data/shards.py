"""Shards: the files that hold a store's pixels, written in order and read by position.

Plain shards are `.npy` files; compressed ones are `.b2` files of blosc2 frames (lz4, bitshuffle), with an offset index beside
them. Pixels are read by `pread`, never through page faults: on a cold cache that is ten times faster, and one
descriptor serves threads and forked workers alike.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_transfer.errors import StoreError

SHARD_BYTES = 256 * 2**20
OPEN_SHARDS = 256  # file descriptors kept open per process


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
    """Reads images by position from the shards that a `ShardWriter` wrote."""

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
