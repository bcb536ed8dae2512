"""UMAP: feature vectors as points on a page."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ssl_transfer.neighbors import nearest

NEIGHBORS = 15


def project(features: np.ndarray, seed: int = 0, neighbors: int = NEIGHBORS) -> np.ndarray:
    """Lay features out in two dimensions with UMAP on an exact cosine neighbour graph (FAISS).

    Args:
        features: Shape (N, D), N ≥ 4.
        seed: Of the layout; the same seed gives the same picture.
        neighbors: Size of a neighbourhood; at most N − 1.

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
        similarities, positions = nearest(features, features, neighbors)
        graph = (positions, 1 - similarities.clip(-1, 1), None)
        layout = umap.UMAP(
            n_neighbors=neighbors, metric="cosine", random_state=seed, precomputed_knn=graph, init="pca",
            force_approximation_algorithm=True,  # umap-learn ignores a given graph below 4096 points otherwise
        )  # fmt: skip
        return layout.fit_transform(np.asarray(features, np.float32)).astype(np.float32)


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
