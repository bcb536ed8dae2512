"""Yes and no in words."""

import numpy as np
import pytest

from ssl_transfer.data.truths import truths
from ssl_transfer.errors import TaskError


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ([1, 0, 1], [1, 0, 1]),
        ([1.0, 0.0, -1.0, np.nan], [1, 0, -1, -1]),
        ([True, False], [1, 0]),
        (["1", "1.0", "0", "", None, "-1"], [1, 1, 0, -1, -1, -1]),
        (["Positive", "negative", "NA", "uncertain"], [1, 0, -1, -1]),
        (["yes", "No", "TRUE", "false", "present", "absent"], [1, 0, 1, 0, 1, 0]),
        (["+", "-", "+"], [1, 0, 1]),
        (["yes", "-"], [1, -1]),
    ],
)
def test_figures_and_words_are_read(values, codes):
    found, _ = truths(values, "task x")
    assert found.dtype == np.int64 and found.tolist() == codes


def test_words_are_told_and_figures_are_not():
    assert truths(["Positive", "neg", "1", "0", "true", None], "x")[1] == {"Positive": 1, "neg": 0}


@pytest.mark.parametrize("value", [2, 0.5, "maybe", "ja", "1 of 2"])
def test_another_value_is_an_error_with_its_column(value):
    with pytest.raises(TaskError, match=rf"task x, column 'Mass': found '{value}' \(2 rows\)\. Expected 0 or 1"):
        truths([1, value, value, 0], "task x, column 'Mass'")
