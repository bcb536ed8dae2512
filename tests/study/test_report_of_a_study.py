"""The report of a whole study: recommendations, strategies, curves, seed variance and patients on one page, at any size."""

from __future__ import annotations

import re
import shutil

import pandas as pd
import pytest
from support.pages import browse, build, extras, whole_study

from ssl_transfer.palette import GREY
from ssl_transfer.study.report import drawing
from ssl_transfer.study.report.tables import PAGE_ROWS


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    frame = whole_study()
    return build(tmp_path_factory.mktemp("whole"), frame, **extras(frame))


def test_a_study_has_all_sections_in_their_order(whole):
    headings = re.findall(r"<h2 id=[^>]*>(.*?)</h2>", whole.read_text())
    assert headings == [
        "Recommendation by target",
        "Contrasts",
        "Effect estimates",
        "In-domain versus cross-domain",
        "Over targets",
        "Learning curves",
        "Curves and confusion",
        "Individual seeds",
        "Variance components",
        "Patients",
        "Fine-tuning strategies",
        "Time to quality",
        "Cost",
        "Results",
        "Pictures",
        "Study design",
        "Environment",
        "Methods text",
        "Commands",
    ]


def test_all_primary_contrasts_are_answered_in_their_order(whole):
    found = re.findall(r'<div class="answer[^>]*>\s*<h2>(.*?)</h2>', whole.read_text())
    assert [where.split(", with")[0] for where in found] == [
        "xray, linear probe",
        "ct, finetune · full",
        "ct, finetune · LP FT",
    ]


def test_the_recommendations_have_a_table_per_target_right_after_the_answer(whole):
    text = whole.read_text()
    section = text[text.index('<h2 id="recommendation-by-target">') : text.index('<h2 id="contrasts">')]
    assert (
        text.index('class="answer')
        < text.index('<h2 id="recommendation-by-target">')
        < text.index('<h2 id="contrasts">')
    )
    assert re.findall(r"<h3>(\w+) ", section) == ["ct", "xray"]
    assert section.count("<tr><td>") == 8


def test_the_tables_of_a_study_lie_beside_its_page(whole):
    tables = whole.parent / "tables"
    assert len(pd.read_csv(tables / "strategies.csv")) == 2 * 2 * 4
    assert {"sd_pretraining", "sd_subset", "sd_arm_subset", "sd_residual", "detects", "seeds_for_0.01"} <= set(
        pd.read_csv(tables / "variance.csv")
    )
    assert r"\begin{tabular}" in (tables / "strategies.tex").read_text()


def test_patients_are_another_unit_and_have_a_table_of_their_own(whole):
    text = whole.read_text()
    assert "Primary contrasts over patients, and over seeds and patients" in text
    assert ">300</td>" in text
    table = pd.read_csv(whole.parent / "tables/patients.csv")
    assert set(table["metric"]) == {"auroc"} and set(table["n_patients"]) == {60}
    assert table[["ci_low", "p_false", "se_seeds", "se_patients"]].notna().all(axis=None)


def test_random_initialisation_of_another_name_is_grey_and_named(whole):
    text = whole.read_text()
    assert re.search(rf'<span class="swatch square" style="background:{GREY}"></span>scratch · small', text)
    assert '<span class="chip scratch">' not in text


def test_arms_that_vary_in_two_ways_share_a_colour_in_one_and_a_marker_in_the_other():
    looks = drawing.arm_looks(["CT · small", "CT · large", "cells · small", "scratch · small"], ["scratch · small"])
    assert looks["CT · small"][0] == looks["CT · large"][0] != looks["cells · small"][0]
    assert looks["CT · small"][1] == looks["cells · small"][1] == looks["scratch · small"][1] != looks["CT · large"][1]


@pytest.mark.parametrize("names", [[f"arm {i}" for i in range(30)], [f"{a} · {b}" for a in "abcdef" for b in "uvwxy"]])
def test_thirty_arms_have_thirty_looks(names):
    assert len({drawing.arm_looks(names)[name] for name in names}) == 30


