"""Time that training waits for a store, simulated from measured latencies.

    python benchmarks/store.py --size 512 --slices 6000 --latencies latencies.json
    python benchmarks/scaling.py latencies.json               # a node of eight GPUs, batches of 256 per GPU

Each GPU has its own readers, which read batches in turn, each at most two ahead, as in torch's DataLoader; the GPU uses
the batches in order and computes for a fixed time. The time of a reader for 64 images is that of a random measured
batch. Batches from disk also wait for the disk, which delivers one after the other at the rate of `--disk`. The
table is part of `docs/scaling.md`.
"""

from __future__ import annotations

import argparse
import heapq
import json
from pathlib import Path

import numpy as np

MEASURED = 64  # images of one measured batch
AHEAD = 2  # batches per reader
READINGS = {  # column of the table: (latencies of, share of the pixels' bytes that comes from the disk)
    "plain, in memory": ("store", 0.0),
    "compressed, in memory": ("compressed", 0.0),
    "plain, from disk": ("store, cold", 1.0),
    "compressed, from disk": ("compressed, cold", None),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latencies", type=Path, help="file written by benchmarks/store.py --latencies")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs of the node, which share its disk")
    parser.add_argument("--readers", type=int, default=4, help="per GPU")
    parser.add_argument("--batch", type=int, default=256, help="per GPU")
    parser.add_argument("--batches", type=int, default=400, help="simulated")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[300, 600, 1200, 2400], help="images/s that a GPU computes"
    )
    parser.add_argument("--image-bytes", type=int, default=512 * 512 * 2)
    parser.add_argument("--disk", type=float, default=3.0, help="GB/s of random reads of whole images")
    parser.add_argument("--compression", type=float, default=2.0, help="bytes in memory over bytes on disk")
    options = parser.parse_args()
    measured = json.loads(options.latencies.read_text())
    print("| images/s a GPU computes | read by the node, GB/s |", " | ".join(READINGS), "|")
    print("|--:|--:|" + "--:|" * len(READINGS))
    for rate in options.rates:
        cells = []
        for name, share in READINGS.values():
            on_disk = options.batch * options.image_bytes * (1 / options.compression if share is None else share)
            waited = simulate(
                np.array(measured[name]),
                options.batch,
                options.batch / rate,
                on_disk / (1e9 * options.disk),
                options.gpus,
                options.readers,
                options.batches,
            )
            cells.append(f"{100 * waited:.1f} %")
        print(f"| {rate:,.0f} | {options.gpus * rate * options.image_bytes / 1e9:.2f} | " + " | ".join(cells) + " |")


def simulate(
    latencies: np.ndarray, batch: int, step: float, disk: float, gpus: int, readers: int, batches: int, seed: int = 0
) -> float:
    """Share of time that the slowest GPU waits for data, without the first tenth of its batches.

    Args:
        latencies: Measured seconds per `MEASURED` images, to draw from.
        batch: Images per GPU and step.
        step: Seconds that a GPU computes on a batch.
        disk: Seconds that the disk is busy with a batch.
        gpus: Number of GPUs that share the disk.
        readers: Processes per GPU.
        batches: Per GPU.
        seed: Of the draws.
    """
    draws = np.random.default_rng(seed).choice(latencies, (gpus, batches, -(-batch // MEASURED))).sum(2)
    read = np.full((gpus, batches), np.nan)  # when a batch is read
    taken = np.full((gpus, batches), np.nan)  # when the GPU begins with it
    waiting = [(0.0, gpu, number) for gpu in range(gpus) for number in range(min(readers, batches))]
    heapq.heapify(waiting)
    disk_free, next_taken = 0.0, [0] * gpus
    while waiting:
        requested, gpu, number = heapq.heappop(waiting)
        if disk:
            disk_free = max(disk_free, requested) + disk
        read[gpu, number] = max(requested + draws[gpu, number], disk_free)
        _request(waiting, read, taken, gpu, number + readers, readers)
        while next_taken[gpu] < batches and not np.isnan(read[gpu, next_taken[gpu]]):
            now = next_taken[gpu]
            free = taken[gpu, now - 1] + step if now else 0.0
            taken[gpu, now] = max(free, read[gpu, now])
            next_taken[gpu] += 1
            _request(waiting, read, taken, gpu, now + AHEAD * readers, readers)
    begin = batches // 10
    busy = step * (batches - 1 - begin)
    return float(max(0.0, 1 - busy / (taken[:, -1] - taken[:, begin]).max()))


def _request(waiting: list, read: np.ndarray, taken: np.ndarray, gpu: int, number: int, readers: int) -> None:
    """Hand a batch to its reader once the reader is free and the batch may be read ahead."""
    if number >= read.shape[1]:
        return
    allowed = 0.0 if number < AHEAD * readers else taken[gpu, number - AHEAD * readers]
    requested = max(read[gpu, number - readers], allowed)
    if not np.isnan(requested):
        heapq.heappush(waiting, (requested, gpu, number))


if __name__ == "__main__":
    main()
