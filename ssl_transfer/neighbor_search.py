"""Nearest neighbours by cosine similarity, exact or approximate, and votes over them (FAISS)."""

from __future__ import annotations

from typing import Literal

import numpy as np

IndexKind = Literal["auto", "exact", "ivf", "hnsw"]
EXACT_BELOW = 500_000  # rows; there 50 000 queries of 512 features take two minutes on two cores, `ivf` in all one
SEED = 0  # of k-means, of graph levels and of the queries that recall is measured on
ROWS_PER_CELL = 39  # FAISS warns of k-means on fewer
TRAINED_PER_CELL = 64  # rows that k-means is fitted to, drawn with the seed
PROBED_SHARE = 1 / 32  # of the cells of `ivf`, for each query
LINKS = 32  # of a row of `hnsw` to others
BUILD_WIDTH = 64  # candidates that `hnsw` keeps while it links a row
SEARCH_WIDTH = 400  # candidates that it keeps while it searches; twice k if that is more
RECALL_QUERIES = 500
TIE = 1e-6  # similarities this near are equal in float32


class NeighborIndex:
    """Rows that can be searched for the most similar ones.

    `exact` compares with every row. `ivf` cuts the rows into about 2·√N cells by k-means and compares with those of the
    nearest 32nd of the cells; `hnsw` walks a graph of neighbours. `auto` is `exact` below `EXACT_BELOW` rows, else
    `ivf`. All are seeded: the same rows and queries give the same answer.

    Args:
        features: Shape (N, D).
        kind: One of the four above.

    Attributes:
        kind: What `auto` became.

    Source:
        Malkov and Yashunin 2016, https://arxiv.org/abs/1603.09320 (`hnsw`); Douze et al. 2024,
        https://arxiv.org/abs/2401.08281 (FAISS).
    """

    def __init__(self, features: np.ndarray, kind: IndexKind = "exact"):
        rows = _unit(features)
        self.kind = ("exact" if len(rows) < EXACT_BELOW else "ivf") if kind == "auto" else kind
        self._index = {"exact": _flat, "ivf": _cells, "hnsw": _graph}[self.kind](rows)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most similar rows for each query; see `nearest`."""
        queries = _unit(queries)
        if self.kind == "hnsw":
            self._index.hnsw.efSearch = max(SEARCH_WIDTH, 2 * k)
        similarities, positions = self._index.search(queries, k)
        short = (positions < 0).any(1)  # the probed cells held fewer than k rows
        if short.any():
            similarities[short], positions[short] = self._exact(queries[short], k)
        return similarities, positions

    def recall(self, queries: np.ndarray, counts: list[int]) -> dict[int, float]:
        """Share of the k truly nearest rows that `search` finds, for every k in `counts`, on a seeded sample of queries.

        A found row counts if it is as similar as the exact k-th: which of several equal rows is found does not matter.

        Source:
            Aumüller et al. 2018, https://arxiv.org/abs/1807.05614, section 2.1.
        """
        chosen = np.random.default_rng(SEED).permutation(len(queries))[:RECALL_QUERIES]
        queries = queries[np.sort(chosen)]
        found, _ = self.search(queries, max(counts))
        best, _ = self._exact(_unit(queries), max(counts))
        return {k: float((found[:, :k] >= best[:, k - 1 : k] - TIE).mean()) for k in counts}

    def _exact(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        if self.kind == "ivf":
            everything = faiss.SearchParametersIVF(nprobe=self._index.nlist)
            return self._index.search(queries, k, params=everything)
        if self.kind == "hnsw":
            return faiss.downcast_index(self._index.storage).search(queries, k)
        return self._index.search(queries, k)


def nearest(index_features: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar rows of `index_features` for each query, exactly.

    Args:
        index_features: Shape (N, D).
        queries: Shape (M, D).
        k: At most N.

    Returns:
        Cosine similarities, descending, float32 (M, k), and positions, int64 (M, k). A feature of length zero has
        similarity 0 to all.
    """
    return NeighborIndex(index_features).search(queries, k)


def vote(
    similarities: np.ndarray, neighbor_labels: np.ndarray, n_classes: int, temperature: float | None = 0.1
) -> np.ndarray:
    """Class scores from neighbours' labels.

    Args:
        similarities: Shape (M, k).
        neighbor_labels: Class of each neighbour, integers, shape (M, k).
        n_classes: Number of classes.
        temperature: A neighbour counts exp(similarity / temperature); None: each counts 1.

    Returns:
        Scores that sum to 1, float64 (M, n_classes).

    Source:
        Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4.
    """
    weights = _weights(similarities, temperature)
    scores = np.zeros((len(similarities), n_classes))
    for column in range(similarities.shape[1]):
        scores[np.arange(len(scores)), neighbor_labels[:, column]] += weights[:, column]
    return scores / scores.sum(1, keepdims=True)


def vote_each(
    similarities: np.ndarray, positions: np.ndarray, labels: np.ndarray, temperature: float | None = 0.1
) -> np.ndarray:
    """Scores of several labels, each the weighted share of ones among the neighbours that know it.

    Args:
        similarities: Shape (M, k).
        positions: Neighbours as rows of `labels`, shape (M, k).
        labels: 1, 0 or, where unknown, −1; shape (N, K).
        temperature: As in `vote`.

    Returns:
        Scores in [0, 1], float64 (M, K); NaN where no neighbour knows the label.
    """
    weights = _weights(similarities, temperature)
    positive, known = np.zeros((2, len(similarities), labels.shape[1]))
    for column in range(similarities.shape[1]):
        found, weight = labels[positions[:, column]], weights[:, column, None]
        positive += weight * (found == 1)
        known += weight * (found >= 0)
    return np.divide(positive, known, out=np.full(known.shape, np.nan), where=known > 0)


def _weights(similarities: np.ndarray, temperature: float | None) -> np.ndarray:
    """What each neighbour counts, float64 (M, k); those of one query share a factor, which no score depends on."""
    if temperature is None:
        return np.ones(similarities.shape)
    return np.exp((similarities - similarities.max(1, keepdims=True)).astype(np.float64) / temperature)


def _flat(rows: np.ndarray):
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index


def _cells(rows: np.ndarray):
    import faiss

    width = rows.shape[1]
    cells = max(1, min(int(2 * len(rows) ** 0.5), len(rows) // ROWS_PER_CELL))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.max_points_per_centroid = SEED, TRAINED_PER_CELL
    index.nprobe = max(1, round(cells * PROBED_SHARE))
    index.train(rows)
    index.add(rows)
    return index


def _graph(rows: np.ndarray):
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_WIDTH
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # several would link rows in an order that is a race
    try:
        index.add(rows)
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features / np.maximum(length, 1e-12))
