"""Near-duplicates: the compiled search finds what a naive count of signs finds, for codes on both sides of each threshold."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage
from support.command_line import ENVIRONMENT, ROOT

from ssl_transfer.measures.alignment import Agreement, agreement, aligned, oriented
from ssl_transfer.measures.code_search import COARSE_WORDS, FINE_WORDS
from ssl_transfer.measures.fingerprint import (
    COARSE,
    CODE_BYTES,
    FOR_CONTENT,
    FOR_WHOLE,
    GRID,
    LEAST_SIDE,
    MARKS,
    QUERY_CODES,
    contents,
    fingerprint,
    query,
)
from ssl_transfer.measures.near_duplicates import (
    ALIGNED,
    CONTENT,
    FARTHEST,
    FARTHEST_OF_FEW,
    MARKED,
    QUERIES_AT_ONCE,
    TOGETHER,
    WHOLE,
    near_duplicates,
    orientations,
)


def test_the_compiled_search_reads_codes_as_they_are_made():
    assert 8 * (COARSE_WORDS + 2 * FINE_WORDS) == CODE_BYTES and 64 * COARSE_WORDS == COARSE**2


def without_content(number):
    """The image of a query whose codes alone shall decide."""
    return np.zeros((1, LEAST_SIDE, LEAST_SIDE), np.uint8)


def body(seed):
    """A made-up slice of a body in air, int16 (1, 96, 96) in HU."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    tissue = 40 + 90 * ndimage.gaussian_filter(draw.normal(size=x.shape), 2.5) / 0.11
    return np.where((x / 0.7) ** 2 + (y / 0.55) ** 2 < 1, tissue, -1000).astype(np.int16)[None]


def scene(seed):
    """A made-up photograph, uint8 (1, 96, 96): blurred, so that few of its contrasts are large."""
    draw = np.random.default_rng(seed)
    steep = ndimage.gaussian_filter(draw.normal(size=(96, 96)), 6)
    return np.clip(128 + 40 * (steep / steep.std()) ** 3 / 3, 0, 255).astype(np.uint8)[None]


def noisy(image, seed):
    return image + np.random.default_rng(seed).normal(0, 0.1 * np.ptp(image), image.shape)


def packed(coarse, signs):
    """Codes of coarse bits (n, COARSE²) and signs −1, 0, 1 (n, GRID²), uint8 (n, CODE_BYTES)."""
    return np.concatenate([np.packbits(bits, axis=-1) for bits in (coarse, signs > 0, signs < 0)], axis=-1)


def unpacked(code):
    """Coarse bits (COARSE, COARSE) and signs (GRID, GRID) of a code."""
    bits = np.unpackbits(code).astype(int)
    coarse, bright, dark = np.split(bits, [COARSE**2, COARSE**2 + GRID**2])
    return coarse.reshape(COARSE, COARSE), (bright - dark).reshape(GRID, GRID)


def compared(query, known, quarters, mirror):
    """Agreement, positions that count in both, and in the code in which fewer do, and coarse distance, in an orientation."""
    (coarse, signs), (other_coarse, other_signs) = unpacked(query), unpacked(known)
    coarse, signs = (np.rot90(part[:, ::mirror], quarters) for part in (coarse, signs))
    both = ((signs != 0) & (other_signs != 0)).sum()
    fewer = min((signs != 0).sum(), (other_signs != 0).sum())
    return (signs * other_signs).sum(), both, fewer, (coarse != other_coarse).sum()


ORIENTATIONS = [(quarters, mirror) for quarters in range(4) for mirror in (1, -1)]


def naive(query, known, rules):
    """Whether two codes match by one of some rules, in one of eight orientations, by counts of their positions."""
    few = rules is WHOLE and (unpacked(known)[1] != 0).sum() < FARTHEST_OF_FEW[1]
    farthest = FARTHEST_OF_FEW[0] if few else FARTHEST
    for orientation in ORIENTATIONS if query.any() and known.any() else ():
        agreement, both, fewer, distance = compared(query, known, *orientation)
        for rule in rules:
            enough = agreement >= rule.of_fewer * fewer + rule.more and agreement >= rule.of_both * both
            if distance < farthest and fewer >= rule.fewest and enough:
                return True
    return False


def turned(coarse, signs, quarters, mirror):
    """Both in an orientation, flat."""
    parts = (coarse.reshape(COARSE, COARSE), signs.reshape(GRID, GRID))
    return [np.rot90(part[:, ::mirror], quarters).reshape(-1) for part in parts]


def agreeing(draw, counts, agreement, opposite):
    """Coarse bits, and signs of two codes in which so many positions count, with this agreement and opposite signs."""
    first, second = np.zeros(GRID**2, int), np.zeros(GRID**2, int)
    positions = draw.permutation(np.arange(1, GRID**2))  # the first position marks a code
    both = agreement + 2 * opposite
    first[positions[:counts]] = draw.choice([-1, 1], counts)
    second[positions[:both]] = first[positions[:both]]
    second[positions[:opposite]] *= -1
    second[positions[counts : 2 * counts - both]] = 1
    return draw.integers(0, 2, COARSE**2), first, second


