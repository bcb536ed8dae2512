"""Alignment: the content of an image, box by box, until its code agrees most with that of a known image.

A window, noise or a crop moves the box that content is found in by a pixel or two, and codes of shifted boxes agree little. Boxes
of a copy can be moved back, by which most signs agree; those of other images agree by chance, and moving them helps little.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_transfer.measures.fingerprint import COARSE_BYTES, GRID, Content

STEPS = (1.0, 0.5)  # positions of the grid by which a box is moved or grown, first and last
ROUNDS = 3  # of all moves, of each step
STARTS = 2  # boxes and orientations that are tried
HOPELESS = 0.35  # after a round, boxes that agree less are left
MOVES = ((1, 1, 0, 0), (0, 0, 1, 1), (-1, 1, 0, 0), (0, 0, -1, 1), (-1, 1, -1, 1))  # of top, bottom, left and right


class Agreement(NamedTuple):
    """How two fine codes agree: equal minus opposite signs; positions that count in both; in that in which fewer do."""

    agreement: int
    both: int
    fewer: int

    @property
    def share(self) -> float:
        """Of the positions that count in either, shrunk where these are few."""
        return self.agreement / (self.fewer + 40)


def agreement(signs: np.ndarray, known: np.ndarray) -> Agreement:
    """How two fine codes of −1, 0, 1 agree, int8 (GRID, GRID)."""
    products = signs * known
    fewer = min(np.count_nonzero(signs), np.count_nonzero(known))
    return Agreement(int(products.sum(dtype=int)), int(np.count_nonzero(products)), int(fewer))


def oriented(code: np.ndarray) -> list[np.ndarray]:
    """Signs of a known code in all orientations, int8 (GRID, GRID)."""
    bright, dark = np.unpackbits(code[COARSE_BYTES:]).astype(np.int8).reshape(2, GRID, GRID)
    return turned(bright - dark)


def turned(square: np.ndarray) -> list[np.ndarray]:
    """Values of the positions (GRID, GRID) as they are, mirrored, and rotated by 90, 180 and 270 degrees: eight arrays."""
    return [np.rot90(way, quarters) for way in (square, square[:, ::-1]) for quarters in range(4)]


def aligned(starts: list[tuple[Content, np.ndarray]], code: np.ndarray) -> Agreement:
    """The best agreement that a box of content reaches with a known code, from the best of some boxes and orientations on.

    Args:
        starts: Content of an image (`fingerprint.contents`) and its signs; without any, nothing agrees.
        code: Code of a known image, uint8 (CODE_BYTES,).
    """
    pairs = [(agreement(signs, known), content, known) for content, signs in starts for known in oriented(code)]
    pairs.sort(key=lambda pair: -pair[0].share)
    return max((_climbed(*pair) for pair in pairs[:STARTS]), key=lambda best: best.share, default=Agreement(0, 0, 0))


def _climbed(best: Agreement, content: Content, known: np.ndarray) -> Agreement:
    """The best agreement of boxes in reach of one, by moves that make it better."""
    for step in STEPS:
        for _ in range(ROUNDS):
            before = best
            for move in MOVES:
                for way in (step, -step):
                    moved = content.moved(np.array(move) * way)
                    if (now := agreement(moved.signs(), known)).share > best.share:
                        best, content = now, moved
            if best == before:
                break
            if best.share < HOPELESS:
                return best
    return best
