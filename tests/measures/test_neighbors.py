"""Indices of neighbours: exact where it is promised, otherwise a recall that is measured."""

import faiss
import numpy as np
import pytest
import torch

from ssl_transfer.errors import RunError
from ssl_transfer.measures import neighbors as neighbor_search
from ssl_transfer.measures.neighbors import NeighborIndex, nearest, vote_each


@pytest.fixture(scope="module")
def crowd():
    """6000 rows around 40 centres, of 24 features, and 300 queries."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(40, 24))
    features = centres[draw.integers(40, size=6300)] + 0.6 * draw.normal(size=(6300, 24))
    return features[:6000].astype(np.float32), features[6000:].astype(np.float32)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_approximate_index_finds_nearly_all_and_reports_its_recall(crowd, kind):
    """Recall by counting, for each query, the found rows that are among the exact ones."""
    rows, queries = crowd
    index = NeighborIndex(rows, kind)
    recall = index.recall(queries, [1, 10, 50])
    _, exact = nearest(rows, queries, 50)
    _, found = index.search(queries, 50)
    for k in (1, 10, 50):
        counted = np.mean([len(set(found[q, :k]) & set(exact[q, :k])) / k for q in range(len(queries))])
        assert recall[k] == pytest.approx(counted, abs=1e-9)
    assert 0.5 < recall[50] < 1 if kind == "ivf" else recall[50] > 0.95


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_an_index_is_a_function_of_its_rows_on_one_thread_and_on_two(crowd, kind):
    threads, found = faiss.omp_get_max_threads(), []
    for count in (1, 2, 2):
        faiss.omp_set_num_threads(count)
        found.append(NeighborIndex(crowd[0], kind).search(crowd[1], 20))
        assert faiss.omp_get_max_threads() == count
    faiss.omp_set_num_threads(threads)
    for similarities, positions in found[1:]:
        assert np.array_equal(positions, found[0][1]) and np.allclose(similarities, found[0][0], atol=1e-6)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_similarities_of_an_approximate_index_are_cosines_of_the_rows_it_returns(crowd, kind):
    rows, queries = crowd
    similarities, positions = NeighborIndex(rows, kind).search(queries[:20], 10)
    for q in range(20):
        named = rows[positions[q]]
        cosines = named @ queries[q] / np.linalg.norm(named, axis=1) / np.linalg.norm(queries[q])
        assert np.allclose(similarities[q], cosines, atol=1e-5)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_a_query_gets_all_its_neighbours_even_if_its_cells_hold_fewer(crowd, kind):
    rows = crowd[0][:200]
    similarities, positions = NeighborIndex(rows, kind).search(crowd[1], 200)
    assert all(np.array_equal(np.sort(row), np.arange(200)) for row in positions)
    assert np.allclose(similarities, nearest(rows, crowd[1], 200)[0], atol=1e-6)


def test_auto_is_exact_below_the_stated_size_and_not_from_there_on(crowd, monkeypatch):
    monkeypatch.setattr(neighbor_search, "EXACT_SEARCH_BELOW", 500)
    assert NeighborIndex(crowd[0][:499], "auto").kind == "exact"
    assert NeighborIndex(crowd[0][:500], "auto").kind == "ivf"


def test_any_of_several_equal_rows_counts_as_found(crowd):
    rows = np.repeat(crowd[0][:50], 40, 0)
    for kind in ("exact", "ivf", "hnsw"):
        similarities, positions = NeighborIndex(rows, kind).search(crowd[0][:50], 10)
        assert np.allclose(similarities, 1, atol=1e-5) and np.array_equal(
            positions // 40, np.repeat(np.arange(50), 10).reshape(50, 10)
        )
        assert NeighborIndex(rows, kind).recall(crowd[0][:50], [10]) == {10: 1}


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_a_feature_of_length_zero_has_similarity_zero_to_all(crowd, kind):
    rows = np.concatenate([crowd[0][:2000], np.zeros((3, 24), np.float32)])
    similarities, positions = NeighborIndex(rows, kind).search(np.zeros((1, 24), np.float32), 5)
    assert np.array_equal(similarities, np.zeros((1, 5))) and (positions >= 0).all()


@pytest.mark.parametrize("order", ["as drawn", "sorted", "interleaved"])
@pytest.mark.parametrize("k", [1, 15, 63, 64, 90])
def test_the_others_of_all_rows_are_those_of_a_full_matrix_of_similarities(crowd, monkeypatch, k, order):
    """Of which tiles of 64 are computed once for both sides; k at and above a tile go another way."""
    monkeypatch.setattr(neighbor_search, "TILE", 64)
    rows = np.concatenate([crowd[0][:400], crowd[0][:30], np.zeros((3, 24), np.float32), 5 * crowd[0][:7]])
    if order != "as drawn":
        rows = rows[np.argsort(rows[:, 0])]
    if order == "interleaved":
        rows = np.concatenate([rows[start::7] for start in range(7)])
    unit = rows.astype(float) / np.maximum(np.linalg.norm(rows.astype(float), axis=1, keepdims=True), 1e-12)
    full = unit @ unit.T
    np.fill_diagonal(full, -2)
    similarities, positions = NeighborIndex(rows).others(rows, k)
    assert np.allclose(similarities, -np.sort(-full, 1)[:, :k], atol=1e-5)
    assert np.allclose(np.take_along_axis(full, positions, 1), similarities, atol=1e-5)
    assert (np.diff(similarities) <= 0).all() and all(len(set(row)) == k for row in positions)
    assert similarities.dtype == np.float32 and positions.dtype == np.int64


@pytest.mark.parametrize("at_once", [100, 65_536])
@pytest.mark.parametrize("probes", [1, 5, 40])
def test_searching_cell_by_cell_finds_what_faiss_finds_query_by_query(crowd, monkeypatch, probes, at_once):
    monkeypatch.setattr(neighbor_search, "QUERIES_AT_ONCE", at_once)
    index = NeighborIndex(crowd[0], "ivf")
    index._index.nprobe = probes
    queries = crowd[1] / np.linalg.norm(crowd[1], axis=1, keepdims=True)
    similarities, positions = index._in_cells(queries, 60, probes)
    expected, there = index._index.search(queries, 60)
    found = expected > -2  # FAISS fills up where the cells hold fewer
    assert np.array_equal(positions, there) and np.allclose(similarities[found], expected[found], atol=1e-6)
    assert probes > 1 or not found.all()


def test_probing_more_cells_reaches_the_requested_recall(crowd):
    index = NeighborIndex(crowd[0], "ivf")
    before, probed = index.recall(crowd[0], [10])[10], index._index.nprobe
    after = index.widen(crowd[0], 10, 0.999)
    assert before < 0.999 <= after == index.recall(crowd[0], [10])[10] and index._index.nprobe > probed


def test_at_most_a_quarter_of_the_cells_is_probed():
    draw = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    index = NeighborIndex(draw, "ivf")
    assert index.widen(draw, 10, 0.99) < 0.99
    assert index._index.nprobe == index._index.nlist // 4


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["exact", "ivf"])
@pytest.mark.parametrize("k", [20, 2100])
def test_a_gpu_finds_the_same_neighbours(crowd, monkeypatch, kind, k):
    """Or the CPU does: FAISS takes no k above 2048 on a GPU."""
    assert torch.cuda.is_available()
    there = NeighborIndex(crowd[0], kind)
    similarities, positions = there.search(crowd[1], k)
    others = there.others(crowd[0], k)[0]
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert np.allclose(similarities, there.search(crowd[1], k)[0], atol=1e-5)
    assert (positions == there.search(crowd[1], k)[1]).mean() > 0.999
    assert np.allclose(others, there.others(crowd[0], k)[0], atol=1e-5)


def test_with_faiss_for_cpus_no_gpu_is_searched_on(crowd, monkeypatch):
    expected = nearest(*crowd, 5)[1]
    monkeypatch.delattr(faiss, "get_num_gpus", raising=False)
    assert np.array_equal(nearest(*crowd, 5)[1], expected)


@pytest.mark.parametrize("full", [True, False])
def test_a_gpu_that_is_full_leaves_the_search_to_the_cpu_and_any_other_error_is_raised(crowd, monkeypatch, full):
    message = "cudaMalloc error out of memory [2]" if full else "CUDA error 209 no kernel image is available"

    def fails(index):
        raise RuntimeError(message)

    rows, queries = crowd
    index = NeighborIndex(rows, "ivf")
    _, expected = index.search(queries, 5)
    monkeypatch.setattr(neighbor_search, "_faiss_has_gpu", lambda most: True)
    monkeypatch.setattr(neighbor_search, "_copied_to_gpu", fails)
    if full:
        assert np.array_equal(index.search(queries, 5)[1], expected)
    else:
        with pytest.raises(RunError, match=r"no kernel image.*index=exact"):
            index.search(queries, 5)


def test_a_label_is_the_weighted_share_among_the_neighbours_that_know_it():
    labels = np.array([[1, -1, 0], [0, -1, 1], [1, -1, -1]])
    similarities, positions = np.array([[0.9, 0.7, 0.5]]), np.array([[2, 0, 1]])
    plain = vote_each(similarities, positions, labels, None)
    assert plain[0, [0, 2]].tolist() == [2 / 3, 1 / 2] and np.isnan(plain[0, 1])
    weights = np.exp(similarities[0] / 0.2)
    expected = [(weights[0] + weights[1]) / weights.sum(), weights[2] / (weights[1] + weights[2])]
    assert vote_each(similarities, positions, labels, 0.2)[0, [0, 2]] == pytest.approx(expected)
