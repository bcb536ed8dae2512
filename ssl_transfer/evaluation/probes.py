"""Protocols on frozen features: the setting that is best on validation is evaluated on test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ssl_transfer.data.altered import SelectedRows
from ssl_transfer.errors import BackboneError, RecipeError, TaskError
from ssl_transfer.evaluation.bag_heads import bag_heads
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult, classified
from ssl_transfer.features import Precision, extract_features
from ssl_transfer.measures.linear_model import LinearModel
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.models.group_probe import BagFeatures, FittedBagHead, PooledProbe
from ssl_transfer.models.pooling import available
from ssl_transfer.poolings import LEARNED
from ssl_transfer.training.machine import native_precision

Candidate = tuple[dict[str, Any], np.ndarray, Callable[[Any], np.ndarray]]  # setting, scores of validation, classifier


def selected_probe(context: EvalContext, protocol: Callable, options: dict[str, Any]) -> ProtocolResult:
    """Run a protocol's settings on cached features; select the best on validation, the first of several equal ones.

    Raises:
        TaskError: If the task's metric is undefined on validation.
    """
    task, metric = context.task, context.task.card.metric
    precision = _precision(context.recipe.precision)
    validated = partial(task.scoring.metrics, task.labels[context.cases("val")])
    candidates = _of_images if task.group_names is None else _of_groups
    best, selected = -np.inf, None
    for pooling, features in _features(context, precision).items():
        inputs = {split: _inputs(context, split, values) for split, values in features.items()}
        for setting, scores, fitted in candidates(context, protocol, options, inputs):
            value = metric_sign(metric) * validated(scores, names=[metric])[metric]
            if value > best:
                best, selected = value, (pooling, setting, scores, fitted, inputs["test"])
    if selected is None:
        raise TaskError(
            f"task {task.name}: {metric} is undefined on the validation images (a single class or value?), so nothing can be "
            "selected by it. Take another metric, or ingest again with other splits."
        )
    pooling, setting, scores, fitted, test = selected

    def tested(other: EvalContext) -> np.ndarray:
        return fitted(
            test if other is context else _inputs(other, "test", _features(other, precision)[pooling]["test"])
        )

    chosen = {"pool": pooling, **setting} if pooling else setting
    settings = {**options, "precision": precision}
    if task.group_names is not None:
        settings["group_pool"] = list(context.group_poolings)
    result = classified(context, chosen, settings, validated(scores), scores, tested)
    linear = fitted.probe if isinstance(fitted, PooledProbe) else fitted
    return replace(result, classifier=fitted if isinstance(linear, LinearModel | FittedBagHead) else None)


def _inputs(context: EvalContext, split: str, features: np.ndarray) -> Any:
    """What probes classify: features of the images (n, D), or with `target_of` those of the images of each group."""
    if context.task.group_names is None:
        return features
    return BagFeatures.of(features, context.task.bags(context.rows[split]))


def _of_images(
    context: EvalContext, protocol: Callable, options: dict[str, Any], inputs: dict[str, np.ndarray]
) -> Iterator[Candidate]:
    """Every setting of a protocol, with its scores of the validation images, and what maps features to scores."""
    labels, classes = context.task.labels[context.rows["train"]], len(context.task.classes)
    given = (inputs["train"], labels, {"val": inputs["val"]}, classes, context.draw, context.task.kind)
    for setting, scores, fitted in protocol(*given, **options):
        yield setting, scores["val"], fitted


def _of_groups(
    context: EvalContext, protocol: Callable, options: dict[str, Any], inputs: dict[str, BagFeatures]
) -> Iterator[Candidate]:
    """As `_of_images`, of groups, for every pooling of their images: a protocol on pooled features, or a head that learns it."""
    task = context.task
    labels, classes = task.labels[context.cases("train")], len(task.classes)
    train, val = inputs["train"], inputs["val"]
    learned = [pooling for pooling in context.group_poolings if pooling in LEARNED]
    for pooling in (pooling for pooling in context.group_poolings if pooling not in LEARNED):
        given = (train.pooled(pooling), labels, {"val": val.pooled(pooling)}, classes, context.draw, task.kind)
        for setting, scores, fitted in protocol(*given, **options):
            yield {"group_pool": pooling, **setting}, scores["val"], PooledProbe(pooling, fitted)
    if learned:
        yield from bag_heads(train, labels, val, learned, classes, context.draw, task.kind)


def _features(context: EvalContext, precision: Precision) -> dict[str, dict[str, np.ndarray]]:
    """Features of the rows of each split, by pooling (an empty name: that of the backbone) and split.

    Those without noise are cached for the whole store, those with noise for the split.

    Raises:
        BackboneError: If the backbone has none of the poolings.
    """
    task, poolings = context.task, _poolings(context)
    settings: dict[str, Any] = {"size": context.size, "precision": precision, "pool": "all" if poolings else None}
    features: dict[str, dict[str, np.ndarray]] = {name: {} for name in poolings or ("",)}
    clean = None
    for split, rows in context.rows.items():
        store = context.store(split)
        if store is not task.store:
            every = np.sort(rows if split == "test" else task.rows(split))
            of_split = extract_features(context.backbone, SelectedRows(store, every), **settings)
            positions = np.searchsorted(every, rows)
        else:
            of_split = clean = clean or extract_features(context.backbone, store, context.features, **settings)
            positions = rows
        for name, splits in features.items():
            splits[split] = (of_split.pooled(name) if name else of_split.values)[positions]
    return features


def _poolings(context: EvalContext) -> list[str]:
    """The candidate poolings that the backbone has, each once; none if the recipe has no candidates.

    Raises:
        BackboneError: If it has none of them.
    """
    wanted, has = context.recipe.pool or [], available(context.backbone.model)
    poolings = [name for name in dict.fromkeys(wanted) if name in has]
    if wanted and not poolings:
        raise BackboneError(
            f"{context.backbone.card.name}: pool={wanted}: it has none of these poolings. Expected some of {', '.join(has)}."
        )
    return poolings


def _precision(requested: str) -> Precision:
    """Precision of the features, `fp32` or `bf16`."""
    if requested == "fp16":
        raise RecipeError("precision: features are computed in fp32 or bf16; fp16 is for training.")
    chosen = native_precision() if requested == "auto" else requested
    return "bf16" if chosen == "bf16" else "fp32"
