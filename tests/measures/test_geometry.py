"""Numbers of a cloud of features, against naive loops, and at their extremes."""

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.neighbors import NearestNeighbors

from ssl_transfer.measures.geometry import (
    alignment,
    cka,
    effective_rank,
    frechet_distance,
    intrinsic_dimension,
    mmd,
    normalised_std,
    procrustes,
    rankme,
    uniformity,
)


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


def test_normalised_std_is_near_one_for_isotropic_features_and_zero_for_constant_ones():
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


def test_uniformity_approaches_minus_four_on_a_sphere_of_many_dimensions():
    torch.manual_seed(0)
    assert uniformity(torch.randn(500, 4096)) == pytest.approx(-4, abs=0.05)


def test_lengths_of_features_change_neither_alignment_nor_uniformity(features):
    lengths = torch.linspace(0.01, 100, 30)[:, None]
    assert uniformity(features * lengths) == pytest.approx(uniformity(features), rel=1e-5)
    assert alignment(features * lengths, features.flip(1)) == pytest.approx(alignment(features, features.flip(1)))


def cloud(rows, width, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, width))).to(dtype)


def rotation(width, seed=0):
    return torch.linalg.qr(cloud(width, width, seed)).Q


def pair(rows=30, seed=0):
    """Two related representations of the same images, of 12 and 7 features."""
    one = cloud(rows, 12, seed) * torch.linspace(0.1, 3, 12)
    return one, one @ cloud(12, 7, seed + 1) + 5 * cloud(rows, 7, seed + 2) + 1


def pair_distances(x):
    """Of all pairs; clouds here have an odd number of them, whose median is one of them."""
    return [math.dist(x[i], x[j]) for i in range(len(x)) for j in range(i)]


def gaussian(one, other, width):
    return np.array([[math.exp(-(math.dist(a, b) ** 2) / (2 * width**2)) for b in other] for a in one])


def gram(x, kernel, bandwidth):
    if kernel == "linear":
        return x.numpy() @ x.numpy().T
    return gaussian(x, x, bandwidth * np.median(pair_distances(x)))


def hsic_by_tuples(k, el):
    """Song et al. 2012, equation 4: over all tuples of four different rows."""
    tuples = list(itertools.permutations(range(len(k)), 4))
    return np.mean([k[i, j] * (el[i, j] + el[q, r] - 2 * el[i, q]) for i, j, q, r in tuples])


def hsic_by_traces(k, el):
    centring = np.eye(len(k)) - 1 / len(k)
    return np.trace(k @ centring @ el @ centring)


def ratio(hsic, batches):
    across, own, others = (np.mean([hsic(*which) for which in zip(*grams, strict=True)]) for grams in batches)
    return across / math.sqrt(own * others)


def naive_cka(one, other, hsic, kernel="linear", bandwidth=0.5, batches=(slice(None),)):
    k = [gram(one[rows], kernel, bandwidth) for rows in batches]
    el = [gram(other[rows], kernel, bandwidth) for rows in batches]
    return ratio(hsic, [(k, el), (k, k), (el, el)])


def test_effective_rank_is_the_exponential_of_the_entropy_of_the_covariance(features):
    share = np.linalg.eigvalsh(np.cov(features.numpy(), rowvar=False))
    share = share / share.sum()
    assert effective_rank(features) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_effective_rank_counts_the_directions_of_equal_variance():
    cross = torch.cat([torch.eye(5), -torch.eye(5)])
    assert effective_rank(cross @ torch.eye(5, 9) + 3) == pytest.approx(5, rel=1e-5)
    assert effective_rank(torch.eye(5)) == pytest.approx(4, rel=1e-5)
    assert effective_rank(cloud(2, 6)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_effective_rank_of_features_that_never_vary_is_one(seed, dtype):
    assert effective_rank(cloud(1, 6, seed, dtype).expand(11, 6)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (40, 40)])
def test_effective_rank_is_between_one_and_the_smaller_of_rows_less_one_and_width(shape):
    assert 1 <= effective_rank(cloud(*shape)) <= min(shape[0] - 1, shape[1]) + 1e-6


