"""The stage `evaluate`: what a backbone is worth on a task, by one protocol.

A protocol is given training, validation and test rows, and gives an `ProtocolResult`. It selects on validation and looks at test
once. `linear_probe` and `knn` stand on frozen features, `finetune` and `segment` train.
"""

from __future__ import annotations

import copy
import itertools
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.console import is_main_process, warn
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.tasks import Task
from ssl_transfer.domains import Domain, boundary
from ssl_transfer.environment import device_name, environment
from ssl_transfer.errors import RecipeError, SplitError, TaskError, nearest
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult
from ssl_transfer.evaluation.probes import selected_probe
from ssl_transfer.evaluation.registry import IMPLEMENTATIONS
from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.models.adoption import with_channels
from ssl_transfer.models.backbone import Backbone, save_backbone
from ssl_transfer.protocols import FROZEN, PROTOCOLS, protocols_for
from ssl_transfer.recipe import (
    Component,
    EvaluateRecipe,
    FinetuneSection,
    choose,
    merge,
    options_model,
    resolve_options,
    validate,
)
from ssl_transfer.result import EvalResult
from ssl_transfer.run import Artifact, plain
from ssl_transfer.training.checkpoint import Checkpoints
from ssl_transfer.training.optim import OPTIMIZERS

COMPONENTS = {"strategy": STRATEGIES, "optimizer": OPTIMIZERS, "views": VIEWS}  # options that name a component
SWEPT = ("fraction", "seed")  # a list of them is one evaluation of each
PARTIAL = ("predictions.parquet", "log.jsonl", "checkpoints", "backbone")


def evaluate_recipe(
    protocol: str, overrides: list[str] | tuple[str, ...] = ()
) -> tuple[EvaluateRecipe, dict[str, Any]]:
    """Read `key=value` settings: those that every protocol shares, and the protocol's own, completed with their defaults.

    Raises:
        RecipeError: If a key is neither, or a value is wrong.
    """
    content, where = merge(_named_defaults(protocol), overrides), f"evaluate {protocol}"
    own = set(options_model(IMPLEMENTATIONS[protocol]).model_fields)
    for key in content:
        if key not in own | set(EvaluateRecipe.model_fields):
            raise RecipeError(f"{where}: no setting '{key}'.{nearest(key, own | set(EvaluateRecipe.model_fields))}")
    options = {key: content.pop(key) for key in list(content) if key in own}
    options = resolve_options(IMPLEMENTATIONS[protocol], options, where)
    for key, value in options.items():
        if isinstance(value, Component):
            options[key] = Component(name=value.name, **choose(COMPONENTS[key], value, f"{where}: {key}"))
    return validate(EvaluateRecipe, content, where), options


def evaluate_recipes(
    protocol: str, overrides: list[str] | tuple[str, ...] = ()
) -> Iterator[tuple[EvaluateRecipe, dict[str, Any]]]:
    """As `evaluate_recipe`, for every combination of the listed fractions and seeds: `fraction=[0.1, 1] seed=[0, 1]`."""
    content = merge({}, overrides)
    others = [override for override in overrides if override.partition("=")[0] not in SWEPT]
    axes = [
        [f"{key}={value}" for value in (content[key] if isinstance(content[key], list) else [content[key]])]
        for key in SWEPT
        if key in content
    ]
    for chosen in itertools.product(*axes):
        yield evaluate_recipe(protocol, [*others, *chosen])


