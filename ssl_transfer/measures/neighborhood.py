"""A neighbour graph, from which purity, retrieval, hubness, outliers, near-duplicates and UMAP are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ssl_transfer.measures.geometry import intrinsic_dimension
from ssl_transfer.measures.neighbors import IndexKind, NeighborIndex

NEIGHBORS = 15
EXACT_GRAPH_BELOW = 30_000  # rows; exact search of 512 features takes 4 s there on two cores, and 40 s for 100,000 rows
RECALL = 0.99  # recall that `auto` requires of an approximate index; otherwise it is exact
SAME = 1e-6  # distances between unit rows below this are rounding errors
NEAR = 0.98  # above this similarity, distances are computed from differences: 2 − 2 · similarity has errors of 1e-6 in float32
BLOCK = 8192  # pairs whose differences are computed at a time


@dataclass(frozen=True, eq=False)
class Neighborhood:
    """The k nearest other rows of every row, by cosine similarity.

    Attributes:
        similarities: Cosine similarities to the neighbours, descending, float32 (N, k).
        distances: Euclidean distances of L2-normalised features, (N, k); exactly 0 for equal rows.
        positions: Rows of the neighbours, int64 (N, k); never the row itself.
        index: Kind of index that was searched: `exact`, `ivf` or `hnsw`.
        recall: Share of the true nearest neighbours in the graph, on a seeded sample; 1 for an exact index.
    """

    similarities: np.ndarray
    distances: np.ndarray
    positions: np.ndarray
    index: str
    recall: float

    @classmethod
    def of(cls, features: np.ndarray, k: int = NEIGHBORS, index: IndexKind = "auto") -> Neighborhood:
        """Compute the graph of features (N, D), N ≥ 2. With k ≥ N it has the N − 1 other rows as neighbours.

        `auto` is exact below 30,000 rows. Above, it is an `ivf` index that probes as many cells as are needed for a recall of
        0.99 on a seeded sample. If a quarter of the cells is not enough, as can happen for features without clusters, it is
        exact.

        Raises:
            ValueError: If there are fewer than two rows, k is less than 1, or a feature is not finite.
        """
        if len(features) < 2 or k < 1:
            raise ValueError(
                f"neighbourhood: found {len(features)} rows and k = {k}, expected two rows and k = 1 at least."
            )
        features = np.asarray(features)
        finite = np.isfinite(features).all(1)
        if not finite.all():
            wrong = np.flatnonzero(~finite)
            raise ValueError(
                f"neighbourhood: {len(wrong)} rows have features that are not finite, the first is {wrong[0]}."
            )
        k = min(k, len(features) - 1)
        searched, recall = _index(features, k, index)
        similarities, positions = searched.others(features, k)
        return cls(similarities, _distances(features, similarities, positions), positions, searched.kind, recall)

    @property
    def k(self) -> int:
        """Number of neighbours of a row."""
        return self.positions.shape[1]

    def purity(self, labels: np.ndarray) -> float:
        """Mean share of neighbours with the label of the row. Rows and neighbours without a label (None, NaN) are left out.

        NaN if no labelled row has a labelled neighbour.
        """
        same, labelled = self._same(labels)
        shares = np.divide(same.sum(1), labelled.sum(1), out=np.full(len(same), np.nan), where=labelled.any(1))
        return _mean(shares)

    def purity_by_chance(self, labels: np.ndarray) -> float:
        """Expected `purity` if neighbours were drawn from all other rows that have a label."""
        codes, labelled = _codes(labels)
        counts = np.bincount(codes[labelled])
        total = counts.sum()
        return float((counts * (counts - 1)).sum() / (total * (total - 1))) if total > 1 else float("nan")

    def precision(self, labels: np.ndarray, counts: Sequence[int] = (1, 5, 15)) -> dict[int, float]:
        """Retrieval precision@k: mean share of the first k neighbours with the row's label; unlabelled ones count as wrong."""
        same, _ = self._same(labels)
        labelled = _codes(labels)[1]
        return {k: _mean(same[labelled, :k].mean(1)) for k in counts if k <= self.k}

    def average_precision(self, labels: np.ndarray) -> float:
        """mAP@k: mean over rows of the sum of precision@i at the hits i, divided by the number of possible hits among k.

        Source:
            Radenović et al. 2018, https://arxiv.org/abs/1803.11285, cut off at k.
        """
        same, _ = self._same(labels)
        codes, labelled = _codes(labels)
        same_label = np.bincount(codes[labelled], minlength=codes.max() + 1)[codes] - 1
        possible = np.minimum(same_label, self.k)
        precision = np.cumsum(same, 1) / np.arange(1, self.k + 1)
        rows = labelled & (possible > 0)
        return _mean((precision * same).sum(1)[rows] / possible[rows])

    @cached_property
    def k_occurrence(self) -> np.ndarray:
        """Number of other rows that have each row among their neighbours, int (N,)."""
        return np.bincount(self.positions.ravel(), minlength=len(self.positions))

    @property
    def hubness(self) -> float:
        """Skewness of `k_occurrence`: about 0 without hubs; above 1, a few rows are neighbours of very many rows.

        Source:
            Radovanović et al. 2010, https://jmlr.org/papers/v11/radovanovic10a.html.
        """
        centred = self.k_occurrence - self.k_occurrence.mean()
        std = np.sqrt(np.square(centred).mean())
        return float((centred**3).mean() / std**3) if std > 0 else 0.0

    @cached_property
    def mean_knn_distance(self) -> np.ndarray:
        """Mean distance to the neighbours, (N,): outliers have the largest.

        Source:
            Angiulli & Pizzuti 2002, https://doi.org/10.1007/3-540-45681-3_2.
        """
        return self.distances.mean(1)

    @property
    def intrinsic_dimension(self) -> float:
        """Intrinsic dimension by TwoNN; see `geometry.intrinsic_dimension`. NaN with a single neighbour."""
        return intrinsic_dimension(self.distances[:, 0], self.distances[:, 1]) if self.k > 1 else float("nan")

    def _same(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each neighbour has the row's label, and whether both have one, (N, k)."""
        codes, is_labelled = _codes(labels)
        labelled = is_labelled[self.positions] & is_labelled[:, None]
        return (codes[self.positions] == codes[:, None]) & labelled, labelled


def neighbors(features: np.ndarray, k: int = NEIGHBORS, index: IndexKind = "auto") -> Neighborhood:
    """The k nearest neighbours by cosine of every row of features (N, D); see `Neighborhood.of`."""
    return Neighborhood.of(features, k, index)


def _index(features: np.ndarray, k: int, kind: IndexKind) -> tuple[NeighborIndex, float]:
    """The index, and its recall of the k nearest other rows.

    Recall is measured with k + 1 neighbours, one of which is the row itself and always returned; the formulas leave it out.
    """
    if kind == "auto" and len(features) >= EXACT_GRAPH_BELOW:
        approximate = NeighborIndex(features, "ivf")
        recall = ((k + 1) * approximate.widen(features, k + 1, (k * RECALL + 1) / (k + 1)) - 1) / k
        if recall >= RECALL:
            return approximate, recall
    if kind in ("auto", "exact"):
        return NeighborIndex(features, "exact"), 1.0
    neighbor_index = NeighborIndex(features, kind)
    return neighbor_index, max(0.0, ((k + 1) * neighbor_index.recall(features, [k + 1])[k + 1] - 1) / k)


def _distances(features: np.ndarray, similarities: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Distances from similarities, or from differences of unit rows where a similarity is too near to 1 for float32."""
    distances = np.sqrt(np.maximum(2 - 2 * similarities.astype(np.float64), 0))
    is_zero = ~np.any(features, axis=1)  # their similarity is 0 to all rows, yet they are equal to each other
    rows, columns = np.nonzero((similarities > NEAR) | is_zero[:, None] | is_zero[positions])
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        first, second = (_unit(features[ends]) for ends in (rows[part], positions[rows[part], columns[part]]))
        distances[rows[part], columns[part]] = np.linalg.norm(first - second, axis=1)
    return np.where(distances < SAME, 0.0, distances)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _codes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integer codes of labels, and a mask of the rows that have one."""
    labelled = ~pd.isna(np.asarray(labels, object))
    codes = np.zeros(len(labelled), np.int64)
    codes[labelled] = np.unique(np.asarray(labels, object)[labelled].astype(str), return_inverse=True)[1]
    return codes, labelled


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
