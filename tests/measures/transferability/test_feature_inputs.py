"""Odd features: each has the documented score, or an error that says what was found and what to do."""

import functools
import math
import warnings

import numpy as np
import pytest
from support import naive_scores as naive
from support.naive_scores import task
from support.score_inputs import COUNT, FEATURES, LABELS, every_feature_score, every_score, quiet, same, score, spoilt

from ssl_transfer.errors import ScoreError
from ssl_transfer.measures import transferability
from ssl_transfer.measures.transferability import FewImagesWarning, h_score, leep, logme, n_leep, nce, scores, sfda

# Features


BAD_FEATURES = {
    "NaN": (spoilt(np.nan), r"(?i)nan|finite"),
    "inf": (spoilt(np.inf), r"(?i)inf|finite"),
    "minus inf": (spoilt(-np.inf), r"(?i)inf|finite"),
    "one-dimensional": (FEATURES[:, 0], r"\(60,\)"),
    "three-dimensional": (FEATURES[:, :, None], r"\(60, 5, 1\)"),
    "strings": (FEATURES.astype(str), r"<U|str"),
    "complex": (FEATURES + 1j, r"complex"),
    "without columns": (FEATURES[:, :0], r"\(60, 0\)"),
    "empty": (FEATURES[:0], r"\(0, 5\)|\b0\b|(?i:no images|empty)"),
}


@pytest.mark.parametrize("features, found", BAD_FEATURES.values(), ids=BAD_FEATURES)
@every_feature_score
def test_features_of_another_kind_are_refused_with_what_was_found(name, features, found):
    with pytest.raises(ScoreError, match=found):
        score(name, LABELS[: len(features)], features)


@pytest.mark.parametrize("features, found", BAD_FEATURES.values(), ids=BAD_FEATURES)
def test_several_scores_at_once_refuse_such_features_too(features, found):
    with pytest.raises(ScoreError, match=found):
        scores(features, LABELS[: len(features)])


@pytest.mark.parametrize(
    "target, labels", [("multiclass", LABELS), ("multilabel", LABELS[:, None] % 2), ("continuous", FEATURES)]
)
@pytest.mark.parametrize("features, found", BAD_FEATURES.values(), ids=BAD_FEATURES)
def test_logme_refuses_such_features_whatever_its_target(features, found, target, labels):
    with pytest.raises(ScoreError, match=found):
        logme(features, labels[: len(features)], target=target)


@every_score
def test_features_without_rows_or_columns_are_refused(name):
    first = {"nce": np.zeros(0, int)}.get(name, np.zeros((0, 3)))
    with pytest.raises(ScoreError):
        score(name, np.zeros(0, int), first)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64])
@every_feature_score
def test_integer_features_are_as_floats(name, kind):
    features = np.clip(20 * FEATURES + 60, 0, 127).astype(kind)
    assert score(name, LABELS, features) == same(score(name, LABELS, features.astype(float)))


@every_feature_score
def test_features_are_not_written_to(name):
    features, labels = FEATURES.copy(), LABELS.copy()
    score(name, labels, features)
    assert np.array_equal(features, FEATURES) and np.array_equal(labels, LABELS)


@every_feature_score
def test_read_only_features_of_any_memory_order_are_scored(name):
    features = np.asfortranarray(np.repeat(FEATURES, 2, axis=1))[:, ::-2]
    features.flags.writeable = False
    assert score(name, LABELS, features) == same(score(name, LABELS, np.ascontiguousarray(features)))


# Few images


@every_feature_score
def test_fewer_than_five_images_per_feature_are_warned_of(name):
    features, labels = task(25, 40, 2)
    with pytest.warns(FewImagesWarning, match=r"(?s)25.*40") as caught:
        value = score(name, labels, features)
    assert np.isfinite(value) and len(caught) == 1


@every_feature_score
def test_the_warning_points_at_the_line_that_computes_the_score(name):
    with pytest.warns(FewImagesWarning) as caught:
        getattr(transferability, name)(*task(25, 40, 2))
    assert caught[0].filename == __file__


