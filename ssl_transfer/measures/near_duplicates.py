"""Near-duplicates: which of some images are among many known ones, by their fingerprints.

Every query is compared with every known image in all eight orientations. The Hamming distance of the coarse codes selects
candidates, and the agreement of the fine codes decides: equal minus opposite signs, as a share of the positions that count in
both codes, and of those that count in the code in which fewer do. Images of other patients agree the more, the fewer positions
count. The latter share, in 5.5 million pairs of CT phantoms: whole images reach 0.56 where 450 positions count, content 0.63
where 650 do, whole images with little content 0.97 where 190 do and 0.72 where 510 do, since tables and outlines are alike. Chest
X-rays reach 0.57 where 910 do; cells and photographs stay below 0.5. Less is needed of copies of which noise, a window or
compression has left less, if next to no sign is opposite.

If nothing matches, the box of the content of the query is moved until it agrees most with each of the known images that are most
likely (`alignment`): copies mostly exceed 0.65 then, with at most 3 % of opposite signs, and other patients stay below 0.62.
Noise and compression leave less to the content of a copy, 0.5, but then the whole agrees, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

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
CONTENT = (Rule(250, 0.75, of_fewer=0.485, more=120), Rule(150, 0.96, of_fewer=0.5, more=75))
ALIGNED = Rule(250, 0.95, of_fewer=0.6, more=30)  # of content whose box was moved
TOGETHER = Together(of_fewer=0.5, score=1.12)
LIKELY = (0.5, 0.4)  # least scores of candidates, by the codes of the whole, and of the content
MOST = 3  # candidates of an image, by their scores
FARTHEST = 65  # the Hamming distance of coarse codes that may match is less, of 256 bits, ...
# ... and, below so many positions, for whole images without a mark, most of whose bits are noise
FARTHEST_OF_FEW = (85, 500)
RULES = [WHOLE, MARKED, CONTENT, ALIGNED, TOGETHER, LIKELY, MOST, FARTHEST, FARTHEST_OF_FEW]
QUERIES_AT_ONCE = 2048  # images; their codes in all orientations take 160 MB

Known = Callable[[], Iterable[np.ndarray]]


class _Likely(NamedTuple):
    """Pairs of an image and a known one that it may be a copy of.

    Attributes:
        images: Number of the image, int64 (p,), ascending.
        scores: How well codes of them agree, (p,); see `code_search.Candidates`.
        wholes: The score if it is that of the codes of the whole, else 0, (p,).
        codes: Code of the content of the known image, uint8 (p, CODE_BYTES).
    """

    images: np.ndarray
    scores: np.ndarray
    wholes: np.ndarray
    codes: np.ndarray


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
    with ThreadPoolExecutor(usable_cores()) as threads:
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            likely = _search(queries[part], known(), found[part], threads)
            for number in np.unique(likely.images).tolist():
                if not found[start + number]:
                    found[start + number] = _verified(image(start + number), likely, number)
    return found


def _verified(image: np.ndarray, likely: _Likely, number: int) -> bool:
    """Whether the content of an image, aligned with that of one of its candidates, agrees with it."""
    starts = [(content, content.signs()) for content in contents(image)]
    pairs = slice(*np.searchsorted(likely.images, [number, number + 1]).tolist())
    for whole, code in zip(likely.wholes[pairs].tolist(), likely.codes[pairs], strict=True):
        content = aligned(starts, code)
        if ALIGNED.holds(*content) or TOGETHER.holds(content, whole):
            return True
    return False


def has_content(queries: np.ndarray) -> np.ndarray:
    """Which images have a code, bool (M,), of queries (M, V, CODE_BYTES)."""
    return np.asarray(queries.any((1, 2)))


def _search(
    queries: np.ndarray, known: Iterable[np.ndarray], found: np.ndarray, threads: ThreadPoolExecutor
) -> _Likely:
    """Note in `found`, bool (m,), which queries (m, V, CODE_BYTES) match a known image; and return candidates of the others."""
    from ssl_transfer.measures.code_search import Candidates, search  # numba takes a while to load

    queries, bright = without_marks(queries)
    sides = [_in_all_orientations(queries[:, used]) for used in (FOR_WHOLE, FOR_CONTENT)]
    rules = [np.array(kinds, float) for kinds in ((WHOLE, MARKED), (CONTENT,))]
    farthest = [np.array((FARTHEST, *few), np.int64) for few in (FARTHEST_OF_FEW, (FARTHEST, 0))]
    none = np.zeros(0, int)
    likely = [_Likely(none, none, none, np.zeros((0, CODE_BYTES), np.uint8))]
    for block in known:
        codes, marked = without_marks(block.reshape(-1, 2, CODE_BYTES))
        for side, (of_side, images) in enumerate(sides):
            has_code = np.flatnonzero(codes[:, side].any(1))
            kinds = marked[has_code].astype(np.int64) * (1 - side)  # codes of the content are of one kind
            given = (
                codes[has_code, side].view(np.uint64),
                kinds,
                bright,
                found,
                farthest[side],
                rules[side],
                LIKELY[side],
            )
            best = Candidates.none(len(images))

            def compare(part: slice, of_side=of_side, images=images, given=given, best=best) -> None:
                search(of_side[part], images[part], *given, *(values[part] for values in best))

            list(threads.map(compare, _parts(len(images))))
            some = np.flatnonzero(best.scores)
            contents_of = codes[has_code[best.numbers[some]], 1]
            likely.append(_Likely(images[some], best.scores[some], best.scores[some] * (1 - side), contents_of))
        likely = [_most_likely(likely)]
    return likely[0]


def _most_likely(parts: list[_Likely]) -> _Likely:
    """Of the pairs of each image the best `MOST` whose known images have content, each known image once."""
    pairs = _Likely(*(np.concatenate(values) for values in zip(*parts, strict=True)))
    order = np.lexsort((-pairs.scores, pairs.images))
    taken: dict[int, dict[bytes, int]] = {}
    for number in order[pairs.codes[order].any(1)].tolist():
        known = taken.setdefault(int(pairs.images[number]), {})
        if len(known) < MOST:
            known.setdefault(pairs.codes[number].tobytes(), number)
    kept = [number for known in taken.values() for number in known.values()]
    return _Likely(*(values[kept] for values in pairs))


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
