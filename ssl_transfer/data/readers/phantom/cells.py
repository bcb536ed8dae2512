"""The cell phantom: cell lines under a fluorescence microscope, bright nuclei on dim cytoplasm, 8-bit grey.

Wells of one line differ in exposure, focus, background and density, so that a group is worth holding out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

FIELD_UM = 110.0  # width of an image


class Line(NamedTuple):
    """How the cells of one line look; lengths in µm, brightness relative to a full nucleus."""

    cells: float  # mean number in an image
    radius: float  # of a nucleus: geometric mean of its half axes
    elongation: float  # of a nucleus: long over short half axis
    cytoplasm: float  # size of the cell relative to its nucleus
    glow: float  # brightness of the cytoplasm
    texture: float  # contrast of the chromatin
    speckle_um: float  # size of its grains
    clustering: float  # share of cells that grow next to another


LINES = {
    "epithelial": Line(15, 7.5, 1.15, 1.8, 0.22, 0.25, 2.0, 0.8),
    "fibroblast": Line(8, 7.5, 1.9, 2.6, 0.16, 0.20, 2.5, 0.2),
    "lymphoid": Line(19, 5.6, 1.1, 1.25, 0.20, 0.40, 1.5, 0.4),
    "carcinoma": Line(9, 9.5, 1.35, 1.7, 0.24, 0.55, 3.2, 0.5),
}


def photograph_well(line: str, count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Take `count` images of one well.

    Args:
        line: One of `LINES`.
        count: Number of images.
        size: Number of rows and columns.
        rng: Generator of this well; exposure, focus, background and density are drawn first.

    Yields:
        Images, uint8, shape (size, size).
    """
    kind = LINES[line]
    kind = kind._replace(
        cells=kind.cells * rng.uniform(0.55, 1.6),
        radius=kind.radius * rng.uniform(0.85, 1.18),
        elongation=1 + (kind.elongation - 1) * rng.uniform(0.6, 1.3),
        glow=kind.glow * rng.uniform(0.5, 1.5),
        texture=kind.texture * rng.uniform(0.6, 1.3),
    )
    photons, focus_um, background = rng.uniform(15, 90), rng.uniform(0.5, 2.6), rng.uniform(0.03, 0.2)
    gain = rng.uniform(0.55, 1.1)
    for _ in range(count):
        scene = gaussian_filter(draw_cells(kind, size, rng), focus_um * size / FIELD_UM)
        scene += background * (1 + _gradient(size, rng))
        counts = rng.poisson(scene * photons) / photons + rng.normal(0, 0.015, scene.shape)
        yield np.rint(255 * np.clip(gain * counts * 0.8, 0, 1)).astype(np.uint8)


def draw_cells(kind: Line, size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise-free brightness of one image, float, shape (size, size)."""
    step = FIELD_UM / size
    scene = np.zeros((size, size))
    grain = gaussian_filter(rng.standard_normal((size, size)), max(kind.speckle_um / 2 / step, 0.3))
    chromatin = 1 + kind.texture * grain / grain.std()
    centres = _place(kind, rng)
    for x, y in centres:
        radius = kind.radius * rng.lognormal(0, 0.14)
        stretch = np.sqrt(1 + (kind.elongation - 1) * rng.uniform(0.6, 1.4))
        angle, brightness = rng.uniform(0, np.pi), rng.lognormal(-0.1, 0.22)
        reach = int(np.ceil((radius * stretch**2 * kind.cytoplasm + 2) / step))
        row, column = int(y / step), int(x / step)
        box = (
            slice(max(row - reach, 0), max(row + reach + 1, 0)),
            slice(max(column - reach, 0), max(column + reach + 1, 0)),
        )
        v, u = np.mgrid[box][:, : scene[box].shape[0], : scene[box].shape[1]] * step + step / 2
        if not u.size:
            continue
        u, v = u - x, v - y
        along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
        theta = np.arctan2(across, along)
        wave = 1 + 0.07 * np.sin(2 * theta + rng.uniform(0, 7)) + 0.05 * np.sin(3 * theta + rng.uniform(0, 7))
        distance = np.hypot(along / (radius * stretch), across * stretch / radius) / wave
        nucleus = np.clip((1 - distance) * radius / stretch / step + 0.5, 0, 1)
        # cytoplasm: longer than wide in spindle-shaped cells
        cell = np.hypot(along / (radius * stretch**2 * kind.cytoplasm), across * stretch / (radius * kind.cytoplasm))
        halo = kind.glow * np.clip(1.4 * (1 - cell), 0, 1)
        lit = brightness * (nucleus * (chromatin[box] * (1.05 - 0.25 * distance**2)).clip(0.1) + halo * (1 - nucleus))
        scene[box] = np.maximum(scene[box], lit) + 0.25 * np.minimum(scene[box], lit)
    return scene


def _place(kind: Line, rng: np.random.Generator) -> np.ndarray:
    """Centres in µm, shape (n, 2): scattered, or beside an earlier cell."""
    centres: list[np.ndarray] = []
    for _ in range(max(1, rng.poisson(kind.cells))):
        centre = rng.uniform(-0.05, 1.05, 2) * FIELD_UM
        if centres and rng.random() < kind.clustering:
            angle = rng.uniform(0, 2 * np.pi)
            away = kind.radius * rng.uniform(1.8, 2.6)
            centre = centres[rng.integers(len(centres))] + away * np.array([np.cos(angle), np.sin(angle)])
        centres.append(centre)
    return np.array(centres)


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    """Uneven illumination: a tilted plane, shape (size, size), within ±0.7."""
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size)
    return axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
