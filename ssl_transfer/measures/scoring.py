"""Scoring: how the predictions of a task are measured, as its card states it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ssl_transfer.measures.classification import OPERATING_POINT
from ssl_transfer.measures.metrics import weighted_metrics
from ssl_transfer.measures.resampling import patient_intervals


@dataclass(frozen=True)
class Scoring:
    """How predictions of images are measured.

    Attributes:
        classes: Names of the classes or labels.
        averaging: `macro`, or `weighted` by the images of a class.
        operating_point: The specificity at which the sensitivity is measured, and the reverse.
        temperature: Of temperature scaling, fitted on validation, for the metrics after it; None: without these.
    """

    classes: tuple[str, ...]
    averaging: str = "macro"
    operating_point: float = OPERATING_POINT
    temperature: float | None = None

    def weighted(
        self, truth: np.ndarray, scores: np.ndarray, weights: np.ndarray, names: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Metrics under weights of the images; for arguments see `metrics.weighted_metrics`."""
        return weighted_metrics(
            *(truth, scores, self.averaging, self.classes, weights),
            operating_point=self.operating_point,
            temperature=self.temperature,
            names=names,
        )

    def metrics(self, truth: np.ndarray, scores: np.ndarray, names: Collection[str] | None = None) -> dict[str, float]:
        """Metrics; for arguments see `metrics.classification_metrics`."""
        values = self.weighted(truth, scores, np.ones((len(truth), 1)), names)
        return {name: float(value[0]) for name, value in values.items()}

    def intervals(
        self, truth: np.ndarray, scores: np.ndarray, groups: np.ndarray, resamples: int, seed: int
    ) -> dict[str, list[float]]:
        """95 % percentile intervals of the metrics by the bootstrap over patients; see `patient_intervals`."""
        return patient_intervals(lambda weights: self.weighted(truth, scores, weights), groups, resamples, seed)
