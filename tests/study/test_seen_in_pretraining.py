"""Seen test cases in a report: counted by arm and target, with the scores on the others, and on the first screen."""

from __future__ import annotations

import pandas as pd
import pytest
from support.declared import declared_evidence
from support.pages import build, study
from support.results import made_result

from ssl_transfer.study.gather import _contamination, _warnings
from ssl_transfer.study.report.evidence import CONTAMINATION_COLUMNS
from ssl_transfer.study.report.limits import limits
from ssl_transfer.study.table import SCRATCH

SEEN = {"cases": 40, "images": 40, "seen": 5, "patient": 5, "pixels": 2, "near": 3, "unknown": 0}


def results():
    """Two seeds of an arm that has seen test cases, an arm of the target's own archive, and public weights."""

    def of(arm, run, statement, **counts):
        backbone = {"id": run, "name": arm, "pretraining": arm, "source_domain": "ct"}
        return made_result(run, backbone=backbone, seen_in_pretraining=statement, contamination={**SEEN, **counts})

    none = {"seen": 0, "patient": 0, "pixels": 0, "near": 0, "metrics_clean": {"auroc": 0.8, "accuracy": 0.7}}
    return [
        of("leaky", "r1", True, metrics_clean={"auroc": 0.6, "accuracy": 0.5}),
        of("leaky", "r2", True, seen=4, metrics_clean={"auroc": 0.7, "accuracy": 0.5}),
        of("own", "r3", True, **none),
        of("public", "r4", "unknown", **{**none, "unknown": 40, "patient": None, "metrics_clean": None}),
    ]


def test_counts_are_the_largest_of_any_run_of_an_arm():
    table = _contamination(results()).set_index("pretraining")
    assert list(table["statement"]) == ["yes", "yes", "unknown"]
    assert table.loc["leaky", CONTAMINATION_COLUMNS[3:]].tolist() == [40, 5, 5, 2, 3, 0]
    assert table.loc["public", "unknown"] == 40 and pd.isna(table.loc["public", "patient"])


def test_a_warning_tells_seen_test_cases_from_other_images_of_the_archive():
    tested, others = [text for text in _warnings(results()) if "retrain" in text]
    assert "leaky on body region: 5 of 40" in tested
    assert others == "Pretrained on training images (without labels) of the target's own store: own on body region."


@pytest.fixture
def frame():
    """Runs in which the in-domain arm has seen 5 of 40 test cases."""
    runs = study({"in-domain CT": 0.2, SCRATCH: 0.0})
    leaky = (runs["pretraining"] == "in-domain CT").to_numpy(bool)
    return runs.assign(test_cases=40, seen_cases=leaky * 5, value_clean=runs["value"] - 0.1 * leaky)


def table(seen):
    rows = [("in-domain CT", "body_region", "yes" if seen else "no", 40, seen, seen, 0, seen, 0)]
    return pd.DataFrame(rows, columns=CONTAMINATION_COLUMNS)


def test_the_page_has_the_score_on_the_others_beside_that_on_all(tmp_path, frame):
    text = build(tmp_path, frame, contamination=table(5)).read_text()
    assert "Of 1 pairs of target and pretraining, 1 has test cases that were seen." in text
    scores = pd.read_csv(tmp_path / "tables/scores_not_seen.csv")
    assert set(scores["pretraining"]) == {"in-domain CT"}
    assert (scores["value"] - scores["value_clean"]).to_numpy() == pytest.approx(0.1)


def test_both_scores_are_over_all_runs_of_an_arm_one_of_which_has_seen_cases(tmp_path, frame):
    spared = (frame["pretraining_seed"] > 0).to_numpy(bool)
    frame = frame.assign(
        seen_cases=frame["seen_cases"] * ~spared, value_clean=frame["value_clean"].where(~spared, frame["value"])
    )
    build(tmp_path, frame, contamination=table(5))
    scores = pd.read_csv(tmp_path / "tables/scores_not_seen.csv")
    seeds = frame["pretraining_seed"].nunique()
    assert (scores["value"] - scores["value_clean"]).to_numpy() == pytest.approx(0.1 / seeds)


def test_the_page_says_so_where_nothing_was_seen(tmp_path, frame):
    text = build(tmp_path, frame.assign(seen_cases=0), contamination=table(0)).read_text()
    assert "No test case is known to be seen." in text and "Scores on all test cases" not in text


def test_results_of_other_programs_have_no_such_section(tmp_path, frame):
    plain = frame.drop(columns=["test_cases", "seen_cases", "value_clean"])
    assert "Test cases seen in pretraining" not in build(tmp_path, plain).read_text()


def test_the_first_screen_says_so_only_if_a_test_case_was_seen():
    def headings(seen):
        evidence = declared_evidence(contamination=table(seen).assign(pretraining="CT"))
        return dict(limits(evidence))

    assert "CT has seen 5 of the 40 test cases of body region" in headings(5)["Unseen cases"]
    assert "Unseen cases" not in headings(0)
