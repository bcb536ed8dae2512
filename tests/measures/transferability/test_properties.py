"""What scores must not depend on, what they must, and where their ranges end."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.naive_scores import entropy, source_posteriors, task

from ssl_transfer.measures import transferability
from ssl_transfer.measures.transferability import (
    SCORES,
    gbc,
    h_score,
    leep,
    logme,
    n_leep,
    nce,
    regularized_h_score,
    scores,
    sfda,
    transrate,
)

pytestmark = pytest.mark.filterwarnings("ignore::ssl_transfer.measures.transferability.FewImagesWarning")

FEW = settings(max_examples=25, deadline=None, derandomize=True)
SHAPES = {"many images": (60, 5, 3), "few images": (24, 40, 3)}
SEEDS = st.integers(0, 2**32 - 1)
FEATURE_SCORES = [name for name in SCORES if not SCORES[name].needs_source]
CLOSED = [name for name in FEATURE_SCORES if name != "n_leep"]  # no fit that starts at random rows
UNSCALED = [name for name in FEATURE_SCORES if name != "sfda"]
SHIFTED = [name for name in FEATURE_SCORES if name != "logme"]  # which has no intercept

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def score_of(name):
    """The function, with a mixture of a number of components for N-LEEP that its start hardly matters to."""
    return functools.partial(n_leep, components=2) if name == "n_leep" else getattr(transferability, name)


def same(value, rel=1e-8):
    return pytest.approx(value, rel=rel, abs=1e-10)


@st.composite
def labelled(draw):
    """A random task, of more or fewer images than features."""
    classes = draw(st.integers(2, 5))
    count = draw(st.integers(2 * classes, 40))
    return task(count, draw(st.integers(1, 50)), classes, draw(st.floats(0, 3)), seed=draw(SEEDS))


@st.composite
def pairs(draw):
    """Source classes and labels of two classes or more."""
    count = draw(st.integers(2, 40))
    labels = draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count).filter(lambda y: len(set(y)) > 1))
    return draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)), labels


# Order and names


@every_shape
@pytest.mark.parametrize("name", CLOSED)
def test_the_order_of_images_does_not_matter(name, shape):
    features, labels = task(*shape)
    order = np.random.default_rng(1).permutation(len(labels))
    assert score_of(name)(features[order], labels[order]) == same(score_of(name)(features, labels))


@FEW
@given(pairs(), SEEDS)
def test_the_order_of_images_matters_neither_to_nce_nor_to_leep(pair, seed):
    sources, labels = map(np.array, pair)
    order, theta = np.random.default_rng(seed).permutation(len(labels)), source_posteriors(len(labels), 3, seed)
    assert nce(sources[order], labels[order]) == same(nce(sources, labels))
    assert leep(theta[order], labels[order]) == same(leep(theta, labels))


NAMES = {"swapped": [2, 0, 1], "with gaps": [3, 17, 900], "negative": [-7, 5, -1], "huge": [2**40, 0, -(2**40)]}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_the_numbers_that_name_classes_do_not_matter(name, names):
    features, labels = task(60, 5, 3)
    function = getattr(transferability, name)
    assert function(features, np.array(names)[labels]) == same(function(features, labels))


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_the_numbers_that_name_labels_and_source_classes_matter_neither_to_nce_nor_to_leep(names):
    labels, theta = task(60, 1, 3)[1], source_posteriors(60, 3)
    sources = theta.argmax(1)
    assert nce(np.array(names)[sources], np.array(names)[labels]) == same(nce(sources, labels))
    assert leep(theta[:, [2, 0, 1]], np.array(names)[labels]) == same(leep(theta, labels))


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int32, np.uint64])
@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_the_width_of_labels_does_not_matter(name, kind):
    features, labels = task(60, 5, 3)
    function = getattr(transferability, name)
    assert function(features, labels.astype(kind)) == function(features, labels)


# Precision, scale, shift, rotation


@every_shape
@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_features_of_less_precision_are_computed_with_in_float64(name, shape, kind):
    features, labels = task(*shape, offset=10)
    features = features.astype(kind)
    function = getattr(transferability, name)
    assert function(features, labels) == pytest.approx(function(features.astype(np.float64), labels), rel=1e-12)


def test_probabilities_of_float32_are_computed_with_in_float64():
    labels, theta = task(60, 1, 3)[1], source_posteriors(60, 1000).astype(np.float32)
    assert leep(theta, labels) == pytest.approx(leep(theta.astype(np.float64), labels), rel=1e-12)


@every_shape
@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e4, 1e30, -1.0])
@pytest.mark.parametrize("name", UNSCALED)
def test_the_scale_of_features_does_not_matter(name, shape, factor):
    features, labels = task(*shape)
    assert score_of(name)(factor * features, labels) == same(score_of(name)(features, labels), rel=1e-7)


@FEW
@given(labelled(), st.floats(1e-6, 1e6))
def test_the_scale_of_features_does_not_matter_to_any_score_but_sfda(problem, factor):
    features, labels = problem
    names = [name for name in UNSCALED if name != "n_leep"]
    assert scores(factor * features, labels, names=names) == same(scores(features, labels, names=names), rel=1e-7)


def test_the_scale_of_features_matters_to_sfda():
    features, labels = task(60, 5, 3)
    assert sfda(0.1 * features, labels) < sfda(features, labels) - 0.1


@every_shape
@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_a_rotation_of_features_does_not_matter(name, shape):
    features, labels = task(*shape)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(shape[1],) * 2))[0]
    assert score_of(name)(features @ rotation, labels) == same(score_of(name)(features, labels), rel=1e-6)


@every_shape
@pytest.mark.parametrize("offset", [1.0, 1e3, 1e5])
@pytest.mark.parametrize("name", SHIFTED)
def test_the_mean_of_features_does_not_matter_however_large(name, shape, offset):
    """Features of spread 1 around 10⁵ hold 11 digits of it, so that 7 of a score are asked for."""
    features, labels = task(*shape, apart=0.5)
    shift = offset * np.random.default_rng(1).normal(size=shape[1])
    assert score_of(name)(features + shift, labels) == same(score_of(name)(features, labels), rel=1e-7)


@every_shape
def test_the_mean_of_features_does_not_matter_to_logme_beside_a_large_constant_feature(shape):
    """An intercept with a weak prior takes the shift; to the prior's small cost, so 1 %."""
    features, labels = task(*shape, apart=0.5)
    ones = np.full((len(features), 1), 1e4)
    plain, shifted = np.hstack([features, ones]), np.hstack([features + 3, ones])
    assert logme(shifted, labels) == pytest.approx(logme(plain, labels), rel=0.01)


