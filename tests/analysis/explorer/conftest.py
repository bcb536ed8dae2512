"""One browser and one page for all tests of a file."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image
from support.explorer import ARGUMENTS, CHROMIUM, EVIL, N, opened, shades, space, state_of, table

from ssl_transfer.analysis.explorer.page import Finding, write_explorer


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
