"""The pages of results are those of studies whose design was frozen before, and have a content in every block."""

from __future__ import annotations

import re

import pytest
from support.command_line import ROOT

from ssl_transfer.study.design import load_study
from ssl_transfer.study.freeze import design, differences, frozen_versions
from ssl_transfer.study.planning import plan_study

RESULTS = ROOT / "docs/results"
PAGES = sorted(path for path in RESULTS.glob("*.md") if path.stem != "index")


def test_every_page_is_in_the_summary():
    assert PAGES
    summary = (RESULTS / "index.md").read_text()
    assert [page.name for page in PAGES if f"({page.name})" not in summary] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_recipe_of_a_page_is_the_design_that_was_frozen_before_any_result(page, tmp_path, monkeypatch):
    (frozen,) = frozen_versions(page.with_suffix(""))
    assert frozen["results"] == 0
    recipe = ROOT / "recipes/studies" / f"{frozen['design']['name']}.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    present = design(plan_study(load_study(recipe), tmp_path / "study"))
    changed = differences(frozen["design"], present)
    assert [
        change for change in changed if change["old"] is not None
    ] == []  # keys of later versions have their defaults


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_is_filled_and_its_figures_are_there(page):
    text = page.read_text()
    assert text.count("<!-- end -->") == len(re.findall(r"<!--\s*(?:table|figure|text):", text)) > 5
    assert not re.search(r"-->\s*<!-- end -->", text)
    for figure in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (page.parent / figure).is_file()
