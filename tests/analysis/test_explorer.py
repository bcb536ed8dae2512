"""The explorer, opened from disk in a real browser and driven with real mouse and keys; references are numpy's."""

from __future__ import annotations

import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.path import Path as Polygon
from PIL import Image
from scipy.spatial import cKDTree

from ssl_transfer.analysis.explorer.page import PALETTE, Finding, Projection, write_explorer
from ssl_transfer.errors import UsageError

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
browser_only = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
EVIL = '</script><script>window.hacked=1</script>"><img src=x onerror="window.hacked=2">'
N, K, CLUSTERS = 3000, 6, 15


def space(count: int, seed: int, k: int = K) -> Projection:
    """Clusters by row number; points on a grid of 65,536, so that a page holds them exactly; nearest points as neighbours."""
    draw = np.random.default_rng(seed)
    middle = draw.uniform(8000, 57000, (CLUSTERS, 2))
    points = np.clip(np.rint(middle[np.arange(count) % CLUSTERS] + draw.normal(0, 2500, (count, 2))), 1, 65534)
    points[0], points[1] = (0, 0), (65535, 65535)
    distances, neighbors = (found[:, 1:] for found in cKDTree(points).query(points, k + 1))
    return Projection(
        points.astype(np.float32), neighbors, (1 - distances / 2e5).astype(np.float32), f"seed {seed} {EVIL}"
    )


def table(count: int) -> pd.DataFrame:
    """A label that is unknown every seventh row, classes of many sizes, a number, and a name for every row."""
    rows = np.arange(count)
    label = np.array([EVIL, "liver", "spleen", "lung"], object)[rows % CLUSTERS % 4]
    label[::7] = None
    many = [f"site {int(20 * share**2):02d}" for share in np.random.default_rng(5).random(count)]
    depth = np.where(rows % 8 == 0, np.nan, np.sqrt(rows))
    return pd.DataFrame({"label": label, "site": many, "depth": depth, "name": [f"image, {i:05d}" for i in rows]})


def shades(count: int, px: int = 8) -> np.ndarray:
    """Thumbnails of one grey each."""
    return np.broadcast_to((np.arange(count) % 250).astype(np.uint8)[:, None, None], (count, px, px)).copy()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page of 3,000 images in two spaces, and what went into it."""
    folder = tmp_path_factory.mktemp("explorer")
    Image.new("RGB", (40, 20), "red").save(folder / "red.png")
    findings = [Finding(f"One {EVIL}", f"First.\n\nSecond {EVIL}", folder / "red.png"), Finding("Two", "Alone.")]
    maps = {"first": space(N, 0), f"second {EVIL}": space(N, 1)}
    columns = table(N)
    path = write_explorer(folder / "page.html", f"Map {EVIL}", maps, columns, shades(N), findings)
    return SimpleNamespace(path=path, maps=list(maps.values()), columns=columns)


@pytest.fixture(scope="module")
def chromium():
    """One browser for this file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def opened(browser, path, **options):
    """A page that is ready, and everything it asked for, said or failed at."""
    page = browser.new_page(viewport={"width": 1400, "height": 900}, reduced_motion="reduce", **options)
    page.heard = []
    page.on("request", lambda request: page.heard.append(f"request {request.url[:90]}"))
    page.on("console", lambda message: page.heard.append(f"console {message.text}"))
    page.on("pageerror", lambda error: page.heard.append(f"error {error}"))
    page.goto(path.as_uri())
    page.wait_for_function("window.explorer")
    return page


@pytest.fixture(scope="module")
def whole_page(chromium, written):
    return opened(chromium, written.path, accept_downloads=True)


@pytest.fixture
def page(whole_page):
    """The same page for every test, as it was when it opened."""
    page, state = whole_page, state_of(whole_page)
    page.mouse.move(2, 2)
    if page.locator("#findings").is_visible():
        page.click("#tab-explore")
    page.evaluate("document.activeElement.blur()")
    wanted = {"beside": ("s", False), "pictures": ("i", False), "tool": ("m", "move")}
    keys = [key for name, (key, value) in wanted.items() if state[name] != value]
    keys += ["1"] * (state["backbones"][0] != "first") + ["0", "Escape"]
    for key in keys:
        page.keyboard.press(key)
    if state["color"] != "label" or state["hidden"]:
        page.select_option("#color", "2")
        page.select_option("#color", "0")
        page.evaluate("document.activeElement.blur()")
    return page


def state_of(page) -> dict:
    return page.evaluate("explorer.state()")


def at(page, row: int, view: int = 0) -> tuple[float, float]:
    return tuple(page.evaluate(f"explorer.at({row}, {view})"))


def screen(page, points: np.ndarray, view: int = 0) -> np.ndarray:
    """Where points are on the page, from the range that is shown and the box it is shown in."""
    stage, ranges = page.locator(".stage").nth(view), state_of(page)["ranges"][view]
    box, (width, height) = stage.bounding_box(), stage.evaluate("one => [one.clientWidth, one.clientHeight]")
    (left, right), (bottom, top) = ranges["x"], ranges["y"]
    x = box["x"] + (points[:, 0] - left) / (right - left) * width
    y = box["y"] + (top - points[:, 1]) / (top - bottom) * height
    return np.stack([x, y], 1)


