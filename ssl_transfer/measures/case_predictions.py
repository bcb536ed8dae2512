"""The predictions of one evaluation for its test cases, and any of its metrics under weights of the cases.

A bootstrap over patients draws patients with replacement. One resample is a weight for every case, the number of times that
its patient was drawn, and the metric of the resample is the metric under these weights. So balanced accuracy, AUROC, macro F1 or
Dice are resampled as themselves, not as a score per image that resembles them, and thousands of resamples cost a few matrix
products.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ssl_transfer.measures.metrics import base_metric, metrics_of, weighted_overlap
from ssl_transfer.measures.resampling import DRAWN_AT_ONCE
from ssl_transfer.measures.scoring import Scoring
from ssl_transfer.target_kinds import KINDS

if TYPE_CHECKING:
    import pandas

LABEL, SCORE = "label", "score_"  # columns of `predictions.parquet`


@dataclass(frozen=True, eq=False)
class CasePredictions:
    """Content of `predictions.parquet`: a row per test image or group of images, or (segmentation) per test case and class.

    Attributes:
        table: Multiclass: `row`, `patient`, `label` (name of the true class), `score_CLASS`; ordinal: `predicted` (name of the
            decided grade) as well. Multi-label: `row`, `patient`, `label_CLASS` (1, 0 or, where unknown, −1), `score_CLASS`.
            Regression: `row`, `patient`, `label` and `predicted` (numbers). Survival: `row`, `patient`, `time`, `event` (1 or 0),
            `risk` (log hazard). Groups of images have `group` in place of `row`. Segmentation: `case`, `patient`, `class` and
            what `metrics.case_overlap` measures.
        stated: How they are measured; kind and classes are those of the table.
    """

    table: pandas.DataFrame
    stated: Scoring = field(default_factory=Scoring)

    @cached_property
    def kind(self) -> str:
        """Kind of the task, by the columns."""
        if "case" in self.table:
            return "segmentation"
        if "risk" in self.table:
            return "survival"
        if "predicted" in self.table:
            return "ordinal" if self.classes else "regression"
        return "multiclass" if LABEL in self.table else "multilabel"

    @property
    def segmentation(self) -> bool:
        """Whether the rows are cases and classes."""
        return self.kind == "segmentation"

    @cached_property
    def cases(self) -> np.ndarray:
        """The case of each row, as text: the row of an image in its store, or the name of a group or case; shape (N,)."""
        key = next(name for name in ("case", "group", "row") if name in self.table)
        return self.table[key].astype(str).to_numpy()

    @cached_property
    def patients(self) -> np.ndarray:
        """The patient of each row, as text; a case without a known patient is one of its own. Shape (N,)."""
        patient = self.table["patient"]
        return np.where(patient.notna(), "patient " + patient.astype(str), "case " + self.cases.astype(object)).astype(
            str
        )

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes or labels."""
        if "class" in self.table:
            return list(dict.fromkeys(self.table["class"]))
        return [name.removeprefix(SCORE) for name in map(str, self.table.columns) if name.startswith(SCORE)]

    @cached_property
    def truth(self) -> np.ndarray:
        """The truth, as `Scoring` takes it."""
        if self.kind == "survival":
            return self.table[["time", "event"]].to_numpy(float)
        if self.kind == "regression":
            return self.table[LABEL].to_numpy(float)
        if self.kind == "multilabel":
            return self.table[[f"{LABEL}_{name}" for name in self.classes]].to_numpy(int)
        codes = {name: code for code, name in enumerate(self.classes)}
        return self.table[LABEL].astype(str).map(codes).to_numpy(int)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Predictions, as `Scoring` takes them."""
        if (number := KINDS[self.kind].number) is not None:
            return self.table[number].to_numpy(float)
        return self.table[[f"{SCORE}{name}" for name in self.classes]].to_numpy(float)

    def metric(self, name: str, weights: np.ndarray) -> np.ndarray:
        """A metric under weights of the rows.

        Args:
            name: An entry of `METRICS`, or of one class: `balanced_accuracy`, `auroc_Mass`, `dice`, `dice_present_liver`.
            weights: Weight of each row in each of R resamples, shape (N, R).

        Returns:
            Shape (R,); NaN where it is undefined, such as an AUROC without positives.

        Raises:
            KeyError: If these predictions have no such metric.
        """
        size = max(1, DRAWN_AT_ONCE // max(1, len(weights)))
        parts = [self._metric(name, weights[:, start : start + size]) for start in range(0, weights.shape[1], size)]
        return np.concatenate(parts)

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """All metrics under weights of the rows (N, R): name -> shape (R,); see `metric`."""
        weights = np.ascontiguousarray(weights, dtype=float)
        if self.segmentation:
            return weighted_overlap(self.table, self.classes, weights)
        return self._scoring.weighted(self.truth, self.predicted, weights)

    @property
    def _scoring(self) -> Scoring:
        return replace(self.stated, kind=self.kind, classes=tuple(self.classes))

    def _metric(self, name: str, weights: np.ndarray) -> np.ndarray:
        weights = np.ascontiguousarray(weights, dtype=float)
        base = base_metric(name)
        if base is None or base not in metrics_of(*KINDS[self.kind].metrics):
            raise KeyError(name)
        if self.segmentation:
            return weighted_overlap(self.table, self.classes, weights)[name]
        return self._scoring.weighted(self.truth, self.predicted, weights, [base])[name]
