"""The stage `pretrain`: recipe and store in, backbone out."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from ssl_transfer.console import say, warn
from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.views import VIEWS, ViewMaker, Views
from ssl_transfer.errors import RecipeError, RunError, StoreError, UsageError
from ssl_transfer.methods import METHODS, Objective
from ssl_transfer.models.backbone import Backbone, build, load_backbone, new_card, save_backbone
from ssl_transfer.models.batchnorm import globalise_batchnorm
from ssl_transfer.recipe import Named, PretrainRecipe, choose
from ssl_transfer.run import Log, environment, read_json, run_id, write_json
from ssl_transfer.training.batches import StepSampler, view_batches
from ssl_transfer.training.checkpoint import Checkpoints
from ssl_transfer.training.loop import Pace, Training
from ssl_transfer.training.monitor import CollapseAlarm, OnlineKnn
from ssl_transfer.training.optim import OPTIMIZERS

COLLAPSE_PATIENCE_STEPS = 50


def pretrain(
    recipe: PretrainRecipe, out: str | Path | None = None, resume: str = "auto", where: str = "recipe"
) -> dict[str, Any]:
    """Pretrain a backbone, or go on with a run that was interrupted.

    Args:
        recipe: What to do.
        out: Folder of the run; None: `runs/NAME-ID`.
        resume: `auto` continues from the newest whole checkpoint, `never` starts anew.
        where: Name of the recipe, for error messages.

    Returns:
        `backbone` (path), `run`, `world_size`, `steps`, `images_per_second`, `final` (loss, knn, rankme).

    Raises:
        RecipeError, StoreError, BackboneError: If the input is wrong; nothing was written.
        UsageError: If `out` belongs to another run.
        RunError: If the run cannot start or go on.
    """
    recipe = _completed(recipe, where)
    store = ImageStore(recipe.data.store)
    recipe, parts = _fitted(recipe, store)
    positions = _training_positions(store, recipe, where)
    parent = None
    if recipe.backbone.init != "scratch":
        parent = load_backbone(recipe.backbone.init, parts["channels"], recipe.data.size)
    identity = run_id("pretrain", recipe.identity(), [store.id] + ([parent.id] if parent else []))
    folder = Path(out) if out else Path("runs") / f"{recipe.name}-{identity[:8]}"
    finished = _finished(folder, identity)
    if finished:
        say(f"{folder}: already there.")
        return finished
    knn = _online_knn(recipe, store)
    objective = _objective(recipe, store, parts, parent, where)
    objective.check_batch(recipe.train.batch_size)

    checkpoints = Checkpoints(folder / "checkpoints", identity)
    if resume == "never":
        checkpoints.clear()
    checkpoint = checkpoints.load()
    precision = checkpoint["precision"] if checkpoint else resolve_precision(recipe.train.precision)
    accelerator = _accelerator(recipe, folder, precision)
    if accelerator.is_main_process:
        _open_folder(folder, identity, recipe, accelerator)
    accelerator.wait_for_everyone()
    if recipe.tracker != "none":  # TensorBoard's project name becomes its folder in the run
        accelerator.init_trackers("tensorboard" if recipe.tracker == "tensorboard" else "ssl_transfer")

    torch.manual_seed(recipe.train.seed + accelerator.process_index)  # dropout and stochastic depth draw from it
    training = _training(recipe, objective, parts, accelerator, len(positions))
    if checkpoint:
        training.restore(checkpoint)
        say(f"{folder}: going on from step {training.step}.")
    pace = training.pace
    sampler = StepSampler(
        positions, pace.batch_size, recipe.train.seed, pace.total_steps, training.step,
        accelerator.process_index, accelerator.num_processes,
    )  # fmt: skip
    maker = ViewMaker(parts["views"], parts["scale"], recipe.train.seed, parts["channels"])
    log = Log(folder / "log.jsonl", training.step) if accelerator.is_main_process else None
    started = time.perf_counter()
    first_step = training.step
    training.run(
        view_batches(store, maker, sampler, accelerator.device, recipe.train.workers),
        log,
        _Recorded(checkpoints, precision),
        CollapseAlarm(recipe.monitor.on_collapse, max(pace.warmup_steps, COLLAPSE_PATIENCE_STEPS)),
        lambda: knn.measure(objective.backbone, accelerator.device, precision == "bf16") if knn else {},
    )
    seconds = time.perf_counter() - started
    summary = {
        "run": str(folder), "backbone": str(folder / "backbone"), "world_size": accelerator.num_processes,
        "steps": pace.total_steps,
        "images_per_second": round((pace.total_steps - first_step) * pace.batch_size / max(seconds, 1e-9), 1),
        "final": {key: (log.last if log else {}).get(key) for key in ("loss", "knn", "rankme")},
        "seconds": round(seconds, 1), "precision": precision,
    }  # fmt: skip
    if accelerator.is_main_process:
        log.close()
        objective.backbone.card |= {"run_id": identity, "training": summary}
        save_backbone(objective.backbone, folder / "backbone")
        checkpoints.clear()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary


def resolve_precision(precision: str) -> str:
    """What `auto` means here: bf16 where the GPU or the CPU computes it natively, else fp32."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "fp32"
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


