"""Setup of a pretraining from its recipe: training images with their views, method, and initial backbone."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ssl_transfer.cards import TRIVIAL, TrainingStage, lineage
from ssl_transfer.console import warn
from ssl_transfer.data.images import Images
from ssl_transfer.data.passport import Passport, TrainingRecord
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.store import ImageStore, class_codes
from ssl_transfer.data.training_set import TrainingSet
from ssl_transfer.data.views import Views
from ssl_transfer.domains import Domain
from ssl_transfer.errors import RecipeError, StoreError
from ssl_transfer.methods.registry import METHODS, Objective
from ssl_transfer.models.adoption import adopt
from ssl_transfer.models.architecture import Architecture, TimmModel
from ssl_transfer.models.backbone import NO_PASSPORT, Backbone, load_backbone
from ssl_transfer.models.card import inherited_licence, new_card
from ssl_transfer.models.pooling import has_tokens
from ssl_transfer.pretraining.training_images import as_parent_sees, opened_store, presets_of, training_set_of
from ssl_transfer.processes import free_memory
from ssl_transfer.recipe import Component, PretrainRecipe, choose
from ssl_transfer.training.monitor import OnlineProbes
from ssl_transfer.training.optim import OPTIMIZERS


@dataclass(frozen=True)
class PretrainSetup:
    """Recipe, training images and objective of a pretraining.

    Attributes:
        recipe: The recipe, with all options of its components.
        training_set: The training images with their views.
        objective: The method with its backbone. Without a parent, initial weights depend on the seed only.
        upstream: Ids of the stores, of the parent backbone and of the teacher.
        parent: The backbone that the weights start from; None: random initialisation.
        inherits_intensity: Whether mean and standard deviation of the images are the parent's, and not those of the views.
    """

    recipe: PretrainRecipe
    training_set: TrainingSet
    objective: Objective
    upstream: list[str]
    parent: Backbone | None = None
    inherits_intensity: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """What the run's id depends on besides `upstream`: the recipe; for a chain, also that its card has all stages, and
        whether it normalises as its parent.
        """
        chained = {"card": "all stages"} if self.parent else {}
        return self.recipe.identity() | chained | ({"intensity": "of the parent"} if self.inherits_intensity else {})

    def passport(self) -> Passport:
        """What is known of the training images, in all stages."""
        records = [TrainingRecord.of_store(part.store, part.positions) for part in self.training_set.parts]
        return self.objective.backbone.passport.with_records(*records)

    @classmethod
    def build(cls, recipe: PretrainRecipe, where: str) -> PretrainSetup:
        """Open the stores, build the backbone and the method, and check that they fit each other.

        Args:
            recipe: A recipe that `resolve` returned.
            where: Name of the recipe in error messages.

        Raises:
            RecipeError, StoreError, BackboneError: If they do not fit each other.
        """
        stores = [opened_store(source.store, recipe.data, where) for source in recipe.data.sources()]
        slices_and_windows = recipe.data.channels
        most = slices_and_windows.count if slices_and_windows.are_stated else max(store.shape[0] for store in stores)
        channels = recipe.backbone.in_channels or most
        _check_memory(recipe, channels, where)
        recipe = recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"in_channels": channels})})
        presets = presets_of(recipe, stores, channels, where)
        parent = None if recipe.backbone.init == "scratch" else _parent(recipe, channels, where)
        own = presets[0].intensity
        presets = presets if parent is None else [as_parent_sees(preset, parent) for preset in presets]
        backbone = new_backbone(recipe, channels, presets[0], parent, where)
        labels, classes = _labels(recipe, stores) if METHODS[recipe.method.name].needs_labels else (None, None)
        objective = new_objective(recipe, backbone, classes)
        training_set = training_set_of(recipe, stores, presets, labels, objective)
        _check_batch(recipe, training_set, objective, where)
        objective.schedule = recipe.schedule(len(training_set))
        objective.layered = bool(objective.schedule.freeze_steps) or recipe.optimizer.options["layer_decay"] < 1
        _check_freeze(recipe, objective, where)
        _check_kept(recipe, where)
        if objective.teacher:
            _check_teacher(objective.teacher, backbone, stores, where)
            _learn_from(objective.teacher, backbone)
        stages = (*_earlier_stages(parent, objective.teacher), _stage(recipe, training_set, objective))
        backbone.card = replace(backbone.card, **lineage(*stages))
        upstream = [store.id for store in stores] + [origin.id for origin in (parent, objective.teacher) if origin]
        return cls(recipe, training_set, objective, upstream, parent, presets[0].intensity != own)


def resolve(recipe: PretrainRecipe, where: str) -> PretrainRecipe:
    """Complete the options of all components of a recipe (views, method, optimiser), and check them against the signatures.

    Raises:
        RecipeError: If a name or an option is unknown, or a value has the wrong type.
    """

    def complete(registry: dict, component: Component, section: str) -> Component:
        return Component(name=component.name, **choose(registry, component, f"{where}: {section}"))

    data = recipe.data
    mix = [
        part.model_copy(update={"views": part.views and complete(VIEWS, part.views, f"data.mix.{index}.views")})
        for index, part in enumerate(data.mix)
    ]
    return recipe.model_copy(
        update={
            "data": data.model_copy(update={"views": complete(VIEWS, data.views, "data.views"), "mix": mix}),
            "method": complete(METHODS, recipe.method, "method"),
            "optimizer": complete(OPTIMIZERS, recipe.optimizer, "optimizer"),
        }
    )


def online_probes(recipe: PretrainRecipe, training_set: TrainingSet) -> OnlineProbes | None:
    """The online kNN and linear probe; None if they have no labelled store."""
    monitor = recipe.monitor
    store = ImageStore(monitor.store) if monitor.store else training_set.parts[0].store
    try:
        return OnlineProbes(store, monitor.label, monitor.images, recipe.train.seed)
    except StoreError as error:
        if monitor.store:
            raise
        warn(f"no online kNN and linear probe: {error}")
        return None


def _parent(recipe: PretrainRecipe, channels: int, where: str) -> Backbone:
    """The backbone that a run starts from.

    Raises:
        BackboneError: If there is no such backbone.
        RecipeError: If it has no weights, or reads other slices or windows.
    """
    init, own = recipe.backbone.init, recipe.data.channels
    parent = load_backbone(init, channels, recipe.data.size)
    theirs = parent.card.channels
    if theirs.are_stated and theirs != own:
        raise RecipeError(
            f"{where}: backbone.init: the channels of {init} are {theirs}, and those of data are {own}. Set {theirs.settings}."
        )
    if parent.reads_images and parent.card.method != TRIVIAL:
        return parent
    raise RecipeError(f"{where}: backbone.init: {init} has no weights to start from. Name a folder or public weights.")


def _pooling(recipe: PretrainRecipe, model: TimmModel, parent: Backbone | None) -> str | None:
    """Pooling of the features: that of the recipe, else of a ViT's parent; None: timm's."""
    section = recipe.backbone
    if parent is None or section.pooling or "global_pool" in section.options or not has_tokens(model):
        return section.pooling
    return parent.card.pooling


def new_backbone(recipe: PretrainRecipe, channels: int, preset: Views, parent: Backbone | None, where: str) -> Backbone:
    """The backbone before training, with random weights of the seed or the weights of its parent."""
    section, seed = recipe.backbone, recipe.train.seed
    architecture = Architecture(section.name, channels, recipe.data.size, stem=section.stem, options=section.options)
    model = architecture.build(seed)
    adapted: tuple[str, ...] = ()
    if parent:
        public = not parent.card.parents  # adapted while it was loaded
        try:
            adapted = (*(parent.card.adapted if public else ()), *adopt(model, architecture, parent))
        except RuntimeError as error:
            raise RecipeError(f"{where}: backbone.init: {section.init} does not fit {section.name}: {error}") from None
    card = new_card(
        recipe.name,
        architecture,
        model,
        preset.intensity,
        pooling=_pooling(recipe, model, parent),
        channels=recipe.data.channels,
        method=recipe.method.name,
        parents=(*parent.card.parents, parent.id) if parent else (),
        adapted=adapted,
        pretraining_seed=seed,
        recipe=recipe.model_dump(),
        **(inherited_licence(parent.card) if parent else {}),
    )
    return Backbone(model, card, passport=parent.passport if parent else NO_PASSPORT)


def _stage(recipe: PretrainRecipe, training_set: TrainingSet, objective: Objective) -> TrainingStage:
    """This pretraining, as a stage of the backbone that it makes."""
    domains = dict.fromkeys(part.store.card.domain for part in training_set.parts)
    return TrainingStage(
        name=recipe.name,
        method=recipe.method.name,
        domain=" + ".join(domains),
        images={part.store.card.id: len(part.positions) for part in training_set.parts},
        steps=objective.schedule.total_steps,
        teacher=objective.teacher.id if objective.teacher else None,
    )


def _earlier_stages(parent: Backbone | None, teacher: Backbone | None) -> list[TrainingStage]:
    """The stages that the initial weights come from, then those that the teacher comes from."""
    of_teacher = [replace(stage, of_teacher=True) for stage in teacher.card.history] if teacher else []
    return [*(parent.card.history if parent else ()), *of_teacher]


def _learn_from(teacher: Backbone, student: Backbone) -> None:
    """Give a student the passport and the licence of its teacher, in addition to its own."""
    student.passport = student.passport.with_records(*teacher.passport.records)
    student.card = replace(student.card, **inherited_licence(student.card, teacher.card))


def _check_teacher(teacher: Backbone, student: Backbone, stores: list[Images], where: str) -> None:
    """Refuse a teacher with other slices or windows as channels, or of CT images in another window than that of the views, whose
    values outside their window are lost.

    Raises:
        RecipeError: If it is one.
    """
    domains = (teacher.card.source_domain or "").split(" + ")
    trained_on_ct = any(domain and Domain.parse(domain).modality == "ct" for domain in domains)
    theirs, own = teacher.card.channels, student.card.channels
    if theirs != own:  # photographs have three channels, too
        if theirs.are_stated or trained_on_ct or teacher.card.in_channels != own.count:
            raise RecipeError(
                f"{where}: method.teacher: the channels of {teacher.card.name} are {theirs}, and those of data are {own}. Set "
                f"{theirs.settings}."
            )
        return
    reads, seen = teacher.intensity.window_hu, student.intensity.window_hu
    if trained_on_ct and reads != seen and any(store.units == "hu" for store in stores):
        raise RecipeError(
            f"{where}: method.teacher: {teacher.card.name} reads CT in the window {reads[0]:g} to {reads[1]:g} HU, and the views "
            f"show {seen[0]:g} to {seen[1]:g} HU. Set data.views.window_hu=[{reads[0]:g},{reads[1]:g}]."
        )


def _labels(recipe: PretrainRecipe, stores: list[Images]) -> tuple[np.ndarray, np.ndarray]:
    """Class codes of all rows of all stores (−1: none), and the classes.

    Raises:
        StoreError: If there are fewer than two classes.
    """
    column = recipe.data.label
    classes, codes = class_codes(np.concatenate([store.column(column) for store in stores]))
    if len(classes) < 2:
        raise StoreError(
            f"{', '.join(str(store.path) for store in stores)}: column '{column}' has {len(classes)} class(es); "
            f"{recipe.method.name} needs two. Ingest again with --labels, or name another column with data.label."
        )
    return codes, classes


def new_objective(recipe: PretrainRecipe, backbone: Backbone, classes: np.ndarray | None) -> Objective:
    """The method, whose heads have random weights of the seed."""
    extra = {} if classes is None else {"classes": len(classes)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        objective = METHODS[recipe.method.name](backbone, **extra, **recipe.method.options)
    objective.seed = recipe.train.seed
    return objective


def _check_batch(recipe: PretrainRecipe, training_set: TrainingSet, objective: Objective, where: str) -> None:
    batch, accumulate = recipe.train.batch_size, recipe.train.accumulate_steps
    if batch > len(training_set):
        stores = ", ".join(str(part.store.path) for part in training_set.parts)
        raise RecipeError(
            f"{where}: train.batch_size: {batch} images per batch, but {stores} offers {len(training_set)} training images. Set "
            "train.batch_size to at most that."
        )
    if accumulate > 1 and objective.compares:
        raise RecipeError(
            f"{where}: train.accumulate_steps: {recipe.method.name} takes its {objective.compares} from the batch, and "
            f"{accumulate} batches of {batch // accumulate} images are not one of {batch}. Take method=moco, whose queue of "
            "negatives does not depend on the batch, or a smaller train.batch_size with train.accumulate_steps=1."
        )
    if batch % accumulate:
        raise RecipeError(
            f"{where}: train.accumulate_steps: {batch} images cannot be cut into {accumulate} equal parts. Choose a divisor "
            "of train.batch_size."
        )
    objective.check_batch(batch // accumulate)


def _check_freeze(recipe: PretrainRecipe, objective: Objective, where: str) -> None:
    """Refuse to freeze random weights, or the backbone of a whole training.

    Raises:
        RecipeError: If that is asked for.
    """
    schedule, train = objective.schedule, recipe.train
    if train.freeze_epochs and recipe.backbone.init == "scratch":
        raise RecipeError(
            f"{where}: train.freeze_epochs: {train.freeze_epochs:g} epochs with a frozen backbone, whose weights are random "
            "(backbone.init=scratch). Set train.freeze_epochs=0, or name a backbone in backbone.init."
        )
    if schedule.freeze_steps >= schedule.total_steps:
        raise RecipeError(
            f"{where}: train.freeze_epochs: {train.freeze_epochs:g} of {train.epochs:g} epochs, so the backbone would never be "
            "trained. Set a smaller train.freeze_epochs, or a larger train.epochs."
        )


def _check_kept(recipe: PretrainRecipe, where: str) -> None:
    """Refuse to keep an epoch that does not come.

    Raises:
        RecipeError: If that is asked for.
    """
    if late := [epoch for epoch in recipe.keep.epochs if epoch > recipe.train.epochs]:
        raise RecipeError(
            f"{where}: keep.epochs: epoch {late[0]:g} is after the last one ({recipe.train.epochs:g}). Leave it out, or set a "
            "larger train.epochs."
        )


def _check_memory(recipe: PretrainRecipe, channels: int, where: str) -> None:
    """Refuse a batch whose two views alone exceed the free memory of the machine.

    Raises:
        RecipeError: If they do.
    """
    if torch.cuda.is_available():  # CUDA says itself what it lacks
        return
    train, size = recipe.train, recipe.data.size
    images = -(-train.batch_size // (train.accumulate_steps * int(os.environ.get("WORLD_SIZE", "1"))))
    needed, free = 4 * 2 * images * channels * size**2, free_memory()
    if needed > free:
        raise RecipeError(
            f"{where}: data.size: two views of {images} images of {channels} x {size} x {size} need {needed / 2**30:.0f} GiB, "
            f"and {free / 2**30:.0f} GiB are free here. Choose a smaller data.size or train.batch_size."
        )
