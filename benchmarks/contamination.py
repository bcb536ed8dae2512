"""How well, and how fast, images that a backbone was trained on are recognised among test images.

    python benchmarks/contamination.py                            # ten minutes on two cores with AVX-512
    python benchmarks/contamination.py --overlaps 1000 --known 100000 --queries 1000
    python benchmarks/contamination.py --store STORE --disjoint STORE    # on archives of your own, instead of phantoms

Recall: of random images of a training store (CT in HU, fluorescence, photographs), each planted once after one of the changes
below and a random one of eight orientations, the share that is recognised as a near-duplicate.

False positives: images of other patients (other seeds of the phantoms) against the whole training store. The number of pairs is
their product; none may be recognised.

Time: the search for `--queries` of those other images, repeated, among `--known` images, the training stores repeated.

The last line is one JSON object: `recall` (over all changes), `recall_of` (each change), `overlaps`, `false`, `pairs`, `known`,
`queries`, `minutes`, `ns_of_cpu_per_pair` of images (a twelfth of it is the minutes that two idle cores take for a million images
against ten thousand), and `fingerprint_ms` (median CPU time of an image of 256 × 256).
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.store import ImageStore
from ssl_transfer.measures.fingerprint import fingerprint, query
from ssl_transfer.measures.near_duplicates import near_duplicates

WINDOWS_HU = {"soft tissue": (-160, 240), "lung": (-1350, 150), "bone": (-500, 1300), "wide": (-1000, 1000)}
PHANTOMS = {  # name -> options of its training store, and of one with other patients
    "ct": ("patients=40,slices=48,size=128", "patients=40,slices=24,size=128,seed=1"),
    "cells": ("patients=20,slices=24,size=96", "patients=20,slices=24,size=96,seed=1"),
    "photographs": ("patients=96,slices=6,size=96", ""),  # other seeds are other crops of the same photographs
}
BLOCK = 65_536


def main() -> None:
    """Plant, search, and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overlaps", type=int, default=10_000)
    parser.add_argument("--known", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--store", type=Path, action="append", default=[], help="training store instead of phantoms")
    parser.add_argument("--disjoint", type=Path, action="append", default=[], help="store of other patients")
    options = parser.parse_args()
    if bool(options.store) != bool(options.disjoint):
        parser.error(
            "--store and --disjoint are given together: images of the one are searched among those of the other"
        )
    with tempfile.TemporaryDirectory(prefix="ssl_transfer_contamination_") as folder:
        stores = [ImageStore(path) for path in options.store]
        others = [ImageStore(path) for path in options.disjoint]
        if not stores:
            stores, others = _phantoms(Path(folder))
        answer = recall(stores, options.overlaps)
        trained = [store.fingerprints(np.arange(len(store))) for store in stores]
        asked = [np.stack([query(other[row]) for row in range(len(other))]) for other in others]
        answer |= false_positives(stores, trained, others, asked)
        rows = [(other, row) for other in others for row in range(len(other))]
        repeated = np.arange(options.queries) % len(rows)

        def image(number: int) -> np.ndarray:
            other, row = rows[repeated[number]]
            return other[row]

        answer |= timing(np.concatenate(trained), options.known, np.concatenate(asked)[repeated], image)
    print(json.dumps(answer | {"fingerprint_ms": fingerprint_ms()}))


def _phantoms(folder: Path) -> tuple[list[ImageStore], list[ImageStore]]:
    stores, others = [], []
    for name, (known, disjoint) in PHANTOMS.items():
        stores.append(ingest(f"phantom:{name},{known}", folder / name, workers=1, channels=1))
        if disjoint:
            others.append(ingest(f"phantom:{name},{disjoint}", folder / f"{name}-others", workers=1, channels=1))
    return stores, others


def recall(stores: list[ImageStore], overlaps: int) -> dict:
    """Share of planted images that are recognised, over all stores and changes."""
    random = np.random.default_rng(0)
    found: dict[str, list[bool]] = {}
    for store in stores:
        known = store.fingerprints(np.arange(len(store)))
        rows = random.integers(0, len(store), overlaps // len(stores))
        names = list(changes(store.units))
        chosen = [names[number % len(names)] for number in range(len(rows))]
        copies = [
            turned(changes(store.units)[name](store[int(row)][0], random), random)
            for row, name in zip(rows, chosen, strict=True)
        ]
        hits = near_duplicates(
            np.stack([query(copy) for copy in copies]), lambda known=known: [known], copies.__getitem__
        )
        for name, hit in zip(chosen, hits, strict=True):
            found.setdefault(name, []).append(bool(hit))
    for name, hits in found.items():
        print(f"{name:24} {np.mean(hits):7.4f}  of {len(hits)}", flush=True)
    everything = np.concatenate([*found.values()])
    shares = {name: round(float(np.mean(hits)), 4) for name, hits in found.items()}
    return {"recall": round(float(everything.mean()), 5), "recall_of": shares, "overlaps": len(everything)}


def turned(plane: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A plane (H, W) in a random one of eight orientations, as an image (1, H, W)."""
    return np.ascontiguousarray(np.rot90(plane[:, ::-1] if random.random() < 0.5 else plane, int(random.integers(4))))[
        None
    ]


def changes(units: str) -> dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]]:
    """Name -> a change of an image (H, W); all but `resized` and `noise` make 8 bits of it."""
    windows = {
        f"window {name}": lambda image, _, window=window: _windowed(image, *window)
        for name, window in (WINDOWS_HU if units == "hu" else {}).items()
    }
    return {
        "resized": lambda image, random: _resized(image.astype(np.float32), random.uniform(0.4, 1.6)),
        "8 bits, resized": lambda image, random: _resized(_displayed(image), random.uniform(0.4, 1.6)),
        "contrast": lambda image, random: _windowed(
            image, *np.percentile(_seen(image), random.uniform((2, 85), (10, 98)))
        ),
        "gamma": lambda image, random: (255 * (_displayed(image) / 255) ** random.uniform(0.6, 1.6)).astype(np.uint8),
        "JPEG": lambda image, random: _jpeg(_displayed(image), int(random.integers(50, 95))),
        "cropped": lambda image, random: _cropped(_displayed(image), random.uniform(0.01, 0.05)),
        "padded": lambda image, random: np.pad(_displayed(image), int(random.integers(2, len(image) // 4))),
        "noise": lambda image, random: image + random.normal(0, 0.02 * (image.max() - image.min() + 1e-6), image.shape),
        "all": lambda image, random: _jpeg(_cropped(_resized(_displayed(image), random.uniform(0.6, 1.4)), 0.02), 80),
        **windows,
    }


def _windowed(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((image.astype(np.float32) - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)


def _seen(image: np.ndarray) -> np.ndarray:
    """Grey values that a window is chosen for: of CT in HU, those that are not air."""
    return image[image > -400] if image.min() < -400 else image


def _displayed(image: np.ndarray) -> np.ndarray:
    """8 bits: HU in the soft-tissue window, others over their range."""
    low, high = WINDOWS_HU["soft tissue"] if image.min() < -400 else (image.min(), image.max())
    return _windowed(image, float(low), float(high))


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(24, round(side * scale)) for side in image.shape)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _cropped(image: np.ndarray, share: float) -> np.ndarray:
    margin = [max(1, round(share * side)) for side in image.shape]
    return image[margin[0] : -margin[0], margin[1] : -margin[1]]


def false_positives(
    stores: list[ImageStore], trained: list[np.ndarray], others: list[ImageStore], asked: list[np.ndarray]
) -> dict:
    """Images of other patients that are taken for known ones, and the number of pairs that were compared."""
    false = pairs = 0
    for other, codes in zip(others, asked, strict=True):
        for store, fingerprints in zip(stores, trained, strict=True):
            hits = near_duplicates(codes, lambda fingerprints=fingerprints: [fingerprints], other.__getitem__)
            false, pairs = false + int(hits.sum()), pairs + len(fingerprints) * len(codes)
            print(f"{other.path.name} among {store.path.name}: {hits.sum()} of {len(codes)} images", flush=True)
    return {"false": false, "pairs": pairs}


def fingerprint_ms() -> float:
    """Median milliseconds of a fingerprint of 256 × 256 int16."""
    image = np.random.default_rng(0).integers(-1000, 1500, (1, 256, 256)).astype(np.int16)
    fingerprint(image)
    seconds = []
    for _ in range(200):
        started = time.process_time()
        fingerprint(image)
        seconds.append(time.process_time() - started)
    return round(1000 * float(np.median(seconds)), 3)


def timing(trained: np.ndarray, known: int, codes: np.ndarray, image: Callable[[int], np.ndarray]) -> dict:
    """Minutes to search images, by their codes, among known ones; the latter are repeated up to their number."""

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, known, BLOCK):
            yield trained[np.arange(start, min(start + BLOCK, known)) % len(trained)]

    near_duplicates(codes[:1], lambda: [trained[:1]], image)  # compiles
    started, spent = time.perf_counter(), time.process_time()
    hits, queries = near_duplicates(codes, blocks, image), len(codes)
    minutes, cpu = (time.perf_counter() - started) / 60, (time.process_time() - spent) / 60
    print(f"{queries:,} among {known:,}: {minutes:.2f} minutes ({cpu:.2f} of CPU), {hits.sum()} recognised", flush=True)
    per_pair = 1e9 * 60 * cpu / known / queries
    return {"known": known, "queries": queries, "minutes": round(minutes, 2), "ns_of_cpu_per_pair": round(per_pair, 1)}


if __name__ == "__main__":
    main()