def evaluate(
    protocol: str,
    backbone: Backbone,
    task: Task,
    recipe: EvaluateRecipe,
    options: dict[str, Any],
    out: str | Path | None = None,
    features: str | Path | None = None,
) -> tuple[EvalResult, Path]:
    """Evaluate one backbone on one task. Under a launcher all processes call it together.

    Args:
        protocol: A name in `PROTOCOLS`.
        backbone: As it was pretrained, and as it stays.
        task: Whose training patients (a fraction of them) are learnt from.
        recipe: What all protocols share.
        options: The protocol's own, complete (see `evaluate_recipe`).
        out: Folder of the result; None: `runs/evaluate/ID`.
        features: Folder of the cached features; None: where `extract_features` keeps them.

    Returns:
        The result and its folder; `predictions.parquet` beside it has every test image, or case and class, and `backbone/`, where
        `train.keep_backbone` asks for it, what the backbone has become.

    Raises:
        SplitError: If a split is missing or empty.
        TaskError: If the protocol is not for such a task, or the task's metric is undefined on validation.
        UsageError: If `out` holds another run, or other files.
    """
    if task.kind not in PROTOCOLS[protocol].task_kinds:
        fitting = " or ".join(protocols_for(task.kind))
        raise TaskError(f"task {task.name}: it is {task.kind}, which {protocol} cannot score. Take {fitting}.")
    settings = {
        "protocol": protocol,
        **recipe.model_dump(),
        **_identity(options),
        "task": task.card.model_dump(exclude={"store"}),
    }
    upstream = [backbone.id, task.store.id]
    artifact = Artifact.of("evaluate", settings, upstream, out, record="result.json", partial=PARTIAL)
    identity, folder = artifact.id, artifact.folder
    if artifact.is_finished():
        return EvalResult.load(folder), folder
    started = time.perf_counter()
    rows = {split: task.rows(split, recipe.fraction, recipe.seed) for split in ("train", "val", "test")}
    _assert_disjoint(task, rows)
    _assert_fraction(task, rows["train"], recipe.fraction)
    used = with_channels(backbone, task.store.shape[0]) if recipe.channels == "adapt" else backbone
    used = used if PROTOCOLS[protocol].frozen else copy.deepcopy(used)
    context = EvalContext(used, task, recipe, rows, identity, folder, Path(features) if features else None)
    implementation = IMPLEMENTATIONS[protocol]
    outcome = (
        selected_probe(context, implementation, options)
        if PROTOCOLS[protocol].frozen
        else implementation(context, **options)
    )
    result = _result(protocol, backbone, context, options, outcome, round(time.perf_counter() - started, 2))
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        outcome.predictions.to_parquet(folder / "predictions.parquet", index=False)
        if getattr(options.get("train"), "keep_backbone", False):
            _keep_backbone(backbone, context, options["strategy"].name)
        result.save(folder)
        Checkpoints(folder / "checkpoints", identity).clear()
    return result, folder


def probe(
    backbone: Backbone,
    task: str | Path | Task,
    fraction: float = 1.0,
    seed: int = 0,
    protocol: str = "linear_probe",
    out: str | Path | None = None,
    features: str | Path | None = None,
    **settings: Any,
) -> EvalResult:
    """Evaluate frozen features of a backbone on a task, as `ssl-transfer evaluate` does; what was done before is read.

    Args:
        backbone: Any.
        task: A card in `recipes/tasks/` by name, the path of one, or a task that is open.
        fraction: Share of the training patients that are learnt from.
        seed: Of their draw, and of resampling.
        protocol: A protocol on frozen features: `linear_probe` or `knn`.
        out: Folder of the result; None: `runs/evaluate/ID`.
        features: Folder of the cached features of this backbone and store; None: where `extract_features` keeps them.
        settings: Others of the protocol, such as `strengths`, or of every protocol, such as `precision`.

    Returns:
        Metrics of validation and test, intervals, and what was selected on validation.

    Raises:
        RecipeError: If `protocol` is none on frozen features, a setting does not exist, or its value is wrong.
        TaskError: If the task cannot be opened, or is a segmentation task.
    """
    if protocol not in FROZEN:
        raise RecipeError(f"probe: no protocol on frozen features is called '{protocol}'.{nearest(protocol, FROZEN)}")
    given = {"fraction": fraction, "seed": seed, **settings}
    recipe, own = evaluate_recipe(
        protocol, [f"{key}={json.dumps(value, default=lambda own: own.item())}" for key, value in given.items()]
    )
    opened = task if isinstance(task, Task) else Task.load(task)
    return evaluate(protocol, backbone, opened, recipe, own, out, features)[0]


