"""The stage `evaluate`: evaluate a backbone on a task by a protocol.

A protocol takes training, validation and test rows and returns a `ProtocolResult`. It selects on validation and evaluates test
once. Protocols are declared in `ssl_transfer.protocols`.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_transfer.console import is_main_process
from ssl_transfer.data.tasks import Task
from ssl_transfer.draws import draw_seed
from ssl_transfer.errors import RecipeError, TaskError, nearest
from ssl_transfer.evaluation.context import EvalContext
from ssl_transfer.evaluation.probes import selected_probe
from ssl_transfer.evaluation.record import eval_result, keep_backbone
from ssl_transfer.evaluation.registry import IMPLEMENTATIONS
from ssl_transfer.evaluation.settings import evaluate_recipe, options_identity
from ssl_transfer.evaluation.split_checks import assert_disjoint, assert_fraction
from ssl_transfer.models.adoption import with_channels
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.opening import open_backbone
from ssl_transfer.protocols import FROZEN, PROTOCOLS, protocols_for
from ssl_transfer.recipe import EvaluateRecipe
from ssl_transfer.result import EvalResult
from ssl_transfer.run import Artifact
from ssl_transfer.training.checkpoint import Checkpoints

PARTIAL = ("predictions.parquet", "log.jsonl", "checkpoints", "backbone")  # files of an interrupted run


def evaluate(
    protocol: str,
    backbone: Backbone | str | Path,
    task: Task | str | Path,
    out: str | Path | None = None,
    features: str | Path | None = None,
    **settings: Any,
) -> EvalResult:
    """Evaluate a backbone on a task, or read an existing result. Under a launcher, all processes call it together.

    Args:
        protocol: `linear_probe`, `knn`, `finetune` or `segment`.
        backbone: A backbone, which is not changed, or its path or name (see `load_backbone`).
        task: A task, a card in `recipes/tasks/` by name, or the path of one.
        out: Folder of the result; None: `runs/evaluate/ID`.
        features: Folder of the cached features of this backbone and store; None: where `extract_features` keeps them.
        settings: Settings shared by all protocols (`fraction`, `seed`, `size`, …; see `EvaluateRecipe`), and the options of
            the protocol, such as `strategy` or, with a dot, `**{"train.steps": 100}`.

    Returns:
        Metrics on validation and test, intervals, and the hyper-parameters selected on validation. In its folder,
        `predictions.parquet` has a row per test image, or per case and class, and `backbone/` is the fine-tuned backbone if
        `train.keep_backbone` is set.

    Raises:
        RecipeError: If the protocol or a setting does not exist, or a value is invalid.
        SplitError: If a split is missing or empty.
        TaskError: If the protocol does not support the kind of the task, or the task's metric is undefined on validation.
        UsageError: If `out` holds another run, or other files.
    """
    recipe, options = evaluate_recipe(protocol, settings)
    task = task if isinstance(task, Task) else Task.load(task)
    return _evaluate(protocol, open_backbone(backbone, task.store), task, recipe, options, out, features)


def _evaluate(
    protocol: str,
    backbone: Backbone,
    task: Task,
    recipe: EvaluateRecipe,
    options: dict[str, Any],
    out: str | Path | None,
    features: str | Path | None,
) -> EvalResult:
    """Evaluate with complete settings."""
    if task.kind not in PROTOCOLS[protocol].task_kinds:
        fitting = " or ".join(protocols_for(task.kind))
        raise TaskError(f"task {task.name}: it is {task.kind}, which {protocol} cannot score. Take {fitting}.")
    draw = draw_seed(backbone.card.pretraining_seed, recipe.seed)
    identity_settings = {
        "protocol": protocol,
        **recipe.model_dump(),
        "draw": draw,
        **options_identity(options),
        "task": task.card.model_dump(exclude={"store"}),
    }
    upstream = [backbone.id, task.store.id]
    artifact = Artifact.of("evaluate", identity_settings, upstream, out, record="result.json", partial=PARTIAL)
    identity, folder = artifact.id, artifact.folder
    if artifact.is_finished():
        return EvalResult.load(folder)
    started = time.perf_counter()
    rows = {split: task.rows(split, recipe.fraction, draw) for split in ("train", "val", "test")}
    assert_disjoint(task, rows)
    assert_fraction(task, rows["train"], recipe.fraction)
    used = with_channels(backbone, task.store.shape[0]) if recipe.channels == "adapt" else backbone
    used = used if PROTOCOLS[protocol].frozen else copy.deepcopy(used)
    context = EvalContext(used, task, recipe, rows, identity, folder, Path(features) if features else None)
    implementation = IMPLEMENTATIONS[protocol]
    measured = (
        selected_probe(context, implementation, options)
        if PROTOCOLS[protocol].frozen
        else implementation(context, **options)
    )
    result = eval_result(protocol, backbone, context, options, measured, round(time.perf_counter() - started, 2))
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        measured.predictions.to_parquet(folder / "predictions.parquet", index=False)
        if getattr(options.get("train"), "keep_backbone", False):
            keep_backbone(backbone, context, options["strategy"].name, measured.selected["step"])
        result.save(folder)
        Checkpoints(folder / "checkpoints", identity).clear()
    return replace(result, path=folder)


def probe(
    backbone: Backbone | str | Path,
    task: Task | str | Path,
    fraction: float = 1.0,
    seed: int = 0,
    protocol: str = "linear_probe",
    out: str | Path | None = None,
    features: str | Path | None = None,
    **settings: Any,
) -> EvalResult:
    """Evaluate frozen features of a backbone on a task, as `ssl-transfer evaluate` does, or read an existing result.

    Args:
        backbone: The backbone, which is not changed.
        task: A card in `recipes/tasks/` by name, the path of one, or an opened task.
        fraction: Share of the training patients that is used.
        seed: Evaluation seed: with the backbone's pretraining seed it fixes the draw of these patients, and all else that is
            random (see `ssl_transfer.draws`).
        protocol: A protocol on frozen features: `linear_probe` or `knn`.
        out: Folder of the result; None: `runs/evaluate/ID`.
        features: Folder of the cached features of this backbone and store; None: where `extract_features` keeps them.
        settings: Further options of the protocol, such as `strengths`, or settings of all protocols, such as `precision`.

    Returns:
        Metrics on validation and test, intervals, and the hyper-parameters selected on validation.

    Raises:
        RecipeError: If `protocol` is not one on frozen features, a setting does not exist, or a value is invalid.
        TaskError: If the task cannot be opened, or is a segmentation task.
    """
    if protocol not in FROZEN:
        raise RecipeError(f"probe: no protocol on frozen features is called '{protocol}'.{nearest(protocol, FROZEN)}")
    return evaluate(protocol, backbone, task, out, features, fraction=fraction, seed=seed, **settings)
