"""Throughput of the image store against limits of the same machine, measured in one run.

    python benchmarks/store.py                       # 20,000 slices of 256 px: 8 GB on disk, some minutes
    python benchmarks/store.py --slices 3000 --rounds 5

Random batches of 64, one process, rounds interleaved, ratios of medians over rounds. Warm: our store against a bare
`np.memmap` of the same pixels; our compressed store against bare blosc2 decoding of the same frames, held in memory. Cold
(the files are dropped from the page cache before every round): our store against a memmap. Also: a store of as
many files as for twelve million slices, the time to open a store, and the memory for sampling twelve million rows. The
last line is one JSON object; `--latencies FILE` writes the seconds of every batch for `benchmarks/scaling.py`.
"""

from __future__ import annotations

import argparse
import gc
import json
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path

import blosc2
import numpy as np

from ssl_transfer.data import shards
from ssl_transfer.data.counters import shuffled
from ssl_transfer.data.store import ImageStore, StoreWriter
from ssl_transfer.processes import worker_processes

BATCH = 64
RADNET = 12_000_000
RADNET_SHARDS = 5_860  # files of a store of twelve million slices of 256 px, int16
PROBES = 32  # of the page cache, per file
COLD_MEMMAP_SHARE = 8  # the memmap reads only an eighth of the batches, since it would take minutes
CARD = {"units": "hu", "domain": "ct", "split_by": "patient", "source": "phantom:ct"}
Read = Callable[[np.ndarray], object]
Seconds = dict[str, list[list[float]]]  # of every batch of every round


def main(arguments: list[str] | None = None) -> None:
    """Build the stores, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=256, help="rows and columns of a slice")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=16, help="of 64 images, per round")
    parser.add_argument(
        "--shards", type=int, default=RADNET_SHARDS, help="number of files of the store with many files"
    )
    parser.add_argument("--rows", type=int, default=RADNET, help="sampled by the memory test")
    parser.add_argument("--folder", type=Path, help="where to build the stores; on the disk to be measured")
    parser.add_argument("--latencies", type=Path, metavar="FILE", help="write the seconds of every batch")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(measure(Path(folder), options)))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure everything in one run: print the tables, return the ratios and other numbers of the JSON object."""
    images = ct_slices(options.size)
    plain, packed, bare = build(folder, images, options.slices)
    many = build_many(folder, images, options.shards)
    os.sync()  # no writes to the disk during the measurement
    print(
        f"{_processor()}, {os.cpu_count()} cores, Linux {os.uname().release}, read-ahead {_read_ahead_kb(folder)} kB; "
        f"{options.slices} slices of {options.size} px int16, one process, images per second:"
    )
    seconds = warm(plain, packed, bare, many, options.rounds, options.batches)
    seconds |= cold(plain, packed, bare, options.rounds, options.batches)
    rates = {name: [BATCH * len(batches) / sum(batches) for batches in rounds] for name, rounds in seconds.items()}
    print(f"{'':<34}{'median':>10}{'slowest':>10}{'fastest':>10}   round")
    for name, rate in rates.items():
        print(f"{name:<34}{statistics.median(rate):>10,.0f}{min(rate):>10,.0f}{max(rate):>10,.0f}")
    sizes = {path: sum(file.stat().st_size for file in path.glob("pixels-*")) for path in (plain, packed)}
    row_bytes = (plain / "rows.parquet").stat().st_size / options.slices
    print(f"compressed to 1/{sizes[plain] / sizes[packed]:.2f}; rows.parquet takes {row_bytes:.0f} bytes per row")
    opened = opening(plain)
    print(f"opening takes {opened['open_ms']:.2f} ms, with the first image {opened['first_image_ms']:.2f} ms")
    growth, took = sampling(options.rows)
    print(f"sampling {options.rows:,} rows takes {took:.1f} s; peak memory grows by {growth / 2**20:.1f} MiB")
    if options.latencies:
        options.latencies.write_text(json.dumps({name: [*chain(*rounds)] for name, rounds in seconds.items()}))

    def ratio(name: str, peer: str) -> float:
        return round(statistics.median(rates[name]) / statistics.median(rates[peer]), 3)

    return {
        "of_memmap_warm": ratio("store", "memmap"),
        "of_memmap_warm_not_mapped": ratio("store, not mapped", "memmap"),
        "of_memmap_warm_many_files": ratio(f"store, {options.shards} files", "memmap"),
        "of_blosc2": ratio("compressed", "blosc2 from memory"),
        "over_memmap_cold": ratio("store, cold", "memmap, cold"),
        "over_random_memmap_cold": ratio("store, cold", "memmap with MADV_RANDOM, cold"),
        "compressed_over_memmap_cold": ratio("compressed, cold", "memmap, cold"),
        "compression": round(sizes[plain] / sizes[packed], 3),
        **opened,
        "sampling_mib": round(growth / 2**20, 2),
    }


