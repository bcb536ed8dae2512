"""Figures of an analysis: UMAP, property probes, similarity of layers, near-duplicates, and outliers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_transfer.analysis.measurements import AnalysisSpec, Measurements
from ssl_transfer.analysis.projection import draw_projections
from ssl_transfer.analysis.similarity import FEATURES
from ssl_transfer.analysis.thumbnails import thumbnails
from ssl_transfer.data.images import Images
from ssl_transfer.palette import INK
from ssl_transfer.texts import is_missing

QUIET = "#5c6470"
SHOWN_PAIRS, SHOWN_OUTLIERS = 8, 10
PICTURE_PX = 96
DPI = 150
MOST_WITH_NUMBERS = 24  # layers of the CKA matrix whose values are printed
NUMBERED = 6  # up to so many layers, the heat map of property probes prints the values of all of them


def draw_all(spec: AnalysisSpec, measured: Measurements, folder: Path) -> dict[str, Path]:
    """Draw all figures with data as PNG files in `folder`: `umap`, `property_probes`, `clouds`, `leaks`, `outliers`."""
    with matplotlib.rc_context({"text.parse_math": False}):  # a name may contain a dollar sign
        return _drawn(spec, measured, folder)


def _drawn(spec: AnalysisSpec, measured: Measurements, folder: Path) -> dict[str, Path]:
    label = "label" if "label" in measured.described else None
    labels = measured.described[label].to_numpy(object) if label else np.full(len(spec.store), "images", object)
    texts = np.array(["unknown" if is_missing(value) else str(value) for value in labels], object)
    paths = {"umap": folder / "umap.png"}
    draw_projections(measured.embeddings, _frequent(texts), paths["umap"])
    if len(measured.tables["property_probes"]):
        paths["property_probes"] = draw_property_probes(
            measured.tables["property_probes"], folder / "property_probes.png"
        )
    paths["clouds"] = draw_clouds(measured.tables["similarity"], folder / "clouds.png")
    if len(measured.leaks.pairs):
        paths["leaks"] = draw_pairs(spec.store, measured.leaks.pairs, folder / "leaks.png")
    paths["outliers"] = draw_outliers(spec.store, measured.tables["outliers"], folder / "outliers.png")
    return paths


def draw_property_probes(table: pd.DataFrame, path: Path) -> Path:
    """Draw a heat map: a row per property, a column per layer of every backbone, and a column for chance.

    Colours range from chance (0 for R², .5 for AUROC) to a perfect value (1). A property without any value had too few patients.

    Args:
        table: `Measurements.tables["property_probes"]`, with columns backbone, layer, property, measure, value and chance.
        path: Path of the PNG file.
    """
    backbones = list(dict.fromkeys(table["backbone"]))
    layers = {name: list(dict.fromkeys(table.loc[table["backbone"] == name, "layer"])) for name in backbones}
    layer_keys = [(name, layer) for name in backbones for layer in layers[name]]
    properties = list(dict.fromkeys(table["property"]))
    by = table.set_index(["property", "backbone", "layer"])
    values = np.array([[by["value"].get((p, *layer_key), np.nan) for layer_key in layer_keys] for p in properties])
    chance = by["chance"].groupby("property").mean().reindex(properties).to_numpy()
    floor = np.array([0.5 if by["measure"].loc[p].iloc[0] == "AUROC" else 0.0 for p in properties])
    everything = np.hstack([values, chance[:, None]])
    relative = ((everything - floor[:, None]) / (1 - floor[:, None])).clip(0, 1)
    widths = [len(layers[name]) for name in backbones]
    figure = Figure(figsize=(2.6 + 0.42 * (len(layer_keys) + 1.6), 1.7 + 0.27 * len(properties)), layout="constrained")
    main, margin = figure.subplots(1, 2, width_ratios=[len(layer_keys), 1.15], sharey=True)
    image = main.imshow(relative[:, :-1], cmap="viridis", vmin=0, vmax=1, aspect="auto")
    margin.imshow(relative[:, -1:], cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for column, (_, layer) in enumerate(layer_keys):
        if layer == FEATURES or len(layer_keys) <= NUMBERED:
            _numbers(main, column, everything[:, column], relative[:, column])
    _numbers(margin, 0, everything[:, -1], relative[:, -1])
    for row in np.flatnonzero(np.isnan(values).all(1)).tolist():
        middle = (len(layer_keys) - 1) / 2
        main.text(middle, row, "too few patients of each value", fontsize=7, color=QUIET, ha="center", va="center")
    measures = [f"{p.replace('_', ' ')}  {by['measure'].loc[p].iloc[0].replace('R2', 'R²')}" for p in properties]
    main.set_yticks(range(len(properties)), measures, fontsize=8)
    main.set_xticks(range(len(layer_keys)), [_short(layer) for _, layer in layer_keys], rotation=90, fontsize=7)
    margin.set_xticks([0], ["values permuted"], rotation=90, fontsize=7)
    margin.set_title("chance", fontsize=8.5, color=QUIET)
    _grouped(main, backbones, widths)
    for axes in (main, margin):
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=margin, fraction=0.9, pad=0.2, aspect=30)
    bar.set_label("from chance (0) to perfect (1)", fontsize=7.5)
    bar.ax.tick_params(labelsize=7)
    return _save(figure, path)


def draw_clouds(table: pd.DataFrame, path: Path) -> Path:
    """Draw the matrix of linear CKA between all layers of all backbones.

    Args:
        table: The table that `similarities` returns.
        path: Path of the PNG file.
    """
    layer_keys = list(dict.fromkeys(zip(table["backbone_a"], table["layer_a"], strict=True)))
    position = {layer_key: number for number, layer_key in enumerate(layer_keys)}
    matrix = np.full((len(layer_keys), len(layer_keys)), np.nan)
    for row in table.itertuples():
        i, j = position[row.backbone_a, row.layer_a], position[row.backbone_b, row.layer_b]
        matrix[i, j] = matrix[j, i] = row.cka
    names = list(dict.fromkeys(name for name, _ in layer_keys))
    widths = [sum(group == name for group, _ in layer_keys) for name in names]
    side = max(3.4, 0.27 * len(layer_keys) + 1.2)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix, cmap="magma", vmin=0, vmax=1)
    if len(layer_keys) <= MOST_WITH_NUMBERS:
        for column, values in enumerate(matrix.T):
            _numbers(axes, column, values, values)
    ticks = [_short(layer) for _, layer in layer_keys]
    axes.set_xticks(range(len(layer_keys)), ticks, rotation=90, fontsize=6.5)
    axes.set_yticks(range(len(layer_keys)), ticks, fontsize=6.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _grouped(axes, names, widths)
    for edge in np.cumsum(widths)[:-1]:
        axes.axhline(edge - 0.5, color="white", lw=2)
    bar = figure.colorbar(image, shrink=0.8)
    bar.set_label("linear CKA, unbiased", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return _save(figure, path)


def draw_pairs(store: Images, pairs: pd.DataFrame, path: Path) -> Path:
    """Draw the most similar near-duplicates, one pair per column; pairs across splits come first."""
    shown = pairs.sort_values("across", ascending=False, kind="stable").head(SHOWN_PAIRS)
    figure = Figure(figsize=(1.15 * max(4, len(shown)) + 0.3, 3.1), layout="constrained")
    grid = np.reshape(figure.subplots(2, max(4, len(shown))), (2, -1))
    for axes in grid.flat:
        axes.set_axis_off()
    for column, pair in zip(grid.T, shown.itertuples(), strict=False):
        for axes, row, split in zip(column, (pair.row_a, pair.row_b), (pair.split_a, pair.split_b), strict=True):
            _picture(axes, store, row, f"{split}, row {row}")
        column[1].text(
            0.5,
            -0.06,
            f"correlation {pair.band_pass_correlation:.2f}",
            transform=column[1].transAxes,
            ha="center",
            va="top",
            fontsize=7,
            color=QUIET,
        )
    return _save(figure, path)


def draw_outliers(store: Images, table: pd.DataFrame, path: Path) -> Path:
    """Draw the images that are farthest from their neighbours, a row per backbone."""
    names = list(dict.fromkeys(table["backbone"]))
    figure = Figure(figsize=(1.05 * SHOWN_OUTLIERS + 0.3, 1.45 * len(names) + 0.2), layout="constrained")
    grid = np.reshape(figure.subplots(len(names), SHOWN_OUTLIERS), (len(names), -1))
    for line, name in zip(grid, names, strict=True):
        group = table[table["backbone"] == name].head(SHOWN_OUTLIERS)
        for axes in line:
            axes.set_axis_off()
        for axes, image in zip(line, group.itertuples(), strict=False):
            _picture(
                axes,
                store,
                image.row,
                f"row {image.row}" + (f", {image.of_median:.1f} ×" if image.of_median < np.inf else ""),
            )
        for axes, head in zip(
            line, [name, *[" "] * (len(line) - 1)], strict=True
        ):  # a head lifts the title of its image
            axes.set_title(f"{head}\n", fontsize=8.5, fontweight="bold", color=INK, loc="left", pad=8)
    return _save(figure, path)


def _picture(axes: Axes, store: Images, row: int, title: str) -> None:
    image = thumbnails(store, np.array([row]), PICTURE_PX)[0]
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=6.5, color=QUIET, pad=2)


def _numbers(axes: Axes, column: int, values: np.ndarray, shades: np.ndarray) -> None:
    for row, (value, shade) in enumerate(zip(values, shades, strict=True)):
        if value == value:
            text = (
                f"{value:.2f}".replace("-0.00", "0.00").replace("0.", ".").replace("-", "−") if value > -1 else "< −1"
            )
            axes.text(
                column, row, text, ha="center", va="center", fontsize=6.5, color="black" if shade > 0.6 else "white"
            )


def _grouped(axes: Axes, names: Sequence[str], widths: Sequence[int]) -> None:
    """Write the names of backbones above their columns, with a gap between backbones."""
    start = 0
    for name, width in zip(names, widths, strict=True):
        room = max(6, round(5.5 * width))
        shown = name if len(name) <= room else f"{name[: room - 1]}…"
        axes.text(start + (width - 1) / 2, -0.8, shown, ha="center", va="bottom", fontsize=8, color=INK, clip_on=False)
        if start:
            axes.axvline(start - 0.5, color="white", lw=2)
        start += width


def _short(layer: str) -> str:
    return layer.removeprefix("features.") if layer != FEATURES else FEATURES


def _frequent(labels: np.ndarray, most: int = 8) -> np.ndarray:
    """Labels, with all but the most frequent ones replaced by "other"."""
    counts = pd.Series(labels).value_counts()
    if len(counts) <= most:
        return labels
    return np.where(np.isin(labels, counts.index[: most - 1].to_numpy(object)), labels, "other").astype(object)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=DPI, facecolor="white")
    return path
