"""The search for known codes that match, compiled.

Codes are read as words of 64 bits: four of the coarse code, then those of the brighter positions, and of the darker ones.
The machine code is kept for other processes until this file changes. What may change elsewhere is therefore an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, register_jitable

COARSE_WORDS, FINE_WORDS = 4, 36  # of a code: coarse; brighter, and as many darker
TILE = 512  # known codes at a time: their coarse codes stay in the fastest cache
SHRINKS = 40  # positions by which scores are shrunk


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
    for number in range(len(codes)):
        for word in range(COARSE_WORDS, COARSE_WORDS + FINE_WORDS):
            counts[number] += _ones(codes[number, word] | codes[number, word + FINE_WORDS])
    return counts


@register_jitable
def _both(code: np.ndarray, known: np.ndarray, position: int, words: int) -> float:
    """How many positions count in a code, uint64 (2, words), and in one of some known codes, (n, 2, words); see `_split`.

    The number of words is an argument: where the loop is compiled, a constant would make it unrolled, not vectorised.
    """
    both = np.uint64(0)
    for word in range(words):
        both += _ones(code[0, word] & known[position, 0, word])
    return float(both)


@register_jitable
def _opposite(code: np.ndarray, known: np.ndarray, position: int, words: int) -> float:
    """At how many of these one is brighter, and the other one darker."""
    opposite = np.uint64(0)
    for word in range(words):
        opposite += _ones(code[0, word] & known[position, 0, word] & (code[1, word] ^ known[position, 1, word]))
    return float(opposite)


@register_jitable
def _split(code: np.ndarray, parts: np.ndarray) -> None:
    """Of a code, uint64 (W,): which positions count, and which are brighter; into uint64 (2, words)."""
    for word in range(FINE_WORDS):
        parts[1, word] = code[COARSE_WORDS + word]
        parts[0, word] = code[COARSE_WORDS + word] | code[COARSE_WORDS + FINE_WORDS + word]


@register_jitable
def _decides(rules: np.ndarray, agreement: float, both: float, fewer: float) -> bool:
    """Whether one of two `Rule`s, float64 (2, 4), holds."""
    for number in range(2):
        fewest, of_both = rules[number, 0], rules[number, 1]
        least = rules[number, 2] * fewer + rules[number, 3]
        if fewer >= fewest and agreement >= of_both * both and agreement >= least:
            return True
    return False


@register_jitable
def _note(scores: np.ndarray, numbers: np.ndarray, score: float, number: int) -> None:
    """Keep a known code and its score if it is one of the two best, (2,); each code has one place."""
    if scores[0] > 0 and numbers[0] == number:
        scores[0] = max(scores[0], score)
    elif score > scores[0]:
        scores[1], numbers[1] = scores[0], numbers[0]
        scores[0], numbers[0] = score, number
    elif score > scores[1]:
        scores[1], numbers[1] = score, number


class Candidates(NamedTuple):
    """The two known codes that agree most with each code of a query, where that is not enough to match.

    Attributes:
        scores: Agreement as a share of the positions that count, shrunk where these are few; 0: none; float64 (q, 2).
        numbers: Number of the known code, int64 (q, 2).
    """

    scores: np.ndarray
    numbers: np.ndarray

    @classmethod
    def none(cls, codes: int) -> Candidates:
        """For so many codes."""
        return cls(np.zeros((codes, 2)), np.zeros((codes, 2), np.int64))


@_compiled(
    "void(uint64[:, :, ::1], int64[::1], uint64[:, ::1], int64[::1], boolean[::1], boolean[::1], int64[::1], float64[:, :, ::1], "
    "float64, float64[:, ::1], int64[:, ::1])"
)
def search(
    queries: np.ndarray,
    images: np.ndarray,
    known: np.ndarray,
    kinds: np.ndarray,
    bright: np.ndarray,
    found: np.ndarray,
    farthest: np.ndarray,
    rules: np.ndarray,
    least: float,
    scores: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """Note the images one of whose codes matches a known code. Other threads may search with other codes meanwhile.

    Args:
        queries: Codes in each orientation, uint64 (q, 8, W).
        images: Image of each, int64 (q,).
        known: Known codes, uint64 (n, W).
        kinds: Kind of each, int64 (n,).
        bright: Which images have a bright background, bool (m,): to them, all known codes are of kind 0.
        found: bool (m,); becomes True. Images for which it is True already are left out.
        farthest: Matching codes have a Hamming distance of their coarse codes below the first of these; below the second if the
            known one is of kind 0, and fewer positions than the third count in it; int64 (3,).
        rules: Of each kind, two `Rule`s of `near_duplicates` of which one has to hold, float64 (kinds, 2, 4).
        least: Score of candidates, at least.
        scores, numbers: `Candidates`, (q, 2); replaced where a known code agrees more.
    """
    spares = np.empty(TILE, np.int64)  # bits by which a distance is below the farthest
    limits, coarse = np.empty(TILE, np.int64), np.empty((COARSE_WORDS, TILE), np.uint64)
    fine, fine_of_tile = np.empty((2, FINE_WORDS), np.uint64), np.empty((TILE, 2, FINE_WORDS), np.uint64)
    counts, known_counts = _counts(queries[:, 0]), _counts(known)
    for start in range(0, len(known), TILE):
        in_tile = min(TILE, len(known) - start)
        for position in range(in_tile):
            _split(known[start + position], fine_of_tile[position])
            for word in range(COARSE_WORDS):
                coarse[word, position] = known[start + position, word]
            few = kinds[start + position] == 0 and known_counts[start + position] < farthest[2]
            limits[position] = farthest[1] if few else farthest[0]
        first, second, third, fourth = coarse[0], coarse[1], coarse[2], coarse[3]
        for number in range(8 * len(queries)):
            code = number >> 3
            if found[images[code]]:
                continue
            query, most = queries[code, number & 7], np.int64(0)
            for position in range(in_tile):
                distance = _ones(query[0] ^ first[position]) + _ones(query[1] ^ second[position])
                distance += _ones(query[2] ^ third[position]) + _ones(query[3] ^ fourth[position])
                spares[position] = limits[position] - np.int64(distance)
                most = max(most, spares[position])
            if most <= 0:
                continue
            _split(query, fine)
            for position in range(in_tile):  # without parts of arrays, each of which would take as long as a comparison
                if spares[position] <= 0:
                    continue
                kind = np.int64(0) if bright[images[code]] else kinds[start + position]
                fewer = min(counts[code], known_counts[start + position])
                of_candidate = max(least, scores[code, 1]) * (fewer + SHRINKS)
                of_match = min(
                    rules[kind, 0, 2] * fewer + rules[kind, 0, 3], rules[kind, 1, 2] * fewer + rules[kind, 1, 3]
                )
                both = _both(fine, fine_of_tile, position, FINE_WORDS)
                if both < min(of_candidate, of_match):  # no more can agree
                    continue
                agreement = both - 2 * _opposite(fine, fine_of_tile, position, FINE_WORDS)
                if _decides(rules[kind], agreement, both, fewer):
                    found[images[code]] = True
                    break
                if agreement > of_candidate:
                    _note(scores[code], numbers[code], agreement / (fewer + SHRINKS), start + position)
