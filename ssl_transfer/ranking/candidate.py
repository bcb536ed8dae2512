"""One backbone of a ranking: probes and transferability scores of its frozen features, also over bootstrap samples."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ssl_transfer.cards import BackboneCard
from ssl_transfer.errors import BackboneError, TaskError
from ssl_transfer.evaluation.registry import IMPLEMENTATIONS
from ssl_transfer.measures.resampling import percentile_interval
from ssl_transfer.measures.transferability import (
    SCORES,
    FewImagesWarning,
    Spectrum,
    mixture_posteriors,
    multilabel_scores,
    scores,
)
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.protocols import FROZEN, PROTOCOLS
from ssl_transfer.ranking.sample import Sample
from ssl_transfer.ranking.source_classifier import SourcePosteriors


def criteria() -> tuple[str, ...]:
    """Names of the criteria that backbones can be ordered by: protocols on frozen features, then transferability scores."""
    return (*FROZEN, *SCORES)


def known_criterion(name: str) -> str:
    """Check the name of a criterion and return it.

    Raises:
        ValueError: If it is not among `criteria`.
    """
    if name not in criteria():
        raise ValueError(f"found {name!r}. Expected one of {', '.join(map(repr, criteria()))}")
    return name


def criterion_title(name: str) -> str:
    """Title of a criterion in tables: `regularized_h_score` -> reg. H."""
    return PROTOCOLS[name].title if name in FROZEN else SCORES[name].title


@dataclass
class Candidate:
    """The results of one backbone.

    Attributes:
        name: Name among the candidates.
        card: Card of the backbone.
        values: Value of each criterion; None where it does not apply.
        resampled: Values of each criterion over bootstrap samples of patients. They are shifted so that their mean is the value
            on all images, because duplicate images raise fitted scores of all backbones.
        source: Source classifier that the posteriors come from; None: there are none.
        seconds: Duration of each step in seconds.
        pooling: Pooling of the images of a group whose features the transferability scores are of: that which was best on
            validation for the linear probe; empty: features of images.
    """

    name: str
    card: BackboneCard
    values: dict[str, float | None]
    resampled: dict[str, np.ndarray]
    source: str | None
    seconds: dict[str, float] = field(default_factory=dict)
    pooling: str = ""

    def value(self, criterion: str) -> float:
        """The value of a criterion that applies.

        Raises:
            ValueError: If it does not apply.
        """
        value = self.values[criterion]
        if value is None:
            raise ValueError(f"{self.name}: {criterion} does not apply")
        return value

    def interval(self, criterion: str) -> list[float] | None:
        """95 % percentile interval over bootstrap samples of patients; None without a finite value."""
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
        name: Name among the candidates.
        backbone: The backbone to score.
        sample: Cases of the task.
        features: Computes the features of all images of the task's store, (N, D).
        source: Computes posteriors of source classes from features of images.
        seed: Seed of N-LEEP's mixture.

    Raises:
        BackboneError: If a feature of the sample is NaN or infinite.
        TaskError: If the task's metric is undefined in every fold.
    """
    clock = _Clock()
    of_images = features()[sample.rows]
    if not np.isfinite(of_images).all():
        raise BackboneError(
            f"{name}: some of its features on {sample.task.store.path} are NaN or infinite. Extract them in fp32, or check its "
            "training."
        )
    clock.lap("features")
    values: dict[str, float | None] = dict.fromkeys(criteria())
    resampled, inputs, pooling = {}, sample.inputs(of_images), ""
    for criterion in FROZEN:
        held_out = sample.held_out(IMPLEMENTATIONS[criterion], inputs)
        value = sample.metric(held_out.scores)
        values[criterion], resampled[criterion] = value, sample.metric_resampled(held_out.scores)
        if not np.isfinite(value):
            raise TaskError(
                f"task {sample.task.name}: {sample.task.card.metric} is undefined in every fold: none has "
                f"{sample.task.case_word} of more than one class. Use fewer folds."
            )
        pooling = held_out.pooling if criterion == "linear_probe" else pooling
        clock.lap(criterion)
    posteriors = None
    if sample.labels.ndim == 1:
        if posteriors := source(of_images):
            posteriors = replace(posteriors, probabilities=sample.means(posteriors.probabilities))
        clock.lap("source classes")
    all_cases, drawn = _scores(sample, inputs[pooling], posteriors, seed, clock)
    values |= all_cases
    resampled |= {criterion: np.array([scores[criterion] for scores in drawn]) for criterion in all_cases if drawn}
    for criterion, shifted in resampled.items():
        if np.isfinite(shifted).any():
            resampled[criterion] = shifted - np.nanmean(shifted) + values[criterion]
    return Candidate(name, backbone.card, values, resampled, posteriors and posteriors.origin, clock.seconds, pooling)


def _scores(
    sample: Sample, inputs: np.ndarray, source: SourcePosteriors | None, seed: int, clock: _Clock
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Scores of all cases of the sample, and of each bootstrap sample. N-LEEP's mixture is fitted once, to all cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewImagesWarning)  # the verdict has a caveat about it
        inputs = inputs.astype(float)
        if sample.labels.ndim == 2:
            score: Callable[..., dict[str, float]] = multilabel_scores
            arrays: tuple[np.ndarray | None, ...] = (inputs, sample.labels)
        else:
            mixture = mixture_posteriors(Spectrum.of(inputs, sample.labels), seed=seed)
            score = _multiclass_scores
            arrays = (inputs, sample.labels, mixture, source and source.probabilities)
        all_cases = score(*arrays)
        clock.lap("scores")
        drawn = [score(*(None if array is None else array[rows] for array in arrays)) for rows in sample.drawn()]
        clock.lap("resampling")
    return all_cases, drawn


def _multiclass_scores(
    features: np.ndarray, labels: np.ndarray, mixture: np.ndarray, source: np.ndarray | None
) -> dict[str, float]:
    """All scores; NaN if all images are of one class."""
    if len(np.unique(labels)) < 2:
        return {name: np.nan for name, score in SCORES.items() if source is not None or not score.needs_source}
    return scores(features, labels, source, mixture_probabilities=mixture)


class _Clock:
    """Durations of steps that follow each other."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Record the seconds since the last call, under the name of a step."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now
