"""Near-duplicates: which of some images are among many known ones, by their fingerprints.

Every query is compared with every known image in all eight orientations. The Hamming distance of the coarse codes selects
candidates, and the agreement of the fine codes decides: equal minus opposite signs, as a share of the positions that count in
both codes, and of those that count in the code in which fewer do. Images of other patients agree the more, the fewer positions
count. The latter share, in 5.5 million pairs of CT phantoms: whole images reach 0.56 where 450 positions count, content 0.63
where 650 do, whole images with little content 0.97 where 190 do and 0.72 where 510 do, since tables and outlines are alike. Chest
X-rays reach 0.57 where 910 do; cells and photographs stay below 0.5. Less is needed of copies of which noise, a window or
compression has left less, if next to no sign is opposite.

If nothing matches, an image matches that stands out among the likely ones and others (`resemblance`), as copies of photographs
with noise do. Else the box of the content of the query is moved until it agrees most with each of the known images that are most
likely (`alignment`): copies mostly exceed 0.65 then, with at most 3 % of opposite signs, and other patients stay below 0.62. Of a
copy with noise or compression, 0.5 of the content is enough if the whole agrees, too.

The border of a round field of view does not count: zoomed slices share it, whatever else they show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple
from zlib import crc32

import numpy as np

from ssl_transfer.measures.alignment import Agreement, aligned
from ssl_transfer.measures.fingerprint import (
    COARSE,
    COARSE_BYTES,
    CODE_BYTES,
    FINE_BYTES,
    FOR_CONTENT,
    FOR_WHOLE,
    GRID,
    contents,
    wholes,
    without_marks,
    without_round_borders,
)
from ssl_transfer.measures.resemblance import Outstanding, signs_of
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

    def holds(self, agreement: int, both: int, fewer: int) -> bool:
        """Whether codes agree; see `alignment.Agreement`."""
        enough = agreement >= self.of_both * both and agreement >= self.of_fewer * fewer + self.more
        return fewer >= self.fewest and enough


class Together(NamedTuple):
    """When two images are one by their codes of the whole, and of the content after alignment.

    Attributes:
        of_fewer: Least agreement of the content, as a share of the positions that count in the code in which fewer do.
        score: Least sum of the scores of whole and content.
    """

    of_fewer: float
    score: float

    def holds(self, content: Agreement, whole: float) -> bool:
        """Whether they are, by the score of the whole; 0: that is not known."""
        return content.agreement >= self.of_fewer * content.fewer and whole > 0 and whole + content.share >= self.score


# By kind of the known code: of whole images, of whole images with little content, and of content. One of two rules must hold:
# most of what counts agrees, or less of it, but next to nothing is opposite, as where noise or compression have taken details.
WHOLE = (Rule(100, 0.75, of_fewer=0.55, more=25), Rule(100, 0.96, of_fewer=0.48, more=20))
MARKED = (Rule(250, 0.75, of_fewer=0.5, more=130),) * 2
CONTENT = (Rule(250, 0.75, of_fewer=0.485, more=125), Rule(150, 0.96, of_fewer=0.5, more=75))
ALIGNED = Rule(250, 0.95, of_fewer=0.6, more=30)  # of content whose box was moved
TOGETHER = Together(of_fewer=0.5, score=1.17)
OUTSTANDING = Outstanding(150, least=0.5, few=60, others=0.3)  # of the whole, among the candidates and a reference
LIKELY = (0.5, 0.4)  # least scores of candidates that are aligned, by the codes of the whole, and of the content
MOST = 3  # of these, by their scores
LEAST, MOST_COMPARED = 0.25, 8  # score of candidates that may stand out, and their number
REFERENCE = 512  # known images, of the first block, among which they have to
FARTHEST = 65  # the Hamming distance of coarse codes that may match is less, of 256 bits, ...
# ... and, below so many positions, for whole images without a mark, most of whose bits are noise
FARTHEST_OF_FEW = (85, 500)
RULES = [WHOLE, MARKED, CONTENT, ALIGNED, TOGETHER, OUTSTANDING]
RULES += [LIKELY, MOST, LEAST, MOST_COMPARED, REFERENCE, FARTHEST, FARTHEST_OF_FEW]
QUERIES_AT_ONCE = 2048  # images; their codes in all orientations take 160 MB

Known = Callable[[], Iterable[np.ndarray]]


class _Likely(NamedTuple):
    """Pairs of an image and a known one that it may be a copy of.

    Attributes:
        images: Number of the image, int64 (p,), ascending.
        scores: How well codes of them agree, (p,), descending for each image; see `code_search.Candidates`.
        sides: Which codes these are, 0: of the whole, 1: of the content, (p,).
        codes: Codes of the known image, without marks, uint8 (p, 2, CODE_BYTES).
    """

    images: np.ndarray
    scores: np.ndarray
    sides: np.ndarray
    codes: np.ndarray

    @classmethod
    def none(cls) -> _Likely:
        return cls(np.zeros(0, int), np.zeros(0), np.zeros(0, int), np.zeros((0, 2, CODE_BYTES), np.uint8))

    def chosen(self, pairs: slice | np.ndarray) -> _Likely:
        return _Likely(*(values[pairs] for values in self))

    def joined(self, other: _Likely) -> _Likely:
        """The best of both; equal codes are one known image."""
        pairs = _Likely(*(np.concatenate(values) for values in zip(self, other, strict=True)))
        known = np.array([crc32(code.tobytes()) for code in pairs.codes], np.int64)
        return pairs.chosen(_best(pairs.images, pairs.scores, known))


def near_duplicates(queries: np.ndarray, known: Known, image: Callable[[int], np.ndarray]) -> np.ndarray:
    """Which images are near-duplicates of known ones.

    Args:
        queries: Codes of the images (`fingerprint.query`), uint8 (M, QUERY_CODES, CODE_BYTES).
        known: Returns the fingerprints of known images in blocks, uint8 (n, FINGERPRINT_BYTES); called for every 2,048 queries.
        image: Returns the image (C, H, W) of a query by its number; asked for those that codes alone do not decide.

    Returns:
        bool (M,); False for an image without content.
    """
    found = np.zeros(len(queries), bool)
    with ThreadPoolExecutor(usable_cores()) as threads, ThreadPoolExecutor(1) as verifier:
        verifications = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            likely, reference = _search(queries[part], known(), found[part], threads)
            # Beside the search of the next part, which leaves Python to others.
            verification = verifier.submit(
                _verify, lambda number, start=start: image(start + number), found[part], likely, reference
            )
            verifications.append(verification)
        for verification in verifications:
            verification.result()
    return found


def _verify(image: Callable[[int], np.ndarray], found: np.ndarray, likely: _Likely, reference: np.ndarray) -> None:
    """Note in `found`, bool (m,), which of the images that have candidates and are not decided are near-duplicates."""
    for number in np.unique(likely.images).tolist():
        if not found[number]:
            pairs = slice(*np.searchsorted(likely.images, [number, number + 1]).tolist())
            found[number] = _verified(image(number), likely.chosen(pairs), reference)


def _verified(image: np.ndarray, likely: _Likely, reference: np.ndarray) -> bool:
    """Whether one of the candidates of an image stands out, or its content, aligned with that of one, agrees with it."""
    stands_out = OUTSTANDING.holds(wholes(image), signs_of(likely.codes[:, 0]), reference)
    return stands_out or _agrees_aligned(image, likely)


def _agrees_aligned(image: np.ndarray, likely: _Likely) -> bool:
    with_content = likely.codes[:, 1].any(1) & (likely.scores >= np.array(LIKELY)[likely.sides])
    candidates = likely.chosen(np.flatnonzero(with_content)[:MOST])
    starts = [(content, content.signs()) for content in contents(image)] if len(candidates.images) else []
    for score, side, codes in zip(candidates.scores.tolist(), candidates.sides.tolist(), candidates.codes, strict=True):
        content = aligned(starts, codes[1])
        if ALIGNED.holds(*content) or TOGETHER.holds(content, whole=0 if side else score):
            return True
    return False


def has_content(queries: np.ndarray) -> np.ndarray:
    """Which images have a code, bool (M,), of queries (M, V, CODE_BYTES)."""
    return np.asarray(queries.any((1, 2)))


def _search(
    queries: np.ndarray, known: Iterable[np.ndarray], found: np.ndarray, threads: ThreadPoolExecutor
) -> tuple[_Likely, np.ndarray]:
    """Note in `found`, bool (m,), which queries (m, V, CODE_BYTES) match a known image.

    Returns:
        Candidates of the others; and signs of `REFERENCE` whole known images, (m, GRID²).
    """
    from ssl_transfer.measures.code_search import Candidates, search  # numba takes a while to load

    queries, bright = without_marks(queries)
    sides = [_in_all_orientations(queries[:, used]) for used in (FOR_WHOLE, FOR_CONTENT)]
    rules = [np.array(kinds, float) for kinds in ((WHOLE, MARKED), (CONTENT,))]
    farthest = [np.array((FARTHEST, *few), np.int64) for few in (FARTHEST_OF_FEW, (FARTHEST, 0))]
    likely, reference = _Likely.none(), np.zeros((0, GRID * GRID), np.float32)
    for block in known:
        codes = block.reshape(-1, 2, CODE_BYTES)
        prepared = zip(*threads.map(_prepared, (codes[part] for part in _parts(len(codes)))), strict=True)
        codes, marked = (np.concatenate(parts) for parts in prepared)
        if not len(reference):
            reference = signs_of(codes[np.unique(np.linspace(0, len(codes) - 1, REFERENCE).astype(int)), 0])
        for side, (of_side, images) in enumerate(sides):
            has_code = np.flatnonzero(codes[:, side].any(1))
            kinds = marked[has_code].astype(np.int64) * (1 - side)  # codes of the content are of one kind
            given = (codes[has_code, side].view(np.uint64), kinds, bright, found, farthest[side], rules[side], LEAST)
            best = Candidates.none(len(images))

            def compare(part: slice, of_side=of_side, images=images, given=given, best=best) -> None:
                search(of_side[part], images[part], *given, *(values[part] for values in best))

            list(threads.map(compare, _parts(len(images))))
            some, place = np.nonzero(best.scores)
            scores, numbers = best.scores[some, place], has_code[best.numbers[some, place]]
            best_of = _best(images[some], scores, numbers)
            of_block = _Likely(images[some], scores, np.full(len(some), side), numbers).chosen(best_of)
            likely = likely.joined(of_block._replace(codes=codes[of_block.codes]))
    return likely, reference


def _prepared(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of known images, uint8 (n, 2, CODE_BYTES), as they are compared; and which had a mark, bool (n,)."""
    codes, marked = without_marks(codes)
    return without_round_borders(codes), marked


def _best(images: np.ndarray, scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which pairs are among the best `MOST_COMPARED` of each image, each known image once; by image, and score.

    Args:
        images, scores: Of each pair, (p,).
        known: What identifies its known image, int64 (p,).
    """
    order = np.lexsort((-scores, known, images))
    repeated = (np.diff(images[order], prepend=-1) == 0) & (np.diff(known[order], prepend=0) == 0)
    order = order[~repeated]
    order = order[np.lexsort((-scores[order], images[order]))]
    firsts = np.searchsorted(images[order], images[order])
    return order[np.arange(len(order)) - firsts < MOST_COMPARED]


def _parts(count: int) -> list[slice]:
    """A part of some codes for each core."""
    ends = np.linspace(0, count, usable_cores() + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _in_all_orientations(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of queries (m, V, CODE_BYTES) in eight orientations as 64-bit words, (q, 8, words), and the query of each, (q,)."""
    images, used = np.nonzero(queries.any(2))
    oriented = np.stack(list(orientations(queries[images, used])), axis=1)
    return oriented.view(np.uint64), np.ascontiguousarray(images)


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
