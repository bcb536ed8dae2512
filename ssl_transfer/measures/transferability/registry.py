"""Transferability scores: what features, or a source classifier's opinions, say of a task before anything is trained on it.

Pure functions, NumPy in, a number out, float64 inside; more is better. A score compares backbones on one task's images; its value
alone says nothing, and on medical tasks neither does it always rank well (https://arxiv.org/abs/2308.07444,
https://arxiv.org/abs/2405.20420): look at a probe beside it. Give them training and validation images, never test.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ssl_transfer.errors import ScoreError, nearest
from ssl_transfer.measures.transferability.inputs import checked_features, checked_labels, checked_probabilities
from ssl_transfer.measures.transferability.linear import evidence, plain_h, shrunk_h
from ssl_transfer.measures.transferability.separation import challenged, coding_gain, overlap
from ssl_transfer.measures.transferability.source import expected_likelihood, leep, mixture_posteriors, nce
from ssl_transfer.measures.transferability.spectrum import Spectrum

OF_SPECTRUM = {
    "h_score": plain_h,
    "regularized_h_score": shrunk_h,
    "logme": evidence,
    "transrate": coding_gain,
    "gbc": overlap,
    "sfda": challenged,
}
SOURCE_SCORES = ("nce", "leep")  # these need a source classifier's probabilities
FEATURE_SCORES = ("n_leep", *OF_SPECTRUM)
SCORES = (*SOURCE_SCORES, *FEATURE_SCORES)
SCORE_NAMES = {  # as papers write them
    "nce": "NCE",
    "leep": "LEEP",
    "n_leep": "N-LEEP",
    "h_score": "H",
    "regularized_h_score": "reg. H",
    "logme": "LogME",
    "transrate": "TransRate",
    "gbc": "GBC",
    "sfda": "SFDA",
}


def scores(
    features: np.ndarray,
    labels: np.ndarray,
    source_probabilities: np.ndarray | None = None,
    names: Collection[str] = SCORES,
    seed: int = 0,
) -> dict[str, float]:
    """Several scores at once: one Gram matrix and one eigendecomposition serve all that look at features.

    Args:
        features: (N, D).
        labels: Integers (N,), of at least two classes.
        source_probabilities: Of source classes, rows sum to 1, (N, S); None: no LEEP, no NCE.
        names: Which of `SCORES`.
        seed: Of N-LEEP's mixture.

    Returns:
        Name -> the value of its function.

    Raises:
        ScoreError: As these do.
    """
    if unknown := sorted(set(names) - set(SCORES)):
        raise ScoreError(f"names: found {unknown[0]!r}.{nearest(unknown[0], SCORES)}")
    features = checked_features(features)
    codes = checked_labels(labels, len(features))
    spectrum = Spectrum.of(features, codes)
    found = {name: function(spectrum) for name, function in OF_SPECTRUM.items() if name in names}
    if "n_leep" in names:
        found["n_leep"] = leep(mixture_posteriors(spectrum, seed=seed), labels)
    if source_probabilities is not None:
        checked_labels(labels, len(source_probabilities))
        source_probabilities = checked_probabilities(source_probabilities)
        if "leep" in names:
            found["leep"] = expected_likelihood(source_probabilities, codes)
        if "nce" in names:
            found["nce"] = nce(np.argmax(source_probabilities, axis=1), labels)
    return {name: found[name] for name in SCORES if name in found}
