"""External tests in a study: planned with the evaluations, gathered beside the own test, and shown in the report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from support.pages import build, study
from support.results import made_result
from support.tiny_study import STUDY, small, write_study

from ssl_transfer.errors import RecipeError
from ssl_transfer.recipe import read_yaml
from ssl_transfer.study.design import load_study
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.statistics import external_gaps
from ssl_transfer.study.table import external_table

OTHER = {"source": "phantom:ct,patients=9,slices=6,size=32,seed=1", "options": {"channels": 1, "workers": 1}}


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plan the small study with an external store of its only task."""
    monkeypatch.chdir(tmp_path)

    def plan(external, **set_values):
        task = {"card": "phantom_region", "store": "ct", "external": external, "set": set_values}
        changes = small(stores={**STUDY["stores"], "other": OTHER}, tasks={"region": task})
        return plan_study(load_study(write_study(tmp_path, **changes)), Path("studies/tiny"))

    return plan


def test_an_external_store_is_ingested_and_its_features_are_inputs_of_the_evaluation(planned):
    plan = planned(["other"])
    ingested = {job.about["store"]: job for job in plan.jobs if job.stage == "ingest"}
    features = [job for job in plan.jobs if job.stage == "features" and job.about["store"] == "other"]
    assert len(features) == 4  # two arms, two seeds
    for job in (job for job in plan.jobs if job.stage == "evaluate"):
        assert ingested["other"].id in job.inputs
        assert [word == "--features" for word in job.words].count(True) == 2
        card = read_yaml(Path(job.words[3]))
        assert card["external"] == [ingested["other"].output]
        assert card["store"] == ingested["ct"].output


def test_a_study_without_external_stores_has_the_jobs_that_it_had(planned):
    assert not [job for job in planned([]).jobs if job.about.get("store") == "other"]


def test_an_external_store_must_be_a_store_of_the_study(planned):
    with pytest.raises(RecipeError, match=r"tasks.region.external: no store 'othr'. Did you mean 'other'"):
        planned(["othr"])


def results():
    """Two seeds of an arm with one external test, and an arm without."""

    def of(run, seed, external, own):
        test = {"metrics": {"auroc": external, "brier": None}, "own": {"auroc": own, "brier": 0.1}, "notes": ["a note"]}
        return made_result(run, pretraining_seed=seed, external={"other": test})

    return [of("r1", 0, 0.70, 0.80), of("r2", 1, 0.74, 0.80), made_result("r3", pretraining_seed=2)]


def test_the_gap_is_paired_within_a_run_and_its_interval_is_that_of_a_t_test():
    gaps = external_gaps(external_table(results())).set_index("metric")
    assert gaps.loc["auroc", ["n", "own", "external"]].tolist() == pytest.approx([2, 0.8, 0.72])
    assert gaps.loc["auroc", "gap"] == pytest.approx(-0.08)
    half = 12.706204736432095 * 0.02  # t at 1 degree of freedom, times SD 0.0283 / sqrt(2)
    assert gaps.loc["auroc", ["ci_low", "ci_high"]].tolist() == pytest.approx([-0.08 - half, -0.08 + half])
    assert external_table([made_result()]) is None


def test_means_and_gap_are_of_the_runs_that_have_both_values_and_say_how_many_lack_one():
    def of(seed, external, own):
        test = {"metrics": {"auroc": external, "brier": None}, "own": {"auroc": own, "brier": 0.1}, "notes": []}
        return made_result(f"r{seed}", pretraining_seed=seed, external={"other": test})

    runs = [of(0, 0.70, 0.80), of(1, None, 0.20), of(2, 0.74, 0.80), of(3, 0.1, None)]
    gaps = external_gaps(external_table(runs)).set_index("metric")
    complete = external_gaps(external_table([runs[0], runs[2]])).set_index("metric")
    numbers = ["n", "runs", "own", "external", "gap", "ci_low", "ci_high"]
    assert gaps.loc["auroc", numbers].tolist() == pytest.approx(complete.loc["auroc", numbers].tolist())
    assert gaps.loc["auroc", "gap"] == pytest.approx(gaps.loc["auroc", "external"] - gaps.loc["auroc", "own"])
    assert gaps["undefined"].to_dict() == {"auroc": 2, "brier": 4}
    assert gaps.loc["brier", ["own", "external", "gap"]].isna().all()


def test_the_page_has_a_section_only_with_external_tests(tmp_path):
    frame = study({"in-domain CT": 0.2})
    text = build(
        tmp_path, frame, external=external_table(results()), external_notes=["region on other: a note"]
    ).read_text()
    assert "External tests" in text and "region on other: a note" in text
    table = pd.read_csv(tmp_path / "tables/external_tests.csv")
    assert set(table["store"]) == {"other"}
    assert "External tests" not in build(tmp_path, frame).read_text()
