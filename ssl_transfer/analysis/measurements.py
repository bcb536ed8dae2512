"""The measurements of an analysis: the images of a store in the feature spaces of several backbones, as tidy tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ssl_transfer.analysis.analyzed_backbone import AnalyzedBackbone
from ssl_transfer.analysis.columns import (
    KEYS,
    descriptive_columns,
    nuisance_columns,
    patients_of,
    repeating_columns,
    sample_of_patients,
)
from ssl_transfer.analysis.domains import domain_distances
from ssl_transfer.analysis.failures import Predictions, failures
from ssl_transfer.analysis.leaks import Leaks, find_leaks
from ssl_transfer.analysis.projection import are_equal, embedding_quality, project, transform
from ssl_transfer.analysis.properties import image_properties
from ssl_transfer.analysis.property_probes import probe_properties
from ssl_transfer.analysis.robustness import COLUMNS as ROBUSTNESS
from ssl_transfer.analysis.robustness import robustness_indices
from ssl_transfer.analysis.shortcuts import COLUMNS as SHORTCUTS
from ssl_transfer.analysis.shortcuts import shortcut_tests
from ssl_transfer.analysis.similarity import FEATURES, shapes, similarities
from ssl_transfer.data.images import Images
from ssl_transfer.errors import UsageError
from ssl_transfer.measures.neighborhood import Neighborhood
from ssl_transfer.measures.neighbors import IndexKind

OUTLIERS = 50  # images per backbone
RETRIEVAL = [
    "column",
    "values",
    "n",
    "k",
    "purity",
    "by_chance",
    "precision_1",
    "map",
]  # columns of a table without rows
NUISANCE_TABLES = {"robustness": ROBUSTNESS, "shortcuts": SHORTCUTS}
Timed = Callable[[str], AbstractContextManager]


@dataclass(frozen=True)
class AnalysisSpec:
    """Backbones, stores, results and settings of an analysis; see `analyze` for the meaning of each."""

    backbones: Sequence[AnalyzedBackbone]
    store: Images
    against: Mapping[str, Images]
    results: Sequence[Predictions]
    neighbors: int
    index: IndexKind
    sample: int
    columns: list[str] | None
    domain: str | None
    target: str | None
    nuisances: list[str] | None
    duplicate: float
    seed: int


@dataclass(frozen=True, eq=False)
class Measurements:
    """All measurements of an analysis; the keys of dictionaries are backbones.

    Attributes:
        graphs: Neighbour graph of all images of the store.
        embeddings: UMAP coordinates of these images, (N, 2), aligned between backbones.
        transformed: Coordinates of the images of each other store in this embedding, (M, 2).
        rows: Rows of the sample: whole patients, in random order.
        described: Descriptive columns of the store, then image properties; a row per image.
        unprobed: Columns and properties with too few values for a probe.
        leaks: Near-duplicates in the store.
        tables: `embedding_quality`, `neighbors`, `outliers`, `clouds`, `similarity`, `property_probes`, `domains`, `robustness`,
            `shortcuts`, `failures`, `leaks`.
    """

    graphs: dict[str, Neighborhood]
    embeddings: dict[str, np.ndarray]
    transformed: dict[str, dict[str, np.ndarray]]
    rows: np.ndarray
    described: pd.DataFrame
    unprobed: list[str]
    leaks: Leaks
    tables: dict[str, pd.DataFrame]


def measure(spec: AnalysisSpec, timed: Timed) -> Measurements:
    """Compute all measurements of an analysis.

    Args:
        spec: Backbones, stores, results and settings.
        timed: Returns, for the name of a step, a context manager that measures its duration.

    Raises:
        UsageError: If a requested column is not in the store, or features are NaN or infinite.
    """
    store, seed = spec.store, spec.seed
    single = [name for name in (spec.domain, spec.target) if name is not None]
    columns = descriptive_columns(store, [*(spec.columns or ()), *(spec.nuisances or ()), *single])
    tables = {"failures": failures(spec.results, seed=seed)}
    with timed("features"):
        features, other_features = _features(spec)
    with timed("neighbours"):
        graphs = {name: Neighborhood.of(vectors, spec.neighbors, spec.index) for name, vectors in features.items()}
        repeating = repeating_columns(columns, spec.columns)
        tables["neighbors"] = _stacked({name: _retrieval(graph, columns[repeating]) for name, graph in graphs.items()})
    with timed("leaks"):
        leaks = find_leaks(store, _union(list(graphs.values())), spec.duplicate)
    with timed("UMAP"):
        embeddings, transformed, tables["embedding_quality"] = _embed(spec, graphs, features, other_features)
    groups = patients_of(store)
    rows = sample_of_patients(groups, spec.sample, seed)
    with timed("layers"):
        layers = {
            backbone.name: {**backbone.layers(store, rows), FEATURES: features[backbone.name][rows]}
            for backbone in spec.backbones
        }
        clouds = {
            backbone.name: shapes(layers[backbone.name], backbone.pairs(store, rows), graphs[backbone.name])
            for backbone in spec.backbones
        }
        tables["clouds"], tables["similarity"] = _stacked(clouds), similarities(layers, graphs)
    with timed("properties"):
        properties = image_properties(store)
        properties = properties.rename(columns={name: f"{name} of pixels" for name in properties if name in columns})
        probed = pd.concat([columns.drop(columns=list(set(KEYS) & set(columns))), properties], axis=1).iloc[rows]
    with timed("property probes"):
        probes = {name: _probes(by_layer, probed, groups[rows], seed) for name, by_layer in layers.items()}
        tables["property_probes"] = _stacked(probes)
    with timed("domains"):
        column = None if spec.domain is None else columns[spec.domain]
        distances = {
            name: _domains(vectors, other_features[name], groups, column, spec) for name, vectors in features.items()
        }
        tables["domains"] = _stacked(distances)
    with timed("shortcuts"):
        sample = {name: vectors[rows] for name, vectors in features.items()}
        tables |= _nuisances(spec, sample, columns.iloc[rows], groups[rows])
    tables |= {"outliers": _outliers(graphs, columns), "leaks": leaks.pairs}
    unprobed = [name for name in probed if name not in set(tables["property_probes"]["property"])]
    everything = pd.concat([columns, properties], axis=1)
    return Measurements(graphs, embeddings, transformed, rows, everything, unprobed, leaks, tables)


def _features(spec: AnalysisSpec) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """Features of the store, and of the other stores, by backbone."""
    features = {backbone.name: backbone.features(spec.store) for backbone in spec.backbones}
    for name, vectors in features.items():
        if nonfinite := np.flatnonzero(~np.isfinite(vectors).all(1)).tolist():
            raise UsageError(
                f"backbone {name}: features of {len(nonfinite)} images of {spec.store.path} are NaN or infinite, the first of "
                f"row {nonfinite[0]}. Check for a training that diverged, or for pixels that are NaN; or leave the backbone out."
            )
    others = {
        backbone.name: {name: backbone.features(other) for name, other in spec.against.items()}
        for backbone in spec.backbones
    }
    return features, others


def _embed(
    spec: AnalysisSpec,
    graphs: Mapping[str, Neighborhood],
    features: Mapping[str, np.ndarray],
    others: Mapping[str, Mapping[str, np.ndarray]],
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]], pd.DataFrame]:
    """UMAP of the store, coordinates of the other stores in it, and a table of its quality."""
    embeddings: dict[str, np.ndarray] = {}
    transformed, rows = {}, []
    first: np.ndarray | None = None  # the map that others are aligned with
    for name, vectors in features.items():
        collapsed = are_equal(vectors)  # its map is one point
        points = np.zeros((len(vectors), 2), np.float32)
        if not collapsed:
            points = project(vectors, spec.seed, spec.neighbors, graphs[name], beside=first)
            first = points if first is None else first
        embeddings[name] = points
        transformed[name] = {
            other: transform(new, vectors, points, spec.neighbors) for other, new in others[name].items()
        }
        index = {"backbone": name, "index": graphs[name].index, "recall": graphs[name].recall}
        quality = embedding_quality(vectors, points, spec.neighbors, spec.seed)
        rows.append({**index, **(dict.fromkeys(quality, np.nan) if collapsed else quality)})
    return embeddings, transformed, pd.DataFrame(rows)


def _stacked(parts: Mapping[str, pd.DataFrame], column: str = "backbone") -> pd.DataFrame:
    """Concatenate tables, with a column that names them."""
    return pd.concat([part.assign(**{column: name}) for name, part in parts.items()], ignore_index=True)


def _probes(by_layer: Mapping[str, np.ndarray], probed: pd.DataFrame, groups: np.ndarray, seed: int) -> pd.DataFrame:
    """Property probes of every layer; chance is measured for the final features only, since it is the same for all layers."""
    parts = {
        layer: probe_properties(vectors, probed, groups, seed, layer == FEATURES) for layer, vectors in by_layer.items()
    }
    return _stacked(parts, "layer")


def _retrieval(graph: Neighborhood, columns: pd.DataFrame) -> pd.DataFrame:
    """How often neighbours have the same value of each column: purity and its chance level, precision@k and mAP@k."""
    rows = []
    for name in columns:
        labels = columns[name].to_numpy(object)
        counts = sorted({1, min(5, graph.k), graph.k})
        rows.append(
            {
                "column": name,
                "values": columns[name].nunique(),
                "n": int(columns[name].notna().sum()),
                "k": graph.k,
                "purity": graph.purity(labels),
                "by_chance": graph.purity_by_chance(labels),
                **{f"precision_{k}": value for k, value in graph.precision(labels, counts).items()},
                "map": graph.average_precision(labels),
            }
        )
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else RETRIEVAL)


def _union(graphs: Sequence[Neighborhood]) -> Neighborhood:
    """The union of neighbour graphs: neighbours under any backbone are candidates for near-duplicates."""
    return Neighborhood(
        np.hstack([graph.similarities for graph in graphs]),
        np.hstack([graph.distances for graph in graphs]),
        np.hstack([graph.positions for graph in graphs]),
        graphs[0].index,
        min(graph.recall for graph in graphs),
    )


def _outliers(graphs: Mapping[str, Neighborhood], columns: pd.DataFrame) -> pd.DataFrame:
    """The images with the largest `mean_knn_distance`, with that distance and its ratio to the median."""
    parts = {}
    for name, graph in graphs.items():
        rows = np.argsort(-graph.mean_knn_distance, kind="stable")[:OUTLIERS]
        median = np.median(graph.mean_knn_distance)
        parts[name] = pd.DataFrame(
            {
                "row": rows,
                **{key: columns[key].to_numpy()[rows] for key in ("patient", "label", "split") if key in columns},
                "mean_knn_distance": graph.mean_knn_distance[rows],
                "of_median": graph.mean_knn_distance[rows] / (median or np.nan),
            }
        )
    return _stacked(parts)


def _nuisances(
    spec: AnalysisSpec, features: Mapping[str, np.ndarray], columns: pd.DataFrame, groups: np.ndarray
) -> dict[str, pd.DataFrame]:
    """`robustness` and `shortcuts`: what the features of a sample have of the label, and what of each nuisance column."""
    target = spec.target or "label"
    names = nuisance_columns(columns, spec.nuisances, spec.domain) if target in columns else []
    names = [name for name in names if name != target]
    tables = {name: [pd.DataFrame(columns=["backbone", *of])] for name, of in NUISANCE_TABLES.items()}
    for backbone, vectors in features.items() if names else ():
        given = vectors, columns[target], columns[names], groups
        found = robustness_indices(*given, spec.neighbors, spec.seed), shortcut_tests(*given, spec.seed)
        for parts, table in zip(tables.values(), found, strict=True):
            parts.append(table.assign(backbone=backbone))
    return {
        name: pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
        for name, parts in tables.items()
    }


def _domains(
    features: np.ndarray,
    others: Mapping[str, np.ndarray],
    groups: np.ndarray,
    column: pd.Series | None,
    spec: AnalysisSpec,
) -> pd.DataFrame:
    """Distances between this store and other stores, and between the values of a column."""
    parts = [domain_distances(features[:0], np.empty(0, object), groups[:0])]
    if others:
        clouds = {spec.store.path.name: features, **others}
        patients = np.concatenate([groups, *(patients_of(spec.against[name]) for name in others)])
        names = np.concatenate([np.full(len(vectors), name, object) for name, vectors in clouds.items()])
        # A patient id that occurs in several stores is one patient.
        parts.append(domain_distances(np.concatenate(list(clouds.values())), names, patients, spec.seed))
    if column is not None:
        parts.append(domain_distances(features, column.to_numpy(object), groups, spec.seed))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
