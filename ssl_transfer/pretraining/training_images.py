"""The training images of a pretraining: its stores as a recipe reads them, their views, and the order of an epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ssl_transfer.data.altered import ClearedAir
from ssl_transfer.data.display import SOFT_TISSUE_HU
from ssl_transfer.data.images import Images
from ssl_transfer.data.neighbours import lacking, with_channels_of
from ssl_transfer.data.positives import Partners
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.training_set import StoreShare, TrainingSet
from ssl_transfer.data.views import ViewMaker, Views
from ssl_transfer.errors import RecipeError, StoreError
from ssl_transfer.methods.objective import Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.recipe import DataSection, PretrainRecipe


def opened_store(path: str, data: DataSection, where: str) -> Images:
    """A store; if air is cleared, a view of a CT store without the grey level of air; and with neighbouring slices as channels.

    Raises:
        RecipeError: If its images cannot have the channels of the recipe.
    """
    store = ImageStore(path)
    store = ClearedAir(store) if data.air and store.domain.modality == "ct" else store
    store = with_channels_of(store, data.channels)
    if lacks := lacking(store, data.channels):
        key = "windows" if data.windows else "context"
        raise RecipeError(
            f"{where}: data.{key}: the channels are {data.channels}, and of {path} {' and '.join(lacks)}. Leave out the store, "
            f"or data.{key}."
        )
    return store


def presets_of(recipe: PretrainRecipe, stores: list[Images], channels: int, where: str) -> list[Views]:
    """The views of each store, with the same normalisation of intensities: mean and standard deviation of the first preset, and
    the window of the first store in HU, or the first of several windows.

    Raises:
        RecipeError: If there are several windows, and another one in the views.
    """
    size, several = recipe.data.size, recipe.data.channels.windows_hu
    views = [source.views or recipe.data.views for source in recipe.data.sources()]
    presets = [
        VIEWS[of_store.name](size, channels, store.units, **of_store.options)
        for of_store, store in zip(views, stores, strict=True)
    ]
    in_hu = [preset for preset, store in zip(presets, stores, strict=True) if store.units == "hu"]
    window = (in_hu or presets)[0].intensity.window_hu
    stated = [preset.intensity.window_hu for preset in in_hu or presets]
    if several and (others := [each for each in stated if each not in (SOFT_TISSUE_HU, several[0])]):
        raise RecipeError(
            f"{where}: views.window_hu: found {others[0][0]:g} to {others[0][1]:g} HU, and data.windows has the windows. Set "
            f"data.views.window_hu=[{several[0][0]:g},{several[0][1]:g}], the first of them."
        )
    intensity = replace(presets[0].intensity, window_hu=several[0] if several else window)
    return [preset.for_input(intensity, recipe.data.channels) for preset in presets]


def as_parent_sees(preset: Views, parent: Backbone) -> Views:
    """A preset with the parent's mean and standard deviation, so that training starts from the features that it has."""
    inherited = parent.intensity.for_channels(len(preset.intensity.mean))
    return replace(preset, intensity=replace(preset.intensity, mean=inherited.mean, std=inherited.std))


def training_set_of(
    recipe: PretrainRecipe, stores: list[Images], presets: list[Views], labels: np.ndarray | None, objective: Objective
) -> TrainingSet:
    """The training rows of all stores. If the method needs labels, only rows with a label.

    Args:
        labels: Class codes of all rows of all stores, one store after the other (−1: none).

    Raises:
        StoreError: If no row of a store is left.
    """
    seed, shares, offset = recipe.train.seed, [], 0
    for source, store, preset in zip(recipe.data.sources(), stores, presets, strict=True):
        positions = store.positions("train")
        if labels is not None:
            positions = positions[labels[offset : offset + len(store)][positions] >= 0]
        offset += len(store)
        if len(positions) == 0:
            raise StoreError(
                f"{store.path}: none of its training images has a '{recipe.data.label}', and "
                f"{recipe.method.name} learns from labels. Leave the store out, or ingest it again with --labels."
            )
        positions = _limited(positions, recipe.data.limit, len(stores), seed)
        scale, channels = objective.backbone.scale(store), objective.backbone.card.in_channels
        maker = ViewMaker(objective.view_presets(preset), scale, seed, channels)
        partners = _partners(store, positions, preset, len(maker.presets), recipe.method.name)
        shares.append(StoreShare(store, positions, maker, source.share, partners))
    return TrainingSet(shares, seed, labels)


def _partners(store: Images, positions: np.ndarray, preset: Views, views: int, method: str) -> Partners | None:
    """The images that further views are made of, as the preset says; None: the same.

    Raises:
        RecipeError: If the method makes one view of an image, a distance is stated that has no meaning, or the store does not
            know which images belong together.
    """
    if preset.positive_mm is not None and preset.positive != "slice":
        raise RecipeError(
            f"data.views.positive_mm: a distance is for positive: slice, and this is {preset.positive}. Leave it out."
        )
    if preset.positive == "same":
        return None
    if views < 2:
        raise RecipeError(
            f"data.views.positive: {method} makes one view of each image, so it has no positives. Take positive: same."
        )
    return Partners(store, positions, preset.positive, preset.positive_mm)


def _limited(positions: np.ndarray, limit: int | None, stores: int, seed: int) -> np.ndarray:
    """A seeded subset of the training rows; several stores share the limit."""
    count = limit and max(1, limit // stores)
    if not count or count >= len(positions):
        return positions
    chosen = np.random.default_rng(seed).choice(len(positions), count, replace=False)
    return np.asarray(positions)[np.sort(chosen)]
