"""Near-duplicates: which of some images are among many known ones, by their fingerprints.

Every query is compared with every known image in all eight orientations. The Hamming distance of the coarse codes selects
candidates, and the agreement of the fine codes decides: equal minus opposite signs, as a share of the positions that count in
both codes, and of those that count in the code in which fewer do. Images of other patients agree the more, the fewer positions
count. The latter share, in 1.8 million pairs of CT phantoms: whole images reach 0.59 where 350 positions count and 0.55 where 560
do, content 0.65 where 670 do, whole images with little content 0.97 where 190 do and 0.63 where 510 do, since tables and outlines
are alike. Chest X-rays reach 0.57 where 910 do; cells and photographs stay below 0.5.

Less is needed of copies of which noise, a window or compression has left less, in two cases. If next to no sign is opposite: of
whole images of other patients (but those with little content) 97 % of what counts in both codes seldom agrees, and then at most
0.5 of the latter share; of content 96 %, and at most 0.6. And if whole and content agree together: where that of the whole is
above 0.6, that of both reaches 0.54, and that of copies mostly exceeds 0.6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ssl_transfer.measures.fingerprint import (
    COARSE,
    COARSE_BYTES,
    CODE_BYTES,
    FINE_BYTES,
    FOR_CONTENT,
    FOR_WHOLE,
    GRID,
    without_marks,
)
from ssl_transfer.processes import usable_cores


class Rule(NamedTuple):
    """When two codes belong to one image.

    Attributes:
        fewest: Positions that must count in either code.
        of_both: Least agreement, as a share of the positions that count in both codes.
        of_fewer: Least agreement, as a share of those that count in the code in which fewer do, ...
        more: ... and so many more positions.
    """

    fewest: int
    of_both: float
    of_fewer: float
    more: float


class Joint(NamedTuple):
    """When two images are one by their codes of the whole and of the content, in one orientation, together.

    Attributes:
        fewest: Positions that must count in each code.
        of_whole: Least agreement of the whole, as a share of those that count in the code in which fewer do.
        of_content: Least agreement of the content.
        of_all: Least agreement of both together.
    """

    fewest: int
    of_whole: float
    of_content: float
    of_all: float


# By kind of the known code: of whole images, of whole images with little content, and of content. One of two rules must hold:
# most of what counts agrees, or less of it, but next to nothing is opposite, as where noise or compression have taken details.
WHOLE = (Rule(100, 0.75, of_fewer=0.55, more=25), Rule(100, 0.97, of_fewer=0.5, more=30))
MARKED = (Rule(250, 0.75, of_fewer=0.5, more=100),) * 2
CONTENT = (Rule(250, 0.75, of_fewer=0.485, more=120), Rule(150, 0.96, of_fewer=0.5, more=75))
JOINT = Joint(fewest=100, of_whole=0.6, of_content=0.4, of_all=0.56)
FARTHEST = 65  # the Hamming distance of the coarse codes of candidates is less, of 256 bits
QUERIES_AT_ONCE = 2048  # images; their codes in all orientations take 160 MB


def near_duplicates(queries: np.ndarray, known: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """Which images are near-duplicates of known ones.

    Args:
        queries: Codes of the images (`fingerprint.query`), uint8 (M, QUERY_CODES, CODE_BYTES).
        known: Returns the fingerprints of known images in blocks, uint8 (n, FINGERPRINT_BYTES); called for every 2,048 queries.

    Returns:
        bool (M,); False for an image without content.
    """
    found = np.zeros(len(queries), bool)
    with ThreadPoolExecutor(usable_cores()) as threads:
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            _search(queries[part], known(), found[part], threads)
    return found


def has_content(queries: np.ndarray) -> np.ndarray:
    """Which images have a code, bool (M,), of queries (M, V, CODE_BYTES)."""
    return np.asarray(queries.any((1, 2)))


def _search(queries: np.ndarray, known: Iterable[np.ndarray], found: np.ndarray, threads: ThreadPoolExecutor) -> None:
    """Note in `found`, bool (m,), which queries (m, V, CODE_BYTES) match a known image."""
    from ssl_transfer.measures.code_search import search  # numba takes a while to load

    sides = [_in_all_orientations(queries[:, used]) for used in (FOR_WHOLE, FOR_CONTENT)]
    ends = [np.searchsorted(images, np.arange(len(queries) + 1)) for _, images in sides]
    rules = [np.array(kinds, float) for kinds in ((WHOLE, MARKED), (CONTENT,))]
    joint = np.array(JOINT, float)
    for block in known:
        codes, marked = without_marks(block.reshape(-1, 2, CODE_BYTES))
        for side, (of_side, images) in enumerate(sides):
            has_code, other = codes[:, side].any(1), 1 - side
            kinds = marked[has_code].astype(np.int64) * other  # codes of the content are of one kind
            compared = codes[has_code].view(np.uint64), kinds, side, found, FARTHEST, rules[side], joint
            given = sides[other][0], ends[other], *compared

            def compare(part: np.ndarray, of_side=of_side, images=images, given=given) -> None:
                search(of_side[part], images[part], *given)

            list(threads.map(compare, np.array_split(np.arange(len(of_side)), usable_cores())))


def _in_all_orientations(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of queries (m, V, CODE_BYTES) in eight orientations as 64-bit words, (q, 8, words), and the query of each, (q,)."""
    images, used = np.nonzero(queries.any(2))
    oriented = np.stack(list(orientations(queries[images, used])), axis=1)
    return oriented.view(np.uint64), images


def orientations(codes: np.ndarray) -> Iterable[np.ndarray]:
    """Codes (n, CODE_BYTES) of the images as they are, mirrored, and rotated by 90, 180 and 270 degrees: eight arrays."""
    ends = [COARSE_BYTES, COARSE_BYTES + FINE_BYTES]
    parts = [
        np.unpackbits(part, axis=1).reshape(len(codes), side, side)
        for part, side in zip(np.split(codes, ends, axis=1), (COARSE, GRID, GRID), strict=True)
    ]
    for quarters in range(4):
        for mirrored in (False, True):
            turned = [np.rot90(part[:, :, ::-1] if mirrored else part, quarters, (1, 2)) for part in parts]
            yield np.concatenate(
                [np.packbits(part.reshape(len(codes), part.shape[1] ** 2), axis=1) for part in turned], axis=1
            )
