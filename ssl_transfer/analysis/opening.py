"""What an analysis is called with, opened: backbones, stores and results by path. The only door from here to backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ssl_transfer.analysis.analyzed_backbone import AnalyzedBackbone
from ssl_transfer.analysis.failures import Predictions
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import UsageError
from ssl_transfer.features import Precision, extract_features, features_id, layer_features, paired_features
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.opening import open_backbones

BackboneSpec = AnalyzedBackbone | Backbone | str | Path  # opened, or a folder, scratch:NAME, timm:NAME[.TAG]
StoreSpec = ImageStore | str | Path
ResultSpec = Predictions | str | Path


def analyzed(
    backbones: Sequence[BackboneSpec], store: ImageStore, size: int | None = None, precision: Precision = "fp32"
) -> list[AnalyzedBackbone]:
    """Backbones as an analysis reads them, each with a name of its own.

    Args:
        backbones: Opened ones, or folders, `scratch:NAME` and `timm:NAME`. All or none may be `AnalyzedBackbone`, which stay as
            they are.
        store: Whose images are analysed.
        size, precision: Of features; see `extract_features`.

    Raises:
        UsageError: If a backbone occurs twice.
    """
    ready = [one for one in backbones if isinstance(one, AnalyzedBackbone)]
    others = [one for one in backbones if not isinstance(one, AnalyzedBackbone)]
    named = open_backbones(others, store)
    return ready + [_analyzed(name, backbone, store, size, precision) for name, backbone in named.items()]


def _analyzed(
    name: str, backbone: Backbone, store: ImageStore, size: int | None, precision: Precision
) -> AnalyzedBackbone:
    return AnalyzedBackbone(
        features_id(backbone, store, size, precision),
        name,
        backbone.card,
        cache(lambda images: extract_features(backbone, images, size=size, precision=precision).values),
        lambda images, rows: layer_features(backbone, images, rows, size, precision),
        lambda images, rows: paired_features(backbone, images, rows, size=size),
    )


def stores_by_name(
    stores: Mapping[str, ImageStore] | Sequence[StoreSpec], analyzed_store: ImageStore
) -> dict[str, ImageStore]:
    """Other stores, opened, by the names of their folders, or by those they are given.

    Raises:
        UsageError: If two have one name, or one that of the analysed store.
    """
    if isinstance(stores, Mapping):
        pairs = [*stores.items()]
    else:
        opened = [one if isinstance(one, ImageStore) else ImageStore(one) for one in stores]
        pairs = [(store.path.name, store) for store in opened]
    names = [analyzed_store.path.name, *(name for name, _ in pairs)]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(
            f"--against: stores are called by the names of their folders, and two have the same, {repeated[0]}. Rename one."
        )
    return dict(pairs)


def opened_results(results: Sequence[ResultSpec]) -> list[Predictions]:
    """Results of `evaluate` with their predictions.

    Raises:
        UsageError: If there is only one, or one is not a multiclass result.
    """
    ready = [one for one in results if isinstance(one, Predictions)]
    opened = ready + Predictions.open([one for one in results if not isinstance(one, Predictions)])
    if len(opened) == 1:
        raise UsageError("--results: found one result, expected two or more: failures are compared between them.")
    return opened
