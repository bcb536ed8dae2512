"""Confusion matrix and curves in the folder of a result, as CSV and SVG.

The SVG is written as text: a figure library would take longer than many an evaluation. It follows the light or dark mode of what
shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas

from ssl_transfer.csv_files import write_csv
from ssl_transfer.measures.case_curves import confusion, curves
from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.palette import COLORS, GREY, INK, MANY_COLORS

FILES = ("confusion.csv", "confusion.svg", "curves.csv", "curves.svg")
MOST_CLASSES = 30  # of a picture of a confusion matrix
MOST_LINES = 8  # of different colours; more classes are drawn in grey
STYLE = (
    f"<style>text{{font:12px system-ui,sans-serif;fill:{INK}}}.t{{font-weight:600}}.s{{font-size:11px}}"
    f".a{{stroke:{INK};stroke-width:.7;fill:none}}.g{{stroke:{INK};stroke-width:.5;stroke-opacity:.15}}"
    f".d{{stroke:{INK};stroke-width:.8;stroke-opacity:.4;stroke-dasharray:3 3}}"
    ".c{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    "rect.p{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#e6e8eb}.a,.g,.d{stroke:#e6e8eb}rect.p{fill:#16191d}}</style>"
)
SIDE, LEFT, TOP = 260, 52, 34  # pixels


def write_pictures(folder: Path, cases: CasePredictions) -> tuple[str, ...]:
    """Write confusion matrix and curves of the test predictions; returns the names of the files.

    Args:
        folder: Folder of the result.
        cases: Its predictions; only classes, grades and labels have such files.
    """
    counts, points = confusion(cases), curves(cases)
    if counts is None or points is None:
        return ()
    write_csv(counts, folder / "confusion.csv")
    write_csv(points, folder / "curves.csv")
    files = ["confusion.csv", "curves.csv"]
    pictures = {"curves.svg": curves_svg(points)}
    if cases.kind != "multilabel" and len(cases.classes) <= MOST_CLASSES:
        pictures["confusion.svg"] = confusion_svg(counts)
    for name, svg in pictures.items():
        (folder / name).write_text(svg, encoding="utf-8")
        files.append(name)
    return tuple(files)


def confusion_svg(counts: pandas.DataFrame) -> str:
    """A confusion matrix: the number of images, shaded by the share of their true class.

    Args:
        counts: As `confusion` returns it, for classes.
    """
    names = [str(name) for name in counts["true"]]
    numbers = counts.drop(columns="true").to_numpy()
    shares = numbers / np.maximum(numbers.sum(1, keepdims=True), 1)
    cell = max(22, min(64, 420 // len(names)))
    left, top = 30 + 7 * min(22, max(map(len, names))), 44
    bottom = top + cell * len(names)
    marks = [_text(left, 18, "Confusion matrix, test", "t")]
    for row, name in enumerate(names):
        y = top + cell * row
        marks.append(_text(left - 8, y + cell / 2 + 4, _short(name), "s", "end"))
        marks.append(_text(left + cell * row + cell / 2, bottom + 16, _short(name), "s", "end", turned=True))
        for column in range(len(names)):
            x, share = left + cell * column, shares[row, column]
            marks.append(
                f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{COLORS[0]}" fill-opacity="{share:.3f}">'
                f"<title>{escape(name)} → {escape(names[column])}: {numbers[row, column]} ({share:.1%})</title></rect>"
            )
            if numbers[row, column]:
                ink = ' style="fill:#fff"' if share > 0.6 else ""
                marks.append(_text(x + cell / 2, y + cell / 2 + 4, str(numbers[row, column]), "s", "middle", extra=ink))
    side = cell * len(names)
    marks.append(f'<rect class="a" x="{left}" y="{top}" width="{side}" height="{side}"/>')
    marks.append(_text(left, 36, "rows: true class; columns: predicted class", "s"))
    below = 24 + 5 * min(22, max(map(len, names)))
    return _page(max(left + side + 20, left + 250), bottom + below, marks, "Confusion matrix")


def curves_svg(points: pandas.DataFrame) -> str:
    """ROC and precision-recall curves, side by side.

    Args:
        points: As `curves` returns it.
    """
    names = list(dict.fromkeys(points["class"]))
    few = len(names) <= MOST_LINES
    marks: list[str] = []
    panels = (
        ("ROC", "1 − specificity", "sensitivity", "false_positive_rate", "sensitivity", (0.0, 0.0)),
        ("Precision and recall", "recall (sensitivity)", "precision", "sensitivity", "precision", None),
    )
    for number, (title, across, up, x, y, start) in enumerate(panels):
        left = LEFT + number * (SIDE + 80)
        marks += _axes(left, title, across, up, diagonal=start is not None)
        for position, name in enumerate(names):
            of_class = points[points["class"] == name]
            xs, ys = of_class[x].to_numpy(float), of_class[y].to_numpy(float)
            first = start or (0.0, ys[0])
            color = MANY_COLORS[position] if few else GREY
            line = _path(np.append(first[0], xs), np.append(first[1], ys), left)
            marks.append(f'<path class="c" stroke="{color}" d="{line}"><title>{escape(str(name))}</title></path>')
    bottom = TOP + SIDE + 60
    for position, name in enumerate(names if few else []):
        x, y = LEFT + 170 * (position % 4), bottom + 18 * (position // 4)
        marks.append(f'<path class="c" stroke="{MANY_COLORS[position]}" d="M{x} {y - 4}h18"/>')
        marks.append(_text(x + 24, y, _short(str(name)), "s"))
    if not few:
        marks.append(_text(LEFT, bottom, f"{len(names)} classes, each against the rest; values in curves.csv", "s"))
    height = bottom + 18 * ((len(names) - 1) // 4 if few else 0) + 14
    return _page(LEFT + 2 * SIDE + 80 + 30, height, marks, "ROC and precision-recall curves")


def _axes(left: int, title: str, across: str, up: str, diagonal: bool) -> Iterator[str]:
    """Title, grid and labels of a panel."""
    yield _text(left, 18, title, "t")
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = left + SIDE * share, TOP + SIDE * (1 - share)
        yield f'<path class="g" d="M{left} {y}h{SIDE}M{x} {TOP}v{SIDE}"/>'
        yield _text(left - 6, y + 4, f"{share:g}", "s", "end")
        yield _text(x, TOP + SIDE + 16, f"{share:g}", "s", "middle")
    yield f'<path class="a" d="M{left} {TOP}v{SIDE}h{SIDE}"/>'
    if diagonal:
        yield f'<path class="d" d="M{left} {TOP + SIDE}l{SIDE} {-SIDE}"/>'
    yield _text(left + SIDE / 2, TOP + SIDE + 34, across, "s", "middle")
    x, y = left - 36, TOP + SIDE / 2
    yield f'<text class="s" text-anchor="middle" transform="rotate(-90 {x} {y})" x="{x}" y="{y}">{escape(up)}</text>'


def _path(xs: np.ndarray, ys: np.ndarray, left: int) -> str:
    """A line through points in [0, 1]², without those between two others on one horizontal or vertical line."""
    keep = np.ones(len(xs), bool)
    for values in (xs, ys):
        same = np.diff(values) == 0
        keep[1:-1] &= ~(same[:-1] & same[1:])
    across, down = left + SIDE * xs[keep], TOP + SIDE * (1 - ys[keep])
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(across, down, strict=True))


def _text(
    x: float, y: float, text: str, style: str, anchor: str = "start", *, turned: bool = False, extra: str = ""
) -> str:
    turn = f' transform="rotate(-45 {x:g} {y:g})"' if turned else ""
    return f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}"{turn}{extra}>{escape(text)}</text>'


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"


def _page(width: float, height: float, marks: Sequence[str], label: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    ground = '<rect class="p" width="100%" height="100%"/>'
    return f'{head} role="img" aria-label="{label}">{STYLE}{ground}{"".join(marks)}</svg>\n'
