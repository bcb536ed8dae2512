"""A section of the report: its text, and its tables and figures, which are also written to files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from ssl_transfer.console import duration
from ssl_transfer.csv_files import write_csv
from ssl_transfer.study.report import wording
from ssl_transfer.study.report.drawing import MARKER_NAMES, inline_svg, save, settle, svg_text
from ssl_transfer.study.report.evidence import Evidence

MACROS = (
    "chip, mark, swatch, verdict, glyph, protocol, interval, num, labels, corrected, extra_heads, extra_cells, "
    "table_parts, folded, drawn, corrected_p"
)


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure of the report.

    Attributes:
        name: Name of its files.
        figure: The figure, without its final layout.
        caption: Caption.
        target: Its target (or setting); empty: several.
        split: Whether there is a figure per target.
    """

    name: str
    figure: Figure
    caption: str
    target: str = ""
    split: bool = False

    @cached_property
    def source(self) -> str:
        """The figure, laid out, as the text of an SVG file."""
        settle(self.figure)
        return svg_text(self.figure)

    @cached_property
    def svg(self) -> Markup:
        """The figure as an element of the page."""
        return Markup(inline_svg(self.source, self.caption))

    def write(self, folder: Path) -> None:
        """Write it as PNG and SVG."""
        name = re.sub(r"[^\w.-]+", "_", self.name)  # a metric of a table from elsewhere is any text
        save(self.figure, self.source, folder, name)


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """A section of the report.

    Attributes:
        title: Heading, and text of the link in the navigation.
        html: Content below the heading; see `render`.
        tables: Name -> rows, written as `tables/NAME.csv`.
        latex: Name -> rows, written as `tables/NAME.tex`.
        figures: Written as `figures/NAME.png` and `figures/NAME.svg`; `html` shows them.
    """

    title: str
    html: Markup
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    latex: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Sequence[Drawing] = ()

    @property
    def anchor(self) -> str:
        """The id of its heading, for links."""
        return re.sub(r"\W+", "-", self.title.lower())

    def write(self, out: Path) -> None:
        """Write tables and figures into the folders `tables` and `figures`."""
        for name, rows in self.tables.items():
            write_csv(rows, out / "tables" / f"{name}.csv")
        for name, rows in self.latex.items():
            (out / "tables" / f"{name}.tex").write_text(latex(rows), encoding="utf-8")
        for drawing in self.figures:
            drawing.write(out / "figures")


def latex(rows: pd.DataFrame) -> str:
    """Rows as a LaTeX table; empty if there are none."""
    text = rows.to_latex(index=False, escape=True) if len(rows) else ""
    for character, command in {"±": r"$\pm$", "−": "$-$", "–": "--", "< .001": "$<$ .001", "→": r"$\to$"}.items():
        text = text.replace(character, command)
    return text


def jinja_environment() -> jinja2.Environment:
    """Templates of the page, with the filters that write names and numbers for readers."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    made = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "number": wording.number,
        "p": wording.p_value,
        "nominal": wording.nominal,
        "t": wording.t_value,
        "words": wording.words,
        "measure": wording.measure,
        "percent": wording.percent,
        "whole": wording.whole,
        "powers": wording.powers,
        "duration": duration,
        "listed": wording.listed,
        "rounded": wording.rounded,
        "fine": wording.fine,
        "confidence": wording.confidence,
    }
    return made


_ENVIRONMENT = jinja_environment()


def render(evidence: Evidence, template: str, **values: Any) -> Markup:
    """Fill in a template (Jinja) of a section; it can use the macros of `macros.jinja`.

    Args:
        evidence: Evidence of the report.
        template: Text of the template.
        values: Variables of the template besides `looks`, `marks`, `random_init`, `several_tasks` and `has_noise`.
    """
    imports = f'{{% from "macros.jinja" import {MACROS} with context %}}\n'
    shared = {
        "looks": evidence.looks,
        "marks": MARKER_NAMES,
        "random_init": evidence.random_init,
        "several_tasks": evidence.several_tasks,
        "has_noise": evidence.has_noise,
    }
    return Markup(_ENVIRONMENT.from_string(imports + template).render(**shared, **values))


def parts_by_task(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Parts of a table that the page shows under the name of each target: `task`, `metrics` and `rows`."""
    return [
        {"task": task, "metrics": list(dict.fromkeys(rows["metric"])), "rows": rows.to_dict("records")}
        for task, rows in table.groupby("task", sort=False)
    ]
