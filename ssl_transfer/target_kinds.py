"""Kinds of target: what follows from each, such as its metrics and the form of its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MetricKind = Literal["classification", "ordinal", "regression", "survival", "segmentation", "external"]


@dataclass(frozen=True)
class TargetKind:
    """What follows from the kind of a target.

    Attributes:
        metrics: Kinds of its metrics, see `measures.metrics.Metric`.
        number: Column of `predictions.parquet` with the number that is predicted of each case; None: probabilities of classes,
            grades or labels are predicted, or masks.
    """

    metrics: tuple[MetricKind, ...]
    number: str | None = None


KINDS: dict[str, TargetKind] = {
    "multiclass": TargetKind(("classification",)),
    "multilabel": TargetKind(("classification",)),
    "ordinal": TargetKind(("ordinal", "classification")),
    "regression": TargetKind(("regression",), number="predicted"),
    "survival": TargetKind(("survival",), number="risk"),
    "segmentation": TargetKind(("segmentation",)),
}
