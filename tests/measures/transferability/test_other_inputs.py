"""Odd targets of LogME, source classes and options: each has the documented score, or an error that says what to do."""

import numpy as np
import pytest
from support import naive_scores as naive
from support.naive_scores import source_posteriors
from support.score_inputs import COUNT, FEATURES, LABELS, quiet, same, spoilt

from ssl_transfer.errors import ScoreError
from ssl_transfer.measures.transferability import gbc, leep, logme, n_leep, nce, scores

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
def test_invalid_probabilities_are_refused_with_their_values(theta, found):
    with pytest.raises(ScoreError, match=found):
        leep(theta, LABELS)
    with pytest.raises(ScoreError, match=found):
        scores(FEATURES, LABELS, theta)


@pytest.mark.parametrize("theta, found", BAD_OPINIONS.values(), ids=BAD_OPINIONS)
def test_invalid_probabilities_are_refused_even_if_only_their_argmax_is_used(theta, found):
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


def test_a_single_source_class_carries_no_information():
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
