"""The input and the result of a protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from ssl_transfer.data.altered import Noise, NoisyStore
from ssl_transfer.data.images import Images
from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.tasks import Task
from ssl_transfer.draws import draw_seed
from ssl_transfer.measures.classification import decided_classes
from ssl_transfer.measures.temperature import fit_temperature
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.group_probe import Classifier
from ssl_transfer.recipe import EvaluateRecipe


@dataclass(frozen=True)
class EvalContext:
    """Input of a protocol.

    Attributes:
        backbone: The backbone to evaluate, with the number of channels that the recipe requests.
        task: The task, with its store, labels and splits.
        recipe: The settings that all protocols share.
        rows: Split -> positions of its images in the store: `train` (a fraction of its patients), `val` and `test`; a trial of
            settings has no `test`, so that nothing can read it.
        identity: Id of the run.
        folder: Folder of the run.
        features: Folder of cached features; None: the default of `extract_features`.
        group_poolings: Candidate poolings of the images of a group, for tasks with `target_of`.
    """

    backbone: Backbone
    task: Task
    recipe: EvaluateRecipe
    rows: dict[str, np.ndarray]
    identity: str
    folder: Path
    features: Path | None = None
    group_poolings: tuple[str, ...] = ()

    def store(self, split: str) -> Images:
        """The images of a split: the task's store, with noise where the recipe requests it."""
        noise = self.recipe.noise
        clean = (
            noise.kind == "none"
            or (noise.at == "test" and split != "test")
            or (noise.at == "train" and split == "test")
        )
        return self.task.store if clean else self._noisy

    @cached_property
    def _noisy(self) -> NoisyStore:
        noise, store = self.recipe.noise, self.task.store
        scale = Scale.of_store(store.card, self.backbone.intensity.window_hu)
        if noise.kind == "none":
            raise ValueError("the recipe requests no noise")
        return NoisyStore(store, Noise(noise.kind, noise.sigma, self.draw), scale.low, scale.high)

    def cases(self, split: str) -> np.ndarray:
        """Rows that stand for the cases of a split: its rows, or the first one of each group, in the order of their names."""
        rows = self.rows[split]
        return rows[self.task.bags(rows).first]

    @property
    def draw(self) -> int:
        """The seed of everything random, from the pretraining seed and the evaluation seed."""
        return draw_seed(self.backbone.card.pretraining_seed, self.recipe.seed)

    @property
    def is_trial(self) -> bool:
        """Whether settings are tried on validation, without test."""
        return "test" not in self.rows

    @property
    def size(self) -> int:
        """Height and width of the images that the backbone gets, in pixels."""
        return self.recipe.size or self.backbone.card.image_size


@dataclass(frozen=True)
class ProtocolResult:
    """Result of a protocol.

    Attributes:
        selected: Hyper-parameters selected on validation.
        settings: Every option with its value.
        validation, test: Metrics with the selected hyper-parameters.
        intervals: Confidence intervals of the test metrics.
        predictions: One row per test image or group of images, or per test case and class.
        notes: Caveats for the reader of the result.
        classifier: The fitted classifier of features, which is kept with the result; None: the protocol has none to keep.
        temperature: Of temperature scaling, fitted on validation; None: the task has no probabilities.
        predict: Applies what was selected to the test images of another context; returns its `predictions`. None: a trial.
    """

    selected: dict[str, Any]
    settings: dict[str, Any]
    validation: dict[str, float]
    test: dict[str, float]
    intervals: dict[str, list[float]]
    predictions: pandas.DataFrame
    notes: list[str] = field(default_factory=list)
    classifier: Classifier | None = None
    temperature: float | None = None
    predict: Callable[[EvalContext], pandas.DataFrame] | None = None


def tried(selected: dict[str, Any], settings: dict[str, Any], validation: dict[str, float]) -> ProtocolResult:
    """The result of a trial: metrics on validation alone."""
    return ProtocolResult(selected, settings, validation, {}, {}, pandas.DataFrame())


def classified(
    context: EvalContext,
    selected: dict[str, Any],
    settings: dict[str, Any],
    validation: dict[str, float],
    validation_scores: np.ndarray,
    scores: Callable[[EvalContext], np.ndarray],
) -> ProtocolResult:
    """Evaluate on test. This is the only place where test labels are read, once.

    Args:
        context: Input of the protocol.
        selected, settings, validation: See `ProtocolResult`.
        validation_scores: Predictions of the validation images, as `Task.scoring` takes them; the temperature of temperature
            scaling is fitted on them.
        scores: Predictions of the test images of a context, by what was selected.
    """
    task, rows, recipe = context.task, context.cases("test"), context.recipe
    scoring, temperature, stated = task.scoring, None, {}
    if task.classes:
        temperature = fit_temperature(task.labels[context.cases("val")], validation_scores)
        scoring, stated = replace(scoring, temperature=temperature), {"operating_point": scoring.operating_point}
        stated |= {"grades": scoring.levels} if scoring.levels else {}
    truth, of_test = task.labels[rows], scores(context)
    return ProtocolResult(
        selected=selected,
        settings={**settings, **stated},
        validation=validation,
        test=scoring.metrics(truth, of_test),
        intervals=scoring.intervals(truth, of_test, task.groups()[rows], recipe.resamples, context.draw),
        predictions=prediction_table(context, of_test),
        temperature=temperature,
        predict=lambda other: prediction_table(other, scores(other)),
    )


def prediction_table(context: EvalContext, scores: np.ndarray) -> pandas.DataFrame:
    """The test cases of a context with their truth and predictions, a row per image or group; see `CasePredictions`."""
    task, rows = context.task, context.cases("test")
    truth, patients = task.labels[rows], None if task.patients is None else task.patients[rows]
    columns: dict[str, Any] = {"row": rows, "patient": patients}
    if task.group_names is not None:
        bags = task.bags(context.rows["test"])
        columns = {"group": bags.names, "patient": patients, "images": bags.sizes}
    if task.kind == "regression":
        columns |= {"label": truth, "predicted": scores}
    elif task.kind == "survival":
        columns |= {"time": truth[:, 0], "event": truth[:, 1].astype(int), "risk": scores}
    elif task.kind != "multilabel":
        columns["label"] = [task.classes[c] for c in truth]
    if task.kind == "ordinal":
        columns["predicted"] = [task.classes[c] for c in decided_classes(scores, ordinal=True)]
    for c, name in enumerate(task.classes):
        if task.kind == "multilabel":
            columns[f"label_{name}"] = truth[:, c]
        columns[f"score_{name}"] = scores[:, c]
    return pandas.DataFrame(columns)
