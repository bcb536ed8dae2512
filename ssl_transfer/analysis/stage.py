"""The stage `analyze`: compare the feature spaces of several backbones on the images of one store.

It reads artifacts and writes tables, figures and an interactive page. Its parts are functions of features and tables, which
notebooks can use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, PositiveInt

from ssl_transfer.analysis.analyzed_backbone import AnalyzedBackbone
from ssl_transfer.analysis.columns import in_order, with_age_bands
from ssl_transfer.analysis.explorer.page import Finding, Projection, write_explorer
from ssl_transfer.analysis.figures import draw_all
from ssl_transfer.analysis.leaks import DUPLICATE
from ssl_transfer.analysis.measurements import AnalysisSpec, Measurements, Timed, measure
from ssl_transfer.analysis.opening import (
    BackboneSpec,
    Precision,
    ResultSpec,
    StoreSpec,
    analyzed,
    opened_results,
    rows_in_store,
    sampled_stores,
    stores_by_name,
)
from ssl_transfer.analysis.projection import quality_text
from ssl_transfer.analysis.summary_text import summary_text
from ssl_transfer.analysis.thumbnails import thumbnails
from ssl_transfer.console import stage
from ssl_transfer.csv_files import write_csv
from ssl_transfer.data.images import Images
from ssl_transfer.data.store import ImageStore
from ssl_transfer.environment import environment
from ssl_transfer.errors import UsageError
from ssl_transfer.measures.neighbors import IndexKind, nearest
from ssl_transfer.numerics import numerics
from ssl_transfer.paths import portable
from ssl_transfer.result import Analysis
from ssl_transfer.run import Artifact, plain, whole_folder

FEWEST = 40  # images; with fewer, neither neighbourhoods nor cross-validated probes are meaningful
THUMBNAILS = (
    (5_000, 64),
    (20_000, 48),
    (50_000, 32),
)  # up to so many images, thumbnails have this many pixels; else 24
NEIGHBORS_SHOWN = 12
ROWS = {"outliers": ("row",), "leaks": ("row_a", "row_b")}  # table -> columns with positions in the analysed store


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
    target: str | None = None,
    nuisances: list[str] | None = None,
    duplicate: Annotated[float, Field(gt=0, le=1)] = DUPLICATE,
    seed: Annotated[int, Field(ge=0)] = 0,
    size: PositiveInt | None = None,
    precision: Precision = "fp32",
) -> Analysis:
    """Compare the feature spaces of backbones on the images of a store.

    Args:
        backbones: Backbones, or their paths or names (see `load_backbone`). If one is a fine-tuned version of another, the two
            are compared layer by layer.
        store: A store or its path. All of its images are used for neighbours and UMAP, a sample for layers and probes. Of more
            than 200,000 images, a sample of whole patients is analysed, and the first finding says so.
        out: Folder of the analysis; None: `runs/analyze/ID`.
        against: Other stores. Their distance to this store is measured, and their images are added to the UMAP.
        results: Folders of at least two multiclass results of `evaluate`, whose errors are compared.
        neighbors: Number of neighbours of an image.
        index: Kind of FAISS index; `auto` is exact for small stores.
        sample: Number of images for layers and probes; all images of a patient are in the sample or none.
        columns: Columns whose values are compared between neighbours, for purity and retrieval; None: all columns whose values
            repeat.
        domain: A column, such as the scanner, whose values are compared as domains.
        target: A column of classes, for the robustness index and the shortcut test; None: label.
        nuisances: Columns that should not decide about the target: do neighbours share them rather than the target (robustness
            index), and how much of its score do they explain (shortcut test)? None: the domain, and the columns of an
            acquisition, such as manufacturer, scanner_model and kernel.
        duplicate: Smallest band-pass correlation of near-duplicates.
        seed: Seed of the sample, UMAP and the folds.
        size, precision: Image size and precision of features; see `extract_features`.

    Returns:
        The analysis. Its folder, `path`, also contains `explorer.html`, `tables/`, `figures/` and `umap.parquet`.

    Raises:
        UsageError: If there are fewer than 40 images, a column is missing, or `out` holds something else.
    """
    opened = store if isinstance(store, ImageStore) else ImageStore(store)
    others, results = stores_by_name(against, opened), opened_results(results)
    images, other_images, samples = sampled_stores(opened, others, seed)
    analyzed_backbones = analyzed(backbones, images, size, precision)
    settings: dict[str, Any] = dict(
        neighbors=neighbors,
        index=index,
        sample=sample,
        columns=columns,
        domain=domain,
        target=target,
        nuisances=nuisances,
        duplicate=duplicate,
        seed=seed,
    )
    names = {"names": [backbone.name for backbone in analyzed_backbones], "against": list(others)}
    upstream = [artifact.id for artifact in (*analyzed_backbones, opened, *others.values())]
    upstream += [result.result.run_id for result in results]
    artifact = Artifact.of("analyze", settings | names, upstream, out, record="analysis.json")
    with artifact.writing() as finished:
        if finished:
            return Analysis.load(artifact.folder)
        _check_size(images, neighbors)
        spec = AnalysisSpec(analyzed_backbones, images, other_images, results, **settings)
        return _analysis(artifact, spec, opened, samples, settings)


@numerics()
def _analysis(
    artifact: Artifact, spec: AnalysisSpec, whole: ImageStore, samples: Sequence[str], settings: dict[str, Any]
) -> Analysis:
    """Measure, and write the folder of the analysis.

    Args:
        artifact: The folder.
        spec: Backbones and stores, of which large ones are samples.
        whole: The analysed store.
        samples: A sentence about each sample.
        settings: For the record.
    """
    seconds: dict[str, float] = {}
    timed = partial(_timed, seconds)
    measured = measure(spec, timed)
    with whole_folder(artifact.folder) as temporary:
        findings = _write_files(spec, measured, samples, temporary, timed)
        analysis = Analysis(
            run_id=artifact.id,
            store=whole.id,
            store_path=portable(whole.path),
            n={
                "images": len(whole),
                "patients": whole.card.n_patients,
                **({"analysed": len(spec.store)} if len(spec.store) < len(whole) else {}),
                "sample": len(measured.rows),
            },
            backbones=tuple(_entry(backbone, measured) for backbone in spec.backbones),
            findings=tuple({"title": finding.title, "text": finding.text} for finding in findings),
            leaks=measured.leaks.sentence(),
            settings=settings,
            seconds=seconds,
            environment=environment("cpu"),
        )
        analysis.save(temporary)
    return replace(analysis, path=artifact.folder)


def _check_size(store: Images, neighbors: int) -> None:
    fewest = max(FEWEST, 2 * neighbors + 1)
    if len(store) < fewest:
        raise UsageError(
            f"{store.path}: found {len(store)} images, expected at least {fewest} for {neighbors} neighbours of each."
        )


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Print the name of a step while it runs, and record its duration."""
    with stage(part, lambda taken: seconds.update({part: round(taken, 1)})):
        yield


