"""Pointing at points: a click, a neighbour, a card, search, arrows and keys."""

from __future__ import annotations

import numpy as np
import pytest
from support.explorer import at, browser_only, find, lone, screen, shade, state_of, texts


@browser_only
def test_a_click_shows_the_image_and_its_neighbours_with_their_similarity(page, written):
    first = written.maps[0]
    row = lone(page, first.points)
    page.mouse.click(*at(page, row))
    assert at(page, row) == pytest.approx(screen(page, first.points)[row], abs=0.02)
    assert texts(page, "#image h2") == [f"Row {row}"]
    shown = page.locator("#image .near button")
    assert shown.evaluate_all("all => all.map(one => +one.dataset.row)") == first.neighbors[row].tolist()
    shown_similarities = np.array(texts(page, "#image .near .value"), float)
    assert shown_similarities == pytest.approx(first.similarities[row], abs=0.006)


@browser_only
def test_neighbours_of_another_class_are_marked_and_unknown_ones_are_not(page, written):
    label, neighbors = written.columns["label"].fillna("").to_numpy(), written.maps[0].neighbors
    unknown, differs = label[neighbors] == "", (label[neighbors] != "") & (label[neighbors] != label[:, None])
    row = int(np.flatnonzero((label != "") & unknown.any(1) & differs.any(1) & ~(unknown | differs).all(1))[0])
    find(page, row)
    marked = page.locator("#image .near button").evaluate_all(
        "all => all.map(one => one.classList.contains('differs'))"
    )
    assert marked == differs[row].tolist()
    assert page.locator(".marks .near.differs.under").count() == differs[row].sum()


@browser_only
def test_a_click_on_a_neighbour_walks_to_it(page, written):
    row = lone(page, written.maps[0].points)
    page.mouse.click(*at(page, row))
    page.locator("#image .near button").nth(2).click()
    there = int(written.maps[0].neighbors[row][2])
    assert state_of(page)["selected"] == there and texts(page, "#image h2") == [f"Row {there}"]
    assert state_of(page)["neighbors"] == [written.maps[0].neighbors[there].tolist()]


@browser_only
def test_hovering_over_a_point_shows_a_card_with_its_image(page, written):
    row = lone(page, written.maps[0].points, np.flatnonzero(written.columns["label"] == "liver"))
    page.mouse.move(*at(page, row))
    assert page.locator("#card p").all_inner_texts()[:2] == [f"Row {row}", "liver"] and state_of(page)["hovered"] == row
    page.wait_for_timeout(200)  # a sheet is decoded
    assert shade(page, "#card canvas", written.path.with_name("card.png")) == pytest.approx(row % 250, abs=6)
    page.mouse.move(2, 2)
    assert page.locator("#card").is_hidden() and state_of(page)["hovered"] == -1


@browser_only
def test_rows_are_found_by_number_and_by_text(page, written):
    find(page, 1234)
    assert state_of(page)["selected"] == 1234
    find(page, "image, 00077")
    assert state_of(page)["selected"] == 77
    find(page, "SPLEEN", "0")
    assert state_of(page)["chosen"] == np.flatnonzero(written.columns["label"] == "spleen").tolist()


@browser_only
@pytest.mark.parametrize(
    "text, said", [("3000", "rows go from 0 to 2999"), ("kidney", "No row has “kidney”"), ("", "Type")]
)
def test_a_search_without_a_result_is_reported(page, text, said):
    find(page, text)
    assert said in page.locator("#status").inner_text() and state_of(page)["selected"] == -1


@browser_only
@pytest.mark.parametrize(
    "key, ways", [("ArrowRight", (1, 0)), ("ArrowLeft", (-1, 0)), ("ArrowUp", (0, -1)), ("ArrowDown", (0, 1))]
)
def test_an_arrow_walks_to_the_nearest_point_in_its_direction(page, written, key, ways):
    find(page, 500)
    apart = screen(page, written.maps[0].points) - screen(page, written.maps[0].points)[500]
    along, aside = apart @ ways, np.abs(apart @ ways[::-1])
    wanted = int(np.where((along > 0) & (aside <= along), (apart**2).sum(1), np.inf).argmin())
    page.keyboard.press(key)
    assert state_of(page)["selected"] == wanted and texts(page, "#image h2") == [f"Row {wanted}"]


@browser_only
def test_keys_alone_find_a_point_and_open_it(page):
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    marked = state_of(page)["cursor"]
    assert marked >= 0 and state_of(page)["selected"] == -1
    assert f"Row {marked}" in page.locator("#card").inner_text()
    page.keyboard.press("Enter")
    assert state_of(page)["selected"] == marked


@browser_only
def test_n_and_p_mark_one_neighbour_after_the_other_and_enter_opens_it(page, written):
    near = written.maps[0].neighbors[10]
    find(page, 10)
    seen = []
    for key in "nnnp":
        page.keyboard.press(key)
        seen.append(state_of(page)["cursor"])
    assert seen == near[[0, 1, 2, 1]].tolist()
    assert page.locator(".near .marked").get_attribute("data-row") == str(near[1])
    page.keyboard.press("Enter")
    assert state_of(page)["selected"] == near[1]


@browser_only
def test_every_control_is_reached_by_tab_and_shows_its_focus(page):
    find(page, 5)
    page.evaluate("document.querySelector('#tab-explore').focus()")
    reached, bare = set(), []
    for _ in range(80):
        page.keyboard.press("Tab")
        here = page.evaluate("""() => { const e = document.activeElement; return [
            e.id || e.dataset.tool || e.className || e.tagName, getComputedStyle(e).outlineStyle]; }""")
        reached.add(here[0])
        bare += [here[0]] if here[1] == "none" and here[0] not in ("BODY", "HTML") else []
    wanted = {
        "find-what",
        "ask",
        "color",
        "toggle",
        "only",
        "lasso",
        "nearer",
        "pictures",
        "beside",
        "backbone-0",
        "stage",
    }
    assert wanted | {"tab-image", "close"} <= reached and not bare


@browser_only
def test_help_lists_every_key(page):
    page.keyboard.press("?")
    keys = set(texts(page, "#help kbd"))
    assert {*"1cnpmlbisf0?", "Esc", "Enter", "←"} <= keys
    page.keyboard.press("c")  # goes nowhere while help is open
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden() and state_of(page)["color"] == "label"


@browser_only
def test_images_on_the_embedding_can_be_clicked(page):
    ink = "document.querySelector('.paint').toDataURL().length"
    bare = page.evaluate(ink)
    page.click("#pictures")
    page.wait_for_function(f"{ink} !== {bare}")
    row = page.evaluate("explorer.state().painted[0][0]")
    x, y = at(page, row)
    page.mouse.click(x + 15, y - 15)  # beside the point, on its picture
    assert state_of(page)["selected"] == row
    page.click("#pictures")
    assert page.evaluate(ink) == bare


@browser_only
def test_the_page_makes_no_request_and_raises_no_error(page):
    find(page, 5)
    page.keyboard.press("i")
    allowed = ("request file:", "request blob:", "request data:")
    assert [line for line in page.heard if not line.startswith(allowed)] == []
    assert sum(line.startswith("request file:") for line in page.heard) == 1
