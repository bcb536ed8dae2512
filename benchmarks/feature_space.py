"""Speed of the analysis of a feature space: neighbours, feature extraction, and the analysis of one neighbour graph.

    python benchmarks/feature_space.py                      # about 40 minutes on two cores
    python benchmarks/feature_space.py --quick              # smaller, for a trial; its ratios mean little
    python benchmarks/feature_space.py --only knn umap_cold # parts: knn, extraction, analysis, umap_cold

Features: 100,000 rows of 512, in 200 Gaussian clusters of intrinsic dimension 32. The standard deviation of the
centres is half of that of rows around their centre, so that clusters overlap; each cluster has its own random basis with weights
1/√i, i = 1 … 32; noise of 0.1 in all 512 dimensions. Images: 64 px, unrelated textures of blurred noise, and 500 near-duplicates
(noise, another brightness) in another split and of another patient, whose features are near-duplicates, too.

- knn_exact_speedup: the 15 nearest neighbours of all rows by `Neighborhood.of(…, index="exact")`, against scikit-learn's
  brute force, Euclidean on normalised rows or cosine, whichever is faster (both are printed), for a sample; seconds per row.
- knn_approx_speedup, knn_approx_recall: the same for an `ivf` index without the time to build it (printed), and the share of
  scikit-learn's 15 nearest neighbours of the sample that it returns.
- extraction_of_forward: images per second of `embed` from a store (ResNet-18, 64 px, float32, batches of 256), over those of the
  bare forward pass of tensors in memory, channels_last.
- analysis_of_umap: seconds of neighbours (`auto`), purity, near-duplicates and UMAP of that graph, over those of umap-learn's
  seeded UMAP of the same features alone.
- umap_cold_of_stock: `project` of 20,000 rows in a fresh process, imports and compilation included, over umap-learn's own.

Contestants run in turns; the last line is one JSON object of ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssl_transfer.processes import worker_processes

CLUSTERS, INTRINSIC, DIM, K = 200, 32, 512, 15
PLANTED = 500  # near-duplicates


def main() -> None:
    """Measure, print a table, and the ratios as JSON."""
    parts = {"knn": _knn, "extraction": _extraction, "analysis": _analysis, "umap_cold": _umap_cold}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), metavar="PART")
    parser.add_argument("--quick", action="store_true", help="use a tenth of the rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.rows = 10_000 if options.quick else 100_000
    warnings.simplefilter("ignore")  # umap-learn warns that a seed restricts it to one thread
    import faiss
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    threadpool_limits(options.threads)
    ratios = {}
    for name in options.only:
        print(name, flush=True)
        ratios |= parts[name](options)
    print(json.dumps({name: round(float(value), 4 if "recall" in name else 2) for name, value in ratios.items()}))


def _knn(options: argparse.Namespace) -> dict[str, float]:
    from sklearn.neighbors import NearestNeighbors

    from ssl_transfer.measures.neighborhood import Neighborhood
    from ssl_transfer.measures.neighbors import NeighborIndex

    features, _ = _features(options.rows)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    sample = np.random.default_rng(1).choice(options.rows, options.rows // 25, replace=False)
    euclidean = NearestNeighbors(n_neighbors=K + 1, algorithm="brute", metric="euclidean").fit(unit)
    cosine = NearestNeighbors(n_neighbors=K + 1, algorithm="brute", metric="cosine").fit(features)
    built, cells = _timed(NeighborIndex, features, "ivf")
    ways = {
        "scikit-learn, euclidean": (len(sample), lambda: euclidean.kneighbors(unit[sample])),
        "scikit-learn, cosine": (len(sample), lambda: cosine.kneighbors(features[sample])),
        "exact": (options.rows, lambda: Neighborhood.of(features, K, "exact")),
        "exact, as queries": (len(sample), lambda: NeighborIndex(features).search(features[sample], K + 1)),
        "ivf": (options.rows, lambda: cells.others(features, K)),
    }
    seconds, answers = _in_turns({name: way for name, (_, way) in ways.items()}, options.rounds)
    each = {name: seconds[name] / rows for name, (rows, _) in ways.items()}
    for name, per_row in each.items():
        print(f"  {name:26} {1e6 * per_row:8.1f} µs per row, {per_row * options.rows:7.1f} s for all", flush=True)
    truth = answers["scikit-learn, euclidean"][1]
    recalls = {"exact": _recall(answers["exact"].positions[sample], truth, sample)}
    recalls["ivf"] = _recall(answers["ivf"][1][sample], truth, sample)
    print(f"  recall: exact {recalls['exact']:.4f}, ivf {recalls['ivf']:.4f}; the ivf index was built in {built:.1f} s")
    fastest = min(per_row for name, per_row in each.items() if name.startswith("scikit"))
    return {
        "knn_exact_speedup": fastest / each["exact"],
        "knn_approx_speedup": fastest / each["ivf"],
        "knn_approx_recall": recalls["ivf"],
    }


def _recall(neighbors: np.ndarray, truth: np.ndarray, rows: np.ndarray) -> float:
    """Share of the true K nearest neighbours in `neighbors` (n, K); `truth` (n, K + 1) includes the rows themselves."""
    hits = [
        len((set(true) - {row}) & set(returned)) for returned, true, row in zip(neighbors, truth, rows, strict=True)
    ]
    return float(np.mean(hits)) / K


def _extraction(options: argparse.Namespace) -> dict[str, float]:
    import torch

    from ssl_transfer.data.ingest.stage import ingest
    from ssl_transfer.models.backbone import load_backbone
    from ssl_transfer.models.embedding import embed

    batch, count = 256, 1024 if options.quick else 4096
    backbone = load_backbone("scratch:resnet18", in_channels=1, size=64).to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        store = ingest("phantom:ct,patients=16,slices=16,size=64", Path(folder) / "ct", workers=1)
        rows = np.arange(count) % len(store)
        inputs = torch.rand(count, 1, 64, 64).split(batch)
        inputs = [images.contiguous(memory_format=torch.channels_last) for images in inputs]

        def bare() -> None:
            with torch.inference_mode():
                for images in inputs:
                    backbone(images)

        ways = {"embed": lambda: embed(backbone, store, rows, 64, batch), "bare": bare}
        for way in ways.values():
            way()  # malloc settles
        seconds, _ = _in_turns(ways, 3 * options.rounds)
    for name, taken in seconds.items():
        print(f"  {name:26} {count / taken:8.0f} images per second", flush=True)
    return {"extraction_of_forward": seconds["bare"] / seconds["embed"]}


def _analysis(options: argparse.Namespace) -> dict[str, float]:
    from ssl_transfer.analysis.leaks import find_leaks
    from ssl_transfer.analysis.projection import embedding_quality, project
    from ssl_transfer.measures.neighborhood import Neighborhood

    features, clusters = _features(options.rows)
    stages: dict[str, list[float]] = {}

    def ours() -> tuple:
        near = staged("neighbours", Neighborhood.of, features, K)
        staged("purity", near.purity, clusters)
        leaks = staged("leaks", find_leaks, store, near)
        return near, leaks, staged("UMAP", lambda: project(features, neighborhood=near))

    def staged(name: str, function: Callable, *arguments):
        took, answer = _timed(function, *arguments)
        stages.setdefault(name, []).append(took)
        return answer

    for way in (_stock, project):
        way(features[:5000])  # numba compiles
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder) / "store", options.rows)
        seconds, answers = _in_turns({"ours": ours, "umap-learn alone": lambda: _stock(features)}, options.rounds)
    near, leaks, points = answers["ours"]
    print(", ".join(f"  {name} {statistics.median(rounds):.1f} s" for name, rounds in stages.items()))
    print(f"  ours {seconds['ours']:.1f} s, umap-learn alone {seconds['umap-learn alone']:.1f} s")
    print(
        f"  index {near.index}, recall {near.recall:.4f}; {len(leaks.across)} of {_planted(options.rows)[0].size}",
        end=" ",
    )
    print(f"near-duplicates found, {leaks.compared:,} pairs compared", flush=True)
    for name, layout in (("ours", points), ("umap-learn", answers["umap-learn alone"])):
        took, quality = _timed(embedding_quality, features, layout)
        print(
            f"  embedding quality in {took:.1f} s, {name}: "
            + ", ".join(f"{key} {value:.3f}" for key, value in quality.items())
        )
    return {"analysis_of_umap": seconds["ours"] / seconds["umap-learn alone"]}


def _umap_cold(options: argparse.Namespace) -> dict[str, float]:
    def fresh(way: str) -> float:
        with worker_processes(1) as pool:
            return pool.submit(_cold_seconds, way, 5_000 if options.quick else 20_000).result()

    took = [{way: fresh(way) for way in _COLD} for _ in range(options.rounds)]
    seconds = {way: statistics.median(round[way] for round in took) for way in _COLD}
    for name, taken in seconds.items():
        print(f"  {name:26} {taken:8.1f} s", flush=True)
    return {"umap_cold_of_stock": seconds["ours"] / seconds["umap-learn"]}


def _stock(features: np.ndarray) -> np.ndarray:
    import umap

    return umap.UMAP(random_state=0, metric="cosine").fit_transform(features)


def _project(features: np.ndarray) -> np.ndarray:
    from ssl_transfer.analysis.projection import project

    return project(features)


_COLD: dict[str, Callable[[np.ndarray], np.ndarray]] = {"ours": _project, "umap-learn": _stock}


def _cold_seconds(way: str, rows: int) -> float:
    warnings.simplefilter("ignore")
    return _timed(_COLD[way], _features(rows)[0])[0]


def _features(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Features, float32 (rows, DIM), and their clusters (rows,)."""
    draw = np.random.default_rng(0)
    clusters = draw.integers(CLUSTERS, size=rows)
    features = 0.1 * draw.standard_normal((rows, DIM), np.float32)
    weights = (np.arange(1, INTRINSIC + 1) ** -0.5).astype(np.float32)
    for cluster in range(CLUSTERS):
        members = np.flatnonzero(clusters == cluster)
        basis = draw.standard_normal((INTRINSIC, DIM), np.float32) * (weights / np.linalg.norm(weights))[:, None]
        features[members] += 0.5 * draw.standard_normal(DIM, np.float32)
        features[members] += draw.standard_normal((len(members), INTRINSIC), np.float32) @ basis
    originals, copies = _planted(rows)
    features[copies] = features[originals] + 0.05 * draw.standard_normal((len(copies), DIM), np.float32)
    return features, clusters