@FEW
@given(SEEDS, st.integers(1, 12), st.integers(2, 6))
def test_h_score_does_not_change_with_any_invertible_linear_map(seed, dim, classes):
    draw = np.random.default_rng(seed)
    features, labels = task(60, dim, classes, apart=0.5, seed=seed)
    left, right = (np.linalg.qr(draw.normal(size=(dim, dim)))[0] for _ in range(2))
    linear = left * 10 ** draw.uniform(-2, 2, dim) @ right
    mapped = features @ linear + draw.normal(size=dim)
    assert h_score(mapped, labels) == pytest.approx(h_score(features, labels), rel=1e-7)


@pytest.mark.parametrize("decades", [3, 5])
def test_h_score_counts_a_feature_much_smaller_than_others(decades):
    """Up to six decades; below, its variance is rounding beside that of the others in any covariance of float64."""
    features, labels = task(60, 4, 3, apart=0.5)
    small = features * [10.0**-decades, 1, 1, 1]
    assert h_score(small, labels) == pytest.approx(h_score(features, labels), rel=1e-6)


def test_an_axis_that_repeats_another_adds_nothing_to_h_score():
    features, labels = task(60, 4, 3)
    again = np.hstack([features, features[:, :2], features @ np.ones((4, 1))])
    assert h_score(again, labels) == pytest.approx(h_score(features, labels), rel=1e-9)


# Ranges


@FEW
@given(pairs())
def test_nce_lies_between_minus_the_entropy_of_labels_and_zero(pair):
    sources, labels = pair
    assert -math.log(len(set(labels))) - 1e-12 <= -entropy(labels) - 1e-12 <= nce(sources, labels) <= 1e-15
    assert nce(labels, labels) == pytest.approx(0, abs=1e-12)
    assert nce([0] * len(labels), labels) == pytest.approx(-entropy(labels))