class _Recorded:
    """Checkpoints that also hold what a resumed run must not measure again."""

    def __init__(self, checkpoints: Checkpoints, precision: str):
        self.checkpoints, self.precision = checkpoints, precision

    def save(self, step: int, state: dict[str, Any]) -> None:
        self.checkpoints.save(step, {**state, "precision": self.precision})


def _completed(recipe: PretrainRecipe, where: str) -> PretrainRecipe:
    """The recipe with every option of what it names, checked against its signature."""
    views = choose(VIEWS, recipe.data.views, f"{where}: data.views", given=("size", "channels", "units"))
    method = choose(METHODS, recipe.method, f"{where}: method", given=("backbone",))
    optimizer = choose(OPTIMIZERS, recipe.optimizer, f"{where}: optimizer", given=("module", "batch_size"))
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"views": Named(name=recipe.data.views.name, **views)}),
            "method": Named(name=recipe.method.name, **method),
            "optimizer": Named(name=recipe.optimizer.name, **optimizer),
        }
    )


def _fitted(recipe: PretrainRecipe, store: ImageStore) -> tuple[PretrainRecipe, dict[str, Any]]:
    """The recipe with the store's channels where it names none, and the views and scale that fit the store."""
    channels = recipe.backbone.in_channels or store.shape[0]
    recipe = recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"in_channels": channels})})
    views: Views = VIEWS[recipe.data.views.name](recipe.data.size, channels, store.units, **recipe.data.views.options)
    scale = Scale.of_store(store.card, views.intensity.window_hu)
    return recipe, {"channels": channels, "views": views, "scale": scale}


def _training_positions(store: ImageStore, recipe: PretrainRecipe, where: str) -> np.ndarray:
    """Training rows, or a seeded subset of them (`data.limit`).

    Raises:
        RecipeError: If not even one batch can be filled.
    """
    positions = store.positions("train")
    if recipe.data.limit and recipe.data.limit < len(positions):
        chosen = np.random.default_rng(recipe.train.seed).choice(len(positions), recipe.data.limit, replace=False)
        positions = np.asarray(positions)[np.sort(chosen)]
    if recipe.train.batch_size > len(positions):
        raise RecipeError(
            f"{where}: train.batch_size: {recipe.train.batch_size} images per batch, but {store.path} offers "
            f"{len(positions)} training images. Set train.batch_size to at most that."
        )
    return positions


