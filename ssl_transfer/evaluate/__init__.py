"""The stage `evaluate`: what a backbone is worth on a task, by one protocol.

A protocol is a function that yields a setting and its class scores, over and over; the stage selects among them on
validation and looks at test once, for the selected setting.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch

from ssl_transfer.console import warn
from ssl_transfer.data.tasks import Task
from ssl_transfer.domains import Domain, boundary
from ssl_transfer.errors import RecipeError, SplitError, TaskError, UsageError, nearest
from ssl_transfer.evaluate.knn import knn
from ssl_transfer.evaluate.linear_probe import linear_probe
from ssl_transfer.evaluate.metrics import classification_metrics, patient_intervals
from ssl_transfer.features import extract_features
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.recipe import EvaluateRecipe, merge, options_model, resolve_options, validate
from ssl_transfer.result import EvalResult
from ssl_transfer.run import environment, run_id

PROTOCOLS = {"linear_probe": linear_probe, "knn": knn}
GIVEN = ("train", "labels", "queries", "n_classes")  # what the stage hands to every protocol
BIGGER_IS_BETTER = {"accuracy", "balanced_accuracy", "auroc", "f1"}


def evaluate_recipe(
    protocol: str, overrides: list[str] | tuple[str, ...] = ()
) -> tuple[EvaluateRecipe, dict[str, Any]]:
    """Read `key=value` settings: those that every protocol shares, and the protocol's own.

    Raises:
        RecipeError: If a key is neither.
    """
    content, where = merge({}, overrides), f"evaluate {protocol}"
    own = set(options_model(PROTOCOLS[protocol], GIVEN).model_fields)
    for key in content:
        if key not in own | set(EvaluateRecipe.model_fields):
            raise RecipeError(f"{where}: no setting '{key}'.{nearest(key, own | set(EvaluateRecipe.model_fields))}")
    options = {key: content.pop(key) for key in list(content) if key in own}
    return validate(EvaluateRecipe, content, where), resolve_options(PROTOCOLS[protocol], options, where, GIVEN)


def evaluate(
    protocol: str,
    backbone: Backbone,
    task: Task,
    recipe: EvaluateRecipe,
    options: dict[str, Any],
    out: str | Path | None = None,
    features: str | Path | None = None,
) -> tuple[EvalResult, Path]:
    """Evaluate one backbone on one task.

    Args:
        protocol: A name in `PROTOCOLS`.
        backbone: Frozen; its features are cached.
        task: Whose training patients (a fraction of them) are learnt from.
        recipe: What all protocols share.
        options: The protocol's own, complete (see `evaluate_recipe`).
        out: Folder of the result; None: `runs/evaluate/ID`.
        features: Folder of the cached features; None: where `extract_features` keeps them.

    Returns:
        The result and its folder; `predictions.parquet` beside it has every test image.

    Raises:
        SplitError: If a split is missing or empty.
        TaskError: If the task's metric is undefined on validation.
        UsageError: If `out` holds another run, or other files.
    """
    identity = run_id(
        "evaluate",
        {"protocol": protocol, **recipe.model_dump(), **options, "task": task.card.model_dump(exclude={"store"})},
        [backbone.id, task.store.id],
    )
    folder = Path(out) if out else Path("runs/evaluate") / identity
    if (folder / "result.json").exists():
        result = EvalResult.load(folder)
        if result.run_id != identity:
            raise UsageError(f"{folder}: holds run {result.run_id}, this is run {identity}. Give another --out.")
        return result, folder
    strangers = [file.name for file in folder.glob("[!.]*") if file.name != "predictions.parquet"]
    if strangers:
        raise UsageError(f"{folder}: holds other files ({strangers[0]} …). Give another --out.")
    started = time.perf_counter()
    rows = {split: task.rows(split, recipe.fraction, recipe.seed) for split in ("train", "val", "test")}
    _assert_disjoint(task, rows)
    vectors = extract_features(backbone, task.store, features, recipe.size, recipe.precision).values
    selected, scores, validation = _select(protocol, task, rows, vectors, options)
    truth = task.labels[rows["test"]]
    averaging = task.card.averaging
    result = EvalResult(
        run_id=identity, protocol=protocol, strategy=None,
        backbone={
            "id": backbone.id, "name": backbone.card["name"], "pretraining": backbone.card["name"],
            **{key: backbone.card[key] for key in ("method", "source_domain", "parents", "pretraining_seed")},
        },
        task={"name": task.name, "target_domain": str(task.domain)},
        boundary=_boundary(backbone, task),
        fraction=recipe.fraction, seed=recipe.seed, pretraining_seed=backbone.card["pretraining_seed"],
        n={split: task.count(positions) for split, positions in rows.items()}, selected=selected,
        metrics={"val": _finite(validation), "test": _finite(classification_metrics(truth, scores, averaging))},
        intervals=patient_intervals(
            truth, scores, task.groups()[rows["test"]], averaging, recipe.resamples, recipe.seed
        ),
        seen_in_pretraining=task.store.id in backbone.card["stores"],
        cost={"seconds": round(time.perf_counter() - started, 2), "device": _device()},
        environment=environment(_device()), notes=_notes(task, backbone),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    _predictions(task, rows["test"], scores).to_parquet(folder / "predictions.parquet", index=False)
    result.save(folder)
    return result, folder


def _select(
    protocol: str, task: Task, rows: dict[str, np.ndarray], features: np.ndarray, options: dict[str, Any]
) -> tuple[dict[str, Any], np.ndarray, dict[str, float]]:
    """Run the protocol's settings; keep the one that is best on validation, the first among equals."""
    metric, sign = task.card.metric, 1 if task.card.metric in BIGGER_IS_BETTER else -1
    best, kept = -np.inf, None
    queries = {split: features[rows[split]] for split in ("val", "test")}
    for setting, scores in PROTOCOLS[protocol](
        features[rows["train"]], task.labels[rows["train"]], queries, len(task.classes), **options
    ):
        validation = classification_metrics(task.labels[rows["val"]], scores["val"], task.card.averaging)
        if sign * validation[metric] > best:
            best, kept = sign * validation[metric], (setting, scores["test"], validation)
    if kept is None:
        raise TaskError(
            f"task {task.name}: {metric} is undefined on the validation images (a single class?), so nothing can be selected "
            "by it. Take another metric, or ingest again with other splits."
        )
    return kept


