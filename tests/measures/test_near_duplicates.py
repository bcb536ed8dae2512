"""Near-duplicates: the compiled search finds what a naive count of signs finds, for codes on both sides of each threshold."""

import json
import subprocess
import sys

import numpy as np
import pytest
from support.command_line import ENVIRONMENT, ROOT

from ssl_transfer.measures.fingerprint import (
    COARSE,
    CODE_BYTES,
    FOR_CONTENT,
    FOR_WHOLE,
    GRID,
    MARKS,
    QUERY_CODES,
    fingerprint,
)
from ssl_transfer.measures.near_duplicates import (
    CONTENT,
    FARTHEST,
    MARKED,
    QUERIES_AT_ONCE,
    WHOLE,
    near_duplicates,
    orientations,
)


def packed(coarse, signs):
    """Codes of coarse bits (n, COARSE²) and signs −1, 0, 1 (n, GRID²), uint8 (n, CODE_BYTES)."""
    return np.concatenate([np.packbits(bits, axis=-1) for bits in (coarse, signs > 0, signs < 0)], axis=-1)


def unpacked(code):
    """Coarse bits (COARSE, COARSE) and signs (GRID, GRID) of a code."""
    bits = np.unpackbits(code).astype(int)
    coarse, bright, dark = np.split(bits, [COARSE**2, COARSE**2 + GRID**2])
    return coarse.reshape(COARSE, COARSE), (bright - dark).reshape(GRID, GRID)


def naive(query, known, rule):
    """Whether two codes match by a rule, in one of eight orientations, by counts of their positions."""
    if not query.any() or not known.any():
        return False
    (coarse, signs), (other_coarse, other_signs) = unpacked(query), unpacked(known)
    for quarters in range(4):
        for mirror in (1, -1):
            turned, turned_signs = (np.rot90(part[:, ::mirror], quarters) for part in (coarse, signs))
            both = (turned_signs != 0) & (other_signs != 0)
            agreement = (turned_signs * other_signs).sum()
            fewer = min((turned_signs != 0).sum(), (other_signs != 0).sum())
            near = (turned != other_coarse).sum() < FARTHEST and fewer >= rule.fewest
            enough = agreement >= rule.of_fewer * fewer + rule.more
            if near and enough and agreement >= rule.of_both * both.sum():
                return True
    return False


def turned(coarse, signs, draw):
    """Both in one random orientation, flat."""
    quarters, mirror = draw.integers(4), draw.choice([1, -1])
    parts = (coarse.reshape(COARSE, COARSE), signs.reshape(GRID, GRID))
    return [np.rot90(part[:, ::mirror], quarters).reshape(-1) for part in parts]


def near_a_threshold(draw, kind, rule):
    """A code, and a turned one that differs from it by about as much as one of the thresholds allows."""
    coarse, counts = draw.integers(0, 2, COARSE**2), int(draw.integers(400, 1400))
    if kind == "fewest":
        counts = rule.fewest + int(draw.integers(-2, 3))
    signs = np.zeros(GRID**2, int)
    positions = draw.permutation(np.arange(1, GRID**2))[:counts]  # the first position marks a code
    signs[positions] = draw.choice([-1, 1], counts)
    other_coarse, other = coarse.copy(), signs.copy()
    if kind == "farthest":
        other_coarse[draw.permutation(COARSE**2)[: FARTHEST + int(draw.integers(-2, 2))]] ^= 1
    if kind == "of both":  # opposite signs, two per unit of agreement
        other[positions[: round(counts * (1 - rule.of_both) / 2) + int(draw.integers(-2, 3))]] *= -1
    if kind == "of fewer":  # positions that count in one code alone; as many others count in the other
        moved = round(counts * (1 - rule.of_fewer) - rule.more) + int(draw.integers(-2, 3))
        other[positions[:moved]] = 0
        other[np.setdiff1d(np.arange(1, GRID**2), positions)[:moved]] = 1
    return packed(coarse, signs), packed(*turned(other_coarse, other, draw))


@pytest.mark.parametrize("rule", [WHOLE, MARKED, CONTENT], ids=["whole", "marked", "content"])
@pytest.mark.parametrize("kind", ["farthest", "fewest", "of both", "of fewer"])
def test_the_search_finds_what_a_naive_count_finds_at_each_threshold(kind, rule):
    draw, side = np.random.default_rng(0), int(rule is CONTENT)
    pairs = [near_a_threshold(draw, kind, rule) for _ in range(40)]
    queries = np.zeros((len(pairs), QUERY_CODES, CODE_BYTES), np.uint8)
    known = np.zeros((len(pairs), 2, CODE_BYTES), np.uint8)
    for number, (query, code) in enumerate(pairs):
        queries[number, draw.choice([FOR_WHOLE, FOR_CONTENT][side])], known[number, side] = query, code
        if rule is MARKED:
            known[number, side, MARKS] |= 0x80
    expected = [naive(query, code, rule) for query, code in zip(queries.max(1), known[:, side], strict=True)]
    assert 3 < sum(expected) < 37
    assert near_duplicates(queries, lambda: known.reshape(len(known), -1)).tolist() == expected


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
    assert np.flatnonzero(near_duplicates(queries, lambda: [blocks[:300], blocks[300:]])).tolist() == planted


def test_codes_of_the_whole_and_of_the_content_are_compared_with_their_own_kind_alone():
    draw = np.random.default_rng(2)
    code = packed(draw.integers(0, 2, COARSE**2), draw.integers(-1, 2, GRID**2))
    for side, used in enumerate((FOR_WHOLE, FOR_CONTENT)):
        queries, known = np.zeros((QUERY_CODES, QUERY_CODES, CODE_BYTES), np.uint8), np.zeros((2, CODE_BYTES), np.uint8)
        queries[range(QUERY_CODES), range(QUERY_CODES)] = known[side] = code
        found = near_duplicates(queries, lambda known=known: [known.reshape(1, -1)])
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
    assert answer["recall"] > 0.96 and min(answer["recall_of"].values()) > 0.85  # some 77 to 100 copies of each change
    assert (answer["false"], answer["pairs"] > 1_000_000) == (0, True)
