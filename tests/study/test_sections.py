"""A new statistic enters the report with two files: the statistic, and a section that is listed once."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from support.pages import build, study

from ssl_transfer.study.report import page as report_page
from ssl_transfer.study.report.drawing import grid
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Drawing, Section, render
from ssl_transfer.study.table import SCRATCH


def range_section(evidence: Evidence) -> Section:
    """Smallest and largest value of every arm, with a figure."""
    table = evidence.runs.groupby("pretraining")["value"].agg(["min", "max"]).reset_index()
    figure, (ax,) = grid(1, 1, height=1.0)
    ax.plot(table["min"], table["max"], "o")
    drawings = [Drawing("ranges", figure, "Range of the values of each arm.")]
    template = "<p>{{ rows | length }} arms {{ swatch(rows[0].pretraining) }}</p>{{ drawn(figures) }}"
    html = render(evidence, template, rows=table.to_dict("records"), figures=drawings)
    return Section(title="Value ranges", html=html, tables={"ranges": table}, latex={"ranges": table}, figures=drawings)


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(report_page, "SECTIONS", [*report_page.SECTIONS, range_section])
    return build(tmp_path, study({"in-domain CT": 0.2, SCRATCH: 0.0}))


def test_a_listed_section_is_on_the_page_and_in_the_navigation(page):
    text = page.read_text()
    assert '<h2 id="value-ranges">Value ranges</h2>' in text
    assert '<a href="#value-ranges">Value ranges</a>' in text
    assert "<p>2 arms <span" in text


def test_its_tables_and_figures_are_written_beside_the_page(page):
    assert list(pd.read_csv(page.parent / "tables/ranges.csv").columns) == ["pretraining", "min", "max"]
    assert r"\begin{tabular}" in (page.parent / "tables/ranges.tex").read_text()
    assert {path.suffix for path in (page.parent / "figures").glob("ranges.*")} == {".png", ".svg"}
    assert "Range of the values of each arm." in page.read_text()


def test_titles_of_sections_are_unique(page):
    titles = re.findall(r"<h2 id=[^>]*>(.*?)</h2>", page.read_text())
    assert len(titles) == len(set(titles)) > 10
