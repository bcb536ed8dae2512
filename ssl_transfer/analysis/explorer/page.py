"""The explorer: feature spaces as a self-contained interactive HTML page.

The page contains all its data (embeddings, neighbours, columns, thumbnails) and Plotly, which draws the points. It opens from
disk, without a network. Data is embedded as JSON or packed bytes, and is inserted into the page as text only.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from ssl_transfer.analysis.explorer.packing import (
    CLASSES,
    SHEET_SIDE,
    column,
    deflated,
    packed,
    packed_points,
    packed_similarities,
    smallest,
    sprite_sheets,
)
from ssl_transfer.errors import UsageError
from ssl_transfer.palette import MANY_COLORS

assert len(MANY_COLORS) == CLASSES
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class Projection:
    """The feature space of a backbone on N images.

    Attributes:
        points: Coordinates of each image in the embedding; float32 (N, 2).
        neighbors: Nearest neighbours of each image in the full feature space, nearest first; integers (N, k).
        similarities: Cosine similarity to each of them; float32 (N, k).
        note: Quality of the embedding, such as "trustworthiness .93, continuity .95".
    """

    points: np.ndarray
    neighbors: np.ndarray
    similarities: np.ndarray
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """A result of the analysis, shown in the second tab.

    Attributes:
        title: Heading.
        text: The result in sentences; an empty line starts a new paragraph.
        picture: Path of a PNG file, or None.
    """

    title: str
    text: str
    picture: Path | None = None


def write_explorer(
    path: str | os.PathLike,
    title: str,
    maps: dict[str, Projection],
    columns: pd.DataFrame,
    thumbnails: np.ndarray,
    findings: Sequence[Finding] = (),
) -> Path:
    """Write an interactive page of feature spaces of the same images.

    The page is self-contained and is written atomically. It needs a browser from 2023 or later. Images are called by their row
    number, from 0 to N − 1.

    Args:
        path: Path of the page, `.html`; its folder is created if missing.
        title: Title of the page.
        maps: Feature space of each backbone, all of the same N images in the same order; the first is shown first.
        columns: Descriptions of the images, N rows. All columns are listed; points can be coloured by numbers and by text whose
            values repeat. None and NaN are unknown. Integers with up to 12 distinct values are classes.
        thumbnails: uint8 (N, px, px) or (N, px, px, 3).
        findings: Results in the second tab, which is omitted if there are none.

    Returns:
        The path of the page.

    Raises:
        UsageError: If there is no feature space or no image, if shapes do not fit, if a neighbour is not among the N images,
            if coordinates are NaN or infinite, or if the picture of a finding is not a PNG file.
    """
    path = Path(path)
    _check(path, maps, columns, thumbnails)
    page = _template().render(title=title, **_content(title, maps, columns, thumbnails, findings))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(page, encoding="utf-8", errors="replace")
    os.replace(unfinished, path)
    return path


def _content(title, maps, columns, thumbnails, findings) -> dict:
    """Variables of the template. `meta` describes the page; it is the first data that its scripts read."""
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs()
    described = [column(str(name), columns.iloc[:, index]) for index, name in enumerate(columns.columns)]
    packs: list[str] = []
    meta = {
        "title": title,
        "images": len(columns),
        "palette": MANY_COLORS,
        "scale": _scale(),
        "maps": [_described(name, projection) for name, projection in maps.items()],
        "columns": described,
        "thumbnail": {"px": thumbnails.shape[1], "across": max(1, SHEET_SIDE // thumbnails.shape[1])},
    }
    _put_aside(meta, packs)
    return {
        "meta": meta,
        "packs": packs,
        "sheets": list(sprite_sheets(thumbnails)),
        "library": deflated(library.encode()),
        "licence": library[: library.index("*/") + 2],
        "findings": [_finding_content(finding) for finding in findings],
    }


def _described(name: str, projection: Projection) -> dict:
    points, box = packed_points(np.asarray(projection.points, np.float32))
    similarities, span = packed_similarities(np.asarray(projection.similarities, np.float32))
    neighbors = np.asarray(projection.neighbors)
    return {
        "name": str(name),
        "note": projection.note,
        "points": points,
        "box": box,
        "similarities": similarities,
        "span": span,
        "neighbors": packed(smallest(neighbors.T)),
        "k": neighbors.shape[1],
    }


def _put_aside(node: object, packs: list[str]) -> None:
    """Replace every packed array in the JSON by its number, so that the JSON parser does not read megabytes of base64."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("data", "words") and isinstance(value, str):
                node[key] = len(packs)
                packs.append(value)
            else:
                _put_aside(value, packs)
    elif isinstance(node, list):
        for value in node:
            _put_aside(value, packs)