def ct_slices(size: int) -> np.ndarray:
    """Some hundred phantom CT slices with their noise, int16 HU, shape (N, 1, size, size)."""
    from ssl_transfer.data.readers.phantom.body import REGIONS, Patient
    from ssl_transfer.data.readers.phantom.ct import scan

    series = [
        scan(Patient(0, number), region, 4, size, np.random.default_rng([number, index])).hu
        for number in range(6)
        for index, region in enumerate(REGIONS)
    ]
    return np.concatenate(series)[:, None].astype(np.int16)


def variants(images: np.ndarray, count: int):
    """`count` different slices: mirrored and shifted, which does not change their compressibility."""
    for number in range(count):
        turn, which = divmod(number, len(images))
        yield np.roll(images[which][:, :, :: 1 - 2 * (turn % 2)], (turn // 2, 7 * turn), (1, 2))


def build(folder: Path, images: np.ndarray, count: int) -> tuple[Path, Path, Path]:
    """A plain store, a compressed one, and one bare array, of the same pixels."""
    plain, packed, bare = folder / "plain", folder / "packed", folder / "bare.npy"
    for path, compress in ((plain, False), (packed, True)):
        _write(path, variants(images, count), images, compress)
    with open(bare, "wb") as file:
        header = {"descr": "<i2", "fortran_order": False, "shape": (count, *images.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
        for image in variants(images, count):
            file.write(image.tobytes())
    return plain, packed, bare


def build_many(folder: Path, images: np.ndarray, count: int) -> Path:
    """A store of `count` files, one image each."""
    default, shards.SHARD_BYTES = shards.SHARD_BYTES, images[0].nbytes
    _write(folder / "many", variants(images, count), images, False)
    shards.SHARD_BYTES = default
    return folder / "many"


def _write(path: Path, slices, images: np.ndarray, compress: bool) -> None:
    with StoreWriter(path, images.shape[1:], images.dtype, compress=compress) as writer:
        for number, image in enumerate(slices):
            patient = f"P{number // 200:06d}"
            writer.append(
                image, {"patient": patient, "series": f"{patient}-1", "slice": number % 200, "label": "ABDOMEN"}
            )
        writer.finish(np.full(len(writer.rows), "train"), **CARD)


def warm(plain: Path, packed: Path, bare: Path, many: Path, rounds: int, batches: int) -> Seconds:
    """Seconds per batch while everything is in the page cache."""
    default, shards.MAPPED_BYTES = shards.MAPPED_BYTES, 0  # as for stores that are too large to be mapped
    unmapped, scattered = ImageStore(plain), ImageStore(many)
    unmapped[0], scattered[0]
    shards.MAPPED_BYTES = default
    readers: dict[str, tuple[Read, int]] = {
        "memmap": (_memmap(bare).__getitem__, len(ImageStore(plain))),
        "store": (ImageStore(plain).read, len(ImageStore(plain))),
        "store, not mapped": (unmapped.read, len(unmapped)),
        f"store, {len(scattered)} files": (scattered.read, len(scattered)),
        "blosc2 from memory": (_blosc2(packed), len(ImageStore(packed))),
        "compressed": (ImageStore(packed).read, len(ImageStore(packed))),
    }
    for read, count in readers.values():
        for start in range(0, count, BATCH):
            read(np.arange(start, min(start + BATCH, count)))
    rng, seconds = np.random.default_rng(0), {name: [] for name in readers}
    for _ in range(rounds):
        for name, (read, count) in readers.items():
            positions = rng.integers(0, count, (batches, BATCH))
            _timed(read, positions)  # some kernels reclaim pages that were not used for seconds
            seconds[name].append(_timed(read, positions))
    return seconds


def cold(plain: Path, packed: Path, bare: Path, rounds: int, batches: int) -> Seconds:
    """Seconds per batch when nothing is in the page cache; readers are reopened, because a mapped page cannot be dropped."""
    count = len(ImageStore(plain))
    few = max(1, batches // COLD_MEMMAP_SHARE)
    readers: dict[str, tuple[Callable[[], Read], int]] = {
        "store, cold": (lambda: ImageStore(plain).read, batches),
        "compressed, cold": (lambda: ImageStore(packed).read, batches),
        "memmap, cold": (lambda: _memmap(bare).__getitem__, few),
        "memmap with MADV_RANDOM, cold": (lambda: _memmap(bare, mmap.MADV_RANDOM).__getitem__, few),
    }
    files = [bare, *plain.glob("pixels-*.npy"), *packed.glob("pixels-*.b2")]
    rng, seconds = np.random.default_rng(1), {name: [] for name in readers}
    for _ in range(rounds):
        for name, (opened, share) in readers.items():
            drop_from_cache(files)
            positions = rng.permutation(count)[: share * BATCH]
            seconds[name].append(_timed(opened(), np.array_split(positions, max(1, len(positions) // BATCH))))
    return seconds


def drop_from_cache(files: list[Path], attempts: int = 5) -> None:
    """Drop files from the page cache, repeatedly if necessary: the kernel skips busy pages.

    Raises:
        RuntimeError: If more than one probed page in twenty is still cached: the run would not measure the disk.
    """
    gc.collect()  # mapped pages stay in the cache
    for _ in range(attempts):
        kept = [_drop_from_cache(path) for path in files]
        if sum(kept) <= PROBES * len(kept) / 20:
            return
        time.sleep(0.1)
    raise RuntimeError(
        f"{sum(kept)} of {PROBES * len(kept)} probed pages are still cached: is {files[0].parent} on a disk?"
    )


def _drop_from_cache(path: Path) -> int:
    """Drop one file; returns how many of its probed pages were still cached."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(
        descriptor, 0, 0, os.POSIX_FADV_RANDOM
    )  # without read-ahead: a probe must not fetch the page of the next
    offsets = np.linspace(0, path.stat().st_size - 1, PROBES).astype(int).tolist()
    kept = sum(shards._is_cached(descriptor, offset) for offset in offsets)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # pages that the probes may have fetched
    os.close(descriptor)
    return kept


def _memmap(path: Path, advice: int | None = None) -> np.memmap:
    mapped = np.load(path, mmap_mode="r")
    if advice is not None:
        mapped._mmap.madvise(advice)
    return mapped


def _blosc2(packed: Path) -> Read:
    """Decode frames in memory into an array like that of `read`."""
    shape = ImageStore(packed).shape
    frames = []
    for path in sorted(packed.glob("pixels-*.b2")):
        content, offsets = path.read_bytes(), np.load(path.with_suffix(".offsets.npy")).tolist()
        frames += [content[start:end] for start, end in pairwise(offsets)]

    def read(positions: np.ndarray) -> np.ndarray:
        batch = np.empty((len(positions), *shape), np.int16)
        for image, position in zip(batch, positions.tolist(), strict=True):
            blosc2.decompress2(frames[position], dst=image, nthreads=1)
        return batch

    return read


def _timed(read: Read, batches) -> list[float]:
    seconds = []
    for positions in batches:
        started = time.perf_counter()
        read(positions)
        seconds.append(time.perf_counter() - started)
    return seconds


def opening(path: Path, times: int = 21) -> dict[str, float]:
    """Median milliseconds to open a store with cached files, and to open it and read its first image."""
    opened, first = [], []
    for _ in range(times):
        started = time.perf_counter()
        store = ImageStore(path)
        opened.append(time.perf_counter() - started)
        store[0]
        first.append(time.perf_counter() - started)
    return {
        "open_ms": round(1000 * statistics.median(opened), 3),
        "first_image_ms": round(1000 * statistics.median(first), 3),
    }


def sampling(rows: int, batch: int = 4096) -> tuple[float, float]:
    """Growth of a new process's peak memory in bytes, and seconds, while it draws every row of one epoch."""
    with worker_processes(1) as pool:
        return pool.submit(_sample, rows, batch).result()


def _sample(rows: int, batch: int) -> tuple[float, float]:
    shuffled(np.arange(16), 16, 0, 0)
    before, started = _peak_memory(), time.perf_counter()
    for start in range(0, rows, batch):
        shuffled(np.arange(start, min(start + batch, rows)), rows, 0, 0)
    return _peak_memory() - before, time.perf_counter() - started


def _peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return names[0] if names else os.uname().machine


def _read_ahead_kb(folder: Path) -> str:
    """Read-ahead of a page fault on this folder's disk; a large one slows memmaps down."""
    device = os.stat(folder).st_dev
    name = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    for path in (Path(name) / "queue/read_ahead_kb", Path(name) / "../queue/read_ahead_kb"):
        if path.exists():
            return path.read_text().strip()
    return "unknown"


if __name__ == "__main__":
    main()
