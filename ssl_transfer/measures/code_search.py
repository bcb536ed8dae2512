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
def _same(query: np.ndarray, known: np.ndarray, rule: np.ndarray) -> bool:
    """Whether the fine codes of two codes, uint64 (W,), are those of one image."""
    fewest, of_both, of_fewer, more = rule[0], rule[1], rule[2], rule[3]
    equal = opposite = count = other_count = np.uint64(0)
    fine_words = (len(query) - COARSE_WORDS) >> 1
    for word in range(COARSE_WORDS, COARSE_WORDS + fine_words):
        bright, dark = query[word], query[word + fine_words]
        other_bright, other_dark = known[word], known[word + fine_words]
        equal += _ones(bright & other_bright) + _ones(dark & other_dark)
        opposite += _ones(bright & other_dark) + _ones(dark & other_bright)
        count += _ones(bright | dark)
        other_count += _ones(other_bright | other_dark)
    fewer, both, agreement = float(min(count, other_count)), float(equal + opposite), float(equal) - float(opposite)
    return fewer >= fewest and agreement >= of_both * both and agreement >= of_fewer * fewer + more


@_compiled("void(uint64[:, ::1], int64[::1], uint64[:, ::1], boolean[::1], uint64, float64[::1])")
def search(
    queries: np.ndarray, images: np.ndarray, known: np.ndarray, found: np.ndarray, farthest: int, rule: np.ndarray
) -> None:
    """Note the images one of whose codes matches a known code. Other threads may search other images meanwhile.

    Args:
        queries: Codes, uint64 (q, W).
        images: Image of each, int64 (q,).
        known: Codes, uint64 (n, W).
        found: bool (images,); becomes True. Images for which it is True already are left out.
        farthest: Matching codes have a Hamming distance of their coarse codes below this.
        rule: A `Rule` of `near_duplicates`, float64 (4,).
    """
    distances = np.empty(TILE, np.uint64)
    coarse = np.empty((COARSE_WORDS, TILE), np.uint64)
    for start in range(0, len(known), TILE):
        tile = known[start : start + TILE]
        for word in range(COARSE_WORDS):
            for position in range(len(tile)):
                coarse[word, position] = tile[position, word]
        first, second, third, fourth = coarse[0], coarse[1], coarse[2], coarse[3]
        for number in range(len(queries)):
            if found[images[number]]:
                continue
            query, nearest = queries[number], np.uint64(64 * COARSE_WORDS)
            for position in range(len(tile)):
                distance = _ones(query[0] ^ first[position]) + _ones(query[1] ^ second[position])
                distance += _ones(query[2] ^ third[position]) + _ones(query[3] ^ fourth[position])
                distances[position] = distance
                nearest = min(nearest, distance)
            if nearest >= farthest:
                continue
            for position in range(len(tile)):
                if distances[position] < farthest and _same(query, tile[position], rule):
                    found[images[number]] = True
                    break