def nearest_two(rows):
    found = NearestNeighbors(n_neighbors=3).fit(rows).kneighbors(rows)[0]
    return found[:, 1], found[:, 2]


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_intrinsic_dimension_of_a_uniform_sample_in_a_wider_space(dimension):
    rows = np.random.default_rng(0).uniform(size=(3000, dimension)) @ rotation(20).numpy()[:dimension]
    assert intrinsic_dimension(*nearest_two(rows)) == pytest.approx(dimension, rel=0.1)


def test_intrinsic_dimension_is_the_likeliest_one_and_leaves_out_duplicates():
    first, second = np.array([1.0, 0.0, 2.0, 0.0, 0.5]), np.array([3.0, 0.0, 2.5, 4.0, 0.6])
    naive = 2 / (math.log(3) + math.log(2.5 / 2) + math.log(0.6 / 0.5))
    assert intrinsic_dimension(first, second) == pytest.approx(naive)
    assert intrinsic_dimension(100 * first, 100 * second) == pytest.approx(naive)
    assert intrinsic_dimension(first.astype(np.float32), second.astype(np.float32)) == pytest.approx(naive, rel=1e-5)


def test_intrinsic_dimension_at_its_extremes():
    assert math.isinf(intrinsic_dimension(np.ones(5), np.ones(5)))
    assert math.isnan(intrinsic_dimension(np.array([0.0, 1.0]), np.array([1.0, 2.0])))
    assert math.isnan(intrinsic_dimension(np.zeros(4), np.zeros(4)))
    assert math.isnan(intrinsic_dimension(np.empty(0), np.empty(0)))


@pytest.mark.parametrize(("kernel", "bandwidth"), [("linear", 0.5), ("rbf", 0.5), ("rbf", 2.0)])
def test_cka_is_the_share_of_traces_of_centred_kernels(kernel, bandwidth):
    one, other = pair()
    naive = naive_cka(one, other, hsic_by_traces, kernel, bandwidth)
    assert 0.1 < naive < 0.95
    assert cka(one, other, kernel, bandwidth=bandwidth) == pytest.approx(naive, rel=1e-6)


@pytest.mark.parametrize("rows", [6, 7])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_unbiased_cka_is_that_of_sums_over_different_rows(kernel, rows):
    one, other = pair(rows)
    naive = naive_cka(one, other, hsic_by_tuples, kernel)
    assert cka(one, other, kernel, unbiased=True) == pytest.approx(naive, rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "batches"), [(12, [(0, 6), (6, 12)]), (10, [(0, 6), (6, 10)]), (9, [(0, 6)]), (5, [(0, 5)])]
)
def test_batches_average_each_unbiased_hsic_and_drop_a_rest_of_less_than_four(rows, batches):
    one, other = pair(rows)
    naive = naive_cka(one, other, hsic_by_tuples, batches=[slice(*ends) for ends in batches])
    assert cka(one, other, batch=6) == pytest.approx(naive, rel=1e-6)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_cka_in_batches_is_close_to_the_unbiased_whole(kernel):
    one, other = pair(800)
    whole = cka(one, other, kernel, unbiased=True)
    assert cka(one, other, kernel, batch=100) == pytest.approx(whole, abs=0.03)
    assert cka(one, other, kernel, batch=800) == cka(one, other, kernel, batch=9999) == pytest.approx(whole)


WAYS = [
    {},
    {"kernel": "rbf"},
    {"unbiased": True},
    {"kernel": "rbf", "unbiased": True},
    {"batch": 30},
    {"kernel": "rbf", "batch": 30},
]
CKAS = [functools.partial(cka, **way) for way in WAYS]
NAMES = [" ".join(map(str, way.values())) or "plain" for way in WAYS]


@pytest.mark.parametrize("like", CKAS, ids=NAMES)
def test_cka_is_one_for_the_same_up_to_rotation_scale_and_shift(like):
    one, _ = pair(60)
    assert like(one, one) == pytest.approx(1)
    assert like(one, 0.01 * one @ rotation(12) + 7) == pytest.approx(1)


@pytest.mark.parametrize("like", [*CKAS, procrustes], ids=[*NAMES, "procrustes"])
def test_cka_and_procrustes_ignore_rotation_scale_and_shift_and_are_symmetric(like):
    one, other = pair(60)
    assert like(30 * one @ rotation(12) - 7, other) == pytest.approx(like(one, other), rel=1e-6)
    assert like(other, one) == pytest.approx(like(one, other), rel=1e-9)


