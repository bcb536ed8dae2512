"""Odd labels: each has the documented score, or an error that says what was found and what to do."""

import re

import numpy as np
import pytest
from support.naive_scores import source_posteriors
from support.score_inputs import COUNT, FEATURES, FIRST, LABELS, every_feature_score, every_score, quiet, same, score

from ssl_transfer.errors import ScoreError
from ssl_transfer.measures import transferability
from ssl_transfer.measures.transferability import gbc, h_score, logme, n_leep, scores

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
def test_lists_give_the_scores_of_arrays(name):
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
def test_classes_of_one_image_overlap_only_if_they_coincide():
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
