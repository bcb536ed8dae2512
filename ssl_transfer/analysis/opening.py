"""Open the inputs of an analysis: backbones, stores and results, given by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ssl_transfer.analysis.analyzed_backbone import AnalyzedBackbone
from ssl_transfer.analysis.failures import Predictions
from ssl_transfer.console import say
from ssl_transfer.data.altered import SelectedRows, sampled
from ssl_transfer.data.images import Images
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import UsageError
from ssl_transfer.features import Precision, extract_features, features_id, layer_features, paired_features
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.opening import open_backbones

BackboneSpec = (
    AnalyzedBackbone | Backbone | str | Path
)  # an object, or a folder, scratch:NAME, imagenet:NAME, timm:NAME[.TAG]
StoreSpec = ImageStore | str | Path
ResultSpec = Predictions | str | Path


def analyzed(
    backbones: Sequence[BackboneSpec], store: Images, size: int | None = None, precision: Precision = "fp32"
) -> list[AnalyzedBackbone]:
    """Open the backbones of an analysis, with distinct names.

    Args:
        backbones: Backbones, or folders, `scratch:NAME`, `imagenet:NAME` and `timm:NAME`. Those that are an `AnalyzedBackbone`
            already come first, unchanged.
        store: The analysed store.
        size, precision: Image size and precision of features; see `extract_features`.

    Raises:
        UsageError: If a backbone occurs twice.
    """
    ready = [backbone for backbone in backbones if isinstance(backbone, AnalyzedBackbone)]
    unopened = [backbone for backbone in backbones if not isinstance(backbone, AnalyzedBackbone)]
    named = open_backbones(unopened, store)
    return ready + [_analyzed(name, backbone, store, size, precision) for name, backbone in named.items()]


def _analyzed(name: str, backbone: Backbone, store: Images, size: int | None, precision: Precision) -> AnalyzedBackbone:
    return AnalyzedBackbone(
        features_id(backbone, store, size, precision),
        name,
        backbone.card,
        cache(lambda images: extract_features(backbone, images, size=size, precision=precision).values),
        lambda images, rows: layer_features(backbone, images, rows, size, precision) if backbone.reads_images else {},
        lambda images, rows: paired_features(backbone, images, rows, size=size) if backbone.reads_images else None,
    )


def stores_by_name(
    stores: Mapping[str, ImageStore] | Sequence[StoreSpec], analyzed_store: ImageStore
) -> dict[str, ImageStore]:
    """Open other stores, named by their folders or by the keys of a mapping.

    Raises:
        UsageError: If two of these stores, or one of them and the analysed store, have the same name.
    """
    if isinstance(stores, Mapping):
        pairs = [*stores.items()]
    else:
        opened = [store if isinstance(store, ImageStore) else ImageStore(store) for store in stores]
        pairs = [(store.path.name, store) for store in opened]
    names = [analyzed_store.path.name, *(name for name, _ in pairs)]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(
            f"--against: stores are named by their folders, and two of them have the name {repeated[0]}. Rename one folder."
        )
    return dict(pairs)


def sampled_stores(
    store: ImageStore, against: Mapping[str, ImageStore], seed: int
) -> tuple[Images, dict[str, Images], list[str]]:
    """The stores of an analysis, those with more than `MOST_ANALYSED` images as samples of patients.

    Returns:
        The analysed store, the others, and a sentence about each sample.
    """
    chosen, others = sampled(store, seed), {name: sampled(other, seed) for name, other in against.items()}
    sentences = [f"{images.sentence}." for images in (chosen, *others.values()) if isinstance(images, SelectedRows)]
    for sentence in sentences:
        say(sentence)
    return chosen, others, sentences


def rows_in_store(store: Images, rows: np.ndarray) -> np.ndarray:
    """Positions in the whole store of rows of an analysed store, which may be a sample."""
    return store.selected[rows] if isinstance(store, SelectedRows) else rows


def opened_results(results: Sequence[ResultSpec]) -> list[Predictions]:
    """Open results of `evaluate` with their predictions.

    Raises:
        UsageError: If there is a single result, or one that is not multiclass.
    """
    ready = [result for result in results if isinstance(result, Predictions)]
    opened = ready + Predictions.open([result for result in results if not isinstance(result, Predictions)])
    if len(opened) == 1:
        raise UsageError("--results: found one result, expected two or more, whose errors are compared.")
    return opened
