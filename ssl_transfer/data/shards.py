"""Shards: the files with the pixels of a store, written in order and read by position.

Plain shards are `.npy` files; compressed ones are `.b2` files of blosc2 frames (lz4, bitshuffle) with an offset index. A batch is
read in two passes: first the kernel is asked to prefetch all its images, then they are read one after the other. The disk is
never read by page faults, which would be more than ten times slower. If the store is small enough to be mapped, images in the
page cache are copied from a memory map; this reaches 0.67 of the speed of a bare memmap, and `preadv` reaches 0.39
(`benchmarks/store.py`).
"""

from __future__ import annotations

import io
import mmap
import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ssl_transfer.errors import StoreError

SHARD_BYTES = 256 * 2**20
OPEN_SHARDS = 256  # file descriptors kept open per process
MAPPED_BYTES = 8 * 2**30  # larger stores are not mapped, since mapped pages count as memory of the process


def shard_name(name: str, number: int, compressed: bool) -> str:
    """File name of a shard of `pixels` or `masks`."""
    return f"{name}-{number:05d}.{'b2' if compressed else 'npy'}"


def shard_bytes(path: Path, images: int, image_bytes: int, compressed: bool) -> int:
    """Number of bytes that a shard of so many images must have, by its header or its offset index.

    Raises:
        FileNotFoundError: If the shard or its index is missing.
        ValueError: If its header or its index is damaged.
    """
    if not compressed:
        with open(path, "rb") as file:
            head = file.read(10)
        if head[:6] != b"\x93NUMPY":
            raise ValueError("it does not begin like a .npy file")
        return _header_bytes(head) + images * image_bytes
    index = path.with_suffix(".offsets.npy").read_bytes()
    if len(index) < 10 or len(index) != _header_bytes(index) + 8 * (images + 1):
        raise ValueError(f"its index of {images} images has {len(index)} bytes")
    return int.from_bytes(index[-8:], "little")


def shard_header(shape: tuple[int, ...], dtype: np.dtype, images: int) -> bytes:
    """The header of a plain shard. NumPy pads it, so that it has one length for any number of images."""
    header = io.BytesIO()
    fields = {"descr": dtype.str, "fortran_order": False, "shape": (images, *shape)}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