def _assert_disjoint(task: Task, rows: dict[str, np.ndarray]) -> None:
    """No patient may stand on both sides of a split, whatever the store says.

    Raises:
        SplitError: If one does.
    """
    if task.patients is None:
        warn(f"{task.store.path}: patients are unknown, so splits are by image and scores may be too good.")
        return
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = set(task.patients[rows[one]]) & set(task.patients[rows[other]])
        if shared:
            raise SplitError(
                f"{task.store.path}: patient {sorted(shared)[0]} has images in both {one} and {other} "
                f"({len(shared)} such patients). Ingest again with --resplit."
            )


def _boundary(backbone: Backbone, task: Task) -> str:
    """`none`, `soft`, `hard` or `unknown`; `scratch` for a backbone that was never pretrained, `mixed` if its stores differ."""
    source = backbone.card["source_domain"]
    found = {boundary(Domain.parse(part), task.domain) for part in source.split(" + ")} if source else {"scratch"}
    return found.pop() if len(found) == 1 else "mixed"


def _predictions(task: Task, rows: np.ndarray, scores: np.ndarray) -> pandas.DataFrame:
    patients = None if task.patients is None else task.patients[rows]
    frame = pandas.DataFrame({"row": rows, "patient": patients, "label": [task.classes[c] for c in task.labels[rows]]})
    for c, name in enumerate(task.classes):
        frame[f"score_{name}"] = scores[:, c]
    return frame


def _notes(task: Task, backbone: Backbone) -> list[str]:
    notes = []
    if task.patients is None:
        notes.append("patients unknown: splits, fractions and intervals are by image")
    have, want = task.store.shape[0], backbone.card["in_channels"]
    if have != want:
        notes.append(
            f"channels: store has {have}, backbone reads {want}; " + ("repeated" if have == 1 else "luminance")
        )
    return notes


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if value != value else round(value, 6) for name, value in values.items()}


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