@pytest.mark.parametrize("like", [*CKAS[:4], procrustes], ids=[*NAMES[:4], "procrustes"])
def test_cka_and_procrustes_depend_on_the_pairing_of_images_but_not_on_their_order(like):
    one, other = pair(60)
    order = np.random.default_rng(0).permutation(60)
    assert like(one[order], other[order]) == pytest.approx(like(one, other))
    assert abs(like(one[order], other) - like(one, other)) > 0.05


@pytest.mark.parametrize("like", [*CKAS, procrustes], ids=[*NAMES, "procrustes"])
def test_likeness_of_single_precision_features_far_from_the_origin(like):
    one, other = pair(60)
    expected = like(one, other)
    assert like(one.float() + 100, other.float() - 100) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_unbiased_cka_of_unrelated_noise_is_about_zero_where_the_plain_one_is_not(kernel):
    pairs = [(cloud(40, 100, seed), cloud(40, 100, 1000 + seed)) for seed in range(10)]
    assert np.mean([cka(*each, kernel) for each in pairs]) > 0.4
    assert np.mean([cka(*each, kernel, unbiased=True) for each in pairs]) == pytest.approx(0, abs=0.03)
    assert np.mean([cka(*each, kernel, batch=10) for each in pairs]) == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("like", [*CKAS, procrustes], ids=[*NAMES, "procrustes"])
def test_the_similarity_of_features_that_never_vary_is_nan(like, dtype):
    varied = cloud(60, 7, dtype=dtype)
    for seed in range(4):
        same = cloud(1, 5, seed, dtype).expand(60, 5)
        assert [str(like(*two)) for two in ((same, varied), (varied, same), (same, same))] == ["nan"] * 3


@pytest.mark.parametrize("like", [*CKAS, procrustes], ids=[*NAMES, "procrustes"])
def test_unequal_numbers_of_rows_are_refused(like):
    for rows in (31, 1):
        with pytest.raises(ValueError):
            like(cloud(30, 5), cloud(rows, 5))


@pytest.mark.parametrize(("rows", "way"), [(1, {}), (3, {"unbiased": True}), (3, {"batch": 10}), (40, {"batch": 3})])
def test_too_few_rows_are_refused(rows, way):
    with pytest.raises(ValueError):
        cka(cloud(rows, 5), cloud(rows, 4), **way)


def test_cka_of_two_rows_is_one():
    assert cka(cloud(2, 5), cloud(2, 4, 1)) == pytest.approx(1)


def unit_cloud(x, width):
    x = x.numpy() - x.numpy().mean(0)
    return np.pad(x / np.sqrt((x**2).sum()), ((0, 0), (0, width - x.shape[1])))


@pytest.mark.parametrize("rows", [5, 30])
def test_procrustes_is_what_the_best_rotation_leaves(rows):
    one, other = pair(rows)
    a, b = unit_cloud(one, 12), unit_cloud(other, 12)
    best, _ = scipy.linalg.orthogonal_procrustes(a, b)
    assert procrustes(one, other) == pytest.approx(((a @ best - b) ** 2).sum(), rel=1e-6)


def test_procrustes_is_zero_for_equal_and_two_for_unrelated_representations():
    one, _ = pair()
    assert 0 <= procrustes(one, 0.1 * one @ rotation(12) + 3) < 1e-6
    assert 0 <= procrustes(one, one) < 1e-6 and 0 <= procrustes(one.float(), one.float()) < 1e-5
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert procrustes(square[:, :1], square[:, 1:]) == pytest.approx(2)


def naive_frechet(one, other):
    s, t = (np.cov(x.numpy(), rowvar=False) for x in (one, other))
    means = ((one.numpy().mean(0) - other.numpy().mean(0)) ** 2).sum()
    return means + np.trace(s + t - 2 * scipy.linalg.sqrtm(s @ t).real)


def two_clouds(seed=0):
    return cloud(40, 6, seed) @ cloud(6, 6, seed + 1), 2 * cloud(31, 6, seed + 2) @ cloud(6, 6, seed + 3) + 1


def test_frechet_distance_is_that_of_the_root_of_the_product_of_covariances():
    assert frechet_distance(*two_clouds()) == pytest.approx(naive_frechet(*two_clouds()), rel=1e-6)