class ShardWriter:
    """Appends images of one shape and dtype to numbered shards in `folder`.

    Args:
        folder: Folder of the shards.
        name: `pixels` or `masks`.
        shape: Shape of every image.
        dtype: Dtype of the images.
        compress: Whether blosc2 frames are written.
        images: Number of images that the shards in `folder` have already, up to the last `flush` of a writer that was
            interrupted; what is behind them is overwritten.
    """

    def __init__(
        self, folder: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, compress: bool, images: int = 0
    ):
        self.folder, self.name, self.shape = folder, name, tuple(shape)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.compress = compress
        self.image_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self.images_per_shard = max(1, SHARD_BYTES // self.image_bytes)
        self.count = images
        self.shards, self._in_shard = divmod(images, self.images_per_shard)
        self._file: BinaryIO | None = None
        self._offsets: list[int] = []
        if self._in_shard:
            self._reopen()

    def append(self, image: np.ndarray) -> None:
        """Write one image of the shape and dtype of the shard."""
        if image.shape != self.shape:
            raise ValueError(f"{self.name}: image of shape {image.shape}, store of shape {self.shape}")
        file = self._file or self._open()
        image = np.ascontiguousarray(image, dtype=self.dtype)
        if self.compress:
            import blosc2

            options: dict[str, Any] = {
                "codec": blosc2.Codec.LZ4,
                "clevel": 5,
                "filters": [blosc2.Filter.BITSHUFFLE],
                "nthreads": 1,
            }
            frame: Any = blosc2.compress2(image.reshape(-1), **options, typesize=self.dtype.itemsize)
            file.write(frame)
            self._offsets.append(self._offsets[-1] + len(frame))
        else:
            file.write(image.data)
        self.count += 1
        self._in_shard += 1
        if self._in_shard == self.images_per_shard:
            self._close(file)

    def close(self) -> None:
        """Finish the last shard."""
        if self._file is not None:
            self._close(self._file)

    def flush(self) -> None:
        """Write all images to the disk, so that another writer can go on after them even if this machine fails."""
        if self._file is not None:
            self._write_offsets()
            self._file.flush()
            os.fsync(self._file.fileno())

    def abandon(self) -> None:
        """Close the file without finishing its shard."""
        if self._file is not None:
            with suppress(OSError):  # a full disk, which was reported already
                self._file.close()
            self._file = None

    def _path(self) -> Path:
        return self.folder / shard_name(self.name, self.shards, self.compress)

    def _open(self) -> BinaryIO:
        self._file = file = open(self._path(), "wb")  # noqa: SIM115
        self._offsets = [0]
        if not self.compress:
            file.write(shard_header(self.shape, self.dtype, self.images_per_shard))
        return file

    def _reopen(self) -> None:
        """Open a shard that was not finished, behind its last image that counts."""
        if self.compress:
            index = self._path().with_suffix(".offsets.npy").read_bytes()
            offsets = np.frombuffer(index, np.int64, offset=_header_bytes(index))
            self._offsets = offsets[: self._in_shard + 1].tolist()
            end = self._offsets[-1]
        else:
            header = shard_header(self.shape, self.dtype, self.images_per_shard)
            end = len(header) + self._in_shard * self.image_bytes
        self._file = open(self._path(), "r+b")  # noqa: SIM115
        if self._file.seek(0, os.SEEK_END) < end:
            raise ValueError(f"{self._path()}: has fewer than {self._in_shard} images")
        self._file.truncate(end)
        self._file.seek(end)

    def _write_offsets(self) -> None:
        if self.compress:
            with open(self._path().with_suffix(".offsets.npy"), "wb") as file:
                file.write(shard_header((), np.dtype("<i8"), len(self._offsets)))
                file.write(np.array(self._offsets, "<i8").data)

    def _close(self, file: BinaryIO) -> None:
        self._write_offsets()
        if not self.compress and self._in_shard != self.images_per_shard:
            file.seek(0)
            file.write(shard_header(self.shape, self.dtype, self._in_shard))
        file.close()
        self._file, self._in_shard = None, 0
        self.shards += 1


class ShardReader:
    """Reads images by position from the shards that a `ShardWriter` wrote.

    Args:
        folder: Folder of the store.
        name: Name of the shards: `pixels` or `masks`.
        shape: Shape of every image.
        dtype: Dtype of the images.
        per_shard: Number of images in every shard but the last.
        compressed: Whether the shards contain blosc2 frames.
        images: Number of images in all shards; None: the shards are not memory-mapped.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        shape: tuple[int, ...],
        dtype: str | np.dtype,
        per_shard: int,
        compressed: bool,
        images: int | None = None,
    ):
        self.folder, self.name, self.shape = folder, name, tuple(shape)
        self.dtype, self.per_shard, self.compressed = np.dtype(dtype), per_shard, compressed
        self.image_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self.mapped = images is not None and images * self.image_bytes <= MAPPED_BYTES
        self._open: OrderedDict[int, _Shard] = OrderedDict()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}  # file descriptors cannot be sent to another process

    def read(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the images at `positions`, shape (B, *shape).

        Raises:
            StoreError: If a shard is missing or truncated.
        """
        batch = np.empty((len(positions), *self.shape), self.dtype)
        images = batch.view(np.uint8).reshape(len(positions), self.image_bytes)
        waiting = []
        for row, position in enumerate(np.asarray(positions, np.int64).tolist()):
            number, index = divmod(position, self.per_shard)
            shard = self._shard(number)
            start, end = shard.span(index)
            if end <= len(shard.mapping) and _is_cached(shard.descriptor, (start + end) // 2):
                shard.decode(shard.mapping[start:end], images[row])
            else:
                _fetch(shard.descriptor, start, end - start)
                waiting.append((shard, index, images[row]))
        for shard, index, image in waiting:
            if not shard.read(index, image):
                raise StoreError(
                    f"{self.folder}: shard {shard.path.stem} ends before image {index}: it was truncated. "
                    "Ingest the source again."
                )
        return batch

    def _shard(self, number: int) -> _Shard:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        path = self.folder / shard_name(self.name, number, self.compressed)
        try:
            shard = self._open[number] = _Shard(path, self.image_bytes, self.compressed, self.mapped)
        except FileNotFoundError as error:
            missing = Path(error.filename).name
            raise StoreError(f"{self.folder}: shard {missing} is missing. Ingest the source again.") from None
        except (ValueError, OSError) as error:  # an empty file cannot be mapped
            raise StoreError(f"{path}: cannot be read ({error}). Ingest the source again.") from None
        if len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)  # closed when the last reference to it is gone
        return shard


class _Shard:
    """An open shard: offsets of its images, and its bytes as an array (empty if it is not mapped)."""

    descriptor = -1

    def __init__(self, path: Path, image_bytes: int, compressed: bool, mapped: bool):
        self.path, self.image_bytes = path, image_bytes
        self.descriptor = os.open(path, os.O_RDONLY)
        self.mapping = np.empty(0, np.uint8)
        self.offsets = None
        if compressed:
            index = path.with_suffix(".offsets.npy").read_bytes()
            self.offsets = np.frombuffer(index, np.int64, offset=_header_bytes(index))
        else:
            self.first = _header_bytes(os.pread(self.descriptor, 10, 0))
        if mapped:
            pages = mmap.mmap(self.descriptor, 0, prot=mmap.PROT_READ)
            pages.madvise(mmap.MADV_RANDOM)  # no read-ahead of megabytes for an evicted page
            self.mapping = np.frombuffer(pages, np.uint8)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def span(self, index: int) -> tuple[int, int]:
        """Range of bytes of an image (or its frame) in the file: the first one, and the one after the last."""
        if self.offsets is not None:
            return int(self.offsets[index]), int(self.offsets[index + 1])
        start = self.first + index * self.image_bytes
        return start, start + self.image_bytes

    def decode(self, stored: bytes | np.ndarray, into: np.ndarray) -> None:
        """Decode the stored bytes of an image."""
        if self.offsets is None:
            into[:] = stored
            return
        import blosc2

        one_thread: Any = 1  # blosc2 declares that its options are dicts
        try:
            blosc2.decompress2(stored, dst=into, nthreads=one_thread)
        except (RuntimeError, ValueError) as error:
            raise StoreError(
                f"{self.path}: an image cannot be decoded: the shard was damaged. Ingest the source again. ({error})"
            ) from None

    def read(self, index: int, into: np.ndarray) -> bool:
        """Read an image; False if the file ends before the image does."""
        start, end = self.span(index)
        if self.offsets is not None:
            frame = os.pread(self.descriptor, end - start, start)
            if len(frame) == end - start:
                self.decode(frame, into)
            return len(frame) == end - start
        done = 0
        while start + done < end:  # a read may stop early; zero bytes mean that the file ends here
            more = os.preadv(self.descriptor, [memoryview(into[done:].data)], start + done)
            if more == 0:
                return False
            done += more
        return True


def _header_bytes(head: bytes) -> int:
    """Length of the header of a `.npy` file (version 1.0, which is what we write) that begins with `head`."""
    return 10 + int.from_bytes(head[8:10], "little")


def _is_cached(descriptor: int, offset: int) -> bool:
    """Whether a read at `offset` would not wait for a disk; False if the file system cannot tell, such as over a network."""
    try:
        return os.preadv(descriptor, _NOWHERE, offset, os.RWF_NOWAIT) > 0
    except (OSError, AttributeError):  # only Linux has this attribute
        return False


def _fetch(descriptor: int, start: int, length: int) -> None:
    """Let the kernel read a part of a file into its page cache, without waiting for it."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)


_NOWHERE = [bytearray(1)]  # where `_is_cached` reads to