def _result(
    protocol: str,
    backbone: Backbone,
    context: EvalContext,
    options: dict[str, Any],
    outcome: ProtocolResult,
    seconds: float,
) -> EvalResult:
    task, recipe = context.task, context.recipe
    strategy = options["strategy"].name if "strategy" in options else None
    return EvalResult(
        run_id=context.identity,
        protocol=protocol,
        strategy=strategy,
        backbone={
            "id": backbone.id,
            "name": backbone.card.name,
            "pretraining": backbone.card.name,
            "method": backbone.card.method,
            "source_domain": backbone.card.source_domain,
            "parents": list(backbone.card.parents),
            "pretraining_seed": backbone.card.pretraining_seed,
        },
        task={"name": task.name, "target_domain": str(task.domain)},
        boundary=_boundary(backbone, task),
        fraction=recipe.fraction,
        seed=recipe.seed,
        pretraining_seed=backbone.card.pretraining_seed,
        n={split: task.count(positions) for split, positions in context.rows.items()},
        selected=outcome.selected,
        metrics={"val": _finite(outcome.validation), "test": _finite(outcome.test)},
        intervals=outcome.intervals,
        seen_in_pretraining=task.store.id in backbone.card.stores,
        cost={"seconds": seconds, "device": device_name()},
        environment=environment(device_name()),
        notes=_notes(context) + outcome.notes,
        settings={
            **plain(outcome.settings),
            "noise": recipe.noise.model_dump(),
            "size": context.size,
            "channels": recipe.channels,
        },
    )


def _keep_backbone(parent: Backbone, context: EvalContext, strategy: str) -> None:
    """Write a backbone as its fine-tune left it, adapters merged; its card names the parent, and what it has seen."""
    task, folder = context.task, context.folder / "backbone"
    domains = [*(parent.card.source_domain or "").split(" + "), str(task.domain)]
    card = replace(
        context.backbone.card,
        name=f"{parent.card.name} → {task.name}",
        method=f"{strategy} fine-tune",
        source_domain=" + ".join(dict.fromkeys(filter(None, domains))),
        stores=tuple(dict.fromkeys([*parent.card.stores, task.store.id])),
        parents=(*parent.card.parents, parent.id),
        run_id=context.identity,
        recipe=None,
        training=None,
    )
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed before it was done
    save_backbone(Backbone(context.backbone.model, card), folder)


def _named_defaults(protocol: str) -> dict[str, Any]:
    """Blocks such as `optimizer`, so that one of their options can be overridden alone."""
    fields = options_model(IMPLEMENTATIONS[protocol]).model_fields
    return {key: plain(field.default) for key, field in fields.items() if isinstance(field.default, Component)}


def _identity(options: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.identity() if isinstance(value, FinetuneSection) else plain(value) for key, value in options.items()
    }


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


def _assert_fraction(task: Task, chosen: np.ndarray, fraction: float) -> None:
    """The training rows are all images of some patients, and of as many as the fraction says, up to rounding in each stratum.

    Raises:
        SplitError: If they are not.
    """
    everyone, groups = task.rows("train"), task.groups()
    kept, known = set(groups[chosen].tolist()), set(groups[everyone].tolist())
    whole = np.array_equal(chosen, everyone[np.isin(groups[everyone], list(kept))])
    slack = len(np.unique(task.strata[everyone])) if fraction < 1 else 0
    if not whole or abs(len(kept) - fraction * len(known)) > slack:
        raise SplitError(
            f"{task.store.path}: fraction {fraction} gave {len(chosen)} images of {len(kept)} patients, out of {len(everyone)} "
            f"of {len(known)}; expected whole patients, about {fraction * len(known):.0f}. Please report this: it is our defect."
        )


def _boundary(backbone: Backbone, task: Task) -> str:
    """`none`, `soft`, `hard` or `unknown`; `scratch` for a backbone that was never pretrained, `mixed` if its stores differ."""
    source = backbone.card.source_domain
    found = {boundary(Domain.parse(part), task.domain) for part in source.split(" + ")} if source else {"scratch"}
    return found.pop() if len(found) == 1 else "mixed"


def _notes(context: EvalContext) -> list[str]:
    task, backbone, notes = context.task, context.backbone, []
    if task.patients is None:
        notes.append("patients unknown: splits, fractions and intervals are by image")
    have, want = task.store.shape[0], backbone.card.in_channels
    if have != want:
        notes.append(
            f"channels: store has {have}, backbone reads {want}; " + ("repeated" if have == 1 else "luminance")
        )
    if context.recipe.channels == "adapt":
        notes += [f"channels: {change}" for change in backbone.card.adapted if "channels" in change]
    return notes


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if value != value else round(value, 6) for name, value in values.items()}
