"""UMAP: feature vectors as points on a page, how far the page can be trusted, and where new images stand on it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ssl_transfer.analysis.neighborhood import NEIGHBORS, Neighborhood
from ssl_transfer.neighbor_search import nearest

JUDGED = 2000  # rows on which a page is judged, drawn with the seed


def project(
    features: np.ndarray, seed: int = 0, neighbors: int = NEIGHBORS, neighborhood: Neighborhood | None = None
) -> np.ndarray:
    """Lay features out in two dimensions with UMAP on a cosine neighbour graph (FAISS).

    Args:
        features: Shape (N, D), N ≥ 4.
        seed: Of the layout; the same seed gives the same picture.
        neighbors: Size of a neighbourhood, the row itself included; at most N − 1.
        neighborhood: The graph of these features, if it is there already, of `neighbors` − 1 or more; None: an exact one.

    Returns:
        Coordinates, float32 (N, 2).

    Source:
        McInnes et al. 2018, https://arxiv.org/abs/1802.03426.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # umap-learn announces that a seed means one thread, and that tensorflow is absent
        import umap

        neighbors = min(neighbors, len(features) - 1)
        graph = (*_graph(features, neighbors, neighborhood), None)
        layout = umap.UMAP(
            n_neighbors=neighbors, metric="cosine", random_state=seed, precomputed_knn=graph, init="pca",
            force_approximation_algorithm=True,  # umap-learn ignores a given graph below 4096 points otherwise
        )  # fmt: skip
        return layout.fit_transform(np.asarray(features, np.float32)).astype(np.float32)


def place(new: np.ndarray, features: np.ndarray, points: np.ndarray, neighbors: int = NEIGHBORS) -> np.ndarray:
    """Put new images into an old picture: each at the mean of its neighbours' points, the nearer the heavier.

    A neighbour counts exp(−(distance − nearest) / spread), the spread being such that the counts sum to log2(k), as UMAP weighs
    the edges of its graph. It is where UMAP's own transform starts from; nothing is optimised, and the old points stay.

    Args:
        new: Features of the new images, (M, D).
        features: Of those in the picture, (N, D).
        points: Where these are, (N, 2).
        neighbors: k, at most N.

    Returns:
        Coordinates, float32 (M, 2).

    Source:
        McInnes et al. 2018, https://arxiv.org/abs/1802.03426, algorithm 3.
    """
    k = min(neighbors, len(features))
    similarities, positions = nearest(features, new, k)
    apart = 1 - similarities.astype(np.float64)
    apart -= apart[:, :1]
    low, high = np.zeros(len(apart)), np.full(len(apart), 1e3)
    for _ in range(60):
        spread = (low + high) / 2
        crowded = np.exp(-apart / np.maximum(spread, 1e-12)[:, None]).sum(1) > max(np.log2(k), 1)
        low, high = np.where(crowded, low, spread), np.where(crowded, spread, high)
    weights = np.exp(-apart / np.maximum(spread, 1e-12)[:, None])
    placed = (weights[:, :, None] * np.asarray(points, np.float64)[positions]).sum(1) / weights.sum(1, keepdims=True)
    return placed.astype(np.float32)


def trust(features: np.ndarray, points: np.ndarray, neighbors: int = NEIGHBORS, seed: int = 0) -> dict[str, float]:
    """How far a picture can be trusted, in [0, 1].

    `trustworthiness` falls where points are neighbours on the page and not among the features (by cosine), by how far down the
    features' order they stand; `continuity` where it is the other way round. Both are means over 2,000 rows, drawn with the seed;
    with fewer rows, over all.

    Args:
        features: (N, D), N > 2 neighbors.
        points: (N, 2).
        neighbors: k.

    Source:
        Venna & Kaski 2006, https://doi.org/10.1016/j.neunet.2006.05.014; scikit-learn's `trustworthiness` is the same measure.
    """
    count, k = len(features), neighbors
    if count <= 2 * k:
        raise ValueError(f"trust: found {count} rows, expected more than twice the {k} neighbours.")
    rows = np.sort(np.random.default_rng(seed).permutation(count)[:JUDGED])
    unit = np.asarray(features, np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    points = np.asarray(points, np.float64)
    lost = {"trustworthiness": 0.0, "continuity": 0.0}
    for row in rows:
        order = [_order(-unit @ unit[row], row), _order(np.square(points - points[row]).sum(1), row)]
        for name, (truth, shown) in zip(lost, (order, order[::-1]), strict=True):
            ranks = np.zeros(count, np.int64)
            ranks[truth] = np.arange(1, count)
            lost[name] += np.maximum(ranks[shown[:k]] - k, 0).sum()
    scale = 2 / (len(rows) * k * (2 * count - 3 * k - 1))
    return {name: float(1 - scale * value) for name, value in lost.items()}


def _order(apart: np.ndarray, row: int) -> np.ndarray:
    """All other rows, nearest first."""
    order = np.argsort(apart, kind="stable")
    return order[order != row]


def _graph(features: np.ndarray, neighbors: int, neighborhood: Neighborhood | None) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cosine distances (N, neighbors) as UMAP wants them: every row first among its own."""
    if neighborhood is None or neighborhood.k < neighbors - 1:
        neighborhood = Neighborhood.of(features, neighbors - 1, "exact")
    itself = np.arange(len(features))[:, None]
    positions = np.hstack([itself, neighborhood.positions[:, : neighbors - 1]])
    apart = np.hstack([0.0 * itself, 1 - neighborhood.similarities[:, : neighbors - 1].clip(-1, 1)])
    return positions, apart.astype(np.float32)


def draw_projections(panels: dict[str, np.ndarray], labels: np.ndarray, path: str | Path) -> None:
    """Draw projections side by side, coloured by label, as PNG or SVG.

    Args:
        panels: Title -> coordinates, shape (N, 2).
        labels: One per point, shape (N,).
        path: Where to.
    """
    from matplotlib.figure import Figure

    colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
    figure = Figure(figsize=(4.6 * len(panels), 4.9), layout="constrained", facecolor="white")
    names = sorted(set(labels.tolist()))
    area = float(np.clip(6000 / len(labels), 6, 40))
    for axes, (title, points) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        for i, name in enumerate(names):
            axes.scatter(
                *points[labels == name].T, s=area, lw=0, alpha=0.75, color=colours[i % len(colours)], label=name
            )
        axes.set(title=title, xticks=[], yticks=[])
        axes.set_aspect("equal", "datalim")
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=min(6, len(names)), markerscale=2, frameon=False)
    figure.savefig(path, dpi=160)
