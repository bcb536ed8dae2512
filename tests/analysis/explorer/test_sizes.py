"""Explorers of very few and very many points, and arguments that do not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.path import Path as Polygon
from support.explorer import LASSO, at, browser_only, draw, find, opened, screen, shades, space, state_of, table

from ssl_transfer.analysis.explorer.page import Finding, Projection, write_explorer
from ssl_transfer.errors import UsageError


@browser_only
@pytest.mark.long
def test_a_page_of_100_000_points_opens_and_responds(chromium, tmp_path):
    count, one = 100_000, space(100_000, 2)
    path = write_explorer(tmp_path / "big.html", "Big", {"a": one, "b": space(count, 3)}, table(count), shades(count))
    page = opened(chromium, path)
    page.click("[data-tool=lasso]")
    spots = draw(page, LASSO)
    inside = Polygon(spots).contains_points(screen(page, one.points))
    assert state_of(page)["chosen"] == np.flatnonzero(inside).tolist()
    find(page, 99_999)
    page.keyboard.press("2")
    page.wait_for_function("!explorer.state().travelling")
    assert state_of(page)["selected"] == 99_999 and len(state_of(page)["chosen"]) == inside.sum() and not page.heard[1:]
    page.close()


@browser_only
@pytest.mark.parametrize("count, k", [(1, 0), (40, 3)])
def test_feature_spaces_of_very_few_images_can_be_opened(chromium, tmp_path, count, k):
    draw_ = np.random.default_rng(0)
    one = Projection(
        np.zeros((count, 2)), (np.arange(count)[:, None] + 1 + np.arange(k)) % count, draw_.random((count, k))
    )
    pictures = np.zeros((count, 4, 4, 3), np.uint8)
    page = opened(
        chromium,
        write_explorer(tmp_path / "page.html", "Tiny", {"only": one}, pd.DataFrame(index=range(count)), pictures),
    )
    page.mouse.click(*at(page, 0))
    assert state_of(page)["selected"] in range(count) and page.locator("#beside, #tab-findings").count() == 0
    assert [line for line in page.heard if not line.startswith("request")] == []
    page.close()


def wrong(**changes) -> dict:
    """Arguments for two images of which something does not fit."""
    one = {"points": np.zeros((2, 2)), "neighbors": np.array([[1], [0]]), "similarities": np.ones((2, 1))}
    one |= {name: changes.pop(name) for name in list(changes) if name in one}
    whole = {
        "maps": {"a": Projection(**one)},
        "columns": pd.DataFrame({"x": [1, 2]}),
        "thumbnails": np.zeros((2, 4, 4), np.uint8),
    }
    return whole | changes


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"maps": {}}, "at least one map"),
        ({"columns": pd.DataFrame({"x": []})}, "no rows"),
        ({"points": np.zeros((3, 2))}, r"map 'a': points have shape \(3, 2\), expected \(2, 2\)"),
        ({"points": np.array([[0, np.nan], [0, 0]])}, "1 points are not finite"),
        ({"neighbors": np.array([[1.0], [0.0]])}, "float64.*expected integers"),
        ({"neighbors": np.array([[1], [2]])}, "between 1 and 2, expected positions in 0 … 1"),
        ({"similarities": np.ones((2, 3))}, r"similarities: found \(2, 3\)"),
        ({"thumbnails": np.zeros((2, 4, 4))}, r"float64 \(2, 4, 4\), expected uint8"),
        ({"thumbnails": np.zeros((3, 4, 4), np.uint8)}, r"\(3, 4, 4\), expected uint8 \(2, px, px\)"),
        (
            {"findings": [Finding("f", "t", "missing.png")]},
            "missing.png: the picture of the finding “f” does not exist",
        ),
        ({"findings": [Finding("f", "t", __file__)]}, "found a picture that is not a PNG file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_inconsistent_inputs_are_refused_and_no_page_is_written(tmp_path, changes, said):
    with pytest.raises(UsageError, match=said):
        write_explorer(tmp_path / "page.html", "t", **wrong(**changes))
    assert not list(tmp_path.iterdir())


@browser_only
def test_a_narrow_page_is_one_column_that_does_not_overflow(chromium, tmp_path):
    path = write_explorer(
        tmp_path / "narrow.html", "A long title of an explorer", {"a": space(60, 2)}, table(60), shades(60)
    )
    page = opened(chromium, path)
    page.set_viewport_size({"width": 420, "height": 800})
    find(page, 7)
    page.wait_for_timeout(200)
    width = page.evaluate("document.documentElement.scrollWidth")
    stage, panel = (page.locator(name).first.bounding_box() for name in (".stage", "#panel"))
    assert width <= 420 and stage["width"] > 380 and stage["height"] > 300 and panel["y"] > stage["y"] + 300
    page.screenshot(path=tmp_path / "narrow.png", full_page=True)
    page.close()