def _planted(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first half, and their near-duplicates in the second half."""
    count = min(PLANTED, rows // 20)
    return np.arange(count) * 7, rows - 1 - np.arange(count) * 7


def _store(path: Path, rows: int):
    """A store of so many images, ten per patient; the first half is `train`, the rest `val` and `test`."""
    from scipy import ndimage

    from ssl_transfer.data.store import StoreWriter

    draw = np.random.default_rng(0)
    images = np.empty((rows, 1, 64, 64), np.uint8)
    for start in range(0, rows, 1000):
        textures = ndimage.gaussian_filter(draw.standard_normal((min(1000, rows - start), 64, 64)), (0, 1.5, 1.5))
        images[start : start + 1000, 0] = (127 + 40 * textures / textures.std()).clip(0, 255)
    originals, copies = _planted(rows)
    changed = 0.8 * images[originals] + 30 + draw.normal(0, 3, (len(copies), 1, 64, 64))
    images[copies] = changed.clip(0, 255)
    with StoreWriter(path, (1, 64, 64), np.uint8) as writer:
        for row, image in enumerate(images):
            writer.append(image, {"patient": str(row // 10)})
        splits = np.where(
            np.arange(rows) < rows // 2, "train", np.where(np.arange(rows) < 3 * rows // 4, "val", "test")
        )
        return writer.finish(splits, units="display", domain="xray/chest", split_by="patient", source="benchmark")


def _in_turns(ways: dict[str, Callable], rounds: int) -> tuple[dict[str, float], dict]:
    """Median seconds and last return value of each function."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers = {}
    for _ in range(rounds):
        for name, way in ways.items():
            took, answers[name] = _timed(way)
            seconds[name].append(took)
    return {name: statistics.median(rounds) for name, rounds in seconds.items()}, answers


def _timed(function: Callable, *arguments) -> tuple[float, object]:
    started = time.perf_counter()
    answer = function(*arguments)
    return time.perf_counter() - started, answer


if __name__ == "__main__":
    main()
