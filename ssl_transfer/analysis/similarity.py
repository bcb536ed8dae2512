"""Similarity of representations: layers of one or several backbones on the same images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch

from ssl_transfer.measures.geometry import (
    Cloud,
    alignment,
    effective_rank,
    kernel_matrix,
    procrustes,
    rankme,
    uniformity,
)
from ssl_transfer.measures.neighborhood import Neighborhood

FEATURES = "features"  # name of the last layer, the output of a backbone
KERNEL_ROWS = 1000  # images in a kernel; the (n, n) matrices of all layers are in memory at once


def layer_ckas(clouds: Sequence[Cloud], kernel: Literal["linear", "rbf"] = "linear") -> np.ndarray:
    """Unbiased CKA between all representations, (P, P).

    Equal to `geometry.cka(…, kernel, unbiased=True)` of every pair. Kernels without their diagonals are centred so that the
    unbiased HSIC is an inner product; each kernel is computed once.

    Args:
        clouds: Representations of the same n images, n ≥ 4; shapes (n, D) with any D.
        kernel: As in `geometry.cka`.

    Returns:
        The matrix; NaN in the rows and columns of a constant representation.

    Source:
        Song et al. 2012; centring: Székely & Rizzo 2014, https://arxiv.org/abs/1310.2926, section 3.
    """
    kernels = torch.stack([_centred_kernel(torch.as_tensor(cloud), kernel) for cloud in clouds])
    products = (kernels @ kernels.T).numpy()
    norms = np.sqrt(np.diag(products).clip(min=0))
    norms[norms == 0] = np.nan
    return products / np.outer(norms, norms)


def _centred_kernel(cloud: torch.Tensor, kernel: Literal["linear", "rbf"]) -> torch.Tensor:
    """Kernel with a diagonal of 0, rows and columns that sum to 0, and Frobenius norm 1, flattened to n²."""
    rows = cloud.double() - cloud[0].double()  # exactly 0 for a constant representation
    values, n = kernel_matrix(rows - rows.mean(0), kernel).fill_diagonal_(0), len(rows)
    sums = values.sum(0)
    values = values - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    values.fill_diagonal_(0)
    length = values.norm()
    return (values / length if length > 0 else values).flatten()


def similarities(
    layers: Mapping[str, Mapping[str, np.ndarray]], neighborhoods: Mapping[str, Neighborhood]
) -> pd.DataFrame:
    """Compare all layers of all backbones by CKA, and layers of the same name by further measures.

    Args:
        layers: Activations (n, C) by backbone and layer, of the same images in the same random order; the last layer is
            `features`.
        neighborhoods: Neighbour graph of each backbone.

    Returns:
        A row per pair of layers: `backbone_a`, `layer_a`, `backbone_b`, `layer_b`, `cka` (linear) and `cka_rbf`, both unbiased;
        `procrustes` for layers of the same name in two backbones; and `neighbors_shared` for features (mean share of an image's
        neighbours under one backbone that are its neighbours under the other).
    """
    nodes = [(name, layer) for name, by_layer in layers.items() for layer in by_layer]
    clouds = [layers[name][layer][:KERNEL_ROWS] for name, layer in nodes]
    linear, rbf = layer_ckas(clouds), layer_ckas(clouds, "rbf")
    rows = []
    for i, j in itertools.combinations_with_replacement(range(len(nodes)), 2):
        row = dict(zip(("backbone_a", "layer_a", "backbone_b", "layer_b"), (*nodes[i], *nodes[j]), strict=True))
        row |= {"cka": linear[i, j], "cka_rbf": rbf[i, j]}
        if nodes[i][0] != nodes[j][0] and nodes[i][1] == nodes[j][1]:
            row["procrustes"] = procrustes(clouds[i], clouds[j])
            if nodes[i][1] == FEATURES:
                row["neighbors_shared"] = shared_neighbors(*(neighborhoods[nodes[node][0]] for node in (i, j)))
        rows.append(row)
    columns = ["backbone_a", "layer_a", "backbone_b", "layer_b", "cka", "cka_rbf", "procrustes", "neighbors_shared"]
    return pd.DataFrame(rows, columns=columns)


def shared_neighbors(first: Neighborhood, second: Neighborhood) -> float:
    """Mean share of an image's neighbours in one graph that are also its neighbours in the other, in [0, 1]."""
    k = min(first.k, second.k)
    hits = [(column[:, None] == second.positions[:, :k]).any(1).mean() for column in first.positions[:, :k].T]
    return float(np.mean(hits))


def shapes(
    layers: Mapping[str, np.ndarray], pairs: tuple[np.ndarray, np.ndarray] | None, graph: Neighborhood
) -> pd.DataFrame:
    """Geometry of the representations of a backbone: a row per layer.

    Args:
        layers: Activations (n, C) of each layer; the last layer is `features`.
        pairs: Features of two views of the same images, (m, D); None: there are none, and the alignment is NaN.
        graph: Neighbour graph of all features.

    Returns:
        `layer`, `dimensions`, `effective_rank` and `rankme` of the n images, and for features also `alignment` (of the pairs),
        `uniformity`, `intrinsic_dimension` (TwoNN) and `hubness`.
    """
    rows = []
    for layer, values in layers.items():
        cloud = torch.from_numpy(values)
        row = {
            "layer": layer,
            "dimensions": values.shape[1],
            "effective_rank": effective_rank(cloud),
            "rankme": rankme(cloud),
        }
        if layer == FEATURES:
            row |= {
                "alignment": alignment(*map(torch.from_numpy, pairs)) if pairs else np.nan,
                "uniformity": uniformity(cloud[:KERNEL_ROWS]),
                "intrinsic_dimension": graph.intrinsic_dimension,
                "hubness": graph.hubness,
            }
        rows.append(row)
    return pd.DataFrame(rows)
