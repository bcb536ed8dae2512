"""UMAP: project features to two dimensions, measure the quality of the embedding, and add new images to it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_transfer.errors import UsageError
from ssl_transfer.measures.neighborhood import NEIGHBORS, Neighborhood
from ssl_transfer.measures.neighbors import nearest
from ssl_transfer.palette import MANY_COLORS

FEWEST_ROWS = 4
EQUAL = 1e-6  # largest difference of equal rows, as a share of the largest absolute value
MOST_COLUMNS = 4  # columns of panels in a figure
QUALITY_ROWS = 2000  # randomly drawn rows on which the quality of an embedding is measured
QUALITY_ROWS_AT_ONCE = 64  # rows whose similarities to all rows are computed by one matrix product


def project(
    features: np.ndarray,
    seed: int = 0,
    neighbors: int = NEIGHBORS,
    neighborhood: Neighborhood | None = None,
    beside: np.ndarray | None = None,
) -> np.ndarray:
    """Project features to two dimensions with UMAP on a cosine neighbour graph (FAISS).

    To align the embeddings of several backbones, pass another embedding as `beside`: the layout starts from it, and is rotated
    and reflected onto it at the end (orthogonal Procrustes). The optimisation uses only the features given here, so the quality
    is that of a separate embedding, and an image whose position differs has different neighbours.

    Args:
        features: Features, shape (N, D), N ≥ 4.
        seed: Seed of the layout.
        neighbors: Size of a neighbourhood, including the row itself; at most N − 1.
        neighborhood: A graph of these features with at least `neighbors` − 1 neighbours; None: an exact one is
            computed.
        beside: Coordinates of the same images in another embedding, (N, 2).

    Returns:
        Coordinates, float32 (N, 2).

    Raises:
        UsageError: If the rows are all equal, as of a collapsed backbone, or contain NaN or infinity: there is no map of them.

    Source:
        McInnes et al. 2018, https://arxiv.org/abs/1802.03426.
    """
    _check(features := np.asarray(features))
    with _unchanged_threads(), warnings.catch_warnings():
        # umap-learn warns that a seed implies one thread, and that tensorflow is absent.
        warnings.simplefilter("ignore")
        import umap

        neighbors = min(neighbors, len(features) - 1)
        graph = (*_graph(features, neighbors, neighborhood), None)
        start: Any = "pca" if beside is None else np.array(beside, np.float32)
        layout: Any = umap.UMAP(
            n_neighbors=neighbors,
            metric="cosine",
            random_state=seed,
            precomputed_knn=graph,
            init=start,
            force_approximation_algorithm=True,  # umap-learn ignores a given graph below 4096 points otherwise
        )
        wide = np.pad(features, ((0, 0), (0, max(0, 2 - features.shape[1]))))  # its start has two principal components
        points = layout.fit_transform(wide.astype(np.float32)).astype(np.float32)
    return points if beside is None else _aligned(points, beside)


def are_equal(features: np.ndarray) -> bool:
    """Whether all rows of features (N, D) are the same, up to rounding: a map of them would be one point."""
    features = np.asarray(features)
    scale = np.abs(features).max(initial=0)
    return bool(np.ptp(features, axis=0).max(initial=0) <= EQUAL * scale) if len(features) else True


def _check(features: np.ndarray) -> None:
    """Refuse features without a map."""
    if features.ndim != 2 or len(features) < FEWEST_ROWS:
        raise UsageError(
            f"project: found features of shape {features.shape}, expected (N, D) with N of at least {FEWEST_ROWS}."
        )
    if count := int((~np.isfinite(features)).any(1).sum()):
        raise UsageError(f"project: {count} of {len(features)} rows contain NaN or infinity. Leave them out.")
    if are_equal(features):
        raise UsageError(
            f"project: all {len(features)} rows are equal, so there is no map of them. Features of a collapsed backbone are "
            "equal for all images: check its training, or whether the images are all the same."
        )


@contextmanager
def _unchanged_threads() -> Iterator[None]:
    """Restore torch's number of threads at the end: numba, which UMAP uses, changes that of OpenMP."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def transform(new: np.ndarray, features: np.ndarray, points: np.ndarray, neighbors: int = NEIGHBORS) -> np.ndarray:
    """Add new images to an embedding: each is placed at the weighted mean of its neighbours' coordinates.

    A neighbour has weight exp(−(distance − nearest distance) / bandwidth), with the bandwidth at which the weights sum to
    log2(k), as for the edges of UMAP's graph. `umap.UMAP.transform` starts from these coordinates and optimises them; here
    nothing is optimised, and the existing points do not move.

    Args:
        new: Features of the new images, (M, D).
        features: Features of the embedded images, (N, D).
        points: Coordinates of the embedded images, (N, 2).
        neighbors: Number of neighbours k, at most N.

    Returns:
        Coordinates, float32 (M, 2).

    Source:
        McInnes et al. 2018, https://arxiv.org/abs/1802.03426, algorithm 3.
    """
    k = min(neighbors, len(features))
    similarities, positions = nearest(features, new, k)
    distances = 1 - similarities.astype(np.float64)
    distances -= distances[:, :1]
    low, high = np.zeros(len(distances)), np.full(len(distances), 1e3)
    for _ in range(60):
        bandwidth = (low + high) / 2
        too_wide = np.exp(-distances / np.maximum(bandwidth, 1e-12)[:, None]).sum(1) > max(np.log2(k), 1)
        low, high = np.where(too_wide, low, bandwidth), np.where(too_wide, bandwidth, high)
    weights = np.exp(-distances / np.maximum(bandwidth, 1e-12)[:, None])
    coordinates = (weights[:, :, None] * np.asarray(points, np.float64)[positions]).sum(1) / weights.sum(
        1, keepdims=True
    )
    return coordinates.astype(np.float32)


