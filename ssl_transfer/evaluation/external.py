"""Tests of a selected model on external stores: metrics, and their gap to the test on the task's own store.

A protocol never gets an external store. It returns what it has selected, and only that is applied here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from ssl_transfer.data.external_tests import ExternalTest
from ssl_transfer.data.neighbours import repeated
from ssl_transfer.data.passport import Passport, TrainingRecord
from ssl_transfer.data.tasks import Task
from ssl_transfer.domains import boundary
from ssl_transfer.errors import TaskError
from ssl_transfer.evaluation.contamination import case_positions, cases_seen, contamination
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult
from ssl_transfer.evaluation.subgroups import subgroup_metrics
from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.measures.resampling import intervals_of, patient_samples
from ssl_transfer.models.backbone import Backbone


@dataclass(frozen=True, eq=False)
class ExternalResult:
    """The result on an external store.

    Attributes:
        name: Name of the external test.
        record: What `result.json` has of it, see `EvalResult.external`.
        predictions: As those of the task's own test, with the column `seen_in_pretraining`.
    """

    name: str
    record: dict[str, Any]
    predictions: pandas.DataFrame


def predictions_file(name: str) -> str:
    """Name of the file with the predictions on an external store."""
    return f"predictions-{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.parquet"


def tested_externally(
    test: ExternalTest, backbone: Backbone, context: EvalContext, measured: ProtocolResult, features: Path | None
) -> ExternalResult:
    """Apply what a protocol has selected to an external store. Its pixels are read here for the first time.

    Cases that are near-duplicates of images of the task's own store are left out, as those with the same pixels are. Metrics and
    gap are of the classes that both stores then have, the others are left out of the own test, too.

    Args:
        test: The external store with the task's labels.
        backbone: The backbone as it was before the evaluation.
        context: Input of the protocol, on the task's own store.
        measured: The result that the protocol returned.
        features: Folder of cached features of the external store; None: the default of `extract_features`.

    Raises:
        TaskError: If no case is left.
    """
    if measured.predict is None:
        raise ValueError("a trial has no test")
    tested = replace(context, task=test.task, rows={"test": test.rows}, features=features)
    predictions, left_out = _without_own(context.task, tested, measured.predict(tested))
    recipe, temperature = context.recipe, measured.temperature
    scoring = replace(context.task.scoring, temperature=temperature)
    rows = _rows_of(tested, predictions)
    classes = test.classes_of(rows)
    both = [_of_classes(table, classes) for table in (measured.predictions, predictions)]
    own, external = (CasePredictions(table, scoring) for table in both)
    of_own, of_external = _values(own), _values(external)
    samples = [
        patient_samples(cases.metrics, cases.patients, recipe.resamples, seed)
        for cases, seed in ((own, context.draw), (external, (context.draw, 1)))
    ]
    gaps = {name: samples[1][name] - samples[0][name] for name in samples[1] if name in samples[0]}
    of_test = replace(tested, rows={"test": rows}), replace(measured, predictions=both[1], test=of_external)
    seen = contamination(backbone, test.task, rows, both[1], of_external, temperature)
    store = test.task.store
    notes = [*repeated(store, backbone.card.channels), *_notes(test.task, left_out)]
    record = {
        "store": store.card.id,
        "domain": str(store.domain),
        "boundary": boundary(context.task.domain, store.domain),
        "classes": list(classes),
        "n": test.task.count(rows),
        "left_out": left_out,
        "metrics": of_external,
        "intervals": intervals_of(samples[1]),
        "own": of_own,
        "gap": {name: of_external[name] - of_own[name] for name in of_external if name in of_own},
        "gap_intervals": intervals_of(gaps),
        "subgroups": subgroup_metrics(*of_test),
        "seen_in_pretraining": seen.seen_in_pretraining,
        "contamination": seen.summary,
        "notes": [*test.notes, *test.missing(classes), *notes],
    }
    return ExternalResult(test.name, record, seen.with_statements(both[1]))


def _without_own(
    task: Task, tested: EvalContext, predictions: pandas.DataFrame
) -> tuple[pandas.DataFrame, dict[str, int]]:
    """Predictions without cases that are near-duplicates of an image of the task's own store, and how many they were.

    Raises:
        TaskError: If none is left.
    """
    record = TrainingRecord.of_store(task.store, np.arange(len(task.store)))
    passport = Passport((record,), id=f"all images of {task.store.card.id}")
    evidence = cases_seen(passport, tested.task, tested.rows["test"], predictions)
    known = {case for case, kinds in evidence.items() if "near" in kinds}
    kept = predictions[[case not in known for case in CasePredictions(predictions).cases.tolist()]]
    if not len(kept):
        raise TaskError(
            f"task {task.name}: external: {tested.task.store.path}: all cases are near-duplicates of images of "
            f"{task.store.path}. Take another store."
        )
    return kept.reset_index(drop=True), {"near_duplicates": len(known)}


def _of_classes(predictions: pandas.DataFrame, classes: tuple[str, ...]) -> pandas.DataFrame:
    """Predictions of some of the classes: cases of these (multiclass), or these labels or masks alone."""
    cases = CasePredictions(predictions)
    if cases.segmentation:
        return predictions[predictions["class"].isin(classes)].reset_index(drop=True)
    if not cases.classes:
        return predictions
    if "label" in predictions:
        return predictions[predictions["label"].isin(classes)].reset_index(drop=True)
    others = [name for name in cases.classes if name not in classes]
    return predictions.drop(columns=[f"{kind}_{name}" for name in others for kind in ("label", "score")])


def _values(cases: CasePredictions) -> dict[str, float]:
    """Every metric of all cases."""
    return {name: float(value[0]) for name, value in cases.metrics(np.ones((len(cases.table), 1))).items()}


def _rows_of(tested: EvalContext, predictions: pandas.DataFrame) -> np.ndarray:
    """Positions of the images of the cases that are left, ascending."""
    rows, kept = tested.rows["test"], set(CasePredictions(predictions).cases.tolist())
    images = [of_case for case, of_case in case_positions(tested.task, rows, predictions).items() if case in kept]
    return np.sort(rows[np.concatenate(images)])


def _notes(task: Task, left_out: dict[str, int]) -> list[str]:
    notes = [] if task.patients is not None else ["patients unknown: intervals are by image"]
    if count := left_out["near_duplicates"]:
        notes.append(f"{count} cases are left out: near-duplicates of images of the task's own store")
    return notes
