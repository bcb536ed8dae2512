"""What stands near what: one neighbour graph, from which purity, retrieval, hubs, outliers, near-duplicates and UMAP are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ssl_transfer.geometry import intrinsic_dimension
from ssl_transfer.neighbor_search import IndexKind, NeighborIndex

NEIGHBORS = 15
SAME = 1e-6  # distance below which unit rows differ by rounding alone


@dataclass(frozen=True, eq=False)
class Neighborhood:
    """The k nearest other rows of every row, by cosine similarity.

    Attributes:
        similarities: Descending, float32 (N, k).
        distances: Euclidean, of the features brought to length 1, (N, k); equal rows have exactly 0.
        positions: Which rows they are, int64 (N, k); never the row itself.
        index: `exact`, `ivf` or `hnsw`.
        recall: Share of the truly nearest that were found, on a seeded sample; 1 of an exact index.
    """

    similarities: np.ndarray
    distances: np.ndarray
    positions: np.ndarray
    index: str
    recall: float

    @classmethod
    def of(cls, features: np.ndarray, k: int = NEIGHBORS, index: IndexKind = "auto") -> Neighborhood:
        """Of features (N, D), N ≥ 2; k is at most N − 1.

        Raises:
            ValueError: If there are fewer than two rows, or k is less than 1.
        """
        if len(features) < 2 or k < 1:
            raise ValueError(
                f"neighbourhood: found {len(features)} rows and k = {k}, expected two rows and k = 1 at least."
            )
        k = min(k, len(features) - 1)
        found = NeighborIndex(features, index)
        similarities, positions = found.search(features, k + 1)
        itself = positions == np.arange(len(positions))[:, None]
        itself[~itself.any(1), -1] = True  # more than k rows are as similar as a row is to itself
        recall = 1.0
        if found.kind != "exact":  # that of k + 1, of which a row itself is always found
            recall = max(0.0, ((k + 1) * found.recall(features, [k + 1])[k + 1] - 1) / k)
        similarities, positions = (values[~itself].reshape(-1, k) for values in (similarities, positions))
        return cls(similarities, _distances(features, positions), positions, found.kind, recall)

    @property
    def k(self) -> int:
        """Neighbours of a row."""
        return self.positions.shape[1]

    def purity(self, labels: np.ndarray) -> float:
        """Mean share of a row's neighbours that have its label, among rows and neighbours that have one (None, NaN: none).

        NaN where no row with a label has a neighbour with one.
        """
        same, known = self._same(labels)
        shares = np.divide(same.sum(1), known.sum(1), out=np.full(len(same), np.nan), where=known.any(1))
        return _mean(shares)

    def purity_by_chance(self, labels: np.ndarray) -> float:
        """What `purity` would be if neighbours were drawn from all other rows that have a label."""
        codes, known = _codes(labels)
        counts = np.bincount(codes[known])
        total = counts.sum()
        return float((counts * (counts - 1)).sum() / (total * (total - 1))) if total > 1 else float("nan")

    def precision(self, labels: np.ndarray, counts: Sequence[int] = (1, 5, 15)) -> dict[int, float]:
        """Retrieval precision@k: mean share of the first k neighbours with the row's label; one without counts as wrong."""
        same, _ = self._same(labels)
        asked = _codes(labels)[1]
        return {k: _mean(same[asked, :k].mean(1)) for k in counts if k <= self.k}

    def average_precision(self, labels: np.ndarray) -> float:
        """mAP@k: mean over rows of Σ precision@i at each hit i, by the hits that were possible among k.

        Source:
            Radenović et al. 2018, https://arxiv.org/abs/1803.11285, cut off at k.
        """
        same, _ = self._same(labels)
        codes, asked = _codes(labels)
        others = np.bincount(codes[asked], minlength=codes.max() + 1)[codes] - 1
        possible = np.minimum(others, self.k)
        precision = np.cumsum(same, 1) / np.arange(1, self.k + 1)
        rows = asked & (possible > 0)
        return _mean((precision * same).sum(1)[rows] / possible[rows])

    @cached_property
    def occurrences(self) -> np.ndarray:
        """How many other rows have each row among their neighbours, int (N,)."""
        return np.bincount(self.positions.ravel(), minlength=len(self.positions))

    @property
    def hubness(self) -> float:
        """Skewness of `occurrences`: about 0 without hubs; above 1 few rows are neighbours of very many.

        Source:
            Radovanović et al. 2010, https://jmlr.org/papers/v11/radovanovic10a.html.
        """
        apart = self.occurrences - self.occurrences.mean()
        spread = np.sqrt(np.square(apart).mean())
        return float((apart**3).mean() / spread**3) if spread > 0 else 0.0

    @cached_property
    def remoteness(self) -> np.ndarray:
        """Mean distance to the neighbours, (N,): outliers have the largest.

        Source:
            Angiulli & Pizzuti 2002, https://doi.org/10.1007/3-540-45681-3_2.
        """
        return self.distances.mean(1)

    @property
    def intrinsic_dimension(self) -> float:
        """By TwoNN; see `geometry.intrinsic_dimension`. NaN with a single neighbour."""
        return intrinsic_dimension(self.distances[:, 0], self.distances[:, 1]) if self.k > 1 else float("nan")

    def _same(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each neighbour has the row's label, and whether both have one, (N, k)."""
        codes, has = _codes(labels)
        known = has[self.positions] & has[:, None]
        return (codes[self.positions] == codes[:, None]) & known, known


def _distances(features: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """From differences of unit rows: 2 − 2 · similarity would leave nothing of small distances in float32."""
    rows = np.asarray(features, np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    found = np.stack([np.linalg.norm(rows - rows[column], axis=1) for column in positions.T], 1)
    return np.where(found < SAME, 0.0, found)


def _codes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of labels, and which rows have one."""
    known = ~pd.isna(np.asarray(labels, object))
    codes = np.zeros(len(known), np.int64)
    codes[known] = np.unique(np.asarray(labels, object)[known].astype(str), return_inverse=True)[1]
    return codes, known


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
