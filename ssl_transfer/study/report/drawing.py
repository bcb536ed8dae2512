"""Common style of all figures of a study, and their output as files or as part of a page.

Figures are drawn without pyplot, so nothing is global and nothing stays open. `save` writes files for papers
(white ground); `inline_svg` gives the same figure for a page, where its ink follows the page's text colour.
"""

from __future__ import annotations

import hashlib
import html
import io
import math
import re
import textwrap
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_transfer.palette import COLORS, GREY, INK
from ssl_transfer.study.report.wording import JOIN
from ssl_transfer.study.table import SCRATCH

MARKERS = ("o", "s", "^", "D", "v")  # not as many as colours: the pair repeats only after 30 arms
TITLE_CHARACTERS = 100  # characters of a line above a figure
MARKER_NAMES = {
    "o": "circle",
    "s": "square",
    "^": "up",
    "D": "diamond",
    "v": "down",
    "X": "cross",
    "P": "plus",
    "*": "star",
    "p": "pentagon",
    "h": "hexagon",
    "_": "dash",
    "|": "bar",
}
Looks = dict[str, tuple[str, str]]  # arm -> colour, marker
SCRATCH_MARKERS = ("X", "P", "*", "p", "h")
TRIVIAL_LOOK, PERMUTED_LOOK = ("#6f7680", "_"), ("#6f7680", "|")  # of controls, which are drawn as lines with a band
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a name may contain a dollar sign
    "svg.fonttype": "none",
    "svg.hashsalt": "study",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.major.width": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def arm_looks(arms: Iterable[str], random_init: Collection[str] = ()) -> Looks:
    """Colour and marker of each pretraining arm, by the order of their names; random initialisation is grey.

    Arms of a study that varies more than the pretraining (`CT · ResNet-18`) have the colour of their pretraining and the
    marker of what follows it, while there are enough of both.

    Args:
        arms: Their names.
        random_init: Those that are random initialisation, besides `scratch`.
    """
    arms, random_init = set(arms), {SCRATCH, *random_init}
    trained, random_arms = sorted(arms - random_init), sorted(arms & random_init)
    parts = {arm: arm.partition(JOIN)[::2] for arm in [*trained, *random_arms]}
    firsts, rests = (sorted({parts[arm][side] for arm in trained}) for side in (0, 1))
    factors = 1 < len(rests) <= len(MARKERS) and len(firsts) <= len(COLORS)
    looks = {SCRATCH: (GREY, SCRATCH_MARKERS[0])}
    for position, arm in enumerate(trained):
        color, marker = (firsts.index(parts[arm][0]), rests.index(parts[arm][1])) if factors else (position, position)
        looks[arm] = (COLORS[color % len(COLORS)], MARKERS[marker % len(MARKERS)])
    for position, arm in enumerate(random_arms):
        shared = factors and parts[arm][1] in rests and len({parts[random_arm][0] for random_arm in random_arms}) == 1
        marker = MARKERS[rests.index(parts[arm][1])] if shared else SCRATCH_MARKERS[position % len(SCRATCH_MARKERS)]
        looks[arm] = (GREY, marker)
    return looks


def grid(panels: int, columns: int, height: float, **shared) -> tuple[Figure, list[Axes]]:
    """A figure 9.4 inches wide with `panels` axes in rows of `columns`, each row `height` inches high."""
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(9.4, rows * height + 0.35), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel().tolist()
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def filled(title: str, columns: int) -> str:
    """A title in lines that fit above one of `columns` panels; a number and its % stay in one line."""
    lines = title.replace(" %", "\N{NO-BREAK SPACE}%")
    return textwrap.fill(lines, TITLE_CHARACTERS // columns, break_long_words=False)


def legend(figure: Figure, axes: list[Axes]) -> None:
    """Draw a legend of all arms above the panels, in as many columns as fit."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    columns = min(4, max(1, 130 // (max(map(len, handles), default=0) + 7)))
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=columns)
    figure.set_figheight(figure.get_figheight() + 0.18 * (math.ceil(len(handles) / columns) - 1))


def settle(figure: Figure) -> None:
    """Compute the layout of a figure once: with many panels it is slower than writing the three files."""
    with matplotlib.rc_context(STYLE):
        engine: Any = figure.get_layout_engine()  # figures of this module have one
        for _ in range(2):  # the first pass may change the ticks, and with them what their labels need
            engine.execute(figure)
    figure.set_layout_engine("none")


def svg_text(figure: Figure) -> str:
    """The figure as an SVG file with a transparent ground."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def save(figure: Figure, svg: str, folder: str | Path, name: str) -> None:
    """Write `name.png` (200 dpi) and `name.svg`, both with white ground, into a folder, which is created if missing.

    Args:
        figure: The figure.
        svg: Its `svg_text`.
        folder: The folder.
        name: Name of the files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(folder / f"{name}.png", dpi=200, facecolor="white")
    ground = '<rect width="100%" height="100%" fill="white"/>'
    (folder / f"{name}.svg").write_text(re.sub(r"<svg\b[^>]*>", rf"\g<0>{ground}", svg, count=1), encoding="utf-8")


def inline_svg(svg: str, label: str = "") -> str:
    """A figure as an `<svg>` element for an HTML page.

    Ink is `currentColor` and the ground is transparent, so light and dark pages both work; text stays text in the
    page's font; ids are prefixed by a hash of the drawing and its label, so that several figures can share a page; no prolog, no
    metadata, no address of any kind.

    Args:
        svg: `svg_text` of one of the figures above, or of any other drawn with `STYLE`.
        label: Text for screen readers.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href").replace(INK, "currentColor")
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"font: ([^;\"]*?)([\d.]+px)[^;\"]*", r"font-size: \2; font-family: inherit", svg)  # older matplotlib
    prefix = f"f{hashlib.sha256((label + svg).encode()).hexdigest()[:8]}-"
    svg = (
        svg.replace(' id="', f' id="{prefix}').replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    )
    svg = _lean(svg)
    _, _, rest = svg.partition('viewBox="')
    box = rest.partition('"')[0]
    width = float(box.split()[2]) * 96 / 72  # points -> pixels of a page
    style = f"width: 100%; max-width: {width:.0f}px; stroke-linejoin: round; stroke-linecap: butt"
    head = f'<svg role="img" aria-label="{html.escape(label)}" viewBox="{box}" style="{style}">'
    return head + svg[svg.index(">") + 1 :]


def _lean(svg: str) -> str:
    """The same drawing in about half as many characters: hundredths of a pixel, and no ids that nothing refers to."""
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', svg))
    svg = re.sub(r'\sid="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)

    def shortened(tag: re.Match) -> str:
        text = re.sub(r"(\.\d\d)\d+", r"\1", re.sub(r"\s+", " ", tag[0]))
        return re.sub(r'style="[^"]*"', lambda style: re.sub(r"([:;]) ", r"\1", style[0]), text)

    return re.sub(r">\s+<", "><", re.sub(r"<[^>]*>", shortened, svg))
