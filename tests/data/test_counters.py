"""Counter-based randomness: uniform, and a function of (seed, epoch, image, view) or (seed, epoch, place) alone."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssl_transfer.data.counters import shuffled, uniforms


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_draws_of_many_images_are_uniform(seed):
    draws = uniforms(seed, 3, np.arange(5000), 1, 8)
    assert draws.shape == (5000, 8)
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("varied", ["seed", "epoch", "view"])
def test_draws_along_seeds_epochs_and_views_are_uniform_too(varied):
    fixed = {"seed": 0, "epoch": 0, "view": 0}
    draws = [uniforms(**{**fixed, varied: n}, rows=np.array([7]), draws=1)[0, 0] for n in range(2000)]
    assert stats.kstest(draws, "uniform").pvalue > 1e-4


def test_neighbouring_images_and_draws_are_uncorrelated():
    draws = uniforms(0, 0, np.arange(20000), 0, 4)
    correlations = np.corrcoef(np.concatenate([draws[:-1].T, draws[1:].T]))
    assert np.abs(correlations - np.eye(8)).max() < 4.5 / np.sqrt(20000)


def test_an_image_draws_the_same_numbers_in_any_batch():
    rows = np.array([5, 0, 12_000_000, 9])
    together = uniforms(1, 2, rows, 0, 20)
    for row, numbers in zip(rows, together, strict=True):
        assert np.array_equal(uniforms(1, 2, np.array([row]), 0, 20)[0], numbers)


def test_fewer_draws_are_the_first_of_more():
    rows = np.arange(4)
    assert np.array_equal(uniforms(0, 0, rows, 0, 3), uniforms(0, 0, rows, 0, 20)[:, :3])


def test_seeds_epochs_and_views_never_share_a_draw():
    rows = np.arange(50)
    seen = [uniforms(*key[:2], rows, key[2], 2) for key in itertools.product(range(3), repeat=3)]
    assert len(np.unique(np.concatenate([part.ravel() for part in seen]))) == 27 * 100


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**40))
def test_a_shuffled_order_has_every_item_once_for_any_count(count, seed, epoch):
    order = shuffled(np.arange(count), count, seed, epoch)
    assert order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(count))


def test_every_seed_and_every_epoch_has_an_order_of_its_own():
    orders = {shuffled(np.arange(50), 50, seed, epoch).tobytes() for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_an_item_of_an_order_does_not_depend_on_the_requested_positions():
    whole = shuffled(np.arange(1000), 1000, 3, 7)
    assert np.array_equal(shuffled(np.array([900, 4, 4, 17]), 1000, 3, 7), whole[[900, 4, 4, 17]])


@pytest.mark.parametrize("count", [2, 6, 17, 64])
def test_over_many_epochs_item_0_is_at_every_position_equally_often(count):
    places = [int(np.flatnonzero(shuffled(np.arange(count), count, 1, epoch) == 0)[0]) for epoch in range(3000)]
    assert stats.chisquare(np.bincount(places, minlength=count)).pvalue > 1e-4


def test_over_many_seeds_every_item_comes_first_equally_often():
    first = [int(shuffled(np.array([0]), 30, seed, 0)[0]) for seed in range(6000)]
    assert stats.chisquare(np.bincount(first, minlength=30)).pvalue > 1e-4


@pytest.mark.parametrize("count", [20_000, 2**14, 2**15 + 1])
def test_neighbours_in_an_order_and_in_orders_that_follow_are_uncorrelated(count):
    one, next_epoch, next_seed = (shuffled(np.arange(count), count, *key) for key in ((0, 0), (0, 1), (1, 0)))
    limit = 4.5 / np.sqrt(count)
    for first, second in ((one[:-1], one[1:]), (one[:-2], one[2:]), (one, next_epoch), (one, next_seed)):
        assert abs(np.corrcoef(first, second)[0, 1]) < limit
    assert abs(np.corrcoef(one, np.arange(count))[0, 1]) < limit
    steps = np.diff(one) % count
    assert stats.chisquare(np.bincount(steps * 16 // count, minlength=16)).pvalue > 1e-4


def test_a_batch_out_of_twelve_million_images_needs_no_list_of_them():
    places = np.arange(5_000_000, 5_000_064)
    shuffled(places, 12_000_000, 0, 0)
    tracemalloc.start()
    items = shuffled(places, 12_000_000, 0, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(items.tolist())) == 64 and items.min() >= 0 and items.max() < 12_000_000
    assert peak < 50_000