@every_feature_score
def test_five_images_per_feature_are_not_warned_of_and_one_fewer_are(name):
    features, labels = task(50, 10, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(name, labels, features)
    with pytest.warns(FewImagesWarning):
        score(name, labels[:49], features[:49])


def test_several_scores_at_once_warn_once():
    features, labels = task(25, 40, 2)
    with pytest.warns(FewImagesWarning) as caught:
        scores(features, labels)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores(*task(50, 10, 2))


def test_scores_of_source_classes_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nce([0, 1, 2], [0, 1, 1])
        leep(np.eye(3), [0, 1, 1])


# Constant features


@quiet
@pytest.mark.parametrize("constant", [0.0, 0.1, 1.0, 1e6])
@pytest.mark.parametrize("shape", [(60, 5, 3), (20, 30, 3)])
def test_a_constant_feature_adds_nothing(shape, constant):
    features, labels = task(*shape)
    beside = np.hstack([features, np.full((len(features), 2), constant)])
    assert h_score(beside, labels) == pytest.approx(h_score(features, labels), rel=1e-9)
    assert sfda(beside, labels) == pytest.approx(sfda(features, labels), rel=1e-9)
    assert n_leep(beside, labels, components=2) == pytest.approx(n_leep(features, labels, components=2), rel=1e-9)
    assert all(np.isfinite(list(scores(beside, labels).values())))
    for name in ("regularized_h_score", "transrate", "gbc"):  # they count directions, so the value is another
        expected = naive.FORMULAS[name](beside, labels)
        assert score(name, labels, beside) == pytest.approx(expected, rel=1e-8)


def test_a_feature_of_zeros_adds_nothing_to_logme():
    beside = np.hstack([FEATURES, np.zeros((COUNT, 3))])
    assert logme(beside, LABELS) == pytest.approx(logme(FEATURES, LABELS), rel=1e-9)


@pytest.mark.parametrize("constant", [1e6, 1e9, 1e12])
def test_a_constant_feature_adds_nothing_to_h_score_however_large(constant):
    """Its mean is rounded, so that centred it is a tiny constant; that has no variance either."""
    beside = np.hstack([FEATURES, np.full((COUNT, 1), constant + 0.1)])
    assert h_score(beside, LABELS) == pytest.approx(h_score(FEATURES, LABELS), rel=1e-9)


SAME = {  # a row that all images share
    "zeros": np.zeros(4),
    "ones": np.ones(4),
    "a tenth, whose mean is rounded": np.full(4, 0.1),
    "many": np.random.default_rng(0).normal(size=100),
    "many, float32": np.random.default_rng(0).normal(size=100).astype(np.float32),
}

HALVES = np.arange(60) % 3 // 2

NOTHING = {  # what features that never vary say of two classes
    "h_score": 0,
    "regularized_h_score": 0,
    "transrate": 0,
    "gbc": -2,  # both classes are one point: they overlap in full
    "n_leep": -naive.entropy(list(HALVES)),
    "sfda": -naive.entropy(list(HALVES)),
}


@quiet
@pytest.mark.parametrize("row", SAME.values(), ids=SAME)
@pytest.mark.parametrize("name", NOTHING)
def test_constant_features_carry_no_information(name, row):
    assert score(name, HALVES, np.tile(row, (60, 1))) == pytest.approx(NOTHING[name], rel=1e-9, abs=1e-12)


@quiet
@pytest.mark.parametrize("row", list(SAME.values())[1:], ids=list(SAME)[1:])
def test_to_logme_features_that_are_the_same_for_all_images_are_an_intercept(row):
    assert logme(np.tile(row, (60, 1)), HALVES) == pytest.approx(logme(np.ones((60, 1)), HALVES), rel=1e-9)


@quiet
def test_logme_of_zeros_is_the_evidence_of_noise():
    # Columns of 30 ones and 30 zeros: yᵀy / N = ½: −½ (log π + 1), both of them.
    expected = -0.5 * (math.log(math.pi) + 1)
    assert logme(np.zeros((60, 3)), np.arange(60) % 2) == pytest.approx(expected, rel=1e-9)


@quiet
def test_duplicated_images_have_finite_scores():
    few = functools.partial(np.repeat, repeats=20, axis=0)
    features, labels = few(FEATURES[:4]), few(np.array([0, 0, 1, 2]))
    assert all(np.isfinite(list(scores(features, labels).values())))
