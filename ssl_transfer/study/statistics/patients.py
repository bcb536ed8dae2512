"""Contrasts with patients as the unit: would other patients give the same difference between these trained models?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from ssl_transfer.study.statistics.nested import patient_bootstrap
from ssl_transfer.study.table import CELL

PATIENT_COLUMNS = ["task", "a", "b", "metric", "difference", "ci_low", "ci_high", "n_cases", "n_patients"]
# A cell (columns of `CELL` but the metric, and `pretraining`) -> test cases of its runs, seeds averaged: columns patient and
# score by case, `attrs["metric"]` naming the score; None if there are none.
CaseScores = Callable[[Mapping[str, Any]], pd.DataFrame | None]


def patient_contrasts(pairs: pd.DataFrame, case_scores: CaseScores) -> pd.DataFrame:
    """Compare the arms of each contrast case by case, resampling patients.

    Args:
        pairs: Rows of `statistics.contrasts`.
        case_scores: Scores of the test cases of an arm in a cell.

    Returns:
        `PATIENT_COLUMNS`, one row for each pair whose arms both have scored cases.
    """
    cells = [{name: pair[name] for name in CELL if name != "metric"} for pair in pairs.to_dict("records")]
    scores: dict[tuple, pd.DataFrame | None] = {}
    rows = []
    for cell, a, b in zip(cells, pairs["a"], pairs["b"], strict=True):
        sides = []
        for arm in (a, b):
            key = (*cell.values(), arm)
            if key not in scores:
                scores[key] = case_scores({**cell, "pretraining": arm})
            sides.append(scores[key])
        if sides[0] is None or sides[1] is None:
            continue
        both = sides[0].join(sides[1]["score"], how="inner", lsuffix="_a", rsuffix="_b").reset_index(drop=True)
        test = patient_bootstrap(both.rename(columns={"score_a": "a", "score_b": "b"}))
        interval = (test.difference, test.ci_low, test.ci_high, test.n_cases, test.n_patients)
        rows.append((cell["task"], a, b, sides[0].attrs["metric"], *interval))
    return pd.DataFrame(rows, columns=PATIENT_COLUMNS)
