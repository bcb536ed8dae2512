"""The photograph phantom: crops of the pictures that the wheels of scikit-image and scikit-learn ship.

Pictures are read by path, never downloaded. Each is cut into vertical strips; crops stay inside their strip, so groups
of a split share no pixel of a picture.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_transfer.errors import SourceError

# Picture -> package and file. Twelve, so that the default has four strips of each.
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


class Strip(NamedTuple):
    """Columns [left, right) of a picture, one group of a split."""

    picture: str
    name: str
    pixels: np.ndarray  # (H, right - left, 3) uint8
    left: int
    right: int


def strips(count: int) -> Iterator[Strip]:
    """Cut the pictures into `count` strips in all, equally wide within a picture; one of each picture in turn."""
    names = list(PICTURES)
    pictures = {name: _load(name) for name in names[:count]}
    for number in range(count):
        name = names[number % len(names)]
        among = len(range(names.index(name), count, len(names)))
        place = number // len(names)
        width = pictures[name].shape[1]
        left, right = width * place // among, width * (place + 1) // among
        if right - left < 8:
            raise SourceError(
                f"phantom:photographs: {count} patients are {among} strips of '{name}', which is {width} pixels wide. "
                f"Ask for {len(names) * (width // 8)} patients at most."
            )
        yield Strip(name, f"{name}-strip{place}", pictures[name][:, left:right], left, right)


def crops(strip: Strip, count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Random square crops of one strip at several scales, each (size, size, 3) uint8."""
    height, width = strip.pixels.shape[:2]
    picture, longest = Image.fromarray(strip.pixels), min(height, width)
    for _ in range(count):
        side = rng.uniform(0.45, 1.0) * longest
        left, top = rng.uniform(0, (width - side, height - side))
        box = (left, top, left + side, top + side)
        yield np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _load(name: str) -> np.ndarray:
    """One picture as (H, W, 3) uint8."""
    package, file = PICTURES[name]
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / file if spec else None
    if path is None or not path.exists():
        raise SourceError(
            f"phantom:photographs: the picture {file} of the package '{package}' is not there. "
            f"Install the wheel that ships it: pip install {'scikit-image' if package == 'skimage' else 'scikit-learn'}"
        )
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
