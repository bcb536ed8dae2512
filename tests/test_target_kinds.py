"""Kinds of target: one table says what follows from each, and everything that depends on a kind is in it."""

import re

import numpy as np
import pandas
import pytest
from support.command_line import ROOT

from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.measures.metrics import METRICS
from ssl_transfer.protocols import PROTOCOLS
from ssl_transfer.target_kinds import KINDS


def test_protocols_score_these_kinds_and_metrics_are_of_them():
    assert {kind for protocol in PROTOCOLS.values() for kind in protocol.task_kinds} == set(KINDS)
    measured = {kind for metric in METRICS.values() for kind in metric.kinds} - {"external"}
    assert measured == {kind for target in KINDS.values() for kind in target.metrics}


@pytest.mark.parametrize("kind", [kind for kind, target in KINDS.items() if target.number])
def test_the_number_of_a_kind_is_the_column_of_its_predictions(kind):
    truth = {"label": [4.0, 5.0]} if kind == "regression" else {"time": [4.0, 5.0], "event": [1, 0]}
    cases = CasePredictions(
        pandas.DataFrame({"row": [0, 1], "patient": None, **truth, KINDS[kind].number: [0.5, 0.25]})
    )
    assert cases.kind == kind and np.array_equal(cases.predicted, [0.5, 0.25])


def test_kinds_without_classes_are_listed_nowhere_else():
    both = re.compile(r"[\(\[{]\"(regression\", \"survival|survival\", \"regression)\"[\)\]}]")
    assert not [path for path in (ROOT / "ssl_transfer").rglob("*.py") if both.search(path.read_text())]
