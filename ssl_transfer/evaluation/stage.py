"""The stage `evaluate`: evaluate a backbone on a task by a protocol.

A protocol takes training, validation and test rows and returns a `ProtocolResult`. It selects on validation and evaluates test
once. Protocols are declared in `ssl_transfer.protocols`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_transfer.cards import TRIVIAL
from ssl_transfer.console import is_main_process, warn
from ssl_transfer.cost import metered
from ssl_transfer.data.external_tests import ExternalTest, external_tests
from ssl_transfer.data.store_watch import StoreWatch
from ssl_transfer.data.tasks import Task
from ssl_transfer.draws import draw_seed
from ssl_transfer.errors import RecipeError, TaskError, UsageError, nearest
from ssl_transfer.evaluation import pictures
from ssl_transfer.evaluation.contamination import contamination
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult
from ssl_transfer.evaluation.external import ExternalResult, predictions_file, tested_externally
from ssl_transfer.evaluation.permutation import with_permuted_labels
from ssl_transfer.evaluation.pictures import write_pictures
from ssl_transfer.evaluation.probes import selected_probe
from ssl_transfer.evaluation.record import eval_result, keep_backbone, keep_probe
from ssl_transfer.evaluation.registry import IMPLEMENTATIONS
from ssl_transfer.evaluation.settings import evaluate_recipe, options_identity
from ssl_transfer.evaluation.split_checks import absent_classes, assert_disjoint, assert_fraction
from ssl_transfer.evaluation.subgroups import subgroup_metrics
from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.models import fitted_probe
from ssl_transfer.models.adoption import with_channels
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.device import fastest_device
from ssl_transfer.models.given_features import WITHOUT_IMAGES
from ssl_transfer.models.opening import open_backbone
from ssl_transfer.models.ranks import gpu_count
from ssl_transfer.numerics import numerics
from ssl_transfer.protocols import FROZEN, PROTOCOLS, protocols_for
from ssl_transfer.recipe import EvaluateRecipe
from ssl_transfer.result import EvalResult, Tuning
from ssl_transfer.run import Artifact, file_digest
from ssl_transfer.training.checkpoint import Checkpoints
from ssl_transfer.writing import writes

PARTIAL = (  # files of an interrupted run
    *("predictions.parquet", "log.jsonl", "checkpoints", "backbone"),
    *(fitted_probe.TENSORS, fitted_probe.CARD),
    *pictures.FILES,
)


def evaluate(
    protocol: str,
    backbone: Backbone | str | Path,
    task: Task | str | Path,
    out: str | Path | None = None,
    features: str | Path | Sequence[str | Path] | None = None,
    tuning: Tuning | None = None,
    **settings: Any,
) -> EvalResult:
    """Evaluate a backbone on a task, or read an existing result. Under a launcher, all processes call it together.

    Args:
        protocol: `linear_probe`, `knn`, `finetune` or `segment`.
        backbone: A backbone, which is not changed, or its path or name (see `load_backbone`).
        task: A task, a card in `recipes/tasks/` by name, or the path of one.
        out: Folder of the result; None: `runs/evaluate/ID`.
        features: Folder of the cached features of this backbone and store, or also those of the external stores, in their order;
            None: where `extract_features` keeps them.
        tuning: What `tune` selected for this protocol, strategy, backbone, task and fraction: those settings are used.
        settings: Settings shared by all protocols (`fraction`, `seed`, `size`, …; see `EvaluateRecipe`), and the options of
            the protocol, such as `strategy` or, with a dot, `**{"train.steps": 100}`.

    Returns:
        Metrics on validation and test, intervals, and the hyper-parameters selected on validation. In its folder,
        `predictions.parquet` has a row per test image, or per case and class, and whether it was seen in pretraining;
        `confusion` and `curves` (`.csv`, `.svg`) are of tasks with classes, grades or labels; `backbone/`
        is the fine-tuned backbone if `train.keep_backbone` is set; `probe.safetensors` and `probe.json` are the fitted linear
        probe, which `predict` applies to new images.

    Raises:
        RecipeError: If the protocol or a setting does not exist, or a value is invalid.
        SplitError: If a split is missing or empty, or an external store has a patient of the task's store.
        TaskError: If the protocol does not support the kind of the task, the task's metric is undefined on validation, or an
            external store does not fit the task.
        UsageError: If `out` holds another run, or other files, the backbone has no weights that the protocol could train, or the
            tuning is of something else.
    """
    recipe, options = evaluate_recipe(protocol, {**settings, **(tuning.selected if tuning else {})})
    task = task if isinstance(task, Task) else Task.load(task)
    backbone = open_backbone(backbone, task.store)
    if tuning:
        _check_tuning(tuning, protocol, backbone, task, recipe, options)
    return _evaluate(protocol, backbone, task, recipe, options, out, features, tuning)


def _check_tuning(
    tuning: Tuning, protocol: str, backbone: Backbone, task: Task, recipe: EvaluateRecipe, options: dict[str, Any]
) -> None:
    """Refuse the tuning of another protocol, strategy, backbone, task or fraction.

    Raises:
        UsageError: If it is one.
    """
    strategy = options["strategy"].name if "strategy" in options else None
    expected = {"protocol": protocol, "strategy": strategy, "backbone": backbone.id, "task": task.name}
    expected["fraction"] = recipe.fraction
    for name, value in expected.items():
        if (tuned := getattr(tuning, name)) != value:
            raise UsageError(
                f"{tuning.path}: settings were tuned for {name} {tuned}, and this evaluation has {value}. Tune for it."
            )


def _evaluate(
    protocol: str,
    backbone: Backbone,
    task: Task,
    recipe: EvaluateRecipe,
    options: dict[str, Any],
    out: str | Path | None,
    features: str | Path | Sequence[str | Path] | None,
    tuning: Tuning | None = None,
) -> EvalResult:
    """Evaluate with complete settings."""
    check_fit(protocol, backbone, task)
    stores = task.card.external or () if recipe.external is None else recipe.external
    external = external_tests(task, stores)
    settings = identity_settings(protocol, backbone, task, recipe, options)
    upstream = [backbone.id, task.store.id, *(test.task.store.id for test in external)]
    partial = (*PARTIAL, *(predictions_file(test.name) for test in external))
    artifact = Artifact.of("evaluate", settings, upstream, out, record="result.json", partial=partial)
    with artifact.writing() as finished:
        if finished:
            return EvalResult.load(artifact.folder)
        context = open_context(protocol, backbone, task, recipe, artifact.id, artifact.folder)
        named = [features] if isinstance(features, (str, Path)) else features or ()
        folders = dict(enumerate(map(Path, named)))  # the first is that of the task's own store
        context = replace(context, features=folders.get(0))
        return _measured(
            protocol, backbone, context, options, tuning, [(test, folders.get(n)) for n, test in enumerate(external, 1)]
        )


@numerics()
def _measured(
    protocol: str,
    backbone: Backbone,
    context: EvalContext,
    options: dict[str, Any],
    tuning: Tuning | None,
    external: Sequence[tuple[ExternalTest, Path | None]] = (),
) -> EvalResult:
    """Run the protocol, then the external tests, and write the result."""
    watch = StoreWatch([context.task.store, *(test.task.store for test, _ in external)])
    implementation = IMPLEMENTATIONS[protocol]
    with metered() as meter:
        measured = (
            selected_probe(context, implementation, options)
            if PROTOCOLS[protocol].frozen
            else implementation(context, **options)
        )
        elsewhere = [tested_externally(test, backbone, context, measured, folder) for test, folder in external]
        cost = meter.total(gpu_count(fastest_device()))
    watch.check()
    if tuning:
        measured = replace(measured, selected={**tuning.selected, **measured.selected})
    test = measured.predictions, measured.test, measured.temperature
    seen = contamination(backbone, context.task, context.rows["test"], *test)
    result = eval_result(protocol, backbone, context, options, measured, cost, seen, elsewhere)
    result = replace(result, subgroups=subgroup_metrics(context, measured))
    measured = replace(measured, predictions=seen.with_statements(measured.predictions))
    if tuning:
        facts = {"run_id": tuning.run_id, "trials": len(tuning.trials), "seed": tuning.seed}
        result = replace(result, settings={**result.settings, "tuning": facts})
    if is_main_process():
        result = _write(result, backbone, context, options, measured, elsewhere)
    return replace(result, path=context.folder)


def _write(
    result: EvalResult,
    backbone: Backbone,
    context: EvalContext,
    options: dict[str, Any],
    measured: ProtocolResult,
    external: Sequence[ExternalResult],
) -> EvalResult:
    """Write predictions, backbone, probe and result, in this order: the run is finished once the result exists."""
    folder = context.folder
    tables = {"predictions.parquet": measured.predictions}
    tables |= {predictions_file(each.name): each.predictions for each in external}
    with writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            table.to_parquet(folder / name, index=False)
        if getattr(options.get("train"), "keep_backbone", False):
            keep_backbone(backbone, context, options["strategy"].name, measured.selected["step"])
        kept = keep_probe(result, backbone, context, measured.classifier) if measured.classifier else ()
        kept += write_pictures(folder, CasePredictions(measured.predictions))
        result = replace(result, files={name: file_digest(folder / name) for name in (*tables, *kept)})
        result.save(folder)
    Checkpoints(folder / "checkpoints", context.identity).clear()
    return result


def check_fit(protocol: str, backbone: Backbone, task: Task) -> None:
    """Refuse a protocol that cannot score the task, or cannot train the backbone.

    Raises:
        TaskError: If the protocol does not support the kind of the task.
        UsageError: If the protocol trains the backbone, and this has no weights.
    """
    if task.kind not in PROTOCOLS[protocol].task_kinds:
        fitting = " or ".join(protocols_for(task.kind))
        raise TaskError(f"task {task.name}: it is {task.kind}, which {protocol} cannot score. Take {fitting}.")
    if not backbone.reads_images and not PROTOCOLS[protocol].frozen:
        raise UsageError(f"{protocol}: {backbone.card.name}: {WITHOUT_IMAGES}")
    if backbone.card.method == TRIVIAL and not PROTOCOLS[protocol].frozen:
        raise UsageError(f"{protocol}: trivial features have no weights to train. Take {' or '.join(FROZEN)}.")


def identity_settings(
    protocol: str, backbone: Backbone, task: Task, recipe: EvaluateRecipe, options: dict[str, Any]
) -> dict[str, Any]:
    """The settings that enter the id of an evaluation."""
    return {
        "protocol": protocol,
        **recipe.identity(),
        "draw": draw_seed(backbone.card.pretraining_seed, recipe.seed),
        **options_identity(options),
        "task": task.card.identity(),
        **({"subgroups": task.card.subgroups} if task.card.subgroups else {}),
    }


def open_context(
    protocol: str,
    backbone: Backbone,
    task: Task,
    recipe: EvaluateRecipe,
    identity: str,
    folder: Path,
    splits: Sequence[str] = ("train", "val", "test"),
) -> EvalContext:
    """The input of a protocol: rows of the splits, checked, and a backbone that it may change.

    Raises:
        SplitError: If a split is missing or empty, or a patient is in two of them.
    """
    if recipe.group_pool and not task.card.target_of:
        raise RecipeError(
            f"group_pool: it is for tasks with target_of, and task {task.name} has a label per image. Leave it out."
        )
    draw = draw_seed(backbone.card.pretraining_seed, recipe.seed)
    rows = {split: task.rows(split, recipe.fraction, draw) for split in splits}
    assert_disjoint(task, rows)
    assert_fraction(task, rows["train"], recipe.fraction)
    for sentence in absent_classes(task, rows):
        warn(f"task {task.name}: {sentence}.")
    task = with_permuted_labels(task, rows, draw) if recipe.permute_labels else task
    used = with_channels(backbone, task.store.shape[0]) if recipe.channels == "adapt" else backbone
    if not PROTOCOLS[protocol].frozen:
        used = copy.deepcopy(used).cpu()  # earlier features may have left it on a GPU, and heads are built on the CPU
    poolings = _group_poolings(protocol, task, recipe)
    return EvalContext(used, task, recipe, rows, identity, folder, group_poolings=poolings)


def _group_poolings(protocol: str, task: Task, recipe: EvaluateRecipe) -> tuple[str, ...]:
    """Candidate poolings of the images of a group.

    Raises:
        RecipeError: If the protocol lacks one for this kind of task.
    """
    has, stated = PROTOCOLS[protocol].poolings_of(task.kind), tuple(recipe.group_pool or ())
    if task.card.target_of and set(stated) - set(has):
        raise RecipeError(
            f"group_pool: found {', '.join(stated)}; {protocol} of {task.kind} tasks takes {', '.join(has) or 'none'}."
        )
    return stated or has


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
