"""Fingerprints: a few hundred bytes by which an image is recognised at another size, window, orientation, or as another file.

An image is resampled to GRID × GRID positions. Each votes whether it is brighter or darker than the positions of a ring around it
(a census transform; Zabih & Woodfill 1994, https://doi.org/10.1007/BFb0028345): 1, −1, or 0 where the votes are divided or equal,
as in air or where a window clips. Order survives all changes of grey values that keep it (window, gamma, 8 bits); zeros do not
count in a comparison, as in iris codes (Daugman 2004, https://doi.org/10.1109/TCSVT.2003.818350). The ring is small, because
coarser structure is that of the anatomy, which patients share. A coarse code of 16 × 16 positions finds candidates.

There is a code of the whole image and, if it has margins (air, black borders), one of its content, since copies are cropped and
padded. The content is computed from pixels of its own, so that a small body in a large field has as many positions as any other.
If it is small, the code of the whole image is marked: it has little but the table and the outline, which patients share, too.

An image that is to be recognised has further codes: of itself with more and less of its margins, smoothed (the other one may have
less noise), with its content found by other criteria, and all of these without constant borders (padding, letterboxes).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, reduce
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
STRONG = 3  # ties; contrasts above it count alike
LEAST_VOTES = 5  # of the twelve of the ring
FEWEST_POSITIONS = 64  # that count; images with fewer have no content
# Content differs from the background by so much of the range of the image, or in CT is above BODY_HU, and is thicker than a share
# of the sides of the image: tables, wires, text and noise are thinner.
MARGIN_CONTRAST, BODY_HU, THICKNESS = 0.05, -200, 0.08
MOST_OF_BORDER = 0.7  # may differ from its median; if more does, there is no background
LEAST_SHARE = 0.6  # of the area; the code of a whole image with less content is marked
BRIGHT = 0.5  # of the range; what has a brighter background, such as sky, is no body on a table: the code of a query is marked
MARKS = [COARSE_BYTES, COARSE_BYTES + FINE_BYTES]  # bytes of a code whose first bits mark it: brighter, and darker
# A query may be cropped, or the known image is (sides of further boxes); it may have noise (smoothing over so many positions);
# its window may show more or less of the margins (contrasts and thicknesses by which content is found; None: as above).
SIDES, SMOOTH = (1.105, 1.065, 1.0425, 1.02), 1.6
CONTENTS = ((None, 0.08, 1), (None, 0.08, SMOOTH), (None, 0.055, 1), (None, 0.115, 1), (0.2, 0.08, 1), (0.4, 0.08, 1))
# The same where content is aligned (`contents`): further criteria, each of which a window in some copies asked for.
FURTHER = ((0.02, 0.03, 1), (0.02, 0.25, 1), (0.6, 0.08, 1), (0.6, 0.16, 1))
QUERY_CODES = 2 * (2 + len(CONTENTS)) + len(SIDES)
TRIMMED = 2 + len(SIDES) + len(CONTENTS)  # from here on, codes without constant borders
_CONTENT = 2 + len(SIDES)  # the first code of content
# Codes of a query that are compared with those of whole known images, and with those of their content: of the others, each found
# none of 4,200 planted copies that these did not.
FOR_WHOLE = [*range(_CONTENT + 1), TRIMMED]
FOR_CONTENT = [0, *range(_CONTENT, TRIMMED + 1), *(TRIMMED + 2 + criterion for criterion in (1, 3, 4))]
# Radii between which the border of a round field of view counts (1: half a side), in all of so many directions.
FIRST_RADIUS, LAST_RADIUS, DIRECTIONS = 0.88, 1.1, 16

_SIDE = np.arange(GRID)
NEIGHBOURS = np.stack(  # flat positions of the ring, (12, GRID, GRID), where the border repeats beyond itself
    [np.clip(_SIDE + down, 0, GRID - 1)[:, None] * GRID + np.clip(_SIDE + right, 0, GRID - 1) for down, right in RING]
)

Box = tuple[float, float, float, float]  # top, bottom, left, right in pixels


class _Plane(NamedTuple):
    """Grey values, float32, below 128 pixels per side: 0 to 1 for the range of the image, from `low` on over `span`."""

    values: np.ndarray
    low: float
    span: float
    in_hu: bool

    @property
    def tie(self) -> float:
        return TIE_HU / self.span if self.in_hu else TIE

    @property
    def margin(self) -> float:
        return (BODY_HU - AIR_HU) / self.span if self.in_hu else MARGIN_CONTRAST


class Content(NamedTuple):
    """What lies within the margins of an image: a box of a plane; None if it is too small."""

    plane: _Plane
    box: Box | None
    share: float  # of the area of the image

    def code(self, smooth: float = 1) -> np.ndarray:
        """Its code, uint8 (CODE_BYTES,), from values averaged over so many positions; zero if it is too small."""
        return np.zeros(CODE_BYTES, np.uint8) if self.box is None else _code(self.plane, self.box, smooth)

    def signs(self) -> np.ndarray:
        """Its fine code: 1 where brighter than the ring, −1 where darker, else 0; int8 (GRID, GRID)."""
        return np.zeros((GRID, GRID), np.int8) if self.box is None else _signs(_votes_in(self.plane, self.box, 1))

    def contrasts(self) -> np.ndarray:
        """How much brighter each position is than its ring: −1 to 1, reached at `STRONG` ties; float32 (GRID, GRID)."""
        if self.box is None:
            return np.zeros((GRID, GRID), np.float32)
        sampled, inside = _sampled(self.plane, self.box, 1)
        return np.clip(_differences(sampled).mean(0) / (STRONG * self.plane.tie), -1, 1) * inside

    def moved(self, positions: np.ndarray) -> Content:
        """With top, bottom, left and right moved by so many positions of the grid."""
        if self.box is None:
            return self
        top, bottom, left, right = self.box
        sizes = np.array([bottom - top, bottom - top, right - left, right - left]) / GRID
        return self._replace(box=tuple((np.array(self.box) + positions * sizes).tolist()))


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
        content = _content(image, plane, plane.margin, THICKNESS)
        if content is not None:
            codes[1] = content.code()
        codes[0] = _code(plane, _whole(plane))
        if content is not None and content.share < LEAST_SHARE and codes[0].any():
            codes[0, MARKS] |= 0x80
    return codes.reshape(-1)


def without_marks(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of images, uint8 (n, V, CODE_BYTES), without the marks of the first of each; and which had one, bool (n,)."""
    marked = np.asarray((codes[:, 0][:, MARKS] >= 0x80).all(1))
    unmarked = codes.copy()
    unmarked[:, 0, MARKS] &= np.where(marked, 0x7F, 0xFF).astype(np.uint8)[:, None]
    return unmarked, marked