def embedding_quality(
    features: np.ndarray, points: np.ndarray, neighbors: int = NEIGHBORS, seed: int = 0
) -> dict[str, float]:
    """Trustworthiness and continuity of an embedding, in [0, 1].

    `trustworthiness` is lowered by points that are neighbours in the embedding and not in feature space (by cosine), according to
    their rank there; `continuity` by neighbours in feature space that are none in the embedding. Both are means over 2,000 rows,
    drawn with the seed, or over all if there are fewer.

    Args:
        features: Features, (N, D), N > 2 k.
        points: Coordinates in the embedding, (N, 2).
        neighbors: Number of neighbours k.
        seed: Seed of the draw of rows.

    Raises:
        ValueError: If N is at most 2 k.

    Source:
        Venna & Kaski 2006, https://doi.org/10.1016/j.neunet.2006.05.014; scikit-learn's `trustworthiness` is the same measure.
    """
    count, k = len(features), neighbors
    if count <= 2 * k:
        raise ValueError(f"embedding quality: found {count} rows, expected more than twice the {k} neighbours.")
    rows = np.sort(np.random.default_rng(seed).permutation(count)[:QUALITY_ROWS])
    unit = np.asarray(features, np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    points = np.asarray(points, np.float64)
    penalties = {"trustworthiness": 0.0, "continuity": 0.0}
    for start in range(0, len(rows), QUALITY_ROWS_AT_ONCE):
        part = rows[start : start + QUALITY_ROWS_AT_ONCE]
        negative_similarities = np.round(-unit[part] @ unit.T, 12)  # rounded, so that equal rows tie
        for row, feature_distances in zip(part, negative_similarities, strict=True):
            distances = [feature_distances, np.square(points - points[row]).sum(1)]
            for values in distances:
                values[row] = np.inf  # a row is not its own neighbour
            near = [_nearest(values, k) for values in distances]
            for name, truth, neighbours in zip(penalties, distances, near[::-1], strict=True):
                penalties[name] += np.maximum(_ranks(truth, neighbours) - k, 0).sum()
    scale = 2 / (len(rows) * k * (2 * count - 3 * k - 1))
    return {name: float(1 - scale * value) for name, value in penalties.items()}


def quality_text(trustworthiness: float, continuity: float) -> str:
    """The quality of an embedding in words; NaN: there is none, since all features are equal."""
    if np.isnan(trustworthiness):
        return "no map, since its features are equal for all images (collapsed)"
    return f"trustworthiness {trustworthiness:.2f}, continuity {continuity:.2f}"


def _nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k smallest distances, ascending; ties are resolved by position."""
    subset = distances[:: max(1, len(distances) // (100 * k))]
    # At least k rows, since k rows of the subset are among them.
    candidates = np.flatnonzero(distances <= np.partition(subset, k - 1)[k - 1])
    return candidates[np.argsort(distances[candidates], kind="stable")[:k]]


def _ranks(distances: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Ranks, from 1, that some positions have in a stable sort of all distances."""
    given = distances[positions][:, None]
    candidates = np.flatnonzero(distances <= given.max())
    values = distances[candidates]
    return 1 + (values < given).sum(1) + ((values == given) & (candidates < positions[:, None])).sum(1)


def _aligned(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Rotate, reflect and shift points onto other points, without scaling (orthogonal Procrustes)."""
    centre = points.mean(0), onto.mean(0)
    left, _, right = np.linalg.svd((points - centre[0]).T @ (onto - centre[1]))
    return ((points - centre[0]) @ (left @ right) + centre[1]).astype(np.float32)


def _graph(features: np.ndarray, neighbors: int, neighborhood: Neighborhood | None) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cosine distances (N, neighbors) as UMAP expects them: every row is its own first neighbour."""
    if neighborhood is None or neighborhood.k < neighbors - 1:
        neighborhood = Neighborhood.of(features, neighbors - 1, "exact")
    itself = np.arange(len(features))[:, None]
    positions = np.hstack([itself, neighborhood.positions[:, : neighbors - 1]])
    distances = np.hstack([0.0 * itself, 1 - neighborhood.similarities[:, : neighbors - 1].clip(-1, 1)])
    return positions, distances.astype(np.float32)


def draw_projections(panels: dict[str, np.ndarray], labels: np.ndarray, path: str | Path) -> None:
    """Draw embeddings side by side, coloured by label, as PNG or SVG.

    Args:
        panels: Title -> coordinates, shape (N, 2).
        labels: Label of each point, shape (N,).
        path: Path of the figure.
    """
    from matplotlib.figure import Figure

    lines = -(-len(panels) // MOST_COLUMNS)
    across = -(-len(panels) // lines)
    figure = Figure(figsize=(4.6 * across, 4.6 * lines + 0.3), layout="constrained", facecolor="white")
    names = sorted(set(labels.tolist()))
    area = float(np.clip(6000 / len(labels), 2, 40))
    grid = np.ravel(figure.subplots(lines, across))
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, points) in zip(grid, panels.items(), strict=False):
        for i, name in enumerate(names):
            axes.scatter(
                *points[labels == name].T, s=area, lw=0, alpha=0.75, color=MANY_COLORS[i % len(MANY_COLORS)], label=name
            )
        axes.set(title=title, xticks=[], yticks=[])
        axes.set_aspect("equal", "datalim")
    handles = grid[0].get_legend_handles_labels()
    if len(names) > 1:
        figure.legend(*handles, loc="outside lower center", ncols=min(6, len(names)), markerscale=2, frameon=False)
    figure.savefig(path, dpi=160)
