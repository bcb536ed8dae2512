"""The two pictures of the README, from the output of `ssl-transfer quickstart`; needs a chromium and playwright.

    python docs/pictures/make.py runs/quickstart

`report.png` is the first screen of the report. `explorer.png` is the explorer of two backbones: CT and random initialisation.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
WINDOW = {"width": 1280, "height": 780}
LARGEST_BYTES = 300_000


def artifact(folder: Path, **values) -> Path:
    """The first artifact below a folder whose card has these values."""
    for path in sorted(folder.glob("**/card.json")):
        card = json.loads(path.read_text())
        if all(card.get(key) == value for key, value in values.items()):
            return path.parent
    sys.exit(f"{folder}: no artifact with {values}; make one with: ssl-transfer quickstart --out {folder}")


def explorer(quickstart: Path) -> Path:
    """The explorer of the first CT backbone and of random initialisation; made by `ssl-transfer analyze`."""
    out = quickstart / "analysis"
    backbones = [artifact(quickstart, kind="backbone", name=name, pretraining_seed=0) for name in ("CT", "scratch")]
    store = artifact(quickstart, kind="store", domain="ct")
    words = [*map(str, backbones), "--store", str(store), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "ssl_transfer", "analyze", *words], check=True)
    return out / "explorer.html"


def save(page, name: str) -> None:
    """A screenshot with 256 colours, or fewer if that is too large."""
    path = HERE / name
    page.screenshot(path=path)
    picture = Image.open(path).convert("RGB")
    for colours in (256, 128, 64):
        picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < LARGEST_BYTES:
            return
    sys.exit(f"{path}: {path.stat().st_size} bytes, expected fewer than {LARGEST_BYTES}")


def main() -> None:
    """Draw both pictures."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    quickstart = Path(sys.argv[1]).resolve()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport=WINDOW, color_scheme="light", reduced_motion="reduce")
        page.goto((quickstart / "report.html").as_uri())
        page.wait_for_timeout(500)
        save(page, "report.png")
        page.goto(explorer(quickstart).as_uri())
        page.wait_for_function("window.explorer")
        page.keyboard.press("s")  # side by side
        page.wait_for_timeout(500)
        page.mouse.click(*page.evaluate("explorer.at(710, 0)"))
        page.mouse.move(2, 2)
        page.wait_for_timeout(1000)
        save(page, "explorer.png")
        browser.close()


if __name__ == "__main__":
    main()