def test_what_was_run_at_one_fraction_only_is_no_curve_and_the_caption_says_so(whole):
    text = whole.read_text()
    caption = re.search(r"<figcaption>(Learning curves.*?)</figcaption>", text)[1]
    assert "Settings with a single label fraction are shown under “Individual seeds” only." in caption


def test_nothing_finished_makes_a_page_that_says_what_is_missing(tmp_path):
    frame = whole_study()[:0]
    text = build(tmp_path, frame, **extras(frame), missing=[f"run {i}" for i in range(99)]).read_text()
    assert "No run has finished yet" in text
    assert text.count("<li>run ") == 99


def test_one_seed_makes_a_page_that_decides_nothing(tmp_path):
    frame = whole_study(seeds=1)
    text = build(tmp_path, frame, **extras(frame)).read_text()
    assert "With 1 against 1 seeds no difference can be tested" in text
    assert "In none of 4 settings is an arm recommended." in text
    assert not re.search(r"verdict better|verdict worse|Take ", text.replace(">Take<", ""))


# --- a large study ---


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    frame = whole_study([f"arm {i}" for i in range(12)], [f"target {i}" for i in range(4)], seeds=2)
    return build(tmp_path_factory.mktemp("large"), frame, **extras(frame) | {"validation": None, "predictions": None})


@pytest.mark.long
def test_many_contrasts_are_on_the_page_at_main_metrics_only_and_it_says_so(large):
    text, every = large.read_text(), pd.read_csv(large.parent / "tables/contrasts.csv")
    assert len(every) == 78 * 4 * 4 * 2 > PAGE_ROWS
    assert "Shown are the 1,248 of 2,496 contrasts at main metrics; tables/contrasts.csv has all." in text
    titles = re.findall(r"<summary>Contrasts: (.*?) <", text)
    assert titles == [f"target {i}, AUROC" for i in range(4)]


@pytest.mark.long
def test_figures_of_many_panels_are_split_by_target(large):
    names = {path.stem for path in (large.parent / "figures").glob("*.png")}
    assert {f"seed_points_auroc_target_{i}" for i in range(4)} <= names


@pytest.mark.long
def test_effects_of_many_contrasts_are_those_of_the_recommendations(large):
    assert "Only the contrasts shown under “Recommendation by target”." in large.read_text()


@pytest.mark.parametrize("page", ["whole", pytest.param("large", marks=pytest.mark.long)])
def test_a_page_has_unique_ids_and_refers_to_nothing_outside(page, request):
    text = request.getfixturevalue(page).read_text()
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([\w.-]+)', text)) <= set(ids)
    assert "http" not in text


def test_an_inline_svg_keeps_its_text_and_rounds_its_coordinates():
    figure = drawing.Figure()
    figure.subplots().set_title("0.12345 of 1,000")
    svg = drawing.inline_svg(drawing.svg_text(figure))
    assert ">0.12345 of 1,000<" in svg
    assert not re.search(r'[xy]="\d+\.\d{3}', svg)


# --- in a browser ---


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_every_table_of_a_study_sorts_and_every_figure_shows(whole, tmp_path):
    look = """
      document.querySelectorAll("details").forEach(part => { part.open = true; });
      const heads = document.querySelectorAll("table.sortable thead");
      heads.forEach(head => head.querySelector("th:last-child button").click());
      const shown = [...document.querySelectorAll("figure svg")].filter(svg => svg.getBoundingClientRect().height > 50);
      document.title = `${document.querySelectorAll("[aria-sort=ascending]").length} of ${heads.length} tables, ` +
        `${shown.length} of ${document.querySelectorAll("figure svg").length} figures, ` +
        `${document.body.scrollWidth <= innerWidth ? "nothing" : "something"} beside the page`;
    """
    copy = tmp_path / "looked.html"
    copy.write_text(whole.read_text().replace("</body>", f"<script>{look}</script></body>"))
    dom, log = browse(copy, tmp_path / "profile")
    assert "CONSOLE" not in log
    title = re.search(r"<title>(.*?)</title>", dom)[1]
    tables = whole.read_text().count('<table class="sortable')
    assert tables > 10
    assert title == f"{tables} of {tables} tables, 13 of 13 figures, nothing beside the page"
