"""An explorer of made-up points in a real browser, driven with real mouse and keys; references are numpy's."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from ssl_transfer.analysis.explorer.page import Projection

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


def find(page, text, where: str = "") -> None:
    page.select_option("#find-where", where)
    page.keyboard.press("f")
    page.fill("#find-what", str(text))
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
