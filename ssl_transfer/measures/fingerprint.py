"""Fingerprints: a few hundred bytes by which an image is recognised at another size, window, orientation, or as another file.

An image is resampled to GRID × GRID positions. Each votes whether it is brighter or darker than the positions of a ring around it
(a census transform; Zabih & Woodfill 1994, https://doi.org/10.1007/BFb0028345): 1, −1, or 0 where the votes are divided or equal,
as in air or where a window clips. Order survives all changes of grey values that keep it (window, gamma, 8 bits); zeros do not
count in a comparison, as in iris codes (Daugman 2004, https://doi.org/10.1109/TCSVT.2003.818350). The ring is small, because
coarser structure is that of the anatomy, which patients share. A coarse code of 16 × 16 positions finds candidates.

There is a code of the whole image and, if it has margins (air, black borders), one of its content, since copies are cropped and
padded. An image that is to be recognised has further codes, of itself with more and less of its margins.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

GRID, COARSE = 48, 16  # positions per side, and those of the coarse code
FINE_BYTES, COARSE_BYTES = GRID * GRID // 8, COARSE * COARSE // 8
# A code: brighter at the coarse positions; brighter, and darker, at the fine ones. A fingerprint: of the whole, of the content.
CODE_BYTES = COARSE_BYTES + 2 * FINE_BYTES
FINGERPRINT_BYTES = 2 * CODE_BYTES
LEAST_SIDE = 16  # pixels; smaller images have too little content to be recognised by
WORK = 64  # pixels per side, at least, of the image that codes are computed from; larger ones are halved until below twice that
LOWEST_HU, AIR_HU = -400, -900  # an image with values below the first is CT in HU; the second is above the noise of air
RING = [(down, right) for down in range(-2, 3) for right in range(-2, 3) if 4 <= down**2 + right**2 <= 5]
TIE, TIE_HU = 6e-3, 4  # of the range of an image, or in HU: positions that differ by less are equal
LEAST_VOTES = 5  # of the twelve of the ring
FEWEST_POSITIONS = 64  # that count; images with fewer have no content
# Rows and columns are content if a share of them differs from the background by so much of the range, or is above BODY_HU.
MARGIN_CONTRAST, MARGIN_SHARE, BODY_HU = 0.08, 0.02, -200
# Of further boxes of a query: it may be cropped, or the known image is; its window may show more or less of the margins.
SIDES, OTHER_CONTRASTS = (1.08, 1.04, 0.95), (0.4,)
QUERY_CODES = 2 + len(SIDES) + len(OTHER_CONTRASTS)
# Codes of a query that are compared with those of whole known images, and with those of their content.
FOR_WHOLE, FOR_CONTENT = range(2 + len(SIDES)), [0, *range(1 + len(SIDES), QUERY_CODES)]

_SIDE = np.arange(GRID)
NEIGHBOURS = np.stack(  # flat positions of the ring, (12, GRID, GRID), where the border repeats beyond itself
    [np.clip(_SIDE + down, 0, GRID - 1)[:, None] * GRID + np.clip(_SIDE + right, 0, GRID - 1) for down, right in RING]
)

Box = tuple[float, float, float, float]  # top, bottom, left, right in pixels


class _Plane(NamedTuple):
    """Grey values in [0, 1], float32, below 128 pixels per side; the differences that are a tie, and that set content apart."""

    values: np.ndarray
    tie: float
    margin: float


def fingerprint(image: np.ndarray) -> np.ndarray:
    """Codes of an image for a store or a passport.

    Args:
        image: Shape (C, H, W), 1 or 3 channels, of any dtype and range; CT in HU is recognised by values below −400.

    Returns:
        uint8 (FINGERPRINT_BYTES,): the code of the whole image, and that of its content, which is zero if it has no margins. All
        is zero for an image without content: without contrast, or below 16 pixels.
    """
    plane, codes = _plane(image), np.zeros((2, CODE_BYTES), np.uint8)
    if plane is not None:
        whole, content = _whole(plane), _content(plane, plane.margin)
        codes[0] = _code(plane, whole)
        if content != whole:
            codes[1] = _code(plane, content)
    return codes.reshape(-1)


def query(image: np.ndarray) -> np.ndarray:
    """Codes of an image that is to be recognised: of all of it, of further boxes around its centre, and of its content.

    Args:
        image: As for `fingerprint`.

    Returns:
        uint8 (QUERY_CODES, CODE_BYTES); codes of boxes that are equal to an earlier one are zero.
    """
    codes = np.zeros((QUERY_CODES, CODE_BYTES), np.uint8)
    plane = _plane(image)
    if plane is None:
        return codes
    height, width = plane.values.shape
    margins = [((1 - side) / 2 * height, (1 - side) / 2 * width) for side in SIDES]
    boxes = [_whole(plane), *((top, height - top, left, width - left) for top, left in margins)]
    boxes += [_content(plane, contrast) for contrast in (plane.margin, *OTHER_CONTRASTS)]
    for number, box in enumerate(boxes):
        if box not in boxes[:number]:
            codes[number] = _code(plane, box)
    return codes


def _plane(image: np.ndarray) -> _Plane | None:
    """An image (C, H, W) as a plane; None if it has too few pixels or no contrast."""
    if min(image.shape[1:]) < LEAST_SIDE:
        return None
    values = image[0] if len(image) != 3 else image.mean(0, dtype=np.float32)
    plane = _reduced(values)
    if values.dtype.kind == "f" and not (finite := np.isfinite(plane)).all():
        plane = np.where(finite, plane, plane[finite].min() if finite.any() else 0)
    while len(plane) >= 2 * WORK:
        even = len(plane) // 2 * 2
        plane = plane[0:even:2] + plane[1:even:2]
        plane *= 0.5
    while plane.shape[1] >= 2 * WORK:
        even = plane.shape[1] // 2 * 2
        plane = plane[:, 0:even:2] + plane[:, 1:even:2]
        plane *= 0.5
    in_hu = plane.min() < LOWEST_HU
    if in_hu:
        plane = np.maximum(plane, AIR_HU)  # below it, noise
    tail = plane.size // 100
    ordered = np.partition(plane, (tail, plane.size - 1 - tail), axis=None)
    low, high = ordered[tail], ordered[-1 - tail]
    span = float(high - low)
    if span < 1e-6 * max(1.0, abs(float(high))):
        return None
    tie, margin = (TIE_HU / span, (BODY_HU - AIR_HU) / span) if in_hu else (TIE, MARGIN_CONTRAST)
    return _Plane(np.clip((plane - low) / span, 0, 1), tie, margin)


def _reduced(values: np.ndarray) -> np.ndarray:
    """Values in float32; integers of at most 16 bits are averaged over the rows that halving would join, which is exact."""
    height = len(values)
    rows = 1
    while height >= 2 * WORK and not height % 2 and rows < 128:  # sums stay below 2**24
        height, rows = height // 2, 2 * rows
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2 or rows == 1:
        return values.astype(np.float32)
    sums = np.add.reduce(values.reshape(height, rows, -1), 1, dtype=np.float32)
    sums /= rows
    return sums


def _whole(plane: _Plane) -> Box:
    height, width = plane.values.shape
    return 0.0, float(height), 0.0, float(width)


def _content(plane: _Plane, contrast: float) -> Box:
    """The box of what differs by a contrast from the background, the grey value of the border; else the whole plane."""
    values = plane.values
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    middle = len(border) // 2  # of an even number of values
    ordered = np.partition(border, (middle - 1, middle))
    differs = np.abs(values - (ordered[middle - 1] + ordered[middle]) / 2) > contrast
    counts = ((np.count_nonzero(differs, axis), differs.shape[axis]) for axis in (1, 0))
    rows, columns = (np.flatnonzero(count / length > MARGIN_SHARE) for count, length in counts)
    if len(rows) < 8 or len(columns) < 8:
        return _whole(plane)
    return float(rows[0]), float(rows[-1] + 1), float(columns[0]), float(columns[-1] + 1)


def _code(plane: _Plane, box: Box) -> np.ndarray:
    """Code of a box of a plane, uint8 (CODE_BYTES,); what lies outside of the plane is 0 in it."""
    height, width = plane.values.shape
    rows, columns = _weights(height, box[0], box[1]), _weights(width, box[2], box[3])
    votes = _votes(rows @ plane.values @ columns.T, plane.tie)
    if min(box) < 0 or box[1] > height or box[3] > width:
        votes = votes * np.outer(rows.any(1), columns.any(1))
    fine = np.where(np.abs(votes) >= LEAST_VOTES, votes, 0)
    if np.count_nonzero(fine) < FEWEST_POSITIONS:
        return np.zeros(CODE_BYTES, np.uint8)
    pool = GRID // COARSE
    coarse = votes.reshape(COARSE, pool, COARSE, pool).sum((1, 3)) > 0
    return np.concatenate([np.packbits(bits) for bits in (coarse, fine > 0, fine < 0)])


def _votes(sampled: np.ndarray, tie: float) -> np.ndarray:
    """How many more positions of the ring around each one are darker than brighter by more than a tie, int8 (GRID, GRID)."""
    difference = sampled - sampled.reshape(-1).take(NEIGHBOURS)
    darker = (difference > tie).view(np.int8).sum(0, dtype=np.int8)
    return darker - (difference < -tie).view(np.int8).sum(0, dtype=np.int8)


@lru_cache(maxsize=1024)  # 12 MB
def _weights(pixels: int, start: float, stop: float) -> np.ndarray:
    """Weights of pixels at the positions of a side, float32 (GRID, pixels): linear, over a position or a pixel at least."""
    step = (stop - start) / GRID
    centres, support = start + (np.arange(GRID) + 0.5) * step, max(step, 1.0)
    distance = np.abs(np.arange(pixels) + 0.5 - centres[:, None]) / support
    weights = np.maximum(0, 1 - distance) * ((centres >= 0) & (centres <= pixels))[:, None]
    return (weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)).astype(np.float32)
