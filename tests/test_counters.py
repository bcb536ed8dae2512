"""Counter-based randomness: uniform, and a function of (seed, epoch, image, view) alone."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ssl_transfer.data.counters import uniforms


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