def near_a_threshold(draw, kind, rule, opposite):
    """A code, and a turned one that differs from it by about as much as one of the thresholds allows."""
    counts, off = int(draw.integers(400, 1100)), int(draw.integers(-2, 3))
    if kind == "fewest":
        counts = rule.fewest + off
    agreement = counts if kind in ("farthest", "fewest") else round(rule.of_fewer * counts + rule.more) + off
    wrong = round(opposite * counts)
    if kind == "of both":
        agreement = max(agreement, round(0.7 * counts))
        wrong = round(agreement * (1 / rule.of_both - 1) / 2) + off
    coarse, first, second = agreeing(draw, counts, agreement, wrong if kind.startswith("of") else 0)
    other = coarse.copy()
    if kind == "farthest":
        other[draw.permutation(COARSE**2)[: FARTHEST + int(draw.integers(-2, 2))]] ^= 1
    return packed(coarse, first), packed(*turned(other, second, draw.integers(4), draw.choice([1, -1])))


@pytest.mark.parametrize(
    ("kind", "rules", "number", "opposite"),
    [
        *(("farthest", rules, 0, 0) for rules in (WHOLE, MARKED, CONTENT)),
        *(("fewest", *binding, 0) for binding in ((WHOLE, 0), (CONTENT, 1))),
        *(("of both", rules, 0, 0) for rules in (WHOLE, MARKED, CONTENT)),
        *(("of fewer", rules, 0, 0.05) for rules in (WHOLE, MARKED, CONTENT)),
        *(("of fewer", rules, 1, 0.0) for rules in (WHOLE, CONTENT)),
    ],
)
def test_the_search_finds_what_a_naive_count_finds_at_each_threshold(kind, rules, number, opposite):
    draw, side = np.random.default_rng(0), int(rules is CONTENT)
    pairs = [near_a_threshold(draw, kind, rules[number], opposite) for _ in range(40)]
    queries = np.zeros((len(pairs), QUERY_CODES, CODE_BYTES), np.uint8)
    known = np.zeros((len(pairs), 2, CODE_BYTES), np.uint8)
    for place, (shown, code) in enumerate(pairs):
        queries[place, draw.choice([FOR_WHOLE, FOR_CONTENT][side])], known[place, side] = shown, code
        if rules is MARKED:
            known[place, side, MARKS] |= 0x80
    expected = [naive(query, code, rules) for query, code in zip(queries.max(1), known[:, side], strict=True)]
    assert 3 < sum(expected) < 37
    assert near_duplicates(queries, lambda: known.reshape(len(known), -1), without_content).tolist() == expected


def likely(draw, number):
    """A code of a whole query and of a known one that agree enough for candidates, and too little to match."""
    coarse, one, other = agreeing(draw, 500, 285, 20)
    return packed(coarse, one), packed(*turned(coarse, other, number % 4, 1))


def test_a_candidate_is_found_if_its_content_agrees_after_its_box_was_moved():
    """And the image is asked for only if the codes do not decide."""
    draw = np.random.default_rng(0)
    images = [body(seed) for seed in range(6)]
    known = np.stack([fingerprint(image).reshape(2, -1) for image in images])
    codes = np.zeros((7, QUERY_CODES, CODE_BYTES), np.uint8)
    for number in range(6):
        codes[number, 0], known[number, 0] = likely(draw, number)
    codes[6, FOR_CONTENT[1]] = known[0, 1]  # matches
    copies = {number: np.rot90(image, number, (1, 2)) for number, image in enumerate(images[:3])}
    shown = copies | {number: body(number + 100) for number in (3, 4, 5)}
    found = near_duplicates(codes, lambda: [known.reshape(6, -1)], lambda number: np.ascontiguousarray(shown[number]))
    assert found.tolist() == [True] * 3 + [False] * 3 + [True]


def test_a_noisy_copy_stands_out_where_it_resembles_no_other_image():
    """Also if the image is known twice; not if too few images are known to tell."""
    scenes = [scene(seed) for seed in range(120)]
    known = np.stack([fingerprint(image) for image in [*scenes, *scenes[:10]]])
    shown = [noisy(image, seed) for seed, image in enumerate([*scenes[:40], *map(scene, range(1000, 1040))])]
    codes = np.stack([query(image) for image in shown])
    by_codes = near_duplicates(codes, lambda: [known], without_content)
    found = near_duplicates(codes, lambda: [known], shown.__getitem__)
    assert (found >= by_codes).all() and found.sum() >= by_codes.sum() + 3 and not found[40:].any()
    assert near_duplicates(codes, lambda: [known[:50]], shown.__getitem__).sum() < found.sum()


def test_a_round_field_of_view_is_nothing_that_two_images_share():
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    tissue = [
        30 + 6 * ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=x.shape), 2) for seed in range(60)
    ]
    discs = [np.where(x**2 + y**2 < 1, values, -2000).astype(np.int16)[None] for values in tissue]
    codes = np.stack([query(image) for image in discs[:30]])
    known = np.stack([fingerprint(image) for image in discs[30:]])
    assert known.any(1).all()
    assert not near_duplicates(codes, lambda: [known], discs.__getitem__).any()