@FEW
@given(labelled())
def test_every_score_stays_in_its_range(problem):
    features, labels = problem
    classes, dim = len(set(labels)), features.shape[1]
    value = scores(features, labels, source_posteriors(len(labels)))
    assert all(np.isfinite(list(value.values())))
    assert -math.log(classes) - 1e-12 <= value["nce"] <= 1e-12
    assert max(value[name] for name in ("leep", "n_leep", "sfda")) <= 1e-12
    assert -1e-10 <= value["h_score"] <= min(classes - 1, dim) + 1e-9
    # (1 − α) S ≤ Σ_α, so that it is at most the plain score; times N / (N − 1), as only one covariance has ddof 1.
    count = len(labels)
    assert -1e-10 <= value["regularized_h_score"] <= value["h_score"] * count / (count - 1) + 1e-9
    assert value["transrate"] >= -1e-9
    assert -classes * (classes - 1) - 1e-9 <= value["gbc"] <= 0


@pytest.mark.parametrize("count, dim, classes", [(20, 20, 2), (20, 19, 2), (24, 100, 4), (40, 200, 6)])
def test_h_score_is_uninformative_with_as_many_features_as_images_and_the_regularised_one_is_not(count, dim, classes):
    noise, labels = task(count, dim, classes, apart=0)
    informative, _ = task(count, dim, classes, apart=1)
    assert h_score(noise, labels) == pytest.approx(classes - 1, rel=1e-9)
    assert h_score(informative, labels) == pytest.approx(classes - 1, rel=1e-9)
    assert regularized_h_score(noise, labels) < 0.5 * regularized_h_score(informative, labels)


def test_scores_at_the_ends_of_their_ranges():
    features = np.eye(3)[np.arange(30) % 3] * 50 + 1e-3 * np.random.default_rng(0).normal(size=(30, 3))
    labels = np.arange(30) % 3
    assert h_score(features, labels) == pytest.approx(2, abs=1e-6)
    assert gbc(features, labels) == pytest.approx(0, abs=1e-12)
    assert sfda(features, labels) == pytest.approx(0, abs=1e-9)
    twice, labels = np.repeat(np.random.default_rng(0).normal(size=(20, 3)), 2, 0), np.arange(40) % 2
    assert h_score(twice, labels) == pytest.approx(0, abs=1e-12)
    assert gbc(twice, labels) == pytest.approx(-2, rel=1e-12)
    assert transrate(twice, labels) == pytest.approx(0, abs=1e-12)


# What scores are for


@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_classes_further_apart_score_higher(name):
    function = getattr(transferability, name)
    values = [function(*task(200, 6, 4, apart=apart)) for apart in (0, 0.5, 1, 2, 4)]
    assert values == sorted(values) and values[-1] > values[0] + 0.1


@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_noise_scores_lower_than_informative_features(name):
    features, labels = task(200, 6, 4, apart=1.5)
    noise = np.random.default_rng(9).normal(size=features.shape) * features.std(0) + features.mean(0)
    function = getattr(transferability, name)
    shuffled = np.random.default_rng(9).permutation(features)
    assert max(function(noise, labels), function(shuffled, labels)) < function(features, labels) - 0.05


@pytest.mark.parametrize("name", ["regularized_h_score", "logme", "transrate", "gbc"])
def test_noise_scores_lower_even_where_there_are_fewer_images_than_features(name):
    features, labels = task(60, 100, 3, apart=1)
    function = getattr(transferability, name)
    assert function(np.random.default_rng(9).permutation(features), labels) < function(features, labels) - 1e-3


def test_a_source_that_knows_more_scores_higher():
    labels = task(300, 1, 3)[1]
    values = [
        leep(share * np.eye(3)[labels] + (1 - share) * source_posteriors(300, 3), labels)
        for share in (0, 0.3, 0.6, 0.9)
    ]
    assert values == sorted(values)
    draw = np.random.default_rng(0)
    wrong = [np.where(draw.random(300) < share, draw.integers(3, size=300), labels) for share in (1, 0.6, 0.3, 0)]
    values = [nce(sources, labels) for sources in wrong]
    assert values == sorted(values)


@FEW
@given(pairs(), SEEDS)
def test_a_finer_source_never_lowers_nce(pair, seed):
    sources, labels = map(np.array, pair)
    finer = sources * 10 + np.random.default_rng(seed).integers(3, size=len(sources))
    assert nce(finer, labels) >= nce(sources, labels) - 1e-12
