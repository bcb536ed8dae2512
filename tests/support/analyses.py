"""Stores and backbones made up on the spot, and what an analysis of them leaves."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import ndimage
from support.command_line import refuse_constant

from ssl_transfer.analysis.analyzed_backbone import AnalyzedBackbone
from ssl_transfer.analysis.stage import analyze
from ssl_transfer.analysis.summary_text import as_text
from ssl_transfer.cards import BackboneCard
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.features import extract_features, layer_features, paired_features
from ssl_transfer.result import Analysis
from ssl_transfer.run import from_json

TABLES = {
    "embedding_quality",
    "neighbors",
    "outliers",
    "clouds",
    "similarity",
    "property_probes",
    "domains",
    "robustness",
    "shortcuts",
    "failures",
    "leaks",
}

FILES = {"analysis.json", "explorer.html", "umap.parquet", "tables", "figures"}


# stores and backbones made up on the spot


def textures(count, seed=0, side=32):
    """Pictures of one layout, each with details of its own; uint8 (count, 1, side, side)."""
    draw = np.random.default_rng(seed)
    layout = ndimage.gaussian_filter(np.random.default_rng(99).normal(size=(side, side)), 5)
    own = ndimage.gaussian_filter(draw.normal(size=(count, side, side)), (0, 1, 1))
    values = 127 + 40 * (layout / layout.std() + 0.7 * own / own.std())
    return values.clip(0, 255).astype(np.uint8)[:, None]


def made_store(folder, images, splits=None, **columns):
    """A store of such images; by default a third is test."""
    splits = np.where(np.arange(len(images)) % 3, "train", "test") if splits is None else splits
    folder.parent.mkdir(exist_ok=True)
    with StoreWriter(folder, images.shape[1:], images.dtype) as writer:
        for row, image in enumerate(images):
            writer.append(image, {name: values[row] for name, values in columns.items()})
        return writer.finish(
            np.asarray(splits),
            units="rgb" if images.shape[1] == 3 else "display",
            domain="xray/chest",
            split_by="patient",
        )


def subject(name="pixels", seed=0, width=12, of=None, identity=None, parents=(), layers=("block",)):
    """A backbone that is a random projection of small versions of the images; `of` gives other features of a store."""
    mixing = np.random.default_rng(seed).normal(size=(64, width)) / 8

    def small(store, rows=None):
        images = np.asarray(store.read(np.arange(len(store)) if rows is None else rows), np.float32).mean(1)
        thin = ndimage.zoom(images, (1, 8 / images.shape[1], 8 / images.shape[2]), order=1).reshape(len(images), -1)
        return (thin - 127) / 40

    features = of or (lambda store: (small(store) @ mixing).astype(np.float32))
    card = BackboneCard(
        id=identity or name,
        name=name,
        architecture="a projection",
        in_channels=1,
        image_size=32,
        stem="standard",
        options={},
        feature_dim=width,
        intensity=Intensity(),
        parents=tuple(parents),
    )
    return AnalyzedBackbone(
        f"{name}{seed}",
        name,
        card,
        features,
        lambda store, rows: {layer: np.tanh(features(store)[rows] * (i + 1)) for i, layer in enumerate(layers)},
        lambda store, rows: (features(store)[rows], features(store)[rows] + np.float32(0.1)),
    )


def real(backbone, name, **facts):
    """A backbone as an analysis sees it."""
    return AnalyzedBackbone(
        name,
        name,
        replace(backbone.card, **facts),
        lambda of: extract_features(backbone, of).values,
        lambda of, rows: layer_features(backbone, of, rows),
        lambda of, rows: paired_features(backbone, of, rows),
    )


def analyze_to_json(*arguments, **settings):
    """What `analyze` writes as JSON, and its folder."""
    analysis = analyze(*arguments, **settings)
    assert Analysis.load(analysis.path) == analysis
    return analysis.to_json(), analysis.path


def finding_text(answer, title):
    """What a finding says; nothing if it is not there."""
    return next((one["text"] for one in answer["findings"] if one["title"] == title), "")


def table(folder, name):
    return pd.read_csv(folder / "tables" / f"{name}.csv")


# odd stores


def whole(answer, folder, names=("pixels",)):
    """Every analysis leaves this much."""
    assert {path.name for path in folder.iterdir()} == FILES
    assert {path.stem for path in (folder / "tables").iterdir()} == TABLES
    json.loads((folder / "analysis.json").read_text(), parse_constant=refuse_constant)
    json.loads(json.dumps(answer, default=str), parse_constant=refuse_constant)
    assert [one["name"] for one in answer["backbones"]] == list(names)
    assert not re.search(r"\bnan\b|\binf\b", as_text(from_json(Analysis, answer), "")), "numbers that are none"
