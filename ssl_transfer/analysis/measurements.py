"""What is measured of a store's images under several backbones: all numbers of an analysis, as tidy tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ssl_transfer.analysis.analyzed_backbone import AnalyzedBackbone
from ssl_transfer.analysis.columns import KEYS, described, drawn_sample, patients_of, shared
from ssl_transfer.analysis.domains import domain_distances
from ssl_transfer.analysis.failures import Predictions, failures
from ssl_transfer.analysis.leaks import Leaks, find_leaks
from ssl_transfer.analysis.projection import embedding_quality, project, transform
from ssl_transfer.analysis.properties import image_properties
from ssl_transfer.analysis.property_probes import encoded
from ssl_transfer.analysis.similarity import FEATURES, shapes, similarities
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import UsageError
from ssl_transfer.measures.neighborhood import Neighborhood
from ssl_transfer.measures.neighbors import IndexKind

OUTLIERS = 50  # of each backbone
RETRIEVAL = ["column", "values", "n", "k", "purity", "by_chance", "precision_1", "map"]  # of a table without rows
Timed = Callable[[str], AbstractContextManager]


@dataclass(frozen=True)
class AnalysisSpec:
    """What an analysis is asked; see `analyze` for the meaning of each."""

    subjects: Sequence[AnalyzedBackbone]
    store: ImageStore
    against: Mapping[str, ImageStore]
    results: Sequence[Predictions]
    neighbors: int
    index: IndexKind
    sample: int
    columns: list[str] | None
    domain: str | None
    duplicate: float
    seed: int


@dataclass(frozen=True, eq=False)
class Measurements:
    """The answer, by backbone where not said otherwise.

    Attributes:
        graphs: The neighbours of every image of the store.
        points: Where they stand on the map, (N, 2); maps of several backbones are aligned.
        placed: The images of each other store on that map, (M, 2).
        rows: The sample: whole patients, in random order.
        described: What is known of every image: columns of the store, then properties of its pixels.
        unread: Columns and properties of which too little is known to be read off features.
        leaks: Of the store.
        tables: `maps`, `neighbors`, `outliers`, `clouds`, `similarity`, `encoded`, `domains`, `failures`, `leaks`.
    """

    graphs: dict[str, Neighborhood]
    points: dict[str, np.ndarray]
    placed: dict[str, dict[str, np.ndarray]]
    rows: np.ndarray
    described: pd.DataFrame
    unread: list[str]
    leaks: Leaks
    tables: dict[str, pd.DataFrame]


def measure(asked: AnalysisSpec, timed: Timed) -> Measurements:
    """Measure everything; `timed(part)` surrounds each part of the work.

    Raises:
        UsageError: If a column is asked for that the store does not have.
    """
    store, seed = asked.store, asked.seed
    asked_for = [*(asked.columns or ()), *([] if asked.domain is None else [asked.domain])]
    table = described(store, asked_for)
    by = shared(table, asked.columns)
    failed_alike = failures(asked.results, seed=seed)
    with timed("features"):
        features = {one.name: one.features(store) for one in asked.subjects}
        for name, own in features.items():
            if strange := np.flatnonzero(~np.isfinite(own).all(1)).tolist():
                raise UsageError(
                    f"backbone {name}: features of {len(strange)} images of {store.path} are no finite numbers, the first of row "
                    f"{strange[0]}. Look for a training that diverged, or for pixels that are no numbers; or leave it out."
                )
        elsewhere = {
            one.name: {name: one.features(other) for name, other in asked.against.items()} for one in asked.subjects
        }
    with timed("neighbours"):
        graphs = {name: Neighborhood.of(own, asked.neighbors, asked.index) for name, own in features.items()}
        retrieval = _stacked({name: _retrieval(graph, table[by]) for name, graph in graphs.items()})
    with timed("leaks"):
        leaks = find_leaks(store, _together(list(graphs.values())), asked.duplicate)
    with timed("maps"):
        points: dict[str, np.ndarray] = {}
        for name, own in features.items():
            first = next(iter(points.values()), None)
            points[name] = project(own, seed, asked.neighbors, graphs[name], beside=first)
        placed = {
            name: {
                other: transform(new, features[name], points[name], asked.neighbors) for other, new in others.items()
            }
            for name, others in elsewhere.items()
        }
        maps = pd.DataFrame(
            [
                {
                    "backbone": name,
                    "index": graphs[name].index,
                    "recall": graphs[name].recall,
                    **embedding_quality(features[name], points[name], asked.neighbors, seed),
                }
                for name in features
            ]
        )
    groups = patients_of(store)
    rows = drawn_sample(groups, asked.sample, seed)
    with timed("layers"):
        layers = {one.name: {**one.layers(store, rows), FEATURES: features[one.name][rows]} for one in asked.subjects}
        clouds = _stacked(
            {one.name: shapes(layers[one.name], one.pairs(store, rows), graphs[one.name]) for one in asked.subjects}
        )
        similarity = similarities(layers, graphs)
    with timed("properties"):
        properties = image_properties(store)
        properties = properties.rename(columns={name: f"{name} of pixels" for name in properties if name in table})
        known = pd.concat([table.drop(columns=list(set(KEYS) & set(table))), properties], axis=1).iloc[rows]
    with timed("probes of properties"):
        read = _stacked({name: _read(own, known, groups[rows], seed) for name, own in layers.items()})
    with timed("domains"):
        domains = _stacked(
            {
                name: _domains(
                    own, elsewhere[name], groups, None if asked.domain is None else table[asked.domain], asked
                )
                for name, own in features.items()
            }
        )
    tables = {
        "maps": maps,
        "neighbors": retrieval,
        "outliers": _outliers(graphs, table),
        "clouds": clouds,
        "similarity": similarity,
        "encoded": read,
        "domains": domains,
        "failures": failed_alike,
        "leaks": leaks.pairs,
    }
    unread = [name for name in known if name not in set(read["property"])]
    return Measurements(graphs, points, placed, rows, pd.concat([table, properties], axis=1), unread, leaks, tables)


def _stacked(parts: Mapping[str, pd.DataFrame], column: str = "backbone") -> pd.DataFrame:
    """Tables below one another, and which each row is of."""
    return pd.concat([part.assign(**{column: name}) for name, part in parts.items()], ignore_index=True)


def _read(layers: Mapping[str, np.ndarray], known: pd.DataFrame, groups: np.ndarray, seed: int) -> pd.DataFrame:
    """Properties read off every layer, chance of the features alone: it is the same of all."""
    return _stacked(
        {layer: encoded(held, known, groups, seed, layer == FEATURES) for layer, held in layers.items()}, "layer"
    )


def _retrieval(graph: Neighborhood, table: pd.DataFrame) -> pd.DataFrame:
    """How alike neighbours are by each column: purity and what it would be by chance, precision@k, mAP@k, hits and classes."""
    rows = []
    for name in table:
        labels = table[name].to_numpy(object)
        counts = sorted({1, min(5, graph.k), graph.k})
        rows.append(
            {
                "column": name,
                "values": table[name].nunique(),
                "n": int(table[name].notna().sum()),
                "k": graph.k,
                "purity": graph.purity(labels),
                "by_chance": graph.purity_by_chance(labels),
                **{f"precision_{k}": value for k, value in graph.precision(labels, counts).items()},
                "map": graph.average_precision(labels),
            }
        )
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else RETRIEVAL)


def _together(graphs: Sequence[Neighborhood]) -> Neighborhood:
    """One graph with the neighbours of all: what any backbone finds alike is worth comparing."""
    parts = (
        np.hstack([getattr(graph, name) for graph in graphs]) for name in ("similarities", "distances", "positions")
    )
    return Neighborhood(*parts, graphs[0].index, min(graph.recall for graph in graphs))


def _outliers(graphs: Mapping[str, Neighborhood], table: pd.DataFrame) -> pd.DataFrame:
    """The images that are farthest from their neighbours: `remoteness` and how many times the median that is."""
    parts = {}
    for name, graph in graphs.items():
        rows = np.argsort(-graph.mean_knn_distance, kind="stable")[:OUTLIERS]
        median = np.median(graph.mean_knn_distance)
        parts[name] = pd.DataFrame(
            {
                "row": rows,
                **{key: table[key].to_numpy()[rows] for key in ("patient", "label", "split") if key in table},
                "remoteness": graph.mean_knn_distance[rows],
                "of_median": graph.mean_knn_distance[rows] / (median or np.nan),
            }
        )
    return _stacked(parts)


def _domains(
    features: np.ndarray,
    others: Mapping[str, np.ndarray],
    groups: np.ndarray,
    column: pd.Series | None,
    asked: AnalysisSpec,
) -> pd.DataFrame:
    """Distances between this store and the others, and between the values of a column."""
    parts = [domain_distances(features[:0], np.empty(0, object), groups[:0])]
    if others:
        clouds = {asked.store.path.name: features, **others}
        owners = [groups, *(patients_of(asked.against[name]) for name in others)]
        names = np.concatenate([np.full(len(own), name, object) for name, own in clouds.items()])
        everything, patients = (
            np.concatenate(list(clouds.values())),
            np.concatenate(owners),
        )  # who is in both is one patient
        parts.append(domain_distances(everything, names, patients, asked.seed))
    if column is not None:
        parts.append(domain_distances(features, column.to_numpy(object), groups, asked.seed))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
