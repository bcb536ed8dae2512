"""Sixty images with three classes, and every transferability score on them."""

import pytest
from support.naive_scores import source_posteriors, task

from ssl_transfer.measures import transferability
from ssl_transfer.measures.transferability import SCORES

quiet = pytest.mark.filterwarnings("ignore::ssl_transfer.measures.transferability.FewImagesWarning")

every_score = pytest.mark.parametrize("name", SCORES)

every_feature_score = pytest.mark.parametrize("name", [name for name in SCORES if not SCORES[name].needs_source])

COUNT = 60

FEATURES, LABELS = task(COUNT, 5, 3)

FIRST = {"nce": source_posteriors(COUNT).argmax(1), "leep": source_posteriors(COUNT)}  # of every other score: FEATURES


def score(name, labels, first=None):
    """The score of labels, and of good features or posteriors unless others are given."""
    return getattr(transferability, name)(FIRST.get(name, FEATURES) if first is None else first, labels)


def same(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def spoilt(value):
    features = FEATURES.copy()
    features[7, 2] = value
    return features
