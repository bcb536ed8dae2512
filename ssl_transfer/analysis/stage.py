"""Looking into a feature space. Reads artifacts, trains nothing.

`analyze` is the stage: what several backbones make of the images of one store is measured, and left as tables, pictures, and
a page to walk through. The parts are functions of features and tables, for notebooks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, PositiveInt

from ssl_transfer.analysis.analyzed_backbone import AnalyzedBackbone
from ssl_transfer.analysis.explorer.page import Projection, write_explorer
from ssl_transfer.analysis.figures import draw_all
from ssl_transfer.analysis.leaks import DUPLICATE
from ssl_transfer.analysis.measurements import AnalysisSpec, Measurements, measure
from ssl_transfer.analysis.opening import (
    BackboneSpec,
    Precision,
    ResultSpec,
    StoreSpec,
    analyzed,
    opened_results,
    stores_by_name,
)
from ssl_transfer.analysis.summary_text import findings
from ssl_transfer.analysis.thumbnails import thumbnails
from ssl_transfer.console import stage
from ssl_transfer.data.store import ImageStore
from ssl_transfer.environment import environment
from ssl_transfer.errors import UsageError
from ssl_transfer.measures.neighbors import IndexKind, nearest
from ssl_transfer.result import Analysis
from ssl_transfer.run import Artifact, plain

FEWEST = 40  # images: below, neither neighbourhoods nor cross-validated probes say anything
THUMBNAILS = ((5_000, 64), (20_000, 48), (50_000, 32))  # images up to which they have so many pixels; beyond, 24
NEIGHBORS_SHOWN = 12


def analyze(
    backbones: Sequence[BackboneSpec],
    store: StoreSpec,
    out: str | Path | None = None,
    against: Mapping[str, ImageStore] | Sequence[StoreSpec] = (),
    results: Sequence[ResultSpec] = (),
    *,
    neighbors: Annotated[int, Field(ge=3, le=100)] = 15,
    index: IndexKind = "auto",
    sample: Annotated[int, Field(ge=FEWEST)] = 2000,
    columns: list[str] | None = None,
    domain: str | None = None,
    duplicate: Annotated[float, Field(gt=0, le=1)] = DUPLICATE,
    seed: Annotated[int, Field(ge=0)] = 0,
    size: PositiveInt | None = None,
    precision: Precision = "fp32",
) -> tuple[Analysis, Path]:
    """Compare the feature spaces of backbones on the images of a store.

    Args:
        backbones: Opened, or by path or name (see `load_backbone`); of one and its fine-tuned version, the change is measured.
        store: A store or its path: all its images for neighbours and maps, a sample for layers and probes.
        out: Folder; None: `runs/analyze/ID`.
        against: Other stores: their distance, and where their images lie on the maps.
        results: Folders of multiclass results of `evaluate`, two at least: which backbones fail on the same cases.
        neighbors: Of an image.
        index: Of FAISS; `auto` is exact as long as that is quick.
        sample: Images (of whole patients) that layers and probes are measured on.
        columns: That purity and retrieval go by; None: those by which images can be alike.
        domain: A column, such as the scanner, whose values are compared as domains.
        duplicate: Correlation of details from which two images count as near-duplicates.
        seed: Of the sample, the layouts and the folds.
        size, precision: Of features; see `extract_features`.

    Returns:
        The analysis and its folder: there also `explorer.html`, `tables/`, `figures/` and `maps.parquet`.

    Raises:
        UsageError: If there are fewer than 40 images, a column is not there, or `out` holds something else.
    """
    store = store if isinstance(store, ImageStore) else ImageStore(store)
    against, results = stores_by_name(against, store), opened_results(results)
    subjects = analyzed(backbones, store, size, precision)
    settings = {
        "neighbors": neighbors,
        "index": index,
        "sample": sample,
        "columns": columns,
        "domain": domain,
        "duplicate": duplicate,
        "seed": seed,
    }
    asked = {**settings, "names": [one.name for one in subjects], "against": list(against)}
    upstream = [one.id for one in (*subjects, store, *against.values())] + [one.result.run_id for one in results]
    artifact = Artifact.of("analyze", asked, upstream, out, record="analysis.json")
    if artifact.is_finished():
        return Analysis.load(artifact.folder), artifact.folder
    fewest = max(FEWEST, 2 * neighbors + 1)
    if len(store) < fewest:
        raise UsageError(
            f"{store.path}: holds {len(store)} images, expected {fewest} at least to look at {neighbors} neighbours of each."
        )
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        with stage(part, lambda taken: seconds.update({part: round(taken, 1)})):
            yield

    question = AnalysisSpec(subjects, store, against, results, **settings)
    found = measure(question, timed)
    with artifact.writing() as temporary:
        for place in ("tables", "figures"):
            (temporary / place).mkdir()
        for name, table in found.tables.items():
            table.to_csv(temporary / "tables" / f"{name}.csv", index=False)
        with timed("pictures"):
            pictures = draw_all(question, found, temporary / "figures")
        told = findings(question, found, pictures)
        with timed("explorer"):
            _map_table(question, found).to_parquet(temporary / "maps.parquet", index=False)
            _explorer(question, found, told, temporary / "explorer.html")
        analysis = Analysis(
            run_id=artifact.id,
            store=store.id,
            store_path=str(store.path),
            n={"images": len(store), "patients": store.card.n_patients, "sample": len(found.rows)},
            backbones=tuple(_entry(subject, found) for subject in subjects),
            findings=tuple({"title": finding.title, "text": finding.text} for finding in told),
            leaks=found.leaks.sentence(),
            settings=settings,
            seconds=seconds,
            environment=environment("cpu"),
        )
        analysis.save(temporary)
    return analysis, artifact.folder


def _entry(one: AnalyzedBackbone, found: Measurements) -> dict[str, Any]:
    """A backbone as `analysis.json` has it: what it is, and its numbers."""
    numbers = {}
    for name in ("maps", "clouds"):
        table = found.tables[name]
        row = table[table["backbone"] == one.name].iloc[-1].drop(["backbone", "layer"], errors="ignore")
        numbers |= {key: _finite(value) for key, value in row.items()}
    card = one.card
    return {
        "name": one.name,
        "id": card.id,
        "method": card.method,
        "source_domain": card.source_domain,
        "parents": list(card.parents),
        "pretraining_seed": card.pretraining_seed,
        **numbers,
    }


def _finite(value: Any) -> Any:
    """A value as JSON has it: None in place of NaN or infinity."""
    value = plain(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _map_table(asked: AnalysisSpec, found: Measurements) -> pd.DataFrame:
    """Where every image stands under every backbone: `backbone`, `store`, `row`, `x`, `y`, and how its neighbours see it."""
    parts = []
    for name, points in found.points.items():
        graph = found.graphs[name]
        own = {"row": np.arange(len(points)), "occurrences": graph.k_occurrence, "remoteness": graph.mean_knn_distance}
        parts.append(
            pd.DataFrame(
                {"backbone": name, "store": asked.store.path.name, **own, "x": points[:, 0], "y": points[:, 1]}
            )
        )
        for other, placed in found.placed[name].items():
            parts.append(
                pd.DataFrame(
                    {
                        "backbone": name,
                        "store": other,
                        "row": np.arange(len(placed)),
                        "x": placed[:, 0],
                        "y": placed[:, 1],
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def _explorer(asked: AnalysisSpec, found: Measurements, told: Sequence[Any], path: Path) -> None:
    """The page of all images: those of the store, and behind them those of the others."""
    stores = {asked.store.path.name: asked.store, **asked.against}
    total = sum(map(len, stores.values()))
    px = next((px for most, px in THUMBNAILS if total <= most), 24)
    small = [thumbnails(store, px=px) for store in stores.values()]
    if len({pictures.ndim for pictures in small}) > 1:  # grey and colour beside each other
        small = [np.repeat(p[..., None], 3, -1) if p.ndim == 3 else p for p in small]
    remote = {f"remoteness ({name})": graph.mean_knn_distance for name, graph in found.graphs.items()}
    columns = [found.described.assign(**remote), *map(_described_elsewhere, asked.against.values())]
    table = pd.concat(columns, ignore_index=True)
    if asked.against:
        table.insert(
            1,
            "from store" if "store" in table else "store",
            np.repeat(list(stores), [len(store) for store in stores.values()]),
        )
    maps = {}
    for one in asked.subjects:
        graph, quality = found.graphs[one.name], found.tables["maps"].set_index("backbone").loc[one.name]
        points, k = [found.points[one.name]], min(NEIGHBORS_SHOWN, graph.k)
        near, alike = [graph.positions[:, :k]], [graph.similarities[:, :k]]
        for name, other in asked.against.items():
            similarities, positions = nearest(one.features(asked.store), one.features(other), k)
            points.append(found.placed[one.name][name])
            near.append(positions)
            alike.append(similarities)
        note = f"trustworthiness {quality['trustworthiness']:.2f}, continuity {quality['continuity']:.2f}"
        maps[one.name] = Projection(*(np.concatenate(parts) for parts in (points, near, alike)), note)
    write_explorer(
        path, f"{asked.store.path.name}: {len(asked.store):,} images", maps, table, np.concatenate(small), told
    )


def _described_elsewhere(store: ImageStore) -> pd.DataFrame:
    return pd.DataFrame({name: store.column(name) for name in ("label", "patient", "split")})
