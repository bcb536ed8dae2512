"""The stage `pretrain`: train a backbone on the images of one or several stores, as a recipe says."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from ssl_transfer.cards import BackboneCard
from ssl_transfer.console import is_main_process, warn
from ssl_transfer.cost import Cost
from ssl_transfer.environment import environment
from ssl_transfer.errors import RecipeError
from ssl_transfer.models.backbone import Backbone, random_init, save_backbone
from ssl_transfer.paths import portable
from ssl_transfer.pretraining.kept import KeptBackbones, warn_of_missing
from ssl_transfer.pretraining.run_monitor import RunMonitor
from ssl_transfer.pretraining.setup import PretrainSetup, online_probes, resolve
from ssl_transfer.recipe import Overrides, PretrainRecipe, load_recipe, merge, validate
from ssl_transfer.run import Artifact, plain, write_json
from ssl_transfer.schedule import Schedule
from ssl_transfer.training.batches import StepSampler
from ssl_transfer.training.machine import Machine, start_trackers
from ssl_transfer.training.monitor import Alarms
from ssl_transfer.training.optim import OPTIMIZERS
from ssl_transfer.training.session import Session
from ssl_transfer.writing import writes

COLLAPSE_PATIENCE_STEPS = 50


def pretrain(
    recipe: PretrainRecipe | str | Path,
    out: str | Path | None = None,
    *,
    resume: Literal["auto", "never"] = "auto",
    untrained: bool = False,
    **overrides: Any,
) -> dict[str, Any]:
    """Pretrain a backbone, or continue an interrupted run.

    Args:
        recipe: A recipe, or the path of its YAML file.
        out: Folder of the run; None: `runs/NAME-ID`.
        resume: `auto` continues from the latest undamaged checkpoint; `never` deletes all checkpoints and starts again.
        untrained: Write the backbone with the random initialisation of the seed, without training, as a control.
        overrides: Settings that replace those of the recipe, by dotted key: `**{"train.epochs": 10}`.

    Returns:
        `backbone` (path), `run`, `world_size`, `steps`, `images_per_second`, `final` (loss, knn, rankme).

    Raises:
        RecipeError, StoreError, BackboneError: If the input is wrong; nothing is written.
        UsageError: If `out` belongs to another run.
        RunError: If the run cannot start or continue.
        OutputError: If `out` cannot be written, or another process writes it.
    """
    where = "recipe" if isinstance(recipe, PretrainRecipe) else str(recipe)
    setup = PretrainSetup.build(resolve(read_recipe(recipe, overrides), where), where)
    recipe = setup.recipe
    artifact = Artifact.of(
        "untrained" if untrained else "pretrain",
        setup.identity,
        setup.upstream,
        out,
        name=recipe.name,
        record="backbone/card.json",
        started="run.json",
    )
    identity, folder = artifact.id, artifact.folder
    with artifact.writing() as finished:
        if finished:
            warn_of_missing(folder, {} if untrained else recipe.kept_steps(setup.objective.schedule))
            return BackboneCard.load(folder / "backbone").training or {}
        if is_main_process():
            shutil.rmtree(folder / "backbone", ignore_errors=True)  # damaged: its card cannot be read
        if untrained:
            return _untrained(recipe, setup.objective.backbone, folder, identity)
        return _train(setup, folder, identity, resume)


def read_recipe(recipe: PretrainRecipe | str | Path, overrides: Overrides = ()) -> PretrainRecipe:
    """Read a recipe and apply overrides. A recipe without a name is named after its file."""
    if isinstance(recipe, PretrainRecipe):
        return validate(PretrainRecipe, merge(recipe.model_dump(), overrides), "recipe") if overrides else recipe
    content = load_recipe(PretrainRecipe, recipe, overrides)
    return content if "name" in content.model_fields_set else content.model_copy(update={"name": Path(recipe).stem})


def _train(setup: PretrainSetup, folder: Path, identity: str, resume: str) -> dict[str, Any]:
    """Train to the end, write the backbone, and summarise."""
    recipe, training_set, schedule = setup.recipe, setup.training_set, setup.objective.schedule
    monitor = _monitor(setup)
    session = _open_session(recipe, schedule, folder, identity, resume, monitor)
    training = session.prepare(
        setup.objective,
        partial(OPTIMIZERS[recipe.optimizer.name], **recipe.optimizer.options),
        compiled=recipe.train.compile,
        clip_gradient=recipe.train.clip_gradient,
    )
    sampler = StepSampler(
        training_set, schedule.batch_size, schedule.total_steps, accumulate=schedule.accumulate, **session.position
    )
    patience = max(schedule.warmup_steps, COLLAPSE_PATIENCE_STEPS)
    alarms = Alarms(recipe.monitor.on_nonfinite, recipe.monitor.on_collapse, patience)

    passport = setup.passport()
    kept = KeptBackbones(folder, identity, recipe.kept_steps(schedule), schedule.steps_per_epoch, passport)
    main, before, keep = session.accelerator.is_main_process, *_hooks(session, monitor, kept)
    started, first_step = time.perf_counter(), training.step
    last_line = session.run(
        training_set,
        sampler,
        alarms,
        partial(monitor.measure, session),
        before=before,
        after_step=keep,
        workers=recipe.train.workers,
    )
    summary = _summary(session, folder, time.perf_counter() - started, first_step, last_line)
    backbone = training.backbone()
    if main:
        summary |= _compared(monitor, kept, backbone, folder, last_line)
        backbone.card = replace(backbone.card, run_id=identity, training=summary)
        backbone.passport = passport
        save_backbone(backbone, folder / "backbone")
        session.checkpoints.clear()
    session.accelerator.wait_for_everyone()
    session.accelerator.end_training()
    return summary


def _monitor(setup: PretrainSetup) -> RunMonitor:
    """The measurements of a run; `keep.best` without a value means: if it starts from another backbone.

    Raises:
        RecipeError: If the best backbone is to be kept, and there is no labelled store.
    """
    probes, wanted = online_probes(setup.recipe, setup.training_set), setup.recipe.keep.best
    if wanted and probes is None:
        raise RecipeError(
            "keep.best: the best backbone is chosen by the online kNN, and there is no labelled store. Name one in "
            "monitor.store, or keep.epochs=[…]."
        )
    return RunMonitor(probes, setup.parent, keeps_best=setup.parent is not None if wanted is None else wanted)


def _hooks(
    session: Session, monitor: RunMonitor, kept: KeptBackbones
) -> tuple[Callable[[], dict[str, float]], Callable[[int], None]]:
    """What happens before the first step of a new run, and after every step; called on all ranks."""
    training, main = session.training, session.accelerator.is_main_process

    def before() -> dict[str, float]:
        backbone = training.backbone()
        if main:
            kept.start(backbone)
        return monitor.measure_parent(session)

    def keep(step: int) -> None:
        if step in kept.steps:
            backbone = training.backbone()
            if main:
                kept.save_epoch(step, backbone)

    return before, keep


def _compared(
    monitor: RunMonitor, kept: KeptBackbones, last: Backbone, folder: Path, last_line: dict[str, Any]
) -> dict[str, Any]:
    """Write the best backbone and compare the run with its parent; returns what the summary says of it."""
    best = kept.save_best(monitor.best, last) if monitor.best else None
    facts, warning = monitor.verdict(folder, last_line, best)
    if warning:
        warn(warning)
    warn_of_missing(folder, kept.steps)
    return facts | ({"best": best} if best else {}) | kept.facts()


def _open_session(
    recipe: PretrainRecipe, schedule: Schedule, folder: Path, identity: str, resume: str, monitor: RunMonitor
) -> Session:
    """Open the session of a run and its trackers; write the description of the run into its folder."""
    machine, seed = _machine(recipe), recipe.train.seed
    keep = {"monitor": monitor} if monitor.parent is not None or monitor.keeps_best else {}
    options = {"resume": resume, "tracker": recipe.tracker, "longest_wait_minutes": recipe.train.longest_wait_minutes}
    session = Session(folder, identity, machine, schedule, seed, **options, keep=keep)
    if session.accelerator.is_main_process:
        _open_folder(folder, identity, recipe, session)
    session.accelerator.wait_for_everyone()
    if recipe.tracker != "none":
        start_trackers(session.accelerator, recipe.tracker)
    return session


def _summary(
    session: Session, folder: Path, seconds: float, first_step: int, last_line: dict[str, Any]
) -> dict[str, Any]:
    """The summary of a training, for the card of the backbone and for the command line."""
    schedule = session.schedule
    images = (schedule.total_steps - first_step) * schedule.batch_size
    return {
        "run": portable(folder),
        "backbone": portable(folder / "backbone"),
        "world_size": session.accelerator.num_processes,
        **session.training.cost.to_json(),
        "images_per_second": round(images / max(seconds, 1e-9), 1),
        "final": {key: last_line.get(key) for key in ("loss", "knn", "linear_probe", "rankme")},
        **session.machine.to_card(),
    }


def _machine(recipe: PretrainRecipe) -> Machine:
    smallest_view = min(recipe.data.size, recipe.method.options.get("local_size", recipe.data.size))
    train = recipe.train
    return Machine.chosen(train.precision, train.memory_format, smallest_view, train.deterministic)


def _untrained(recipe: PretrainRecipe, initial: Backbone, folder: Path, identity: str) -> dict[str, Any]:
    """Write the control of a recipe: its backbone with the random initialisation of its seed, without training."""
    random_backbone = random_init(initial.card)
    place = {"run": portable(folder), "backbone": portable(folder / "backbone")}
    summary = {**place, "world_size": 1, **Cost().to_json(), "final": {}}
    random_backbone.card = replace(random_backbone.card, run_id=identity, recipe=recipe.model_dump(), training=summary)
    if is_main_process():
        save_backbone(random_backbone, folder / "backbone")
    return summary


def _open_folder(folder: Path, identity: str, recipe: PretrainRecipe, session: Session) -> None:
    with writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", {"run_id": identity, "stage": "pretrain", "machine": session.machine.to_card()})
    write_json(folder / "environment.json", environment(str(session.accelerator.device)))
    with writes(folder / "recipe.yaml"):
        (folder / "recipe.yaml").write_text(yaml.safe_dump(plain(recipe.model_dump()), sort_keys=False))