def lone(page, points: np.ndarray, among: np.ndarray | None = None) -> int:
    """The row, of those named, whose point is farthest from all others, and so can be clicked without doubt."""
    spots = screen(page, points)
    among = np.arange(len(spots)) if among is None else among
    apart = [np.partition(((spots - spots[row]) ** 2).sum(1), 1)[1] for row in among]
    return int(among[np.argmax(apart)])


def shade(page, selector: str, path) -> int:
    """Grey value in the middle of what is seen of an element."""
    seen = np.asarray(Image.open(page.locator(selector).screenshot(path=path) and path).convert("L"))
    return int(seen[seen.shape[0] // 2, seen.shape[1] // 2])


def texts(page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def draw(page, corners: list[tuple[float, float]], shift: bool = False) -> None:
    """Drag the mouse around corners given as shares of the first map's width and height."""
    box = page.locator(".stage").first.bounding_box()
    spots = [(round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])) for x, y in corners]
    page.mouse.move(*spots[0])
    if shift:
        page.keyboard.down("Shift")
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot)
    page.mouse.up()
    if shift:
        page.keyboard.up("Shift")
    return spots


LASSO = [(0.2, 0.2), (0.75, 0.25), (0.5, 0.5), (0.8, 0.8), (0.25, 0.7)]


@browser_only
def test_a_click_shows_the_image_and_its_neighbours_with_their_similarity(page, written):
    first = written.maps[0]
    row = lone(page, first.points)
    page.mouse.click(*at(page, row))
    assert at(page, row) == pytest.approx(screen(page, first.points)[row], abs=0.02)
    assert texts(page, "#image h2") == [f"Row {row}"]
    shown = page.locator("#image .near button")
    assert shown.evaluate_all("all => all.map(one => +one.dataset.row)") == first.neighbors[row].tolist()
    told = np.array(texts(page, "#image .near .value"), float)
    assert told == pytest.approx(first.similarities[row], abs=0.006)


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
def test_hovering_shows_a_card_with_the_rows_own_picture(page, written):
    row = lone(page, written.maps[0].points, np.flatnonzero(written.columns["label"] == "liver"))
    page.mouse.move(*at(page, row))
    assert page.locator("#card p").all_inner_texts()[:2] == [f"Row {row}", "liver"] and state_of(page)["hovered"] == row
    page.wait_for_timeout(200)  # a sheet is decoded
    assert shade(page, "#card canvas", written.path.with_name("card.png")) == pytest.approx(row % 250, abs=6)
    page.mouse.move(2, 2)
    assert page.locator("#card").is_hidden() and state_of(page)["hovered"] == -1


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
    color = "#cfd3d8" if class_ is None else PALETTE[names.index(class_)]
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
def test_a_box_counts_its_classes_and_with_shift_another_adds_to_it(page, written):
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
def test_a_selection_lists_its_first_200_rows_and_is_saved_whole(page, written):
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
def test_row_numbers_are_copied_one_a_line(page):
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
def test_the_legend_takes_classes_away_and_brings_them_back(page, written):
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
def test_points_travel_to_the_map_of_another_backbone(chromium, written, page):
    page.emulate_media(reduced_motion="no-preference")
    page.keyboard.press("2")
    assert state_of(page)["travelling"]
    page.wait_for_function("!explorer.state().travelling")
    page.emulate_media(reduced_motion="reduce")
    assert page.locator(".plot.veiled").count() == 0


@browser_only
def test_side_by_side_both_maps_know_what_is_selected_and_pointed_at(page, written):
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


def find(page, text, where: str = "") -> None:
    page.select_option("#find-where", where)
    page.keyboard.press("f")
    page.fill("#find-what", str(text))
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")


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
def test_what_is_not_there_is_said(page, text, said):
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
def test_n_and_p_go_through_the_neighbours_and_enter_walks(page, written):
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
def test_everything_to_press_is_reached_by_tab_and_shows_its_focus(page):
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
def test_the_map_moves_by_dragging_and_zooms_by_the_wheel_and_marks_stay_on_their_points(page, written):
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
def test_images_stand_on_the_map_and_can_be_clicked(page):
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
def test_findings_are_told_in_a_pane_of_their_own(page):
    page.click("#tab-findings")
    assert texts(page, "#findings h2") == [f"One {EVIL}", "Two"]
    assert texts(page, "#findings p") == ["First.", f"Second {EVIL}", "Alone."]
    assert page.locator("#findings img").evaluate_all("all => all.map(one => one.naturalWidth)") == [40]
    assert page.locator("#explore").is_hidden()


@browser_only
def test_text_from_data_stays_text(page, written):
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


@browser_only
def test_the_page_asked_the_network_for_nothing_and_nothing_failed(page):
    find(page, 5)
    page.keyboard.press("i")
    allowed = ("request file:", "request blob:", "request data:")
    assert [line for line in page.heard if not line.startswith(allowed)] == []
    assert sum(line.startswith("request file:") for line in page.heard) == 1


@browser_only
@pytest.mark.long
def test_a_hundred_thousand_points_open_and_answer(chromium, tmp_path):
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
def test_tiny_spaces_can_be_opened_too(chromium, tmp_path, count, k):
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
        ({"findings": [Finding("f", "t", "missing.png")]}, "missing.png: no such picture"),
        ({"findings": [Finding("f", "t", __file__)]}, "PNG file, and this is none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_and_no_page_is_left(tmp_path, changes, said):
    with pytest.raises(UsageError, match=said):
        write_explorer(tmp_path / "page.html", "t", **wrong(**changes))
    assert not list(tmp_path.iterdir())
