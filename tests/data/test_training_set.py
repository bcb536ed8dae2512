"""The pool: stores side by side with stated shares, in an order that is a function of (seed, epoch)."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.training_set import StoreShare, TrainingSet
from ssl_transfer.data.views import ViewMaker

CT_ROWS, PHOTO_ROWS = np.arange(4, 40), np.array([3, 5, 8, 9, 20, 21, 30, 31, 40, 47])  # 36 and 10


def maker(store, preset, seed=0):
    views = VIEWS[preset](16, 3, store.units)
    return ViewMaker([views, views], Scale.of_store(store.card, views.intensity.window_hu), seed, channels=3)


@pytest.fixture
def one(ct_store):
    """A pool of 36 rows of one store."""
    return TrainingSet([StoreShare(ct_store, CT_ROWS, maker(ct_store, "ct"))], seed=5)


@pytest.fixture
def two(ct_store, photo_store):
    """CT slices (one channel, 32 px) and photographs (three channels, 24 px), seven to three; 46 rows in all."""
    parts = [
        StoreShare(ct_store, CT_ROWS, maker(ct_store, "ct"), 0.7),
        StoreShare(photo_store, PHOTO_ROWS, maker(photo_store, "natural"), 0.3),
    ]
    return TrainingSet(parts, seed=5, labels=np.arange(96) * 10)


def epoch_of(pool, epoch):
    return pool.rows(epoch, np.arange(len(pool)))


def test_an_epoch_of_one_store_is_a_permutation_of_its_rows(one):
    orders = [epoch_of(one, epoch) for epoch in range(5)]
    assert len(one) == 36
    assert all(np.array_equal(np.sort(order), CT_ROWS) for order in orders)
    assert len({order.tobytes() for order in orders}) == 5


def test_another_seed_is_another_order(one):
    assert not np.array_equal(epoch_of(one, 0), epoch_of(TrainingSet(one.parts, seed=6), 0))


def test_the_rows_of_an_epoch_do_not_depend_on_the_requested_positions(two):
    order = epoch_of(two, 3)
    for places in (np.array([0]), np.array([45, 7, 8]), np.arange(20, 30)):
        assert np.array_equal(two.rows(3, places), order[places])


def test_rows_of_the_second_store_are_numbered_after_those_of_the_first(two):
    rows = epoch_of(two, 0)
    assert set(rows[rows < 48]) <= set(CT_ROWS)
    assert set(rows[rows >= 48] - 48) == set(PHOTO_ROWS)


@settings(deadline=None, max_examples=30)
@given(share=st.floats(0.01, 0.99), sizes=st.tuples(st.integers(1, 48), st.integers(1, 48)), seed=st.integers(0, 999))
def test_every_epoch_has_the_share_of_each_store_and_every_row_is_used(ct_store, share, sizes, seed):
    """Counts are the same in all epochs; no row of a store is ever two turns ahead of another."""
    shares = (share, 1 - share)
    pool = TrainingSet(
        [StoreShare(ct_store, np.arange(size), None, s) for size, s in zip(sizes, shares, strict=True)], seed
    )
    assert len(pool) == sum(sizes)
    seen = np.zeros(96, int)
    for epoch in range(6):
        rows = epoch_of(pool, epoch)
        counts = [int((rows < 48).sum()), int((rows >= 48).sum())]
        assert counts[0] == round(share * sum(sizes)) and sum(counts) == sum(sizes)
        seen += np.bincount(rows, minlength=96)
        for first, size in ((0, sizes[0]), (48, sizes[1])):
            assert np.ptp(seen[first : first + size]) <= 1
    assert seen[sizes[0] : 48].sum() == seen[48 + sizes[1] :].sum() == 0


def test_stores_are_mixed_all_over_an_epoch(two):
    """Not first one, then the other: both halves have photographs."""
    counts = np.array([[(half >= 48).sum() for half in np.split(epoch_of(two, epoch), 2)] for epoch in range(20)])
    assert (counts.sum(1) == 14).all() and (counts > 0).all()
    assert abs(int(counts[:, 0].sum()) - 140) < 40  # hypergeometric: sd 7.2


def test_views_are_those_made_store_by_store_in_the_requested_order(two, ct_store, photo_store):
    rows = epoch_of(two, 2)[:20]
    batch = two.views(two.read(rows), rows, 2)
    assert torch.equal(batch.rows, torch.from_numpy(rows)) and len(batch.views) == 2
    assert all(view.shape == (20, 3, 16, 16) for view in batch.views)
    assert 0 < (rows >= 48).sum() < 20
    for index, row in enumerate(rows):
        store, preset, offset = (ct_store, "ct", 0) if row < 48 else (photo_store, "natural", 48)
        image = torch.from_numpy(store.read([row - offset]))
        for found, alone in zip(batch.views, maker(store, preset)(image, rows[index : index + 1], 2), strict=True):
            assert torch.equal(found[index], alone[0])


def test_labels_come_with_their_rows(two, one):
    rows = epoch_of(two, 0)[:10]
    assert torch.equal(two.views(two.read(rows), rows, 0).labels, torch.from_numpy(rows * 10))
    assert one.views(one.read(CT_ROWS[:3]), CT_ROWS[:3], 0).labels is None


def test_a_key_names_the_store_and_the_row_in_it(two, ct_store, photo_store):
    assert two.key(17) == f"{ct_store.path}: 17" and two.key(47) == f"{ct_store.path}: 47"
    assert two.key(48) == f"{photo_store.path}: 0" and two.key(95) == f"{photo_store.path}: 47"


def test_sampling_costs_the_same_memory_for_a_thousand_and_for_twelve_million_rows(ct_store):
    peaks = {}
    for count in (1000, 12_000_000):
        parts = [
            StoreShare(ct_store, np.arange(count), None, 0.9),
            StoreShare(ct_store, np.arange(count // 20), None, 0.1),
        ]
        tracemalloc.start()
        pool = TrainingSet(parts, 0)
        for epoch in (0, 40):
            assert len(pool.rows(epoch, np.arange(64) * (len(pool) // 64))) == 64
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[12_000_000] < 1.5 * peaks[1000] + 10_000 < 200_000
