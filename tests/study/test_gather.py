"""A report is made of what is there: results under their arms' names, what is missing, and what results say of themselves."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from support.tiny_study import STUDY, result, small, write_study

from ssl_transfer.errors import Interrupted
from ssl_transfer.study import gather
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.gather import report_study
from ssl_transfer.study.planning import plan_study

PREDICTIONS = pd.DataFrame(
    {"row": [0, 1, 2], "patient": ["p", "p", "q"], "label": ["a", "b", "a"], "score_a": [0.9, 0.8, 0.7], "score_b": 0.4}
)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A planned study whose evaluations give made-up results; CT is better. Jobs named in `fails` fail."""
    monkeypatch.chdir(tmp_path)

    def made(fails: str = "nothing", stops: str = "nothing", **changes):
        plan = plan_study(load_study(write_study(tmp_path, **small(**changes))), Path("studies/tiny"))
        jobs = {" ".join(job.words): job for job in plan.jobs}

        def perform(words):
            job = jobs[" ".join(words)]
            if fails in job.title:
                raise ValueError("made to fail")
            if stops in job.title:
                raise Interrupted("stopped")
            for number, run in enumerate(job.runs):
                path = Path(run["result"])
                path.parent.mkdir(parents=True)
                gain = (
                    0.3 * (run["pretraining"] == "CT")
                    + 0.01 * number
                    + 0.003 * run["pretraining_seed"] ** (1 + (run["pretraining"] == "CT"))
                )
                result(run, 0.5 + gain).save(path.parent)
                PREDICTIONS.to_parquet(path.with_name("predictions.parquet"))

        with suppress(Interrupted):
            run_plan(plan, perform)
        return plan

    return made


def page(plan) -> str:
    return Path(report_study(plan)["report"]).read_text()


def test_results_stand_under_the_names_that_arms_have_in_the_study(study):
    plan = study()
    report_study(plan)
    table = pd.read_csv(plan.folder / "table.csv")
    assert set(table["pretraining"]) == {"CT", "scratch"} and len(table) == 2 * 12


def test_the_answer_follows_from_the_results(study):
    answer = report_study(study(pretraining_seeds=[0, 1, 2, 3]))["answers"][0]
    assert answer.startswith("CT is better than random initialisation for region (linear probe with 50 % of the labels")
    assert "n = 4 pairs of pretraining seeds, df 3" in answer


def test_what_failed_and_what_waits_for_it_is_named_with_its_error(study):
    text = page(study(fails="pretrain CT, seed 1"))
    assert "pretrain CT, seed 1: failed (ValueError: made to fail)" in text
    assert "linear_probe on region: CT, seed 1: blocked" in text


def test_a_study_without_any_result_has_a_page_that_says_what_is_missing(study):
    text = page(study(stops="ingest"))
    assert "ingest ct: missing" in text and "No run has finished yet" in text


def test_a_page_names_no_folder_above_that_of_its_study(study, tmp_path, monkeypatch):
    plan = study(stops="ingest")
    monkeypatch.setattr(gather, "MISSING_LISTED", 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = page(dataclasses.replace(plan, folder=tmp_path / "studies" / "tiny"))
    assert "more: ssl-transfer study status tiny" in text and str(tmp_path) not in text


def test_notes_that_most_results_share_are_a_warning(study):
    text = page(study())
    assert "region by linear probe: patients guessed" in text
    assert "Pretrained on training images (without labels) of the target" in text


def test_the_methods_text_has_seeds_budgets_tests_and_versions(study):
    text = page(study(statistics={**STUDY["statistics"], "margin": 0.02}))
    for words in (
        "2 pretraining seeds each",
        "simclr, resnet10t, 32 px",
        "paired t-tests",
        "Equivalence within ±0.02",
        "torch 9",
    ):
        assert words in text


def test_costs_are_those_of_the_records(study):
    seconds = report_study(study())["seconds"]
    assert set(seconds) == {"ingest", "pretrain", "features", "linear_probe"}
