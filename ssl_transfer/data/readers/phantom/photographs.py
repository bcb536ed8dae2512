"""The photograph phantom: crops of the pictures that the wheels of scikit-image and scikit-learn ship.

Pictures are read by path, never downloaded. Each is cut into tiles; crops stay inside their tile, so groups of a split
share no pixel of a picture.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_transfer.errors import SourceError

SMALLEST = 16  # pixels of a tile's side
# Picture -> package and file. Twelve, so that the default has eight tiles of each.
PICTURES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "camera": ("skimage", "data/camera.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "coins": ("skimage", "data/coins.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
}


class Tile(NamedTuple):
    """A rectangle of a picture, one group of a split; `box` is left, top, right, bottom in pixels of the picture."""

    picture: str
    name: str
    box: tuple[int, int, int, int]
    pixels: np.ndarray  # (H, W, 3) uint8


def tiles(count: int) -> Iterator[Tile]:
    """Cut the pictures into `count` tiles in all, one of each picture in turn.

    A picture's tiles are equally large, in two rows if their number is even.
    """
    names = list(PICTURES)
    pictures = {name: _load(name) for name in names[:count]}
    for number in range(count):
        name = names[number % len(names)]
        height, width = pictures[name].shape[:2]
        among = len(range(names.index(name), count, len(names)))
        rows = 2 if among % 2 == 0 else 1
        columns = among // rows
        if width // columns < SMALLEST:
            raise SourceError(
                f"phantom:photographs: {count} patients are {among} tiles of '{name}', which is {width} x {height}: "
                f"too small. Ask for {len(names) * 8} patients."
            )
        row, column = divmod(number // len(names), columns)
        left, right = width * column // columns, width * (column + 1) // columns
        top, bottom = height * row // rows, height * (row + 1) // rows
        tile = pictures[name][top:bottom, left:right]
        yield Tile(name, f"{name}-{row}-{column}", (left, top, right, bottom), tile)


def crops(tile: Tile, count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Random square crops of one tile at several scales, each (size, size, 3) uint8."""
    height, width = tile.pixels.shape[:2]
    picture, longest = Image.fromarray(tile.pixels), min(height, width)
    for _ in range(count):
        side = rng.uniform(0.45, 1.0) * longest
        left, top = rng.uniform(0, (width - side, height - side))
        box = (left, top, left + side, top + side)
        yield np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _load(name: str) -> np.ndarray:
    """One picture as (H, W, 3) uint8."""
    package, file = PICTURES[name]
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / file if spec and spec.submodule_search_locations else None
    if path is None or not path.exists():
        raise SourceError(
            f"phantom:photographs: the picture {file} of the package '{package}' is not there. "
            f"Install the wheel that ships it: pip install {'scikit-image' if package == 'skimage' else 'scikit-learn'}"
        )
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
