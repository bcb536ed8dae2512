"""Near-duplicates: which of some images are among many known ones, by their fingerprints.

Every query is compared with every known image in all eight orientations. The Hamming distance of the coarse codes selects
candidates (FAISS, exhaustive), and the agreement of the fine codes decides. Measured on packs of chest X-rays, CT, ultrasound and
cells of 50 to 128 px and on phantoms: of the positions that count in both codes, copies agree by 0.84 to 1; of those that count
in either code, by 0.55 to 1. Images of other patients reach 0.98 or 0.53, but not both.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ssl_transfer.measures.fingerprint import COARSE, COARSE_BYTES, CODE_BYTES, FINE_BYTES, FOR_CONTENT, FOR_WHOLE, GRID

# Two codes belong to one image from these on: equal minus opposite signs, of the positions that count in both codes, and of those
# that count in the code in which fewer do. Cells on a dark background fail the second, bodies of one region the first.
OF_BOTH, OF_FEWER = 0.84, 0.55
FEWEST = 100  # positions that must count in either code
FARTHEST = 84  # the Hamming distance of the coarse codes of candidates is less, of 256 bits
MOST_CANDIDATES = 2_000_000  # of the queries at once; of more, the nearest are compared
QUERIES_AT_ONCE, PAIRS_AT_ONCE = 512, 65_536
BITS = np.array([bin(value).count("1") for value in range(256)], np.uint8)  # NumPy before 2.0 cannot count bits


def near_duplicates(queries: np.ndarray, known: Iterable[np.ndarray]) -> np.ndarray:
    """Which images are near-duplicates of known ones.

    Args:
        queries: Codes of the images (`fingerprint.query`), uint8 (M, QUERY_CODES, CODE_BYTES).
        known: Fingerprints of the known images, in blocks, uint8 (n, FINGERPRINT_BYTES).

    Returns:
        bool (M,); False for an image without content.
    """
    found = np.zeros(len(queries), bool)
    for block in known:
        whole, content = np.moveaxis(block.reshape(len(block), 2, CODE_BYTES), 1, 0)
        for codes, used in ((whole, FOR_WHOLE), (content, FOR_CONTENT)):
            codes = codes[codes.any(1)]
            left = np.flatnonzero(~found & has_content(queries))
            for start in range(0, len(left) if len(codes) else 0, QUERIES_AT_ONCE):
                part = left[start : start + QUERIES_AT_ONCE]
                found[part] = _among(queries[part][:, list(used)], codes)
    return found


def has_content(queries: np.ndarray) -> np.ndarray:
    """Which images have a code, bool (M,), of queries (M, V, CODE_BYTES)."""
    return np.asarray(queries.any((1, 2)))


def _among(queries: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Which queries (m, V, CODE_BYTES) match one of the known codes (n, CODE_BYTES), bool (m,)."""
    import faiss

    owner, used = np.nonzero(queries.any(2))
    asked = queries[owner, used]
    index = faiss.IndexBinaryFlat(8 * COARSE_BYTES)
    index.add(np.ascontiguousarray(codes[:, :COARSE_BYTES]))
    found = np.zeros(len(queries), bool)
    for oriented in orientations(asked):
        left = np.flatnonzero(~found[owner])
        if not len(left):
            break
        coarse = np.ascontiguousarray(oriented[left, :COARSE_BYTES])
        ends, distances, positions = index.range_search(coarse, FARTHEST)
        query = np.repeat(np.arange(len(left)), np.diff(ends.astype(np.int64)))
        if len(query) > MOST_CANDIDATES:
            nearest = np.argpartition(distances, MOST_CANDIDATES)[:MOST_CANDIDATES]
            query, positions = query[nearest], positions[nearest]
        for first in range(0, len(query), PAIRS_AT_ONCE):
            pairs = slice(first, first + PAIRS_AT_ONCE)
            same = is_same(oriented[left[query[pairs]]], codes[positions[pairs]])
            found[owner[left[query[pairs][same]]]] = True
    return found


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
            yield np.concatenate([np.packbits(part.reshape(len(codes), -1), axis=1) for part in turned], axis=1)


def is_same(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which pairs of codes (n, CODE_BYTES) are those of one image, bool (n,)."""
    of_both, of_fewer, fewer = agreement(first, second)
    return (fewer >= FEWEST) & (of_both >= OF_BOTH) & (of_fewer >= OF_FEWER)


def agreement(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Agreement of pairs of codes (n, CODE_BYTES).

    Returns:
        Equal minus opposite signs as a share of the positions that count in both codes, and of those that count in the code in
        which fewer do, −1 to 1; and the number of the latter; each (n,).
    """
    (bright, dark), (other_bright, other_dark) = (
        np.split(codes[:, COARSE_BYTES:], 2, axis=1) for codes in (first, second)
    )
    equal = _count(bright & other_bright) + _count(dark & other_dark)
    opposite = _count(bright & other_dark) + _count(dark & other_bright)
    fewer = np.minimum(_count(bright | dark), _count(other_bright | other_dark))
    both = equal + opposite
    return (equal - opposite) / np.maximum(both, 1), (equal - opposite) / np.maximum(fewer, 1), fewer


def _count(bits: np.ndarray) -> np.ndarray:
    """Number of bits in each row, int64 (n,)."""
    return BITS[bits].sum(1, dtype=np.int64)