def without_round_borders(codes: np.ndarray) -> np.ndarray:
    """Codes of known images without marks, uint8 (n, 2, CODE_BYTES): of a round field of view, the border does not count.

    All images that a scanner reconstructs in a circle share it. An image is one if nothing counts outside of the circle, and
    something does beside it in all directions.
    """
    across, down = np.meshgrid(*[(_SIDE + 0.5) * 2 / GRID - 1] * 2)
    radii, directions = np.hypot(across, down), (np.arctan2(down, across) / (2 * np.pi) % 1 * DIRECTIONS).astype(int)
    border = (radii > FIRST_RADIUS) & (radii <= LAST_RADIUS)
    wholes = codes[:, 0].view(np.uint64)
    is_round = ~_counts_at(radii > LAST_RADIUS, wholes)
    for direction in range(DIRECTIONS):
        left = np.flatnonzero(is_round)
        is_round[left] = _counts_at(border & (directions == direction), wholes[left])
    changed = codes.copy()
    changed[is_round] &= ~_signs_at(border)
    return changed


def _counts_at(positions: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """In which codes, words of 64 bits (n, W), any of some positions, bool (GRID, GRID), counts: bool (n,)."""
    signs = _signs_at(positions).view(np.uint64)
    words = np.flatnonzero(signs)
    return np.asarray((codes[:, words] & signs[words]).any(1))


def _signs_at(positions: np.ndarray) -> np.ndarray:
    """A code, uint8 (CODE_BYTES,), all of whose fine bits are set at some positions, bool (GRID, GRID)."""
    bits = np.packbits(positions)
    return np.concatenate([np.zeros(COARSE_BYTES, np.uint8), bits, bits])


def query(image: np.ndarray) -> np.ndarray:
    """Codes of an image that is to be recognised: of all of it, of further boxes around its centre, and of its content.

    Args:
        image: As for `fingerprint`.

    Returns:
        uint8 (QUERY_CODES, CODE_BYTES); codes of what the image does not have, such as constant borders, are zero.
    """
    codes = np.zeros((QUERY_CODES, CODE_BYTES), np.uint8)
    codes[:TRIMMED] = _views(image, SIDES)
    if (trimmed := _trimmed(image)).shape != image.shape:
        codes[TRIMMED:] = _views(trimmed, ())
    if codes[0].any() and (plane := _plane(image)) is not None and _background(plane) > BRIGHT:
        codes[0, MARKS] |= 0x80
    return codes


def _views(image: np.ndarray, sides: tuple[float, ...]) -> np.ndarray:
    """Codes of an image: whole, boxes of other sides around its centre, the whole smoothed, and its content by each criterion."""
    codes = np.zeros((2 + len(sides) + len(CONTENTS), CODE_BYTES), np.uint8)
    if (plane := _plane(image)) is None:
        return codes
    height, width = plane.values.shape
    margins = [((1 - side) / 2 * height, (1 - side) / 2 * width) for side in (1, *sides)]
    for number, (top, left) in enumerate(margins):
        codes[number] = _code(plane, (top, height - top, left, width - left))
    codes[len(margins)] = _code(plane, _whole(plane), SMOOTH)
    for number, (contrast, thickness, smooth) in enumerate(CONTENTS, len(margins) + 1):
        if (content := _content(image, plane, contrast or plane.margin, thickness)) is not None:
            codes[number] = content.code(smooth)
    return codes


def contents(image: np.ndarray) -> list[Content]:
    """What lies within the margins of an image (C, H, W), by each criterion, also without constant borders."""
    found = []
    for source, plane in _planes(image):
        criteria = dict.fromkeys((contrast or plane.margin, thickness) for contrast, thickness, _ in CONTENTS + FURTHER)
        found += [_content(source, plane, *criterion) for criterion in criteria]
    return [content for content in found if content is not None and content.box is not None]


def wholes(image: np.ndarray) -> list[Content]:
    """All of an image (C, H, W), also without constant borders; none if it has no contrast."""
    return [Content(plane, _whole(plane), 1) for _, plane in _planes(image)]


def _planes(image: np.ndarray) -> Iterator[tuple[np.ndarray, _Plane]]:
    """An image, and the image without constant borders if it has any, each with its plane; without contrast, neither."""
    trimmed = _trimmed(image)
    for source in (image,) if trimmed.shape == image.shape else (image, trimmed):
        if (plane := _plane(source)) is not None:
            yield source, plane


def _trimmed(image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) without the rows and columns at its borders that have one value, such as padding."""
    while min(image.shape[1:]) >= LEAST_SIDE:
        borders = (image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1])
        constant = next((border[:, :1] for border in borders if (border == border[:, :1]).all()), None)
        if constant is None:
            break
        differs = (image != constant[:, :, None]).any(0)
        rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
        if not len(rows):
            break
        image = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return image


def _plane(image: np.ndarray) -> _Plane | None:
    """An image (C, H, W) as a plane; None if it has too few pixels or no contrast."""
    if min(image.shape[1:]) < LEAST_SIDE:
        return None
    values = _halved(image)
    in_hu = bool(values.min() < LOWEST_HU)
    if in_hu:
        values = np.maximum(values, AIR_HU)  # below it, noise
    tail = values.size // 100
    ordered = np.partition(values, (tail, values.size - 1 - tail), axis=None)
    low, high = ordered[tail], ordered[-1 - tail]
    span = float(high - low)
    if span < 1e-6 * max(1.0, abs(float(high))):
        return None
    return _Plane(np.clip((values - low) / span, 0, 1), float(low), span, in_hu)


def _halved(image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) as grey values in float32 (h, w), halved until it has fewer than 128 pixels per side."""
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
    return plane


def _reduced(values: np.ndarray) -> np.ndarray:
    """Values in float32; integers of at most 16 bits are averaged over the rows that halving would join, which is exact."""
    height, rows = len(values), 1
    while height >= 2 * WORK and rows < 128:  # sums stay below 2**24
        height, rows = height // 2, 2 * rows  # halving leaves out the last row of an odd number
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2 or rows == 1:
        return values.astype(np.float32)
    weights = np.full(rows, 1 / rows, np.float32)  # a matrix product takes two thirds of the time of a sum
    return weights @ values[: height * rows].reshape(height, rows, -1).astype(np.float32)


def _whole(plane: _Plane) -> Box:
    height, width = plane.values.shape
    return 0.0, float(height), 0.0, float(width)


def _content(image: np.ndarray, plane: _Plane, contrast: float, thickness: float) -> Content | None:
    """What differs by a contrast from the background, which is the grey value of the border.

    Args:
        image: The image (C, H, W).
        plane: Its plane.
        contrast: Of the grey values of the plane.
        thickness: Share of the sides of the plane; what is thinner is left out, such as tables, wires, text and noise.

    Returns:
        None if there are no margins.
    """
    values, background = plane.values, _background(plane)
    border = _border(values)
    if np.count_nonzero(np.abs(border - background) > contrast) > MOST_OF_BORDER * len(border):
        return None
    pixels = max(3, round(thickness * sum(values.shape) / 2))
    box = _solid_box(values, background, contrast, pixels)
    if box is None:
        return Content(plane, None, 0)
    share = (box[1] - box[0]) * (box[3] - box[2]) / values.size
    if share == 1:
        return None
    scales = np.array(image.shape[1:]) / values.shape
    ends = np.clip(np.reshape(box, (2, 2)) + np.array([-2, 2]), 0, np.array(values.shape)[:, None]) * scales[:, None]
    (top, bottom), (left, right) = ends.astype(int)
    finer = _halved(image[:, top:bottom, left:right])
    ratio = len(finer) / (bottom - top) * scales[0]
    if ratio <= 1:
        return Content(plane, box, share)
    if plane.in_hu:
        finer = np.maximum(finer, AIR_HU)
    finer = plane._replace(values=np.clip((finer - plane.low) / plane.span, 0, 1))
    box = _solid_box(finer.values, background, contrast, round(pixels * ratio)) or _whole(finer)
    return Content(finer, box, share)


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _background(plane: _Plane) -> float:
    """Median grey value of the border."""
    border = _border(plane.values)
    return float(np.partition(border, len(border) // 2)[len(border) // 2])


def _solid_box(values: np.ndarray, background: float, contrast: float, thickness: int) -> Box | None:
    """The box of all squares of pixels that differ from the background, or have such pixels on all four sides, as lungs have.

    None if it is below 8 pixels.
    """
    (height, width), differs = values.shape, np.abs(values - background) > contrast
    rows, columns = np.arange(height)[:, None], np.arange(width)
    in_row = (columns >= differs.argmax(1)[:, None]) & (columns < width - differs[:, ::-1].argmax(1)[:, None])
    in_column = (rows >= differs.argmax(0)) & (rows < height - differs[::-1].argmax(0))
    solid = np.asarray(in_row & in_column & np.any(differs, 1, keepdims=True) & np.any(differs, 0))
    size = 1  # of the squares of which `solid` has the upper left corners
    while size < thickness:
        step = min(size, thickness - size)
        solid = solid[:-step] & solid[step:]
        solid = solid[:, :-step] & solid[:, step:]
        size += step
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if not len(rows):
        return None
    box = float(rows[0]), float(rows[-1] + thickness), float(columns[0]), float(columns[-1] + thickness)
    return box if min(box[1] - box[0], box[3] - box[2]) >= 8 else None


def _code(plane: _Plane, box: Box, smooth: float = 1) -> np.ndarray:
    """Code of a box of a plane, uint8 (CODE_BYTES,); what lies outside of the plane is 0 in it."""
    votes = _votes_in(plane, box, smooth)
    brighter, darker = votes >= LEAST_VOTES, votes <= -LEAST_VOTES
    if np.count_nonzero(brighter) + np.count_nonzero(darker) < FEWEST_POSITIONS:
        return np.zeros(CODE_BYTES, np.uint8)
    return np.concatenate([np.packbits(bits) for bits in (_pooled(votes) > 0, brighter, darker)])


def _pooled(votes: np.ndarray) -> np.ndarray:
    """Sums of the votes of the squares of positions that a coarse one stands for, int8 (COARSE, COARSE)."""
    step = GRID // COARSE
    rows = reduce(np.add, [votes[start::step] for start in range(step)])
    return reduce(np.add, [rows[:, start::step] for start in range(step)])


def _signs(votes: np.ndarray) -> np.ndarray:
    """1 where enough votes are for brighter, −1 where they are for darker, else 0; int8."""
    return (votes >= LEAST_VOTES).astype(np.int8) - (votes <= -LEAST_VOTES)


def _votes_in(plane: _Plane, box: Box, smooth: float) -> np.ndarray:
    """Votes of the positions of a box of a plane, int8 (GRID, GRID), 0 for those outside of the plane."""
    sampled, inside = _sampled(plane, box, smooth)
    return _votes(sampled, plane.tie) * inside


def _sampled(plane: _Plane, box: Box, smooth: float) -> tuple[np.ndarray, np.ndarray | np.int8]:
    """Values at the positions of a box of a plane, float32 (GRID, GRID); and which are inside of the plane, 1 or 0, int8."""
    height, width = plane.values.shape
    rows, columns = _weights(height, box[0], box[1], smooth), _weights(width, box[2], box[3], smooth)
    within = min(box) >= 0 and box[1] <= height and box[3] <= width
    inside = np.int8(1) if within else np.outer(rows.any(1), columns.any(1)).astype(np.int8)
    return rows @ plane.values @ columns.T, inside


def _votes(sampled: np.ndarray, tie: float) -> np.ndarray:
    """How many more positions of the ring around each one are darker than brighter by more than a tie, int8 (GRID, GRID)."""
    difference = _differences(sampled)
    darker, brighter = (difference > tie).view(np.int8), (difference < -tie).view(np.int8)
    return (darker - brighter).sum(0, dtype=np.int8)


def _differences(sampled: np.ndarray) -> np.ndarray:
    """By how much each position is brighter than each one of the ring around it, (12, GRID, GRID)."""
    return sampled - sampled.reshape(-1).take(NEIGHBOURS, mode="wrap")  # which saves a check: all are inside


@lru_cache(maxsize=1024)  # 20 MB
def _weights(pixels: int, start: float, stop: float, smooth: float) -> np.ndarray:
    """Weights of pixels at the positions of a side, float32 (GRID, pixels): linear, over a position or a pixel at least."""
    step = (stop - start) / GRID
    centres, support = start + (np.arange(GRID) + 0.5) * step, smooth * max(step, 1.0)
    distance = np.abs(np.arange(pixels) + 0.5 - centres[:, None]) / support
    weights = np.maximum(0, 1 - distance) * ((centres >= 0) & (centres <= pixels))[:, None]
    return (weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)).astype(np.float32)
