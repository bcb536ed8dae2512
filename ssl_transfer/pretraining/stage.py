"""The stage `pretrain`: recipe and store in, backbone out."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator

from ssl_transfer.console import is_main_process, say
from ssl_transfer.errors import UsageError
from ssl_transfer.methods.registry import Objective
from ssl_transfer.models.backbone import Backbone, random_init, save_backbone
from ssl_transfer.models.batchnorm import globalise_batchnorm
from ssl_transfer.models.memory import keep_freed_memory
from ssl_transfer.pretraining.setup import online_probes, resolve, set_up
from ssl_transfer.recipe import PretrainRecipe
from ssl_transfer.run import Log, environment, read_json, run_id, write_json
from ssl_transfer.training.batches import StepSampler, view_batches
from ssl_transfer.training.checkpoint import Checkpoints
from ssl_transfer.training.loop import Pace, Training
from ssl_transfer.training.machine import Machine, start_accelerator
from ssl_transfer.training.monitor import Alarms
from ssl_transfer.training.optim import OPTIMIZERS

COLLAPSE_PATIENCE_STEPS = 50


def pretrain(
    recipe: PretrainRecipe,
    out: str | Path | None = None,
    resume: str = "auto",
    where: str = "recipe",
    untrained: bool = False,
) -> dict[str, Any]:
    """Pretrain a backbone, or go on with a run that was interrupted.

    Args:
        recipe: What to do.
        out: Folder of the run; None: `runs/NAME-ID`.
        resume: `auto` continues from the newest whole checkpoint, `never` starts anew.
        where: Name of the recipe, for error messages.
        untrained: Write the backbone as it is before the first step, with random weights of its seed: the control.

    Returns:
        `backbone` (path), `run`, `world_size`, `steps`, `images_per_second`, `final` (loss, knn, rankme).

    Raises:
        RecipeError, StoreError, BackboneError: If the input is wrong; nothing was written.
        UsageError: If `out` belongs to another run.
        RunError: If the run cannot start or go on.
    """
    setting = set_up(resolve(recipe, where), where)
    recipe, objective, pool = setting.recipe, setting.objective, setting.pool
    identity = run_id("untrained" if untrained else "pretrain", recipe.identity(), setting.upstream)
    folder = Path(out) if out else Path("runs") / f"{recipe.name}-{identity[:8]}"
    finished = _finished(folder, identity)
    if finished:
        say(f"{folder}: already there.")
        return finished
    if untrained:
        return _untrained(recipe, objective.backbone, folder, identity)
    probes = online_probes(recipe, pool)

    checkpoints = Checkpoints(folder / "checkpoints", identity)
    if resume == "never":
        checkpoints.clear()
    checkpoint = checkpoints.load()
    machine = Machine(**checkpoint["machine"]) if checkpoint else _machine(recipe)
    checkpoints.extra = lambda: {"machine": machine.to_card()}  # what a resumed run must not choose again
    train = recipe.train
    accelerator = start_accelerator(machine.precision, train.batch_size, train.accumulate_steps, recipe.tracker, folder)
    keep_freed_memory(accelerator.device)
    torch.set_num_threads(machine.threads)  # Accelerate may have chosen others
    if accelerator.is_main_process:
        _open_folder(folder, identity, recipe, accelerator, machine)
    accelerator.wait_for_everyone()
    if recipe.tracker != "none":  # TensorBoard's project name becomes its folder in the run
        accelerator.init_trackers("tensorboard" if recipe.tracker == "tensorboard" else "ssl_transfer")

    torch.manual_seed(recipe.train.seed + accelerator.process_index)  # dropout and stochastic depth draw from it
    training = _training(recipe, objective, accelerator, machine)
    if checkpoint:
        training.restore(checkpoint)
        say(f"{folder}: going on from step {training.step}.")
    pace = training.pace
    sampler = StepSampler(
        pool,
        pace.batch_size,
        pace.total_steps,
        training.step,
        accelerator.process_index,
        accelerator.num_processes,
        pace.accumulate,
    )
    log = Log(folder / "log.jsonl", training.step) if accelerator.is_main_process else None
    started = time.perf_counter()
    first_step = training.step
    patience = max(pace.warmup_steps, COLLAPSE_PATIENCE_STEPS)

    def watch(backbone: Backbone) -> dict[str, float]:
        if probes is None or not accelerator.is_main_process:
            return {}
        return probes.measure(backbone, accelerator.device, machine.precision == "bf16")

    with closing(view_batches(pool, sampler, accelerator.device, recipe.train.workers)) as batches:
        training.run(
            batches,
            log,
            checkpoints,
            Alarms(recipe.monitor.on_nonfinite, recipe.monitor.on_collapse, patience),
            lambda: watch(training.backbone()),
            pool.key,
        )
    seconds = time.perf_counter() - started
    summary = {
        "run": str(folder),
        "backbone": str(folder / "backbone"),
        "world_size": accelerator.num_processes,
        "steps": pace.total_steps,
        "images_per_second": round((pace.total_steps - first_step) * pace.batch_size / max(seconds, 1e-9), 1),
        "final": {key: (log.last if log else {}).get(key) for key in ("loss", "knn", "linear_probe", "rankme")},
        "seconds": round(seconds, 1),
        **machine.to_card(),
    }
    backbone = training.backbone()
    if accelerator.is_main_process:
        log.close()
        backbone.card = replace(backbone.card, run_id=identity, training=summary)
        save_backbone(backbone, folder / "backbone")
        checkpoints.clear()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary


def _machine(recipe: PretrainRecipe) -> Machine:
    smallest = min(recipe.data.size, recipe.method.options.get("local_size", recipe.data.size))
    return Machine.chosen(recipe.train.precision, recipe.train.memory_format, smallest)


def _training(recipe: PretrainRecipe, objective: Objective, accelerator: Accelerator, machine: Machine) -> Training:
    train, course = recipe.train, objective.course
    pace = Pace(
        total_steps=course.total_steps,
        steps_per_epoch=course.steps_per_epoch,
        warmup_steps=round(train.warmup_epochs * course.steps_per_epoch),
        batch_size=train.batch_size,
        log_every=train.log_every_steps,
        checkpoint_every=train.checkpoint_every_steps,
        watch_every=max(1, round(recipe.monitor.every_epochs * course.steps_per_epoch)),
        clip_gradient=train.clip_gradient,
        accumulate=train.accumulate_steps,
    )
    globalise_batchnorm(objective, objective.bn_groups, accelerator.device)
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    objective.to(accelerator.device, memory_format=formats[machine.memory_format])
    if train.compile:
        for part in objective.compiled_parts():
            part.compile()
    optimizer = OPTIMIZERS[recipe.optimizer.name](objective.groups(), train.batch_size, **recipe.optimizer.options)
    return Training(objective, optimizer, accelerator, pace)


def _untrained(recipe: PretrainRecipe, beginning: Backbone, folder: Path, identity: str) -> dict[str, Any]:
    """Write the control of a recipe: its backbone with random weights of its seed, which has seen nothing."""
    control = random_init(beginning.card)
    summary = {"run": str(folder), "backbone": str(folder / "backbone"), "world_size": 1, "steps": 0, "final": {}}
    control.card = replace(control.card, run_id=identity, recipe=recipe.model_dump(), training=summary)
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        save_backbone(control, folder / "backbone")
    return summary


def _finished(folder: Path, identity: str) -> dict[str, Any] | None:
    """The summary of a run that is done; None if it is still to do.

    Raises:
        UsageError: If the folder is taken by something else.
    """
    card, run = read_json(folder / "backbone" / "card.json"), read_json(folder / "run.json")
    owner = (card or run or {}).get("run_id")
    if owner not in (None, identity) or (owner is None and any(folder.glob("[!.]*"))):
        raise UsageError(
            f"{folder}: already holds {f'run {owner}' if owner else 'other files'}, and this recipe with these inputs is run "
            f"{identity}. Give it another --out."
        )
    return card["training"] if card else None


def _open_folder(
    folder: Path, identity: str, recipe: PretrainRecipe, accelerator: Accelerator, machine: Machine
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", {"run_id": identity, "stage": "pretrain", "machine": machine.to_card()})
    write_json(folder / "environment.json", environment(str(accelerator.device)))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(_plain(recipe.model_dump()), sort_keys=False))


def _plain(value: Any) -> Any:
    """Tuples become lists, which YAML can write."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