def _write_files(
    spec: AnalysisSpec, measured: Measurements, samples: Sequence[str], folder: Path, timed: Timed
) -> list[Finding]:
    """Write tables, figures, coordinates and the explorer; return the findings, the first on samples if there are any."""
    for name in ("tables", "figures"):
        (folder / name).mkdir()
    for name, table in measured.tables.items():
        rows = {column: rows_in_store(spec.store, table[column].to_numpy()) for column in ROWS.get(name, ())}
        write_csv(table.assign(**rows), folder / "tables" / f"{name}.csv")
    with timed("pictures"):
        pictures = draw_all(spec, measured, folder / "figures")
    findings = [Finding("Sample", " ".join(samples), None)] * bool(samples) + summary_text(spec, measured, pictures)
    with timed("explorer"):
        _coordinates(spec, measured).to_parquet(folder / "umap.parquet", index=False)
        _explorer(spec, measured, findings, folder / "explorer.html")
    return findings


def _entry(backbone: AnalyzedBackbone, measured: Measurements) -> dict[str, Any]:
    """The entry of a backbone in `analysis.json`: facts from its card, and its measurements."""
    numbers: dict[str, Any] = {}
    for name in ("embedding_quality", "clouds"):
        table = measured.tables[name]
        row = table[table["backbone"] == backbone.name].iloc[-1].drop(["backbone", "layer"], errors="ignore")
        numbers |= {key: _finite(value) for key, value in row.items()}
    for name in ("robustness", "shortcuts"):
        table = measured.tables[name]
        of_columns = table[table["backbone"] == backbone.name].drop(columns=["backbone", "target"])
        numbers[name] = {
            row.pop("nuisance"): {key: _finite(value) for key, value in row.items()}
            for row in of_columns.to_dict("records")
        }
    card = backbone.card
    return {
        "name": backbone.name,
        "id": card.id,
        "method": card.method,
        "source_domain": card.source_domain,
        "parents": list(card.parents),
        "pretraining_seed": card.pretraining_seed,
        **numbers,
    }