def test_frechet_distance_of_one_feature_is_that_of_means_and_deviations():
    one, other = cloud(20, 1), 3 * cloud(15, 1, 1) + 2
    expected = (one.mean() - other.mean()) ** 2 + (one.std() - other.std()) ** 2
    assert frechet_distance(one, other) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("rows", [5, 100])
def test_frechet_distance_of_a_cloud_that_moved_or_grew(rows):
    """Also with fewer rows than features, where covariances have no inverse."""
    one = cloud(rows, 20)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(one, one + 2) == pytest.approx(80, rel=1e-5)
    grown = frechet_distance(one - one.mean(0), 3 * (one - one.mean(0)))
    assert grown == pytest.approx(4 * float(one.var(0).sum()), rel=1e-5)


def test_frechet_distance_of_clouds_that_never_vary_is_that_of_points():
    assert frechet_distance(torch.zeros(3, 4), torch.ones(5, 4)) == pytest.approx(4)


def test_frechet_distance_of_single_precision_features_far_from_the_origin():
    one, other = two_clouds()
    expected = frechet_distance(one, other)
    assert frechet_distance(one.float() + 300, other.float() + 300) == pytest.approx(expected, rel=1e-3)


def naive_mmd(one, other, bandwidth):
    width = bandwidth * np.median(pair_distances(torch.cat([one, other])))
    within = []
    for x in (one, other):
        potentials = gaussian(x, x, width)
        within.append(np.mean([potentials[i, j] for i in range(len(x)) for j in range(len(x)) if i != j]))
    return sum(within) - 2 * gaussian(one, other, width).mean()


@pytest.mark.parametrize("bandwidth", [0.3, 1.0, 4.0])
def test_mmd_is_the_mean_kernel_within_less_that_across(bandwidth):
    one, other = cloud(27, 5), cloud(19, 5, 1) * 1.5 + 0.5
    assert mmd(one, other, bandwidth) == pytest.approx(naive_mmd(one, other, bandwidth), rel=1e-6)


def test_mmd_of_samples_of_one_distribution_is_zero_on_average():
    values = [mmd(cloud(40, 5, seed), cloud(25, 5, 1000 + seed)) for seed in range(60)]
    assert np.mean(values) == pytest.approx(0, abs=3 * np.std(values) / math.sqrt(60)) and min(values) < 0 < max(values)


def test_mmd_grows_with_the_distance_of_clouds_to_at_most_two():
    """Until nearly all of the median distance is that between the clouds."""
    values = [mmd(cloud(30, 5), cloud(30, 5, 1) + shift) for shift in (0, 0.3, 1, 2)]
    assert values == sorted(values)
    assert mmd(cloud(30, 5), cloud(30, 5, 1) + 1e4) == pytest.approx(2 - 2 * math.exp(-0.5), abs=1e-3)
    assert 1.9 < mmd(cloud(30, 5), cloud(30, 5, 1) + 1e4, 0.1) <= 2


@pytest.mark.parametrize(("one", "other"), [(10, 10), (3, 30), (30, 3)])
def test_mmd_of_two_separate_points_is_large_also_where_most_pairs_are_of_equal_rows(one, other):
    assert 0.7 < mmd(torch.zeros(one, 3), torch.ones(other, 3)) <= 2


def test_mmd_of_the_same_point_is_zero():
    assert mmd(torch.ones(10, 3), torch.ones(8, 3)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("distance", [frechet_distance, mmd])
def test_distances_of_clouds_ignore_a_common_rotation_and_shift_and_the_order_of_rows_and_are_symmetric(distance):
    one, other = two_clouds()
    expected = distance(one, other)
    assert distance(other, one) == pytest.approx(expected)
    assert distance(one @ rotation(6) + 3, other @ rotation(6) + 3) == pytest.approx(expected)
    assert distance(one.flip(0), other[torch.randperm(31)]) == pytest.approx(expected)


def test_a_common_scale_leaves_mmd_and_squares_into_the_frechet_distance():
    one, other = two_clouds()
    assert mmd(7 * one, 7 * other) == pytest.approx(mmd(one, other))
    assert frechet_distance(7 * one, 7 * other) == pytest.approx(49 * frechet_distance(one, other))