def _scale() -> list[str]:
    """256 colours of viridis, which is perceptually uniform and safe for colour-blind readers."""
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(color) for color in matplotlib.colormaps["viridis"](np.arange(256))]


def _finding_content(finding: Finding) -> dict:
    content = {
        "title": finding.title,
        "paragraphs": [part.strip() for part in finding.text.split("\n\n") if part.strip()],
    }
    if finding.picture is None:
        return content
    picture = Path(finding.picture)
    if not picture.is_file():
        raise UsageError(
            f"{picture}: the picture of the finding “{finding.title}” does not exist. Draw it first, or leave it out."
        )
    data = picture.read_bytes()
    if not data.startswith(PNG):
        raise UsageError(f"{picture}: found a picture that is not a PNG file. Save it as PNG.")
    return {**content, "uri": f"data:image/png;base64,{base64.b64encode(data).decode()}"}


def _check(path: Path, maps: dict[str, Projection], columns: pd.DataFrame, thumbnails: np.ndarray) -> None:
    count = len(columns)
    if not maps:
        raise UsageError(f"{path}: an explorer needs at least one map, found none.")
    if not count:
        raise UsageError(f"{path}: an explorer needs at least one image; the columns have no rows.")
    shape = np.shape(thumbnails)
    square = len(shape) in (3, 4) and shape[1] == shape[2] >= 1 and shape[3:] in ((), (3,))
    if not square or shape[0] != count or thumbnails.dtype != np.uint8:
        raise UsageError(
            f"{path}: thumbnails are {thumbnails.dtype} {shape}, expected uint8 ({count}, px, px) or ({count}, px, px, 3), "
            "as many as the columns have rows."
        )
    for name, projection in maps.items():
        _check_map(f"{path}: map '{name}'", projection, count)


def _check_map(where: str, projection: Projection, count: int) -> None:
    points, neighbors, similarities = (
        np.asarray(part) for part in (projection.points, projection.neighbors, projection.similarities)
    )
    if points.shape != (count, 2):
        raise UsageError(
            f"{where}: points have shape {points.shape}, expected ({count}, 2), one per row of the columns."
        )
    if not np.isfinite(points).all():
        non_finite = int((~np.isfinite(points).all(1)).sum())
        raise UsageError(f"{where}: {non_finite} points are not finite numbers. Leave those images out of all maps.")
    if neighbors.ndim != 2 or len(neighbors) != count or not np.issubdtype(neighbors.dtype, np.integer):
        raise UsageError(f"{where}: neighbors are {neighbors.dtype} {neighbors.shape}, expected integers ({count}, k).")
    if similarities.shape != neighbors.shape or not np.isfinite(similarities).all():
        problem = similarities.shape if similarities.shape != neighbors.shape else "values that are not finite"
        raise UsageError(f"{where}: similarities: found {problem}, expected finite numbers of shape {neighbors.shape}.")
    if neighbors.size and not 0 <= neighbors.min() <= neighbors.max() < count:
        raise UsageError(
            f"{where}: neighbors lie between {neighbors.min()} and {neighbors.max()}, expected positions in 0 … {count - 1}."
        )


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html.jinja")
