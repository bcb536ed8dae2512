"""What can be said of one backbone without fine-tuning it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ssl_transfer.cards import BackboneCard
from ssl_transfer.errors import BackboneError, TaskError
from ssl_transfer.evaluation.registry import IMPLEMENTATIONS
from ssl_transfer.measures.resampling import percentile_interval
from ssl_transfer.measures.transferability import (
    SCORE_NAMES,
    SCORES,
    FewImagesWarning,
    Spectrum,
    leep,
    logme,
    mixture_posteriors,
    scores,
)
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.protocols import FROZEN, PROTOCOLS
from ssl_transfer.ranking.sample import Sample
from ssl_transfer.ranking.source_classifier import SourcePosteriors

CRITERIA = (*FROZEN, *SCORES)
NAMES = {**{name: PROTOCOLS[name].title for name in FROZEN}, **SCORE_NAMES}


@dataclass
class Candidate:
    """What was found of a backbone.

    Attributes:
        name: Among the candidates.
        card: The backbone's.
        values: Criterion -> value; None where it does not apply.
        resampled: Criterion -> its values over resampled patients, moved so that their mean is its value: an image that is drawn
            twice flatters a score that is fitted to it, of every backbone alike.
        source: What gave probabilities of source classes; None: nothing.
        seconds: What took how long.
    """

    name: str
    card: BackboneCard
    values: dict[str, float | None]
    resampled: dict[str, np.ndarray]
    source: str | None
    seconds: dict[str, float] = field(default_factory=dict)

    def interval(self, criterion: str) -> list[float] | None:
        """95 % of the resampled patients."""
        interval = percentile_interval(self.resampled.get(criterion, np.empty(0)))
        return None if np.isnan(interval[0]) else list(interval)


def candidate(
    name: str,
    backbone: Backbone,
    sample: Sample,
    features: Callable[[], np.ndarray],
    source: Callable[[np.ndarray], SourcePosteriors | None],
    seed: int,
) -> Candidate:
    """Score one backbone.

    Args:
        features: Gives those of the task's whole store, (N, D).
        source: Gives probabilities of source classes from them.
        seed: Of N-LEEP's mixture.

    Raises:
        BackboneError: If a feature of the sample is no number.
        TaskError: If the task's metric is undefined in every fold.
    """
    clock = _Clock()
    inputs = features()[sample.rows]
    if not np.isfinite(inputs).all():
        raise BackboneError(
            f"{name}: some of its features on {sample.task.store.path} are no numbers. Extract them in fp32, or look at its "
            "training."
        )
    clock.lap("features")
    values: dict[str, float | None] = dict.fromkeys(CRITERIA)
    resampled = {}
    for criterion in FROZEN:
        held_out = sample.held_out_scores(IMPLEMENTATIONS[criterion], inputs)
        values[criterion], resampled[criterion] = sample.metric(held_out), sample.metric_resampled(held_out)
        if not np.isfinite(values[criterion]):
            raise TaskError(
                f"task {sample.task.name}: {sample.task.card.metric} is undefined in every fold: none has images of more "
                "than one class. Take fewer folds."
            )
        clock.lap(criterion)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewImagesWarning)  # the verdict says it once
        if sample.labels.ndim == 2:
            source_posteriors = None
            score = _of_labels
            parts = (inputs.astype(float), sample.labels)
        else:
            source_posteriors = source(inputs)
            clock.lap("source classes")
            score = _of_classes
            probabilities = source_posteriors and source_posteriors.probabilities
            posteriors = mixture_posteriors(Spectrum.of(inputs.astype(float), sample.labels), seed=seed)
            parts = (inputs.astype(float), sample.labels, posteriors, probabilities)
        found = score(*parts)
        clock.lap("scores")
        drawn = [score(*(part if part is None else part[at] for part in parts)) for at in sample.drawn()]
        clock.lap("resampling")
    values |= found
    resampled |= {criterion: np.array([one[criterion] for one in drawn]) for criterion in found if drawn}
    for criterion, own in resampled.items():
        resampled[criterion] = own - np.nanmean(own) + values[criterion] if np.isfinite(own).any() else own
    return Candidate(
        name, backbone.card, values, resampled, source_posteriors and source_posteriors.origin, clock.seconds
    )


def _of_classes(
    features: np.ndarray, labels: np.ndarray, posteriors: np.ndarray, probabilities: np.ndarray | None
) -> dict[str, float]:
    """All scores; the mixture of N-LEEP stays as it was fitted to all images. NaN where one class alone was drawn."""
    if len(np.unique(labels)) < 2:
        names = SCORES if probabilities is not None else set(SCORES) - {"nce", "leep"}
        return dict.fromkeys(names, np.nan)
    found = scores(features, labels, probabilities, names=set(SCORES) - {"n_leep"})
    return {**found, "n_leep": leep(posteriors, labels)}


def _of_labels(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """LogME, mean over labels that vary, each from the images where it is known; NaN if none does."""
    varies = (labels == 1).any(0) & (labels == 0).any(0)
    if varies.any() and (labels >= 0).all():
        return {"logme": logme(features, labels, target="multilabel")}
    parts = [(features[column >= 0], column[column >= 0]) for column in labels.T[varies]]
    return {"logme": float(np.mean([logme(*part, target="multilabel") for part in parts])) if parts else np.nan}


class _Clock:
    """Seconds between laps."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Name what has been done since the last one."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now
