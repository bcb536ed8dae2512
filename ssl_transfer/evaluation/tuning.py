"""The stage `tune`: try settings of a protocol on validation. Test is not read: a trial has no test rows."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_transfer.console import is_main_process
from ssl_transfer.cost import metered
from ssl_transfer.data.tasks import Task
from ssl_transfer.draws import draw_seed
from ssl_transfer.environment import device_name, environment
from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.registry import IMPLEMENTATIONS
from ssl_transfer.evaluation.settings import evaluate_recipe
from ssl_transfer.evaluation.stage import check_fit, identity_settings, open_context
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.device import fastest_device
from ssl_transfer.models.opening import open_backbone
from ssl_transfer.models.ranks import gpu_count
from ssl_transfer.protocols import FROZEN
from ssl_transfer.recipe import EvaluateRecipe
from ssl_transfer.result import Tuning
from ssl_transfer.run import Artifact, plain, read_json, write_json

NOT_TUNED = ("fraction", "seed", "permute_labels", "resamples", "external")
SPLITS = ("train", "val")
Grid = Mapping[str, Sequence[Any]]  # setting, by dotted key -> candidates
Settings = tuple[dict[str, Any], EvaluateRecipe, dict[str, Any]]  # of a trial: by dotted key, recipe, options


def tune(
    protocol: str,
    backbone: Backbone | str | Path,
    task: Task | str | Path,
    grid: Grid,
    out: str | Path | None = None,
    **settings: Any,
) -> Tuning:
    """Try every combination of a grid on validation, or read an existing tuning; interrupted ones continue.

    Args:
        protocol: A protocol that trains the backbone: `finetune` or `segment`. (Probes select on validation themselves.)
        backbone: A backbone, which is not changed, or its path or name.
        task: A task, a card in `recipes/tasks/` by name, or the path of one.
        grid: Setting, by dotted key -> candidates: `{"optimizer.lr": [1e-4, 1e-3]}`.
        out: Folder; None: `runs/tune/ID`.
        settings: As for `evaluate`.

    Returns:
        All trials and the settings of the best one. `evaluate(…, tuning=…)` uses these.

    Raises:
        RecipeError: If a setting does not exist, cannot be tuned, or has an invalid value.
        TaskError: If the protocol does not support the kind of the task, or the task's metric is undefined on validation.
        UsageError: If `out` holds another run, or other files.
    """
    trials = list(trial_settings(protocol, grid, settings))
    task = task if isinstance(task, Task) else Task.load(task)
    backbone = open_backbone(backbone, task.store)
    check_fit(protocol, backbone, task)
    identities = [identity_settings(protocol, backbone, task, recipe, options) for _, recipe, options in trials]
    upstream = [backbone.id, task.store.id]
    artifact = Artifact.of("tune", {"trials": identities}, upstream, out, record="tuning.json", partial=("trials",))
    with artifact.writing() as finished:
        if finished:
            return Tuning.load(artifact.folder)
        return _tuned(artifact, protocol, backbone, task, trials)


def _tuned(artifact: Artifact, protocol: str, backbone: Backbone, task: Task, trials: list[Settings]) -> Tuning:
    """Run all trials and write the tuning."""
    results = [
        _trial(protocol, backbone, task, trial, f"{artifact.id}-{number}", artifact.folder / "trials" / str(number))
        for number, trial in enumerate(trials)
    ]
    tuning = _tuning(artifact.id, protocol, backbone, task, trials[0], results)
    if is_main_process():
        tuning.save(artifact.folder)
        for number in range(len(trials)):
            shutil.rmtree(artifact.folder / "trials" / str(number) / "checkpoints", ignore_errors=True)
    return replace(tuning, path=artifact.folder)


def trial_settings(protocol: str, grid: Grid, settings: Mapping[str, Any]) -> Iterator[Settings]:
    """Yield the settings of each trial: every combination of the grid, with the other settings.

    Raises:
        RecipeError: If the grid is empty, or a setting does not exist, cannot be tuned, or has an invalid value.
    """
    if protocol in FROZEN:
        raise RecipeError(f"tune: {protocol} selects its settings on validation itself. Tune finetune or segment.")
    for key, candidates in grid.items():
        if key in NOT_TUNED or not isinstance(candidates, (list, tuple)) or not candidates:
            raise RecipeError(
                f"tune: grid.{key}: found {candidates}, expected a setting of {protocol} with a list of values."
            )
    if not grid:
        raise RecipeError("tune: expected a grid, such as grid.optimizer.lr=[1e-4,1e-3].")
    for values in itertools.product(*grid.values()):
        recipe, options = evaluate_recipe(protocol, {**settings, **dict(zip(grid, values, strict=True))})
        resolved = {**recipe.model_dump(), **plain(options)}
        yield {key: _at(resolved, key) for key in grid}, recipe, options


def _at(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key."""
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value


def _trial(
    protocol: str, backbone: Backbone, task: Task, trial: Settings, identity: str, folder: Path
) -> dict[str, Any]:
    """Train with the settings of a trial, and measure on validation."""
    settings, recipe, options = trial
    record = folder / "trial.json"
    if (finished := read_json(record)) and finished.get("id") == identity and _is_trial(finished.get("trial")):
        return finished["trial"]
    with metered() as meter:
        context = open_context(protocol, backbone, task, recipe, identity, folder, SPLITS)
        measured = IMPLEMENTATIONS[protocol](context, **options)
        cost = meter.total(gpu_count(fastest_device())).to_json()
    validation = {name: None if value != value else round(value, 6) for name, value in measured.validation.items()}
    result = {"settings": settings, "validation": validation, "selected": measured.selected, **cost}
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(record, {"id": identity, "trial": result})
    return result


def _is_trial(content: Any) -> bool:
    """Whether the record of a trial is complete; else the trial is run again."""
    kinds = {"settings": dict, "validation": dict, "selected": dict, "seconds": (int, float)}
    return isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in kinds.items())


def _tuning(
    identity: str, protocol: str, backbone: Backbone, task: Task, first: Settings, trials: list[dict[str, Any]]
) -> Tuning:
    _, recipe, options = first
    draw = draw_seed(backbone.card.pretraining_seed, recipe.seed)
    n = {split: task.count(task.rows(split, recipe.fraction, draw)) for split in SPLITS}
    metric = task.card.metric
    sign = metric_sign(metric)
    values = [trial["validation"][metric] for trial in trials]
    best = max(
        range(len(trials)), key=lambda number: -float("inf") if values[number] is None else sign * values[number]
    )
    return Tuning(
        run_id=identity,
        protocol=protocol,
        strategy=options["strategy"].name,
        backbone=backbone.id,
        task=task.name,
        metric=metric,
        fraction=recipe.fraction,
        seed=recipe.seed,
        trials=tuple(trials),
        selected=trials[best]["settings"],
        n=n,
        environment=environment(device_name()),
    )
