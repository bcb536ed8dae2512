"""Nearest neighbours by cosine similarity, exact or approximate, and votes over them (FAISS)."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from ssl_transfer.errors import RunError

IndexKind = Literal["auto", "exact", "ivf", "hnsw"]
EXACT_SEARCH_BELOW = 500_000  # rows; with so many, 50,000 queries of 512 features take two minutes, or one with `ivf`
SEED = 0  # of k-means, of the levels of the graph, and of the queries that recall is measured on
ROWS_PER_CELL = 39  # at least; FAISS warns if k-means is fitted to fewer
TRAINED_PER_CELL = 64  # rows that k-means is fitted to, drawn with the seed
KMEANS_ITERATIONS = 10  # FAISS's default of 25 does not improve recall
PROBED_SHARE = 1 / 32  # share of the cells that `ivf` searches for each query
LARGEST_PROBED_SHARE = 1 / 4  # with more, exact search is as fast
LINKS = 32  # neighbours that each row of `hnsw` is linked to
BUILD_WIDTH = 64  # candidates that `hnsw` keeps while it links a row
SEARCH_WIDTH = 400  # candidates that it keeps while it searches; twice k if that is more
RECALL_QUERIES = 500
QUERIES_AT_ONCE = 65_536  # in a search of cells: thousands of queries per cell, in lists that stay small
TILE = 2048  # rows and columns of similarities that are computed at a time: 16 MB, which fit into caches
GPU_MOST = 2048  # largest number of neighbours, and of cells to probe, that FAISS accepts on a GPU
GPU_QUERIES, GPU_ROWS = 2048, 65_536  # similarities that a GPU computes at a time: 512 MB
FAISS_GPU_BYTES = 256 << 20  # memory that FAISS reserves on a GPU for a search
TIE = 1e-6  # similarities that differ by less are equal in float32


class NeighborIndex:
    """An index that returns the most similar rows of a query.

    `exact` compares a query with every row. `ivf` divides the rows into about 2·√N cells by k-means and compares a query with the
    rows of its nearest cells, 1/32 of all cells, or more after `widen`. `hnsw` searches a graph of neighbours. `auto` is `exact`
    below `EXACT_SEARCH_BELOW` rows and `ivf` above. All are seeded: the same rows and queries give the same answer. On a GPU,
    torch computes `exact`, and FAISS `ivf` if it was built for one; if its memory is full, the CPU does.

    Args:
        features: Rows of the index, shape (N, D).
        kind: `auto`, `exact`, `ivf` or `hnsw`.

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
        self._on_gpu: Any = None  # its copy on a GPU, made at the first search

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most similar rows for each query; see `nearest`."""
        queries = _unit(queries)
        if self.kind == "exact":
            return self._exact(queries, k)
        if self.kind == "ivf":
            similarities, positions = self._in_cells(queries, k, self._index.nprobe)
        else:
            self._index.hnsw.efSearch = max(SEARCH_WIDTH, 2 * k)
            similarities, positions = self._index.search(queries, k)
        incomplete = (positions < 0).any(1)  # the probed cells held fewer than k rows
        if incomplete.any():
            similarities[incomplete], positions[incomplete] = self._exact(queries[incomplete], k)
        return similarities, positions

    def others(self, features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most similar other rows of every row; see `nearest`.

        Args:
            features: The rows of the index, (N, D).
            k: Number of neighbours, at most N − 1.
        """
        if self.kind == "exact" and k < TILE and not _torch_has_gpu():
            return _each_other(self._index, k)
        similarities, positions = self.search(features, k + 1)
        itself = positions == np.arange(len(positions))[:, None]
        itself[~itself.any(1), -1] = True  # more than k rows are as similar as a row is to itself
        similarities, positions = (values[~itself].reshape(-1, k) for values in (similarities, positions))
        return similarities, positions

    def recall(self, queries: np.ndarray, counts: list[int]) -> dict[int, float]:
        """Share of the k truly nearest rows that `search` returns, for each k in `counts`, on a seeded sample of queries.

        A returned row counts as correct if it is at least as similar as the exact k-th, so ties have no effect.

        Source:
            Aumüller et al. 2018, https://arxiv.org/abs/1807.05614, section 2.1.
        """
        sampled = np.random.default_rng(SEED).permutation(len(queries))[:RECALL_QUERIES]
        queries = queries[np.sort(sampled)]
        retrieved, _ = self.search(queries, max(counts))
        exact, _ = self._exact(_unit(queries), max(counts))
        return {k: float((retrieved[:, :k] >= exact[:, k - 1 : k] - TIE).mean()) for k in counts}

    def widen(self, queries: np.ndarray, k: int, recall: float) -> float:
        """Double the number of cells that `ivf` probes, up to a quarter of them, until recall at k is high enough.

        Returns:
            The recall that was reached.
        """
        largest = int(LARGEST_PROBED_SHARE * self._index.nlist)
        while (measured := self.recall(queries, [k])[k]) < recall and self._index.nprobe < largest:
            self._index.nprobe = min(2 * self._index.nprobe, largest)
        return measured

    def _exact(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        if self.kind == "ivf":
            return self._in_cells(queries, k, self._index.nlist)
        if self.kind == "hnsw":
            return faiss.downcast_index(self._index.storage).search(queries, k)
        if _torch_has_gpu():
            import torch

            with suppress(torch.OutOfMemoryError), torch.inference_mode():
                if self._on_gpu is None:
                    self._on_gpu = torch.from_numpy(self._index).to("cuda")
                return _largest_products(self._on_gpu, queries, k)
        return faiss.knn(queries, self._index, k, metric=faiss.METRIC_INNER_PRODUCT)

    def _in_cells(self, queries: np.ndarray, k: int, probed: int) -> tuple[np.ndarray, np.ndarray]:
        """Search the `probed` nearest cells of each query; positions are −1 where these cells hold fewer than k rows."""
        if _faiss_has_gpu(max(k, probed)):
            try:
                if self._on_gpu is None:
                    self._on_gpu = _copied_to_gpu(self._index)
                self._on_gpu.nprobe = probed
                return self._on_gpu.search(queries, k)
            except RuntimeError as error:
                if "out of memory" not in str(error):
                    raise RunError(
                        f"neighbours: FAISS failed on the GPU: {' '.join(str(error).split())[:300]} Search "
                        "without it: index=exact, or faiss-cpu in place of faiss-gpu, or hide the GPU: CUDA_VISIBLE_DEVICES="
                    ) from error
                self._on_gpu = None  # frees what fitted
        parts = [queries[start : start + QUERIES_AT_ONCE] for start in range(0, len(queries), QUERIES_AT_ONCE)]
        results = [_cell_by_cell(self._index, part, k, probed) for part in parts]
        return np.concatenate([found for found, _ in results]), np.concatenate([rows for _, rows in results])


def nearest(index_features: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar rows of `index_features` for each query, exactly.

    Args:
        index_features: Rows to search, shape (N, D).
        queries: Shape (M, D).
        k: Number of neighbours, at most N.

    Returns:
        Cosine similarities, descending, float32 (M, k), and positions, int64 (M, k). A feature vector of length 0 has
        similarity 0 to all.
    """
    return NeighborIndex(index_features).search(queries, k)


def vote(
    similarities: np.ndarray, neighbor_labels: np.ndarray, n_classes: int, temperature: float | None = 0.1
) -> np.ndarray:
    """Class scores from neighbours' labels.

    Args:
        similarities: Similarity of each neighbour, shape (M, k).
        neighbor_labels: Class of each neighbour, integers, shape (M, k).
        n_classes: Number of classes.
        temperature: Neighbours are weighted by exp(similarity / temperature); None: all weights are 1.

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
    """Scores of each label of a multi-label task: the weighted share of positives among the neighbours with a known value.

    Args:
        similarities: Similarity of each neighbour, shape (M, k).
        positions: Row of each neighbour in `labels`, shape (M, k).
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


def vote_mean(similarities: np.ndarray, values: np.ndarray, temperature: float | None = 0.1) -> np.ndarray:
    """Weighted mean of the neighbours' values.

    Args:
        similarities: Similarity of each neighbour, shape (M, k).
        values: Value of each neighbour, shape (M, k).
        temperature: As in `vote`.

    Returns:
        float64 (M,).
    """
    return np.average(values, axis=1, weights=_weights(similarities, temperature))


def _weights(similarities: np.ndarray, temperature: float | None) -> np.ndarray:
    """Weights of neighbours, float64 (M, k), up to a factor per query that cancels in scores."""
    if temperature is None:
        return np.ones(similarities.shape)
    return np.exp((similarities - similarities.max(1, keepdims=True)).astype(np.float64) / temperature)


def _torch_has_gpu() -> bool:
    """Whether torch has a GPU; a process without torch uses none."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available()


def _largest_products(rows, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest products of each query (M, D) with rows (N, D) on a GPU, tile by tile, in IEEE float32."""
    import torch

    from ssl_transfer.numerics import numerics

    with numerics():
        return _tile_by_tile(torch.from_numpy(queries), rows, k)


def _tile_by_tile(queries, rows, k: int) -> tuple[np.ndarray, np.ndarray]:
    import torch

    results = []
    for part in queries.split(GPU_QUERIES):
        part = part.to(rows.device)
        best = part.new_empty((len(part), 0)), torch.empty((len(part), 0), dtype=torch.int64, device=rows.device)
        for start in range(0, len(rows), GPU_ROWS):
            tile = rows[start : start + GPU_ROWS]
            found, columns = (part @ tile.T).topk(min(k, len(tile)), dim=1)
            values, positions = torch.cat([best[0], found], 1), torch.cat([best[1], columns + start], 1)
            kept, order = values.topk(min(k, values.shape[1]), dim=1)
            best = kept, positions.gather(1, order)
        results.append([values.cpu().numpy() for values in best])
    return np.concatenate([found for found, _ in results]), np.concatenate([rows for _, rows in results])


def _copied_to_gpu(index) -> Any:
    """A copy of an index of cells on a GPU, beside torch: without FAISS's own reserve of 1.5 GB."""
    import faiss

    resources: Any = faiss.StandardGpuResources()
    resources.setTempMemory(FAISS_GPU_BYTES)
    return faiss.index_cpu_to_gpu(resources, 0, index)


def _faiss_has_gpu(most: int) -> bool:
    """Whether FAISS can search for `most` neighbours on a GPU; `faiss-cpu` has no `get_num_gpus`."""
    import faiss

    return most <= GPU_MOST and hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0


def _each_other(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k < TILE nearest other rows of every unit row. Similarity is symmetric, so half of the products suffice."""
    best, positions = np.full((len(rows), k), -np.inf, np.float32), np.full((len(rows), k), -1)
    parts = [slice(start, min(start + TILE, len(rows))) for start in range(0, len(rows), TILE)]
    memory = np.empty(TILE * TILE, np.float32)

    def tile(first_part: slice, second_part: slice) -> np.ndarray:
        shape = first_part.stop - first_part.start, second_part.stop - second_part.start
        return np.matmul(rows[first_part], rows[second_part].T, out=memory[: shape[0] * shape[1]].reshape(shape))

    # Tiles on the diagonal come first: they give every row candidates that most rows of other tiles do not beat.
    for part in parts:
        similarities = tile(part, part)
        np.fill_diagonal(similarities, -np.inf)
        kept = min(k, len(similarities) - 1)
        columns = np.argpartition(-similarities, kept - 1, axis=1)[:, :kept] if kept else np.empty((1, 0), int)
        best[part, :kept] = np.take_along_axis(similarities, columns, 1)
        positions[part, :kept] = part.start + columns
    worst = best.min(1)
    for i, first_part in enumerate(parts):
        for second_part in parts[i + 1 :]:
            similarities = tile(first_part, second_part)
            above_worst = [
                np.flatnonzero(similarities > worst_kept)
                for worst_kept in (worst[first_part, None], worst[second_part])
            ]
            for flat, step in zip(above_worst, (1, -1), strict=True):
                a, b = divmod(flat, similarities.shape[1])
                queries, others = (first_part.start + a, second_part.start + b)[::step]
                _improve(best, positions, worst, queries, others, similarities.ravel()[flat])
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
    """Merge similarities (n,) between `rows` and `others` into the best k of each row (N, k), in place.

    `worst` (N,) is the smallest similarity among the best of each row; it is updated, too.
    """
    k = best.shape[1]
    order = np.argsort(rows, kind="stable")
    changed, starts, counts = np.unique(rows[order], return_index=True, return_counts=True)
    if not len(changed):
        return
    row = np.repeat(np.arange(len(changed)), counts)
    column = k + np.arange(len(rows)) - starts[row]
    values = np.full((len(changed), k + counts.max()), -np.inf, np.float32)
    candidates = np.full(values.shape, -1)
    values[:, :k], candidates[:, :k] = best[changed], positions[changed]
    values[row, column], candidates[row, column] = similarities[order], others[order]
    kept = np.argpartition(-values, k - 1, axis=1)[:, :k]
    best[changed] = np.take_along_axis(values, kept, 1)
    positions[changed] = np.take_along_axis(candidates, kept, 1)
    worst[changed] = best[changed].min(1)


def _cells(rows: np.ndarray):
    import faiss

    width = rows.shape[1]
    cells = max(1, min(int(2 * len(rows) ** 0.5), len(rows) // ROWS_PER_CELL))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.max_points_per_centroid, index.cp.niter = SEED, TRAINED_PER_CELL, KMEANS_ITERATIONS
    index.nprobe = max(1, round(cells * PROBED_SHARE))
    index.train(rows)
    index.add(rows)
    return index


def _cell_by_cell(index, queries: np.ndarray, k: int, probed: int) -> tuple[np.ndarray, np.ndarray]:
    """Search cells one after the other, each for all of its queries at once.

    This is a matrix product and several times as fast as FAISS's search query by query, with the same result.
    """
    import faiss
    from faiss.contrib.inspect_tools import get_invlist

    cells = index.quantizer.search(queries, probed)[1].ravel()
    order = np.argsort(cells, kind="stable")
    ends = np.searchsorted(cells[order], np.arange(index.nlist + 1))
    best = faiss.ResultHeap(len(queries), k, keep_max=True)

    def search_cell(cell: int) -> tuple[np.ndarray, ...] | None:
        asking_queries = order[ends[cell] : ends[cell + 1]] // probed
        members, rows = get_invlist(index.invlists, cell)
        if not len(asking_queries) or not len(members):
            return None
        rows = rows.view(np.float32).reshape(len(members), -1)
        most = min(k, len(members))
        similarities, hits = faiss.knn(queries[asking_queries], rows, most, metric=faiss.METRIC_INNER_PRODUCT)
        return asking_queries, similarities, members[hits]

    # One thread per cell: a cell is too small to be divided among threads.
    with ThreadPoolExecutor(faiss.omp_get_max_threads(), "cell", faiss.omp_set_num_threads, (1,)) as threads:
        for retrieved in filter(None, threads.map(search_cell, range(index.nlist))):
            best.add_result_subset(*retrieved)
    best.finalize()
    return best.D, best.I


def _graph(rows: np.ndarray):
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_WIDTH
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # with several threads, the graph would depend on their timing
    try:
        index.add(rows)
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features / np.maximum(length, 1e-12))