def _objective(
    recipe: PretrainRecipe, store: ImageStore, parts: dict[str, Any], parent: Backbone | None, where: str
) -> Objective:
    """The method around its backbone; initial weights depend on the seed alone."""
    section, seed = recipe.backbone, recipe.train.seed
    model = build(section.name, section.in_channels, recipe.data.size, section.stem, section.options, seed)
    if parent:
        try:
            model.load_state_dict(parent.model.state_dict())
        except RuntimeError as error:
            raise RecipeError(
                f"{where}: backbone.init: {section.init} does not fit {section.name} with {section.in_channels} channel(s): "
                f"{error}"
            ) from None
    card = new_card(
        recipe.name, section.name, model, section.in_channels, recipe.data.size, section.stem, section.options,
        parts["views"].intensity, method=recipe.method.name, source_domain=store.card["domain"], stores=[store.id],
        parents=[*parent.card["parents"], parent.id] if parent else [], pretraining_seed=seed,
        recipe=recipe.model_dump(),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective = METHODS[recipe.method.name](Backbone(model, card), **recipe.method.options)
    objective.seed = seed
    return objective


def _online_knn(recipe: PretrainRecipe, store: ImageStore) -> OnlineKnn | None:
    monitor = recipe.monitor
    if monitor.store:
        return OnlineKnn(ImageStore(monitor.store), monitor.label, monitor.images, recipe.train.seed)
    try:
        return OnlineKnn(store, monitor.label, monitor.images, recipe.train.seed)
    except StoreError as error:
        warn(f"no online kNN: {error}")
        return None


def _accelerator(recipe: PretrainRecipe, folder: Path, precision: str) -> Accelerator:
    """Accelerate as this launch made it.

    Raises:
        RunError: If it counts fewer processes than the launcher started, or the batch cannot be shared out evenly.
    """
    if recipe.tracker != "none" and not importlib.util.find_spec(
        recipe.tracker
    ):  # Accelerate would go on without a word
        raise RecipeError(
            f"tracker: {recipe.tracker} is not installed here: pip install {recipe.tracker}, or tracker=none."
        )
    AcceleratorState._reset_state(reset_partial_state=False)  # several runs in one process may differ in precision
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(precision, precision),
        log_with=None if recipe.tracker == "none" else recipe.tracker,
        project_dir=folder,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],  # they are equal on every rank
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise RunError(
            f"the launcher started {launched} processes, but Accelerate counts {accelerator.num_processes}: each would train "
            "alone. On a CPU: ACCELERATE_USE_CPU=true accelerate launch --config_file launch/accelerate/cpu2.yaml …"
        )
    if recipe.train.batch_size % accelerator.num_processes:
        raise RecipeError(
            f"train.batch_size: {recipe.train.batch_size} images cannot be shared evenly by "
            f"{accelerator.num_processes} processes; gathered losses need equal parts. Choose a multiple."
        )
    return accelerator


def _training(
    recipe: PretrainRecipe, objective: Objective, parts: dict[str, Any], accelerator: Accelerator, images: int
) -> Training:
    train = recipe.train
    steps_per_epoch = images // train.batch_size
    pace = Pace(
        total_steps=max(1, round(train.epochs * steps_per_epoch)), steps_per_epoch=steps_per_epoch,
        warmup_steps=round(train.warmup_epochs * steps_per_epoch), batch_size=train.batch_size,
        log_every=train.log_every_steps, checkpoint_every=train.checkpoint_every_steps,
        watch_every=max(1, round(recipe.monitor.every_epochs * steps_per_epoch)), clip_gradient=train.clip_gradient,
    )  # fmt: skip
    globalise_batchnorm(objective, objective.bn_groups, accelerator.device)
    objective.to(accelerator.device, memory_format=torch.channels_last)
    optimizer = OPTIMIZERS[recipe.optimizer.name](objective, train.batch_size, **recipe.optimizer.options)
    return Training(objective, optimizer, accelerator, pace)


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


def _open_folder(folder: Path, identity: str, recipe: PretrainRecipe, accelerator: Accelerator) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", {"run_id": identity, "stage": "pretrain"})
    write_json(folder / "environment.json", environment(str(accelerator.device)))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(_plain(recipe.model_dump()), sort_keys=False))


def _plain(value: Any) -> Any:
    """Tuples become lists, which YAML can write."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
