"""The search for known codes that match, compiled.

Codes are read as words of 64 bits: four of the coarse code, then those of the brighter positions, and of the darker ones.
The machine code is kept for other processes until this file changes. What may change elsewhere is therefore an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, register_jitable

COARSE_WORDS = 4
TILE = 512  # known codes at a time: their coarse codes stay in the fastest cache


def _compiled(signature: str) -> Callable[[Callable], Callable]:
    """Compile here, which takes seconds, or take the machine code that an earlier process has kept."""

    def compiled(function: Callable) -> Callable:
        try:
            return njit(signature, nogil=True, cache=True)(function)
        except (
            OSError,
            RuntimeError,
        ):  # the disk is full, or neither beside this file nor in the user's cache can be written
            return njit(signature, nogil=True)(function)

    return compiled


@intrinsic
def _count_ones(_context: Any, _word: Any) -> Any:
    return types.uint64(types.uint64), lambda _, builder, __, values: builder.ctpop(values[0])


_ones: Callable[[Any], Any] = cast(Any, _count_ones)  # number of bits of a word that are 1; the context is numba's


@register_jitable  # numba cannot keep a function that calls one under `njit`
def _counts(codes: np.ndarray) -> np.ndarray:
    """Number of positions that count in each code, uint64 (n, W); float64 (n,)."""
    counts = np.zeros(len(codes))
    fine_words = (codes.shape[1] - COARSE_WORDS) >> 1
    for number in range(len(codes)):
        for word in range(COARSE_WORDS, COARSE_WORDS + fine_words):
            counts[number] += _ones(codes[number, word] | codes[number, word + fine_words])
    return counts


@register_jitable
def _compared(query: np.ndarray, known: np.ndarray, number: int, side: int) -> tuple[float, float]:
    """Agreement (equal minus opposite signs) of two fine codes, and the positions that count in both.

    Args:
        query: A code, uint64 (W,).
        known: Codes, uint64 (n, 2, W); the other one is `known[number, side]`.
    """
    counted = opposite = np.uint64(0)
    fine_words = (len(query) - COARSE_WORDS) >> 1
    for word in range(COARSE_WORDS, COARSE_WORDS + fine_words):
        bright, other_bright = query[word], known[number, side, word]
        both = (bright | query[word + fine_words]) & (other_bright | known[number, side, word + fine_words])
        counted += _ones(both)
        opposite += _ones(both & (bright ^ other_bright))
    return float(counted) - 2 * float(opposite), float(counted)


@register_jitable
def _decides(rules: np.ndarray, kind: int, agreement: float, both: float, fewer: float) -> bool:
    """Whether one of the `Rule`s of a kind, float64 (kinds, 2, 4), holds."""
    for number in range(2):
        fewest, of_both = rules[kind, number, 0], rules[kind, number, 1]
        least = rules[kind, number, 2] * fewer + rules[kind, number, 3]
        if fewer >= fewest and agreement >= of_both * both and agreement >= least:
            return True
    return False


@_compiled(
    "void(uint64[:, :, ::1], int64[::1], uint64[:, :, ::1], int64[::1], "
    "uint64[:, :, ::1], int64[::1], int64, boolean[::1], uint64, float64[:, :, ::1], float64[::1])"
)
def search(
    queries: np.ndarray,
    images: np.ndarray,
    others: np.ndarray,
    ends: np.ndarray,
    known: np.ndarray,
    kinds: np.ndarray,
    side: int,
    found: np.ndarray,
    farthest: int,
    rules: np.ndarray,
    joint: np.ndarray,
) -> None:
    """Note the images one of whose codes matches a known code. Other threads may search other images meanwhile.

    Args:
        queries: Codes of one side (of the whole, or of the content) in each orientation, uint64 (q, 8, W).
        images: Image of each, int64 (q,).
        others: Codes of the other side, uint64 (p, 8, W), those of an image one after the other.
        ends: Those of image i are `others[ends[i]:ends[i + 1]]`; int64 (m + 1,).
        known: Codes of known images, of the whole and of the content, uint64 (n, 2, W).
        kinds: Kind of each, int64 (n,).
        side: 0: queries are compared with the codes of the whole; 1: with those of the content.
        found: bool (m,); becomes True. Images for which it is True already are left out.
        farthest: Matching codes have a Hamming distance of their coarse codes below this.
        rules: Of each kind, two `Rule`s of `near_duplicates` of which one has to hold, float64 (kinds, 2, 4).
        joint: A `Joint` of `near_duplicates`, float64 (4,).
    """
    distances = np.empty(TILE, np.uint64)
    coarse = np.empty((COARSE_WORDS, TILE), np.uint64)
    counts, other_counts = _counts(queries[:, 0]), _counts(others[:, 0])
    known_counts, known_other_counts = _counts(known[:, side]), _counts(known[:, 1 - side])
    fewest, of_own, of_other, of_all = joint[0], joint[1 + side], joint[2 - side], joint[3]
    for start in range(0, len(known), TILE):
        tile = known[start : start + TILE]
        for word in range(COARSE_WORDS):
            for position in range(len(tile)):
                coarse[word, position] = tile[position, side, word]
        first, second, third, fourth = coarse[0], coarse[1], coarse[2], coarse[3]
        for number in range(8 * len(queries)):
            image, turn = images[number >> 3], number & 7
            if found[image]:
                continue
            query, nearest = queries[number >> 3, turn], np.uint64(64 * COARSE_WORDS)
            for position in range(len(tile)):
                distance = _ones(query[0] ^ first[position]) + _ones(query[1] ^ second[position])
                distance += _ones(query[2] ^ third[position]) + _ones(query[3] ^ fourth[position])
                distances[position] = distance
                nearest = min(nearest, distance)
            if nearest >= farthest:
                continue
            for position in range(len(tile)):
                if distances[position] >= farthest:
                    continue
                fewer = min(counts[number >> 3], known_counts[start + position])
                agreement, both = _compared(query, tile, position, side)
                matches = _decides(rules, kinds[start + position], agreement, both, fewer)
                if not matches and fewer >= fewest and agreement >= of_own * fewer:
                    for other in range(ends[image], ends[image + 1]):
                        other_fewer = min(other_counts[other], known_other_counts[start + position])
                        also, _ = _compared(others[other, turn], tile, position, 1 - side)
                        enough = other_fewer >= fewest and also >= of_other * other_fewer
                        matches = matches or (enough and agreement + also >= of_all * (fewer + other_fewer))
                if matches:
                    found[image] = True
                    break
