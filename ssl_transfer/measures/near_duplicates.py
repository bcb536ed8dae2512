"""Near-duplicates: which of some images are among many known ones, by their fingerprints.

Every query is compared with every known image in all eight orientations. The Hamming distance of the coarse codes selects
candidates, and the agreement of the fine codes decides: equal minus opposite signs, as a share of the positions that count in
both codes, and of those that count in the code in which fewer do. Images of other patients agree the more, the fewer positions
count. The latter share, in 1.8 million pairs of CT phantoms: whole images reach 0.59 where 350 positions count and 0.55 where 560
do, content 0.65 where 670 do, whole images with little content 0.97 where 190 do and 0.63 where 510 do, since tables and outlines
are alike. Chest X-rays reach 0.57 where 910 do; cells and photographs stay below 0.5.
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
    by_mark,
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


# By kind of the known code: of whole images, of whole images with little content, and of content.
WHOLE = Rule(fewest=100, of_both=0.75, of_fewer=0.55, more=25)
MARKED = Rule(fewest=250, of_both=0.75, of_fewer=0.5, more=100)
CONTENT = Rule(fewest=250, of_both=0.75, of_fewer=0.485, more=120)
FARTHEST = 60  # the Hamming distance of the coarse codes of candidates is less, of 256 bits
QUERIES_AT_ONCE = 2048  # images; their codes in all orientations take 80 MB


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

    for_whole, for_content = (_in_all_orientations(queries[:, used]) for used in (FOR_WHOLE, FOR_CONTENT))
    for block in known:
        whole, content = np.moveaxis(block.reshape(-1, 2, CODE_BYTES), 1, 0)
        unmarked, marked = by_mark(whole)
        kinds = [(for_whole, unmarked, WHOLE), (for_whole, marked, MARKED), (for_content, content, CONTENT)]
        for (codes, images), of_known, rule in kinds:
            of_known = of_known[of_known.any(1)].view(np.uint64)

            def compare(share: np.ndarray, codes=codes, images=images, of_known=of_known, rule=rule) -> None:
                search(codes[share], images[share], of_known, found, FARTHEST, np.array(rule, float))

            list(threads.map(compare, np.array_split(np.arange(len(codes)), usable_cores())))


def _in_all_orientations(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of queries (m, V, CODE_BYTES) in eight orientations as 64-bit words, (q, words), and the query of each, (q,)."""
    images, used = np.nonzero(queries.any(2))
    oriented = np.stack(list(orientations(queries[images, used])), axis=1)
    return oriented.reshape(-1, CODE_BYTES).view(np.uint64), np.repeat(images, oriented.shape[1])


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
