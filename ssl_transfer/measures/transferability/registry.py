"""The registry of transferability scores, and functions that compute several of them at once.

To add a score, write its function and add one entry to `SCORES`. `rank` then computes, resamples and lists it, and study reports
compare it with fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssl_transfer.errors import ScoreError, nearest
from ssl_transfer.measures.transferability.inputs import (
    checked_features,
    checked_labels,
    checked_probabilities,
    checked_targets,
)
from ssl_transfer.measures.transferability.linear import evidence, plain_h, shrunk_h
from ssl_transfer.measures.transferability.separation import coding_gain, fisher_log_likelihood, gaussian_overlap
from ssl_transfer.measures.transferability.source import conditional_entropy, expected_likelihood, mixture_posteriors
from ssl_transfer.measures.transferability.spectrum import Spectrum


@dataclass(frozen=True)
class Score:
    """An entry of `SCORES`.

    Attributes:
        title: Name of the score in papers.
        compute: Maps a `Spectrum` to a number if the score reads `features`; otherwise maps probabilities (N, S) and class codes
            (N,) to a number.
        reads: Input of the score: `features`; `source`, posteriors of a source classifier; or `mixture`, posteriors of a Gaussian
            mixture of the features.
        multilabel: Whether `compute` also takes a spectrum whose targets are columns of 0 and 1.
    """

    title: str
    compute: Callable[..., float]
    reads: Literal["features", "source", "mixture"] = "features"
    multilabel: bool = False

    @property
    def needs_source(self) -> bool:
        """Whether it needs a source classifier."""
        return self.reads == "source"


SCORES: dict[str, Score] = {
    "nce": Score("NCE", conditional_entropy, reads="source"),
    "leep": Score("LEEP", expected_likelihood, reads="source"),
    "n_leep": Score("N-LEEP", expected_likelihood, reads="mixture"),
    "h_score": Score("H", plain_h),
    "regularized_h_score": Score("reg. H", shrunk_h),
    "logme": Score("LogME", evidence, multilabel=True),
    "transrate": Score("TransRate", coding_gain),
    "gbc": Score("GBC", gaussian_overlap),
    "sfda": Score("SFDA", fisher_log_likelihood),
}


def scores(
    features: np.ndarray,
    labels: np.ndarray,
    source_probabilities: np.ndarray | None = None,
    names: Collection[str] | None = None,
    seed: int = 0,
    mixture_probabilities: np.ndarray | None = None,
) -> dict[str, float]:
    """Compute several scores. Those that read features share one Gram matrix and one eigendecomposition.

    Args:
        features: Features, shape (N, D).
        labels: Class codes, integers (N,), of at least two classes.
        source_probabilities: Probabilities of source classes, rows sum to 1, (N, S); None: no LEEP, no NCE.
        names: Names in `SCORES`; None: all scores.
        seed: Seed of N-LEEP's mixture.
        mixture_probabilities: Posteriors of the components of N-LEEP's mixture, (N, K); None: a mixture is fitted.

    Returns:
        Name -> value, in the order of `SCORES`.

    Raises:
        ScoreError: If a name is unknown, or for the reasons that the functions of the scores state.
    """
    names = SCORES if names is None else names
    if unknown := sorted(set(names) - set(SCORES)):
        raise ScoreError(f"names: found {unknown[0]!r}.{nearest(unknown[0], SCORES)}")
    features = checked_features(features)
    spectrum = Spectrum.of(features, checked_labels(labels, len(features)))
    posteriors = {"source": None if source_probabilities is None else checked_probabilities(source_probabilities)}
    if posteriors["source"] is not None:
        checked_labels(labels, len(posteriors["source"]))
    if any(SCORES[name].reads == "mixture" for name in names):
        if mixture_probabilities is None:
            mixture_probabilities = mixture_posteriors(spectrum, seed=seed)
        posteriors["mixture"] = checked_probabilities(mixture_probabilities)
    values = {}
    for name, score in SCORES.items():
        if name in names and score.reads == "features":
            values[name] = score.compute(spectrum)
        elif name in names and posteriors[score.reads] is not None:
            values[name] = score.compute(posteriors[score.reads], spectrum.codes)
    return values


def multilabel_scores(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute the scores that are defined for multi-label tasks: means over the labels that vary.

    If values are unknown, each label is scored on the images where it is known.

    Args:
        features: Features, shape (N, D).
        labels: 1, 0 or, where unknown, −1; (N, K).

    Returns:
        Name -> value; NaN if no label varies.

    Raises:
        ScoreError: If features are not finite numbers (N, D).
    """
    varies = (labels == 1).any(0) & (labels == 0).any(0)
    if varies.any() and (labels >= 0).all():
        parts = [(features, labels)]
    else:
        parts = [(features[column >= 0], column[column >= 0]) for column in labels.T[varies]]
    checked = [(checked_features(part), checked_targets(columns, len(part), binary=True)) for part, columns in parts]
    spectra = [Spectrum.of(*pair) for pair in checked]
    return {
        name: float(np.mean([score.compute(spectrum) for spectrum in spectra])) if spectra else np.nan
        for name, score in SCORES.items()
        if score.multilabel
    }