def _finite(value: Any) -> Any:
    """A value for JSON, with None in place of NaN or infinity."""
    value = plain(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _coordinates(spec: AnalysisSpec, measured: Measurements) -> pd.DataFrame:
    """Content of `umap.parquet`: a row per backbone and image, with its coordinates and what its neighbour graph says of it."""
    parts = []
    for name, points in measured.embeddings.items():
        graph = measured.graphs[name]
        of_graph = {"k_occurrence": graph.k_occurrence, "mean_knn_distance": graph.mean_knn_distance}
        for store, coordinates in {spec.store.path.name: points, **measured.transformed[name]}.items():
            images = spec.store if coordinates is points else spec.against[store]
            rows = rows_in_store(images, np.arange(len(coordinates)))
            table = pd.DataFrame({"backbone": name, "store": store, "row": rows})
            if coordinates is points:
                table = table.assign(**of_graph)
            parts.append(table.assign(x=coordinates[:, 0], y=coordinates[:, 1]))
    return pd.concat(parts, ignore_index=True)


def _explorer(spec: AnalysisSpec, measured: Measurements, findings: Sequence[Finding], path: Path) -> None:
    """Write the explorer, with the images of the store and then those of the other stores."""
    stores = {spec.store.path.name: spec.store, **spec.against}
    total = sum(map(len, stores.values()))
    px = next((px for most, px in THUMBNAILS if total <= most), 24)
    small = [thumbnails(store, px=px) for store in stores.values()]
    if len({pictures.ndim for pictures in small}) > 1:  # both grey and colour images
        small = [np.repeat(p[..., None], 3, -1) if p.ndim == 3 else p for p in small]
    distances = {f"mean_knn_distance ({name})": graph.mean_knn_distance for name, graph in measured.graphs.items()}
    columns = [measured.described.assign(**distances), *map(_known_columns, spec.against.values())]
    table = with_age_bands(pd.concat(columns, ignore_index=True))
    if spec.against:
        lengths = [len(store) for store in stores.values()]
        table.insert(1, "from store" if "store" in table else "store", np.repeat(list(stores), lengths))
    table = table[in_order(list(map(str, table)), spec.columns or ())]
    table = table.assign(
        file=[name for store in stores.values() for name in _files(store)]
    )  # by it an image is found again
    projections = {backbone.name: _projection(spec, measured, backbone) for backbone in spec.backbones}
    title = f"{spec.store.path.name}: {len(spec.store):,} images"
    write_explorer(path, title, projections, table, np.concatenate(small), findings)


def _files(store: Images) -> Iterable[str | None]:
    """The files of the images as the store names them, which `inspect --names` translates."""
    return store.column("file") if "file" in store.columns else [None] * len(store)


def _projection(spec: AnalysisSpec, measured: Measurements, backbone: AnalyzedBackbone) -> Projection:
    """The embedding of all images by a backbone, with their neighbours in the store."""
    name = backbone.name
    graph, quality = measured.graphs[name], measured.tables["embedding_quality"].set_index("backbone").loc[name]
    points, k = [measured.embeddings[name]], min(NEIGHBORS_SHOWN, graph.k)
    neighbours, similarities = [graph.positions[:, :k]], [graph.similarities[:, :k]]
    for other, store in spec.against.items():
        similar, positions = nearest(backbone.features(spec.store), backbone.features(store), k)
        points.append(measured.transformed[name][other])
        neighbours.append(positions)
        similarities.append(similar)
    note = quality_text(quality["trustworthiness"], quality["continuity"])
    return Projection(np.concatenate(points), np.concatenate(neighbours), np.concatenate(similarities), note)


def _known_columns(store: Images) -> pd.DataFrame:
    """The columns that every store has."""
    return pd.DataFrame({name: store.column(name) for name in ("label", "patient", "split")})
