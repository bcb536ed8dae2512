"""Protocols on frozen features: the setting that is best on validation is evaluated on test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ssl_transfer.data.altered import SelectedRows
from ssl_transfer.errors import RecipeError, TaskError
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult, classified
from ssl_transfer.features import Precision, extract_features
from ssl_transfer.measures.metrics import classification_metrics, metric_sign
from ssl_transfer.training.machine import native_precision


def selected_probe(context: EvalContext, protocol: Callable, options: dict[str, Any]) -> ProtocolResult:
    """Run a protocol's settings on cached features; select the best on validation, the first of several equal ones.

    Raises:
        TaskError: If the task's metric is undefined on validation.
    """
    task, rows, metric = context.task, context.rows, context.task.card.metric
    precision = _precision(context.recipe.precision)
    features = _features(context, precision)
    train, queries = features.pop("train"), features
    validated = partial(
        classification_metrics, task.labels[rows["val"]], averaging=task.card.averaging, classes=task.classes
    )
    best, selected, classifier = -np.inf, None, None
    given = (train, task.labels[rows["train"]], queries, len(task.classes), context.draw)
    for setting, scores, *fitted in protocol(*given, **options):
        value = metric_sign(metric) * validated(scores["val"], names=[metric])[metric]
        if value > best:
            best, selected, classifier = value, (setting, scores), next(iter(fitted), None)
    if selected is None:
        raise TaskError(
            f"task {task.name}: {metric} is undefined on the validation images (a single class?), so nothing can be selected "
            "by it. Take another metric, or ingest again with other splits."
        )
    setting, scores = selected
    settings = {**options, "precision": precision}
    result = classified(context, setting, settings, validated(scores["val"]), scores["test"])
    return replace(result, classifier=classifier)


def _features(context: EvalContext, precision: Precision) -> dict[str, np.ndarray]:
    """Features of the rows of each split. Those without noise are cached for the whole store, those with noise for the split."""
    task, settings = context.task, {"size": context.size, "precision": precision}
    features, clean = {}, None
    for split, rows in context.rows.items():
        store = context.store(split)
        if store is not task.store:
            every = np.sort(task.rows(split))
            noisy = extract_features(context.backbone, SelectedRows(store, every), **settings)
            features[split] = noisy.values[np.searchsorted(every, rows)]
            continue
        clean = clean or extract_features(context.backbone, store, context.features, **settings)
        features[split] = clean.values[rows]
    return features


def _precision(requested: str) -> Precision:
    """Precision of the features, `fp32` or `bf16`."""
    if requested == "fp16":
        raise RecipeError("precision: features are computed in fp32 or bf16; fp16 is for training.")
    chosen = native_precision() if requested == "auto" else requested
    return "bf16" if chosen == "bf16" else "fp32"
