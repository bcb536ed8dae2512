"""The draw of an evaluation: a fixed function of pretraining seed and evaluation seed."""

import itertools

import numpy as np
import pytest

from ssl_transfer.draws import draw_seed


@pytest.mark.parametrize(
    ("pretraining_seed", "seed", "expected"),
    [(0, 0, 2968811710), (0, 1, 3964924996), (1, 0, 1835504127), (3, 0, 1576890651)],
)
def test_the_draw_of_two_seeds_never_changes(pretraining_seed, seed, expected):
    """Results of another draw cannot be paired with earlier ones: the numbers are written out on purpose."""
    assert draw_seed(pretraining_seed, seed) == expected


def test_it_is_the_first_word_of_numpys_seed_sequence():
    found = [draw_seed(7, seed) for seed in range(5)]
    assert found == [np.random.SeedSequence([7, seed]).generate_state(1, np.uint32)[0] for seed in range(5)]


def test_a_thousand_pretraining_seeds_of_24_draws_differ_as_random_numbers_do():
    draws = [draw_seed(*seeds) for seeds in itertools.product(range(1000), range(24))]
    assert all(0 <= draw < 2**32 for draw in draws)
    assert len(draws) - len(set(draws)) <= 1  # 0.07 equal pairs are expected among so many
    assert np.mean(draws) / 2**32 == pytest.approx(0.5, abs=4 / np.sqrt(12 * len(draws)))


def test_the_draw_of_public_weights_is_the_evaluation_seed():
    assert [draw_seed(None, seed) for seed in range(3)] == [0, 1, 2]
