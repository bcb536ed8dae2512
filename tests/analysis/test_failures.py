"""Agreement of errors: against counts by hand, at its extremes, and over patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ssl_transfer.analysis.failures import shared_failures
from ssl_transfer.errors import UsageError


def predictions(right, patients=None, first_row=0) -> pd.DataFrame:
    """Of two classes, right where told."""
    right = np.asarray(right, bool)
    label = np.where(np.arange(len(right)) % 2, "b", "a")
    score = np.where(right == (label == "a"), 0.9, 0.2)
    rows = np.arange(first_row, first_row + len(right))
    patients = [None] * len(right) if patients is None else patients
    return pd.DataFrame({"row": rows, "patient": patients, "label": label, "score_a": score, "score_b": 1 - score})


def test_the_shares_and_kappa_are_those_counted_by_hand():
    # Right: 1110 0101 and 1100 0111: both wrong in 2 of 8; they agree in 6 of 8; expected 5/8 · 5/8 + 3/8 · 3/8 = 34/64.
    found = shared_failures(predictions([1, 1, 1, 0, 0, 1, 0, 1]), predictions([1, 1, 0, 0, 0, 1, 1, 1]))
    assert found.wrong == pytest.approx((3 / 8, 3 / 8)) and found.both_wrong == pytest.approx(2 / 8)
    assert found.by_chance == pytest.approx(9 / 64)
    assert found.consistency == pytest.approx((6 / 8 - 34 / 64) / (1 - 34 / 64))


def test_the_same_errors_are_consistent_opposite_ones_are_not_and_independent_ones_are_neither():
    draw = np.random.default_rng(0)
    right = draw.random(4000) < 0.7
    assert shared_failures(predictions(right), predictions(right), 50).consistency == pytest.approx(1)
    half = np.arange(100) % 4 < 2
    assert shared_failures(predictions(half), predictions(~half), 50).consistency == pytest.approx(-1)
    independent = shared_failures(predictions(right), predictions(draw.random(4000) < 0.7), 200)
    assert independent.interval[0] < 0 < independent.interval[1] and abs(independent.consistency) < 0.06


def test_patients_are_resampled_as_one():
    draw = np.random.default_rng(1)
    right, other = (np.repeat(draw.random(20) < 0.6, 50) for _ in range(2))
    alone = shared_failures(predictions(right), predictions(other), 300)
    patients = np.repeat([f"p{i}" for i in range(20)], 50)
    together = shared_failures(predictions(right, patients), predictions(other, patients), 300)
    assert (alone.patients, together.patients) == (1000, 20) and alone.consistency == together.consistency
    assert np.diff(together.interval)[0] > 3 * np.diff(alone.interval)[0]


def test_only_images_that_both_have_scored_count():
    found = shared_failures(predictions([1] * 10), predictions([1] * 10, first_row=4), 10)
    assert found.n == 6 and np.isnan(found.consistency) and np.isnan(found.interval[0])  # nobody errs


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (predictions([1] * 4, first_row=100), "no image in common"),
        (predictions([1] * 4).assign(label="b"), "disagree on labels"),
        (pd.DataFrame({"case": [1], "dice": [0.5]}), "second table has no row, label"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(other, said):
    with pytest.raises(UsageError, match=said):
        shared_failures(predictions([1, 0, 1, 1]), other)
