"""Odd inputs: each has the documented answer, or an error that says what was found and what to do."""

import functools
import math
import re
import warnings

import numpy as np
import pytest
from support import naive_scores as naive
from support.naive_scores import source_posteriors, task

from ssl_transfer.errors import ScoreError
from ssl_transfer.measures import transferability
from ssl_transfer.measures.transferability import (
    FEATURE_SCORES,
    SCORES,
    FewImagesWarning,
    gbc,
    h_score,
    leep,
    logme,
    n_leep,
    nce,
    scores,
    sfda,
)

quiet = pytest.mark.filterwarnings("ignore::ssl_transfer.measures.transferability.FewImagesWarning")
every_score = pytest.mark.parametrize("name", SCORES)
every_feature_score = pytest.mark.parametrize("name", FEATURE_SCORES)

COUNT = 60
FEATURES, LABELS = task(COUNT, 5, 3)
FIRST = {"nce": source_posteriors(COUNT).argmax(1), "leep": source_posteriors(COUNT)}  # of every other score: FEATURES


def score(name, labels, first=None):
    """The score of labels, and of good features or opinions unless others are given."""
    return getattr(transferability, name)(FIRST.get(name, FEATURES) if first is None else first, labels)


def same(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


# Labels


BAD_LABELS = {  # what is given, and what of it the message must name
    "a column": (LABELS[:, None], r"\(60, 1\)"),
    "one-hot": (np.eye(3, dtype=int)[LABELS], r"\(60, 3\)"),
    "floats": (LABELS.astype(float), r"float64"),
    "floats with NaN": (np.where(LABELS == 0, np.nan, LABELS), r"float64"),
    "strings": (np.array(["cat", "dog", "owl"])[LABELS], r"<U3|str"),
    "objects": (np.array(["cat", "dog", "owl"], dtype=object)[LABELS], r"object|str"),
    "a single number": (3, r"\(\)"),
    "none": (None, r"None|object|\(\)"),
    "too few": (LABELS[:-1], r"\b59\b.*\b60\b|\b60\b.*\b59\b"),
    "too many": (np.r_[LABELS, 0], r"\b61\b.*\b60\b|\b60\b.*\b61\b"),
    "of one class": (np.full(COUNT, 4), r"class"),
}


@pytest.mark.parametrize("labels, found", BAD_LABELS.values(), ids=BAD_LABELS)
@every_score
def test_labels_of_another_kind_are_refused_with_what_was_found(name, labels, found):
    with pytest.raises(ScoreError, match=found):
        score(name, labels)


@pytest.mark.parametrize("labels, found", BAD_LABELS.values(), ids=BAD_LABELS)
def test_several_scores_at_once_refuse_such_labels_too(labels, found):
    with pytest.raises(ScoreError, match=found):
        scores(FEATURES, labels)
    with pytest.raises(ScoreError, match=found):
        scores(FEATURES, labels, source_posteriors(COUNT), names=["nce", "leep"])


ADVICE = {
    "a column": r"labels\[:, 0\]|ravel|flatten|squeeze|reshape|1-D|one number",
    "floats": r"astype|integer",
    "strings": r"np\.unique|integer|number",
    "too few": r"each|one label per|as many|same",
    "of one class": r"two|another",
}


@pytest.mark.parametrize("kind, advice", ADVICE.items(), ids=ADVICE)
@every_score
def test_a_message_about_labels_says_what_is_needed(name, kind, advice):
    with pytest.raises(ScoreError) as refused:
        score(name, BAD_LABELS[kind][0])
    assert re.search(advice, str(refused.value)), str(refused.value)


def test_an_error_is_a_value_error_too():
    with pytest.raises(ValueError, match="class"):
        h_score(FEATURES, np.zeros(COUNT, int))


@every_score
def test_a_missing_class_index_does_not_matter(name):
    assert score(name, np.array([0, 2, 5])[LABELS]) == same(score(name, LABELS))
    two = LABELS % 2
    assert score(name, 2 * two) == same(score(name, two))


@every_score
def test_labels_that_are_true_or_false_are_two_classes(name):
    assert score(name, LABELS == 1) == same(score(name, (LABELS == 1).astype(int)))


@every_score
def test_lists_are_as_good_as_arrays(name):
    first = FIRST.get(name, FEATURES)
    assert score(name, LABELS.tolist(), first.tolist()) == same(score(name, LABELS))


@quiet
@every_score
def test_a_class_of_a_single_image_has_a_finite_score(name):
    labels = np.r_[3, 4, LABELS[2:] % 3]
    assert np.isfinite(score(name, labels))
    assert np.isfinite(getattr(transferability, name)(FIRST.get(name, FEATURES)[:6], np.array([0, 1, 2, 2, 2, 2])))


@quiet
@every_feature_score
def test_images_that_are_each_a_class_of_their_own_have_a_finite_score(name):
    assert np.isfinite(score(name, np.arange(12), FEATURES[:12]))
    assert np.isfinite(score(name, np.arange(2), FEATURES[:2]))


@quiet
def test_two_single_images_overlap_as_points_do():
    assert gbc([[0.0, 1.0], [2.0, 1.0]], [0, 1]) == 0
    assert gbc([[2.0, 1.0], [2.0, 1.0], [9.0, 1.0]], [0, 1, 2]) == pytest.approx(-2)  # two are one point


@quiet
@pytest.mark.parametrize("gap", [1.0, 1e3, 1e9])
@every_feature_score
def test_perfectly_separable_classes_have_a_finite_score(name, gap):
    for noise in (0, 1e-3):
        features = gap * np.eye(3)[LABELS] + noise * np.random.default_rng(0).normal(size=(COUNT, 3))
        assert np.isfinite(score(name, LABELS, features))
    assert np.isfinite(score(name, LABELS, gap * LABELS[:, None].astype(float)))


def test_perfectly_separable_classes_reach_the_ends_of_ranges():
    features = np.eye(3)[LABELS]
    assert h_score(features, LABELS) == pytest.approx(2, rel=1e-9)
    assert [gbc(features, LABELS), n_leep(features, LABELS)] == pytest.approx([0, 0], abs=1e-9)
    assert logme(features, LABELS) > 5


# Features


def spoilt(value):
    features = FEATURES.copy()
    features[7, 2] = value
    return features


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
def test_nothing_at_all_is_refused(name):
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
def test_features_that_may_not_be_written_to_and_lie_in_any_order_do(name):
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
def test_the_warning_points_at_the_line_that_asked_for_the_score(name):
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
def test_features_that_are_the_same_for_all_images_say_nothing(name, row):
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


# Targets of LogME


BAD_TARGETS = {
    "labels of other numbers": ("multilabel", np.c_[LABELS, LABELS], r"2"),
    "labels of another length": ("multilabel", np.c_[LABELS % 2][:-1], r"\b59\b"),
    "labels with NaN": ("multilabel", np.where(FEATURES > 0, 1, np.nan), r"(?i)nan|0 and 1|finite"),
    "labels without columns": ("multilabel", np.zeros((60, 0), int), r"\(60, 0\)"),
    "values with NaN": ("continuous", spoilt(np.nan), r"(?i)nan|finite"),
    "values with inf": ("continuous", spoilt(np.inf), r"(?i)inf|finite"),
    "values that are strings": ("continuous", LABELS.astype(str), r"<U|str"),
    "values of another length": ("continuous", FEATURES[:-1, 0], r"\b59\b"),
    "values in three dimensions": ("continuous", FEATURES[:, :, None], r"\(60, 5, 1\)"),
    "values without columns": ("continuous", np.zeros((60, 0)), r"\(60, 0\)"),
}


@pytest.mark.parametrize("target, labels, found", BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_logme_refuses_targets_of_another_kind_with_what_was_found(target, labels, found):
    with pytest.raises(ScoreError, match=found):
        logme(FEATURES, labels, target=target)


def test_a_message_about_targets_that_are_not_finite_does_not_speak_of_features():
    for target, labels in (("multilabel", np.where(FEATURES > 0, 1, np.nan)), ("continuous", spoilt(np.nan))):
        with pytest.raises(ScoreError) as refused:
            logme(FEATURES, labels, target=target)
        assert "features" not in str(refused.value), str(refused.value)


def test_logme_refuses_a_target_it_does_not_know():
    with pytest.raises(ValueError, match="classess"):
        logme(FEATURES, LABELS, target="classess")


def test_logme_of_labels_takes_floats_and_booleans_and_a_column_in_which_all_are_the_same():
    several = np.c_[LABELS == 0, LABELS == 1, np.ones(COUNT, bool)]
    value = logme(FEATURES, several, target="multilabel")
    assert np.isfinite(value) and value == logme(FEATURES, several.astype(float), target="multilabel")


def test_a_target_of_zeros_has_a_finite_evidence_or_is_refused():
    """Its best noise is none at all, of unbounded evidence."""
    for target in ("multilabel", "continuous"):
        try:
            value = logme(FEATURES, np.c_[LABELS % 2, np.zeros(COUNT, int)], target=target)
        except ScoreError:
            continue
        assert np.isfinite(value)


def test_logme_of_values_that_are_integers_is_that_of_floats():
    assert logme(FEATURES, LABELS, target="continuous") == same(
        logme(FEATURES, LABELS.astype(float), target="continuous")
    )


# Source classes


THETA = source_posteriors(COUNT)


def changed(row):
    theta = THETA.copy()
    theta[11] = row
    return theta


BAD_OPINIONS = {
    "logits": (np.log(THETA), r"-\d|negative|logit|sum"),
    "negative": (changed([-0.5, 0.5, 0.5, 0.5]), r"-0\.5|negative"),
    "summing to more": (changed([0.5, 0.5, 0.5, 0.5]), r"\b2(\.0*)?\b"),
    "all zero": (changed([0, 0, 0, 0]), r"\b0(\.0*)?\b"),
    "scores of labels that do not exclude each other": (1 / (1 + np.exp(-FEATURES)), r"sum"),
    "NaN": (changed([np.nan, 0.5, 0.5, 0]), r"(?i)nan|finite"),
    "one-dimensional": (THETA[:, 0], r"\(60,\)"),
    "of another length": (THETA[:-1], r"\b59\b.*\b60\b|\b60\b.*\b59\b"),
    "without columns": (THETA[:, :0], r"\(60, 0\)"),
}


@pytest.mark.parametrize("theta, found", BAD_OPINIONS.values(), ids=BAD_OPINIONS)
def test_what_is_not_probabilities_is_refused_with_what_was_found(theta, found):
    with pytest.raises(ScoreError, match=found):
        leep(theta, LABELS)
    with pytest.raises(ScoreError, match=found):
        scores(FEATURES, LABELS, theta)


@pytest.mark.parametrize("theta, found", BAD_OPINIONS.values(), ids=BAD_OPINIONS)
def test_what_is_not_probabilities_is_refused_even_if_only_its_likeliest_class_is_asked_for(theta, found):
    with pytest.raises(ScoreError, match=found):
        scores(FEATURES, LABELS, theta, names=["nce"])


def test_rows_that_rounding_took_above_one_do_not_take_leep_above_zero():
    half = THETA.astype(np.float16)
    assert leep(half, LABELS) == pytest.approx(leep(THETA, LABELS), rel=1e-2)
    assert leep([[1.0004, 0.0], [0.0, 1.0004]], [0, 1]) <= 1e-12


def test_a_name_that_is_no_score_is_refused():
    with pytest.raises(ValueError, match="logmee"):
        scores(FEATURES, LABELS, names=["logmee"])


def test_one_name_is_one_score_or_refused_and_not_searched_for_shorter_names():
    try:
        found = scores(FEATURES, LABELS, names="regularized_h_score")
    except ValueError:
        return
    assert list(found) == ["regularized_h_score"]


def test_a_message_about_logits_says_to_take_the_softmax():
    with pytest.raises(ScoreError, match="softmax"):
        leep(np.random.default_rng(0).normal(size=(COUNT, 4)), LABELS)


def test_source_classes_without_mass_are_dropped():
    zeros = np.zeros((COUNT, 1))
    assert leep(np.hstack([zeros, THETA, zeros]), LABELS) == leep(THETA, LABELS)
    tiny = np.full((COUNT, 1), 5e-324)  # less mass than N-th of it can be told from none
    assert leep(np.hstack([tiny, THETA]), LABELS) == same(leep(THETA, LABELS))


def test_one_source_class_for_all_images_says_nothing():
    chance = -naive.entropy(list(LABELS))
    assert nce(np.full(COUNT, 7), LABELS) == pytest.approx(chance, rel=1e-12)
    assert leep(np.ones((COUNT, 1)), LABELS) == pytest.approx(chance, rel=1e-12)


BAD_SOURCES = {
    "a column": (LABELS[:, None], r"\(60, 1\)"),
    "probabilities": (THETA, r"\(60, 4\)|float"),
    "floats": (LABELS.astype(float), r"float64"),
    "strings": (LABELS.astype(str), r"<U|str"),
    "another length": (LABELS[:-1], r"\b59\b.*\b60\b|\b60\b.*\b59\b"),
}


@pytest.mark.parametrize("sources, found", BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_nce_refuses_source_labels_of_another_kind_with_what_was_found(sources, found):
    with pytest.raises(ScoreError, match=found):
        nce(sources, LABELS)


def test_a_message_tells_source_labels_from_labels():
    with pytest.raises(ScoreError, match="source"):
        nce(LABELS.astype(float), LABELS)
    with pytest.raises(ScoreError) as refused:
        nce(LABELS, LABELS.astype(float))
    assert "source" not in str(refused.value)


@pytest.mark.parametrize("components", [0, -1])
def test_n_leep_refuses_fewer_than_one_component(components):
    with pytest.raises(ValueError, match=r"component"):
        n_leep(FEATURES, LABELS, components=components)


@quiet
def test_n_leep_refuses_more_components_than_images_or_has_a_finite_score():
    try:
        value = n_leep(FEATURES[:10], LABELS[:10] % 2, components=20)
    except ScoreError:
        return
    assert np.isfinite(value)


@pytest.mark.parametrize("axes", [0, -1])
def test_gbc_refuses_fewer_than_one_axis(axes):
    with pytest.raises(ValueError, match=r"axes"):
        gbc(FEATURES, LABELS, axes=axes)


@quiet
def test_duplicated_images_have_finite_scores():
    few = functools.partial(np.repeat, repeats=20, axis=0)
    features, labels = few(FEATURES[:4]), few(np.array([0, 0, 1, 2]))
    assert all(np.isfinite(list(scores(features, labels).values())))
