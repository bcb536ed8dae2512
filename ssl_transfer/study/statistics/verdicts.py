"""Verdicts on a contrast, in the words of `contrasts.csv`."""

from __future__ import annotations

import numpy as np

BETTER, WORSE, EQUIVALENT, BOTH = "better", "worse", "equivalent", "equivalent and different"
NOT_DECIDED = "not decided"
WITHIN_MARGIN = (EQUIVALENT, BOTH)


def verdicts(different: np.ndarray, equivalent: np.ndarray, improved: np.ndarray) -> np.ndarray:
    """The verdict of each contrast: object array of the shape of the arguments.

    Args:
        different: Whether the difference from 0 is significant.
        equivalent: Whether both one-sided tests at the margin are.
        improved: Whether the first side has the better mean.
    """
    cases = [different & equivalent, equivalent, different & improved, different]
    return np.select(cases, [BOTH, EQUIVALENT, BETTER, WORSE], NOT_DECIDED).astype(object)
