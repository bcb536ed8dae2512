"""Scoring: how the predictions of a task are measured, as its card states it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from ssl_transfer.measures.classification import OPERATING_POINT, ScoredImages
from ssl_transfer.measures.metrics import measured
from ssl_transfer.measures.regression import ScoredValues
from ssl_transfer.measures.resampling import patient_intervals
from ssl_transfer.measures.survival import ScoredTimes


@dataclass(frozen=True)
class Scoring:
    """How predictions of images are measured.

    Truth and predictions of a task, by its kind: multiclass and ordinal: class numbers (N,) and probabilities (N, C); multilabel:
    1, 0 or −1 (N, C) and probabilities (N, C); regression: values (N,) and values (N,); survival: time and event (N, 2) and log
    hazards (N,).

    Attributes:
        kind: Kind of the task: one of these.
        classes: Names of the classes, grades or labels; none of regression and survival.
        averaging: `macro`, or `weighted` by the images of a class.
        operating_point: The specificity at which the sensitivity is measured, and the reverse.
        temperature: Of temperature scaling, fitted on validation, for the metrics after it; None: without these.
        levels: Name of each grade -> its number, by whose differences errors are measured; empty: its position among them.
    """

    kind: str = "multiclass"
    classes: tuple[str, ...] = ()
    averaging: str = "macro"
    operating_point: float = OPERATING_POINT
    temperature: float | None = None
    levels: Mapping[str, float] = field(default_factory=dict)

    def weighted(
        self, truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, names: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Metrics under weights of the images, (R,) each.

        Args:
            truth, predicted: See the class.
            weights: Weight of each image in each of R resamples, (N, R).
            names: Entries of `METRICS` to compute; None: all of this kind of task.
        """
        if self.kind == "regression":
            return measured(ScoredValues(truth, predicted, weights), self.kind, (), names)
        if self.kind == "survival":
            time, event = truth[:, 0], truth[:, 1] == 1
            return measured(ScoredTimes(time, event, predicted, weights), self.kind, (), names)
        stated = self.averaging, weights, self.operating_point, self.temperature
        levels = None
        if self.kind == "ordinal":
            levels = np.array([self.levels.get(name, code) for code, name in enumerate(self.classes)], float)
        scored = ScoredImages(truth, predicted, *stated, levels=levels)
        return measured(scored, self.kind, self.classes, names)

    def metrics(
        self, truth: np.ndarray, predicted: np.ndarray, names: Collection[str] | None = None
    ) -> dict[str, float]:
        """Metrics, all images counting alike; see `weighted`."""
        values = self.weighted(truth, predicted, np.ones((len(truth), 1)), names)
        return {name: float(value[0]) for name, value in values.items()}

    def intervals(
        self, truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray, resamples: int, seed: int
    ) -> dict[str, list[float]]:
        """95 % percentile intervals of the metrics by the bootstrap over patients; see `patient_intervals`."""
        return patient_intervals(lambda weights: self.weighted(truth, predicted, weights), groups, resamples, seed)
