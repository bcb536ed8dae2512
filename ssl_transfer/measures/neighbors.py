"""Nearest neighbours by cosine similarity, exact or approximate, and votes over them (FAISS)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

IndexKind = Literal["auto", "exact", "ivf", "hnsw"]
EXACT_SEARCH_BELOW = 500_000  # rows; 50,000 queries of 512 features take two minutes there, `ivf` in all one
SEED = 0  # of k-means, of graph levels and of the queries that recall is measured on
ROWS_PER_CELL = 39  # FAISS warns of k-means on fewer
TRAINED_PER_CELL = 64  # rows that k-means is fitted to, drawn with the seed
ROUNDS = 10  # of k-means; after 25, which FAISS takes, no more neighbours are found
PROBED_SHARE = 1 / 32  # of the cells of `ivf`, for each query
WIDEST_SHARE = 1 / 4  # of the cells that are worth probing: with more, comparing all is as fast
LINKS = 32  # of a row of `hnsw` to others
BUILD_WIDTH = 64  # candidates that `hnsw` keeps while it links a row
SEARCH_WIDTH = 400  # candidates that it keeps while it searches; twice k if that is more
RECALL_QUERIES = 500
QUERIES = 65_536  # searched at a time in cells: some thousand in each, and their lists of cells stay small
TILE = 2048  # rows and columns of similarities that are computed at a time: 16 MB, which caches hold
GPU_MOST = 2048  # neighbours, and cells to probe, that FAISS takes on a GPU
TIE = 1e-6  # similarities this near are equal in float32


class NeighborIndex:
    """Rows that can be searched for the most similar ones.

    `exact` compares with every row. `ivf` cuts the rows into about 2·√N cells by k-means and compares with those of the
    nearest 32nd of the cells, or of more after `widen`; `hnsw` walks a graph of neighbours. `auto` is `exact` below
    `EXACT_SEARCH_BELOW` rows, else `ivf`. All are seeded: the same rows and queries give the same answer. Where FAISS has a GPU,
    `exact` and `ivf` search there.

    Args:
        features: Shape (N, D).
        kind: One of the four above.

    Attributes:
        kind: The kind in use, never `auto`.

    Source:
        Malkov and Yashunin 2016, https://arxiv.org/abs/1603.09320 (`hnsw`); Douze et al. 2024,
        https://arxiv.org/abs/2401.08281 (FAISS).
    """

    def __init__(self, features: np.ndarray, kind: IndexKind = "exact"):
        rows = _unit(features)
        self.kind = ("exact" if len(rows) < EXACT_SEARCH_BELOW else "ivf") if kind == "auto" else kind
        self._index = {"exact": lambda rows: rows, "ivf": _cells, "hnsw": _graph}[self.kind](rows)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most similar rows for each query; see `nearest`."""
        queries = _unit(queries)
        if self.kind == "exact":
            return self._exact(queries, k)
        if self.kind == "ivf":
            similarities, positions = _in_cells(self._index, queries, k, self._index.nprobe)
        else:
            self._index.hnsw.efSearch = max(SEARCH_WIDTH, 2 * k)
            similarities, positions = self._index.search(queries, k)
        short = (positions < 0).any(1)  # the probed cells held fewer than k rows
        if short.any():
            similarities[short], positions[short] = self._exact(queries[short], k)
        return similarities, positions

    def others(self, features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most similar other rows of every row; see `nearest`.

        Args:
            features: Those that the index is of, (N, D).
            k: At most N − 1.
        """
        if self.kind == "exact" and k < TILE and not _gpu(k + 1):
            return _each_other(self._index, k)
        similarities, positions = self.search(features, k + 1)
        itself = positions == np.arange(len(positions))[:, None]
        itself[~itself.any(1), -1] = True  # more than k rows are as similar as a row is to itself
        similarities, positions = (values[~itself].reshape(-1, k) for values in (similarities, positions))
        return similarities, positions

    def recall(self, queries: np.ndarray, counts: list[int]) -> dict[int, float]:
        """Share of the k true nearest rows that `search` returns, for every k in `counts`, on a seeded sample of queries.

        A row counts if it is at least as similar as the exact k-th, so the choice between equal rows has no effect.

        Source:
            Aumüller et al. 2018, https://arxiv.org/abs/1807.05614, section 2.1.
        """
        chosen = np.random.default_rng(SEED).permutation(len(queries))[:RECALL_QUERIES]
        queries = queries[np.sort(chosen)]
        retrieved, _ = self.search(queries, max(counts))
        best, _ = self._exact(_unit(queries), max(counts))
        return {k: float((retrieved[:, :k] >= best[:, k - 1 : k] - TIE).mean()) for k in counts}

    def widen(self, queries: np.ndarray, k: int, recall: float) -> float:
        """Let `ivf` probe twice as many cells, up to a quarter of them, until its recall at k is enough; what it becomes."""
        most = int(WIDEST_SHARE * self._index.nlist)
        while (reached := self.recall(queries, [k])[k]) < recall and self._index.nprobe < most:
            self._index.nprobe = min(2 * self._index.nprobe, most)
        return reached

    def _exact(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        if self.kind == "ivf":
            return _in_cells(self._index, queries, k, self._index.nlist)
        if self.kind == "hnsw":
            return faiss.downcast_index(self._index.storage).search(queries, k)
        if _gpu(k):
            resources = faiss.StandardGpuResources()
            return faiss.knn_gpu(resources, queries, self._index, k, metric=faiss.METRIC_INNER_PRODUCT)
        return faiss.knn(queries, self._index, k, metric=faiss.METRIC_INNER_PRODUCT)


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
    """Scores of several labels, each the weighted share of ones among the neighbours with a known value.

    Args:
        similarities: Shape (M, k).
        positions: Neighbours as rows of `labels`, shape (M, k).
        labels: 1, 0 or, where unknown, −1; shape (N, K).
        temperature: As in `vote`.

    Returns:
        Scores in [0, 1], float64 (M, K); NaN where the label is unknown for all neighbours.
    """
    weights = _weights(similarities, temperature)
    positive, known = np.zeros((2, len(similarities), labels.shape[1]))
    for column in range(similarities.shape[1]):
        values, weight = labels[positions[:, column]], weights[:, column, None]
        positive += weight * (values == 1)
        known += weight * (values >= 0)
    return np.divide(positive, known, out=np.full(known.shape, np.nan), where=known > 0)


def _weights(similarities: np.ndarray, temperature: float | None) -> np.ndarray:
    """Weights of neighbours, float64 (M, k), up to a factor per query that scores do not depend on."""
    if temperature is None:
        return np.ones(similarities.shape)
    return np.exp((similarities - similarities.max(1, keepdims=True)).astype(np.float64) / temperature)


def _gpu(most: int) -> bool:
    """Whether FAISS can search on a GPU; `faiss-cpu` does not know the question."""
    import faiss

    return most <= GPU_MOST and hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0


def _each_other(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k < TILE nearest others of unit rows. What a is to b, b is to a, so half of the products do."""
    best, positions = np.full((len(rows), k), -np.inf, np.float32), np.full((len(rows), k), -1)
    parts = [slice(start, min(start + TILE, len(rows))) for start in range(0, len(rows), TILE)]
    memory = np.empty(TILE * TILE, np.float32)

    def tile(first_part: slice, second_part: slice) -> np.ndarray:
        shape = first_part.stop - first_part.start, second_part.stop - second_part.start
        return np.matmul(rows[first_part], rows[second_part].T, out=memory[: shape[0] * shape[1]].reshape(shape))

    for part in parts:  # first near the diagonal, so that every row has some, and most others are seen to be no better
        among = tile(part, part)
        np.fill_diagonal(among, -np.inf)
        most = min(k, len(among) - 1)
        columns = np.argpartition(-among, most - 1, axis=1)[:, :most] if most else np.empty((1, 0), int)
        best[part, :most] = np.take_along_axis(among, columns, 1)
        positions[part, :most] = part.start + columns
    worst = best.min(1)
    for i, first_part in enumerate(parts):
        for second_part in parts[i + 1 :]:
            among = tile(first_part, second_part)
            near = [np.flatnonzero(among > least) for least in (worst[first_part, None], worst[second_part])]
            for at, turn in zip(near, (1, -1), strict=True):
                a, b = divmod(at, among.shape[1])
                queries, others = (first_part.start + a, second_part.start + b)[::turn]
                _improve(best, positions, worst, queries, others, among.ravel()[at])
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(best, order, 1), np.take_along_axis(positions, order, 1)


def _improve(
    best: np.ndarray,
    positions: np.ndarray,
    worst: np.ndarray,
    rows: np.ndarray,
    others: np.ndarray,
    similarities: np.ndarray,
) -> None:
    """Put similarities (n,) of rows to others among their best (N, k), in place; `worst` (N,) are the least of these."""
    k = best.shape[1]
    order = np.argsort(rows, kind="stable")
    touched, first, counts = np.unique(rows[order], return_index=True, return_counts=True)
    if not len(touched):
        return
    line = np.repeat(np.arange(len(touched)), counts)
    column_of = k + np.arange(len(rows)) - first[line]
    values = np.full((len(touched), k + counts.max()), -np.inf, np.float32)
    names = np.full(values.shape, -1)
    values[:, :k], names[:, :k] = best[touched], positions[touched]
    values[line, column_of], names[line, column_of] = similarities[order], others[order]
    kept = np.argpartition(-values, k - 1, axis=1)[:, :k]
    best[touched] = np.take_along_axis(values, kept, 1)
    positions[touched] = np.take_along_axis(names, kept, 1)
    worst[touched] = best[touched].min(1)


def _cells(rows: np.ndarray):
    import faiss

    width = rows.shape[1]
    cells = max(1, min(int(2 * len(rows) ** 0.5), len(rows) // ROWS_PER_CELL))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.max_points_per_centroid, index.cp.niter = SEED, TRAINED_PER_CELL, ROUNDS
    index.nprobe = max(1, round(cells * PROBED_SHARE))
    index.train(rows)
    index.add(rows)
    return index


def _in_cells(index, queries: np.ndarray, k: int, probed: int) -> tuple[np.ndarray, np.ndarray]:
    """Search the `probed` nearest cells of each query; −1 where they hold fewer than k rows.

    Cell by cell, all that ask for it at once: a matrix product, several times as fast as FAISS's way query by query, and with
    the same answer.
    """
    import faiss

    if _gpu(max(k, probed)):
        copy: Any = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        copy.nprobe = probed
        return copy.search(queries, k)
    parts = [queries[start : start + QUERIES] for start in range(0, len(queries), QUERIES)]
    results = [_cell_by_cell(index, part, k, probed) for part in parts]
    return np.concatenate([similarities for similarities, _ in results]), np.concatenate([rows for _, rows in results])


def _cell_by_cell(index, queries: np.ndarray, k: int, probed: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss
    from faiss.contrib.inspect_tools import get_invlist

    cells = index.quantizer.search(queries, probed)[1].ravel()
    order = np.argsort(cells, kind="stable")
    ends = np.searchsorted(cells[order], np.arange(index.nlist + 1))
    best = faiss.ResultHeap(len(queries), k, keep_max=True)

    def within(cell: int) -> tuple[np.ndarray, ...] | None:
        asking = order[ends[cell] : ends[cell + 1]] // probed
        members, rows = get_invlist(index.invlists, cell)
        if not len(asking) or not len(members):
            return None
        rows = rows.view(np.float32).reshape(len(members), -1)
        most = min(k, len(members))
        similarities, at = faiss.knn(queries[asking], rows, most, metric=faiss.METRIC_INNER_PRODUCT)
        return asking, similarities, members[at]

    # A cell is too small to be shared by threads, which would wait for each other more than they compute.
    with ThreadPoolExecutor(faiss.omp_get_max_threads(), "cell", faiss.omp_set_num_threads, (1,)) as threads:
        for retrieved in filter(None, threads.map(within, range(index.nlist))):
            best.add_result_subset(*retrieved)
    best.finalize()
    return best.D, best.I


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
