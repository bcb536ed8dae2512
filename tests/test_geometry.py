"""Numbers of a cloud of features, against naive loops, and at their extremes."""

import math

import numpy as np
import pytest
import torch

from ssl_transfer.geometry import alignment, normalised_std, rankme, uniformity


@pytest.fixture
def features():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(30, 12)) * np.linspace(0.1, 3, 12))


def unit(vector):
    length = math.sqrt(sum(float(x) ** 2 for x in vector))
    return [float(x) / length for x in vector]


def squared_distance(one, other):
    return sum((a - b) ** 2 for a, b in zip(unit(one), unit(other), strict=True))


def test_rankme_is_the_exponential_of_the_singular_values_entropy(features):
    share = np.linalg.svd(features.numpy(), compute_uv=False)
    share = share / share.sum() + 1e-7
    assert rankme(features) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_rankme_counts_the_directions_of_equal_strength():
    assert rankme(torch.eye(5)) == pytest.approx(5, abs=1e-3)
    assert rankme(torch.ones(10, 4)) == pytest.approx(1, abs=1e-3)


def test_normalised_std_is_near_one_when_features_spread_and_zero_when_they_are_the_same():
    torch.manual_seed(0)
    assert normalised_std(torch.randn(2000, 64)) == pytest.approx(1, abs=0.02)
    assert normalised_std(torch.ones(10, 64) * 3) == pytest.approx(0, abs=1e-6)


def test_alignment_is_the_mean_squared_distance_of_normalised_pairs(features):
    other = features.flip(1) + 0.5
    naive = np.mean([squared_distance(a, b) for a, b in zip(features, other, strict=True)])
    assert alignment(features, other) == pytest.approx(naive, rel=1e-5)


def test_alignment_is_zero_for_equal_directions_and_four_for_opposite_ones(features):
    assert alignment(features, 7 * features) == pytest.approx(0, abs=1e-6)
    assert alignment(features, -0.1 * features) == pytest.approx(4, abs=1e-5)


def test_uniformity_is_the_log_of_the_mean_potential_over_pairs(features):
    potentials = [
        math.exp(-2 * squared_distance(features[i], features[j])) for i in range(30) for j in range(30) if i != j
    ]
    assert uniformity(features) == pytest.approx(math.log(np.mean(potentials)), rel=1e-5)


def test_uniformity_is_zero_when_all_are_the_same_and_minus_eight_for_two_opposite_points():
    assert uniformity(torch.ones(10, 8)) == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.tensor([[1.0, 0.0], [-5.0, 0.0]])) == pytest.approx(-8, abs=1e-5)


def test_uniformity_goes_to_minus_four_when_features_spread_over_a_sphere_of_many_dimensions():
    torch.manual_seed(0)
    assert uniformity(torch.randn(500, 4096)) == pytest.approx(-4, abs=0.05)


def test_lengths_of_features_change_neither_alignment_nor_uniformity(features):
    lengths = torch.linspace(0.01, 100, 30)[:, None]
    assert uniformity(features * lengths) == pytest.approx(uniformity(features), rel=1e-5)
    assert alignment(features * lengths, features.flip(1)) == pytest.approx(alignment(features, features.flip(1)))
