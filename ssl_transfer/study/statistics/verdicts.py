"""Verdicts on a contrast, in the words of `contrasts.csv`."""

from __future__ import annotations

import numpy as np

BETTER, WORSE, EQUIVALENT, BOTH = "better", "worse", "equivalent", "equivalent and different"
NOT_DECIDED = "not decided"
WITHIN_MARGIN = (EQUIVALENT, BOTH)
NOT = "not "  # begins the expectation that a side is not better, or not worse
REPLICATED, CONTRARY, UNDECIDED = "replicated", "contrary", "undecided"  # what a study says of a published claim


def verdicts(different: np.ndarray, equivalent: np.ndarray, improved: np.ndarray) -> np.ndarray:
    """The verdict of each contrast: object array of the shape of the arguments.

    Args:
        different: Whether the difference from 0 is significant.
        equivalent: Whether both one-sided tests at the margin are.
        improved: Whether the first side has the better mean.
    """
    cases = [different & equivalent, equivalent, different & improved, different]
    return np.select(cases, [BOTH, EQUIVALENT, BETTER, WORSE], NOT_DECIDED).astype(object)


def confidence_beside(
    different: np.ndarray, equivalent: np.ndarray, level: np.ndarray, level_equivalent: np.ndarray
) -> np.ndarray:
    """Confidence of the interval that agrees with a verdict.

    A test for a difference at a level agrees with the interval of confidence 1 − level, which excludes 0 exactly if the test
    rejects. Two one-sided tests at a level agree with that of confidence 1 − 2 · level, which lies within the margin exactly if
    both reject. Where a difference and equivalence are found, the narrower of the two intervals agrees with both.

    Args:
        different: Whether the difference from 0 is significant.
        equivalent: Whether both one-sided tests at the margin are.
        level: Of the test for a difference.
        level_equivalent: Of the test of equivalence.

    References:
        Schuirmann 1987, https://doi.org/10.1007/BF01068419.
    """
    both = np.maximum(level, 2 * np.asarray(level_equivalent))
    return 1 - np.where(equivalent, np.where(different, both, 2 * np.asarray(level_equivalent)), level)


def replication(verdict: str, expect: str) -> str:
    """What a verdict says of a claim: `replicated`, `contrary`, `undecided`, or `equivalent` where a difference was claimed.

    Args:
        verdict: The verdict on side a of a contrast.
        expect: What the claim expects side a to be: `better`, `worse`, `equivalent`, `not better` or `not worse`. A side
            that is equivalent is neither.
    """
    if verdict == NOT_DECIDED:
        return UNDECIDED
    if expect.startswith(NOT):
        return CONTRARY if verdict == expect.removeprefix(NOT) else REPLICATED
    if expect == EQUIVALENT:
        return REPLICATED if verdict in WITHIN_MARGIN else CONTRARY
    if verdict in WITHIN_MARGIN:
        return EQUIVALENT
    return REPLICATED if verdict == expect else CONTRARY
