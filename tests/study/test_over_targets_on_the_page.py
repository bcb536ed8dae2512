"""Over targets on the page: forest plots by boundary, mean ranks with their diagram, and where there is nothing to show."""

from __future__ import annotations

import pandas as pd
import pytest
from support.pages import build, extras, whole_study


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    frame = whole_study(tasks=("ct", "xray", "blood", "head"), seeds=3)
    return build(tmp_path_factory.mktemp("page"), frame, **extras(frame) | {"predictions": None})


def section(page, anchor: str) -> str:
    return page.read_text().partition(f'<h2 id="{anchor}">')[2].partition("</section>")[0]


def test_pairs_are_summarised_over_targets_with_a_forest_plot_per_pair_of_boundaries(page):
    text = section(page, "over-targets")
    table = pd.read_csv(page.parent / "tables/over_targets.csv")
    assert "Mean difference over targets" in text
    assert (table["k"] == 4).all() and table["ci_low"].notna().all()
    classes = table.groupby(["metric", "boundary_a", "boundary_b"]).ngroups
    assert text.count("<svg") == classes == len(list((page.parent / "figures").glob("forest_*.png")))
    assert "CT · small − CT · large" in text or "CT · large − CT · small" in text


def test_pretrainings_are_ranked_over_targets_with_a_diagram_per_protocol(page):
    text = section(page, "mean-ranks")
    table = pd.read_csv(page.parent / "tables/ranks.csv")
    assert text.count("<svg") == 3  # a probe and two strategies
    assert "over 4 targets, Friedman’s test has p" in text
    assert table.groupby(["protocol", "strategy"], dropna=False)["n_arms"].first().tolist() == [4, 4, 4]


def test_one_target_has_neither(tmp_path):
    text = build(tmp_path, whole_study(tasks=("ct",))).read_text()
    assert "Over targets" not in text and "Mean ranks" not in text