def test_whole_and_moved_content_decide_together_where_neither_does_alone():
    enough = Agreement(round(TOGETHER.of_fewer * 800) + 1, 600, 800)
    whole = TOGETHER.score - enough.share
    assert not ALIGNED.holds(*enough) and TOGETHER.holds(enough, whole + 0.01)
    assert not TOGETHER.holds(enough, whole - 0.01) and not TOGETHER.holds(enough._replace(agreement=380), 0.99)


@pytest.mark.parametrize("seed", range(3))
def test_moving_a_box_brings_copies_together_and_no_others(seed):
    image, other = body(seed), body(seed + 50)
    code = fingerprint(np.ascontiguousarray(image[:, :, ::-1]))[CODE_BYTES:]
    for shown, same in ((image, True), (other, False)):
        starts = [content.moved(np.array([1.2, 1.2, -0.8, -1.6])) for content in contents(shown)[:1]]
        moved = aligned([(content, content.signs()) for content in starts], code)
        before = max(agreement(starts[0].signs(), known).share for known in oriented(code))
        assert moved.share >= before and ALIGNED.holds(*moved) == same
        assert not same or before < 0.6


def test_random_codes_match_nothing_and_planted_ones_in_any_block_and_part_of_the_queries():
    draw = np.random.default_rng(1)
    queries = draw.integers(0, 256, (QUERIES_AT_ONCE + 50, QUERY_CODES, CODE_BYTES), np.uint8)
    queries[:, 2:] = 0
    known = draw.integers(0, 256, (700, 2, CODE_BYTES), np.uint8)
    planted = [3, QUERIES_AT_ONCE - 1, QUERIES_AT_ONCE, QUERIES_AT_ONCE + 49]
    signs = draw.integers(-1, 2, (len(planted), GRID**2))
    known[:, 0, MARKS] &= 0x7F
    queries[planted, 0] = known[[0, 299, 300, 699], 0] = packed(draw.integers(0, 2, (len(planted), COARSE**2)), signs)
    blocks = known.reshape(len(known), -1)
    assert (
        np.flatnonzero(near_duplicates(queries, lambda: [blocks[:300], blocks[300:]], without_content)).tolist()
        == planted
    )


def test_codes_of_the_whole_and_of_the_content_are_compared_with_their_own_kind_alone():
    draw = np.random.default_rng(2)
    code = packed(draw.integers(0, 2, COARSE**2), draw.integers(-1, 2, GRID**2))
    for side, used in enumerate((FOR_WHOLE, FOR_CONTENT)):
        queries, known = np.zeros((QUERY_CODES, QUERY_CODES, CODE_BYTES), np.uint8), np.zeros((2, CODE_BYTES), np.uint8)
        queries[range(QUERY_CODES), range(QUERY_CODES)] = known[side] = code
        found = near_duplicates(queries, lambda known=known: [known.reshape(1, -1)], without_content)
        assert np.flatnonzero(found).tolist() == list(used)


def test_there_are_eight_orientations_and_they_are_those_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (1, 2 * GRID, 2 * GRID), np.uint8)
    oriented = list(orientations(fingerprint(image)[None, :CODE_BYTES]))
    assert len({codes.tobytes() for codes in oriented}) == 8
    expected = unpacked(fingerprint(np.ascontiguousarray(np.rot90(image, 1, (1, 2))))[:CODE_BYTES])[1]
    assert max((unpacked(codes[0])[1] == expected).mean() for codes in oriented) > 0.95


@pytest.mark.parametrize("optimised", ["0", "3"])
def test_the_compiled_search_is_kept_for_other_processes_without_a_warning(tmp_path, optimised):
    code = "from ssl_transfer.measures.code_search import search; print(sum(search.stats.cache_hits.values()))"
    environment = {**ENVIRONMENT, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": optimised}
    for hits in ("0", "1"):
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.stdout.strip(), done.stderr) == (hits, "")


def test_a_full_disk_is_no_reason_not_to_search(tmp_path):
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
    code += "from ssl_transfer.measures.code_search import search; print(len(search.signatures))"
    environment = {**ENVIRONMENT, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("1", "")


@pytest.mark.long
def test_planted_copies_are_found_and_no_image_of_another_patient_is():
    """A tenth of the planted copies of the benchmark, and all of its pairs of other patients."""
    command = [sys.executable, str(ROOT / "benchmarks/contamination.py"), "--overlaps", "1000"]
    environment = {**ENVIRONMENT, "NUMBA_OPT": "3", "NUMBA_CACHE_DIR": ""}
    done = subprocess.run(
        [*command, "--known", "20000", "--queries", "200"], env=environment, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["recall"] > 0.98 and min(answer["recall_of"].values()) > 0.9  # some 77 to 100 copies of each change
    assert (answer["false"], answer["pairs"] > 1_000_000) == (0, True)
