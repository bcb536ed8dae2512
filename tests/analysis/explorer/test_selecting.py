"""Colours, legend and selections: lasso and box, copied and saved rows."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from PIL import Image
from support.explorer import EVIL, LASSO, N, at, browser_only, draw, find, lone, screen, state_of, texts

from ssl_transfer.palette import MANY_COLORS


@browser_only
@pytest.mark.parametrize("class_", ["liver", "spleen", None])
def test_points_have_the_colour_of_the_legend(page, written, class_):
    label = written.columns["label"]
    row = lone(page, written.maps[0].points, np.flatnonzero(label.isna() if class_ is None else label == class_))
    x, y = at(page, row)
    page.wait_for_timeout(100)  # the browser's own compositing
    page.screenshot(path=written.path.with_name("dot.png"), clip={"x": int(x), "y": int(y), "width": 1, "height": 1})
    seen = np.asarray(Image.open(written.path.with_name("dot.png")).convert("RGB"))[0, 0].astype(int)
    names = list(label.value_counts().sort_index().sort_values(ascending=False, kind="stable").index)
    color = "#cfd3d8" if class_ is None else MANY_COLORS[names.index(class_)]
    wanted = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)])
    assert np.abs(seen - (0.85 * wanted + 0.15 * 252)).max() < 16


@browser_only
def test_a_lasso_selects_the_points_that_numpy_finds_inside(page, written):
    page.click("[data-tool=lasso]")
    spots = draw(page, LASSO)
    inside = np.flatnonzero(Polygon(spots).contains_points(screen(page, written.maps[0].points)))
    assert 100 < len(inside) < N / 2 and state_of(page)["chosen"] == inside.tolist()
    assert texts(page, "#chosen h2") == [f"{len(inside):,} images selected"]


@browser_only
def test_a_lasso_that_ends_where_it_began_is_no_click(page, written):
    page.click("[data-tool=lasso]")
    spots = draw(page, [*LASSO, LASSO[0]])
    inside = np.flatnonzero(Polygon(spots).contains_points(screen(page, written.maps[0].points)))
    assert len(inside) > 100 and state_of(page)["chosen"] == inside.tolist()


@browser_only
def test_a_box_selection_is_counted_by_class_and_shift_adds_another_box(page, written):
    page.click("[data-tool=box]")
    (a, b), (c, d) = draw(page, [(0.1, 0.1), (0.5, 0.6)])
    spots = screen(page, written.maps[0].points)
    inside = (spots[:, 0] >= a) & (spots[:, 0] <= c) & (spots[:, 1] >= b) & (spots[:, 1] <= d)
    counts = written.columns["label"][inside].fillna("unknown").value_counts()
    shown = page.locator(".bars tbody tr").evaluate_all(
        "all => all.map(row => [row.cells[0].textContent, +row.dataset.count])"
    )
    assert dict(shown) == counts.to_dict() and len(shown) >= 4
    (a, b), (c, d) = draw(page, [(0.6, 0.5), (0.9, 0.9)], shift=True)
    inside |= (spots[:, 0] >= a) & (spots[:, 0] <= c) & (spots[:, 1] >= b) & (spots[:, 1] <= d)
    assert state_of(page)["chosen"] == np.flatnonzero(inside).tolist()


@browser_only
def test_a_selection_lists_its_first_200_rows_and_all_are_saved(page, written):
    page.click("[data-tool=lasso]")
    draw(page, LASSO)
    chosen = state_of(page)["chosen"]
    assert page.locator(".rows tbody tr").count() == 200 and page.locator("#chosen .grid button").count() == 60
    name = written.columns["name"]
    assert texts(page, ".rows tbody tr:first-child td")[-1] == name[chosen[0]]
    with page.expect_download() as download:
        page.click("text=Download CSV")
    with open(download.value.path(), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == chosen
    assert [row["name"] for row in rows] == name[chosen].tolist()
    assert [row["label"] for row in rows] == written.columns["label"][chosen].fillna("").tolist()


@browser_only
def test_row_numbers_are_copied_one_per_line(page):
    find(page, "image, 0007")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("text=Copy row numbers")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.split("\n") == [str(row) for row in range(70, 80)]
    assert page.locator("#status").inner_text() == "10 row numbers copied."


@browser_only
def test_numbers_are_coloured_on_a_scale_and_words_beyond_twelve_are_other(page, written):
    page.select_option("#color", label="depth")
    assert texts(page, ".ramp li")[0].startswith("≥ ") and state_of(page)["color"] == "depth"
    assert texts(page, ".classes .name") == ["known", "unknown"]
    page.select_option("#color", label="site")
    counts = written.columns["site"].value_counts()
    shown = dict(zip(texts(page, ".classes .name"), texts(page, ".classes .count"), strict=True))
    assert len(shown) == 13 and shown[f"other ({len(counts) - 12} more)"] == str(counts.iloc[12:].sum())
    assert all(shown[site] == str(count) for site, count in counts.iloc[:12].items())


@browser_only
def test_names_of_rows_are_listed_but_not_offered_as_colours(page, written):
    assert texts(page, "#color option") == ["label", "site", "depth", "(one colour)"]
    find(page, 17)
    assert written.columns["name"][17] in texts(page, "#image dd")


@browser_only
def test_the_legend_hides_and_shows_classes(page, written):
    points, label = written.maps[0].points, written.columns["label"]
    row = lone(page, points, np.flatnonzero(label == "liver"))
    page.click(".classes .toggle:has-text('liver')")
    assert state_of(page)["hidden"] == ["liver"]
    page.mouse.click(*at(page, row))
    assert state_of(page)["selected"] == -1  # what is not shown cannot be clicked
    page.hover(".classes li:has-text('spleen')")
    page.click(".classes li:has-text('spleen') .only")
    page.click("[data-tool=lasso]")
    spots = draw(page, LASSO)
    inside = Polygon(spots).contains_points(screen(page, points)) & (label == "spleen")
    assert state_of(page)["chosen"] == np.flatnonzero(inside).tolist()
    page.click("text=Show all")
    assert state_of(page)["hidden"] == []


@browser_only
def test_another_backbone_keeps_selections_and_colours(page, written):
    page.select_option("#color", label="site")
    page.click("[data-tool=lasso]")
    draw(page, LASSO)
    find(page, 42)
    before = state_of(page)
    page.keyboard.press("2")
    page.wait_for_function("!explorer.state().travelling")
    after = state_of(page)
    assert after["backbones"] == [f"second {EVIL}"]
    assert all(after[key] == before[key] for key in ("selected", "chosen", "color"))
    assert after["neighbors"] == [written.maps[1].neighbors[42].tolist()]
    assert at(page, 42) == pytest.approx(screen(page, written.maps[1].points)[42], abs=0.02)


@browser_only
def test_points_move_to_the_embedding_of_another_backbone(chromium, written, page):
    page.emulate_media(reduced_motion="no-preference")
    page.keyboard.press("2")
    assert state_of(page)["travelling"]
    page.wait_for_function("!explorer.state().travelling")
    page.emulate_media(reduced_motion="reduce")
    assert page.locator(".plot.veiled").count() == 0


@browser_only
def test_side_by_side_both_embeddings_mark_the_same_points(page, written):
    page.click("#beside")
    assert state_of(page)["backbones"] == ["first", f"second {EVIL}"]
    points = written.maps[0].points
    row = lone(page, points)
    page.mouse.move(*at(page, row))
    rings = page.locator(f".marks .pointed.under[data-row='{row}']")
    assert rings.count() == 2
    page.mouse.click(*at(page, row))
    assert state_of(page)["neighbors"] == [one.neighbors[row].tolist() for one in written.maps]
    assert page.locator("#image .near").count() == 2 and page.locator(".marks .open.under").count() == 2
    x, y = at(page, row, 1)
    box = page.locator(".stage").nth(1).bounding_box()
    assert box["x"] <= x <= box["x"] + box["width"] and box["y"] <= y <= box["y"] + box["height"]


@browser_only
def test_c_goes_through_the_colours_and_escape_clears(page):
    colors = []
    for _ in range(4):
        page.keyboard.press("c")
        colors.append(state_of(page)["color"])
    assert colors == ["site", "depth", "", "label"]
    find(page, "spleen")
    find(page, 5)
    page.keyboard.press("Escape")
    assert state_of(page)["selected"] == -1 and state_of(page)["chosen"] is None
    assert page.locator("#nothing").is_visible() and page.locator("#image").is_hidden()


@browser_only
def test_dragging_moves_and_the_wheel_zooms_the_embedding_and_marks_stay_on_their_points(page, written):
    find(page, 1000)
    start = state_of(page)["ranges"][0]
    draw(page, [(0.02, 0.02), (0.2, 0.1), (0.22, 0.12)])
    page.mouse.wheel(0, -400)
    page.wait_for_function(
        f"explorer.state().ranges[0].x[1] - explorer.state().ranges[0].x[0] < {start['x'][1] - start['x'][0]} * .95"
    )
    page.wait_for_timeout(300)  # Plotly ends a wheel by its own clock
    x, y = at(page, 1000)
    assert [x, y] == pytest.approx(screen(page, written.maps[0].points)[1000].tolist(), abs=0.02)
    box, ring = page.locator(".stage").bounding_box(), page.locator(".marks .open.under")
    assert float(ring.get_attribute("cx")) == pytest.approx(x - box["x"], abs=0.5)
    page.keyboard.press("0")
    assert state_of(page)["ranges"][0]["x"] == pytest.approx(start["x"])


@browser_only
def test_findings_are_in_a_second_tab(page):
    page.click("#tab-findings")
    assert texts(page, "#findings h2") == [f"One {EVIL}", "Two"]
    assert texts(page, "#findings p") == ["First.", f"Second {EVIL}", "Alone."]
    assert page.locator("#findings img").evaluate_all("all => all.map(one => one.naturalWidth)") == [40]
    assert page.locator("#explore").is_hidden()


@browser_only
def test_text_from_data_is_never_read_as_html(page, written):
    row = int(np.flatnonzero(written.columns["label"] == EVIL)[0])
    page.mouse.move(*at(page, row))
    find(page, row)
    find(page, EVIL)
    page.click("#beside")
    assert page.title() == f"Map {EVIL}" and texts(page, "h1") == [f"Map {EVIL}"]
    assert EVIL in texts(page, ".classes .name") and f"seed 1 {EVIL}" in texts(page, ".map .note")
    assert page.evaluate("window.hacked") is None and page.locator("img[src=x]").count() == 0


@browser_only
def test_nothing_scrolls_sideways_in_a_small_window_or_a_dark_one(page):
    page.set_viewport_size({"width": 900, "height": 700})
    page.emulate_media(color_scheme="dark")
    find(page, 5)
    page.click("#beside")
    parts = "body, header, #colors, #panel, .tools"
    wide = page.locator(parts).evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.id)"
    )
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.set_viewport_size({"width": 1400, "height": 900})
    page.emulate_media(color_scheme="light")
    assert wide == [] and ground == "rgb(21, 24, 28)"
