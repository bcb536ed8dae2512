"""Planned runs: what a study will have compared once all of it is done, which decides how many tests its families have."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from support.tiny_study import STUDY, result, small, write_study

from ssl_transfer.study.design import load_study
from ssl_transfer.study.planned import planned_runs
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.statistics import contrasts
from ssl_transfer.study.table import study_table

NOISY = {
    "protocol": "knn",
    "seeds": [0],
    "set": {"k": [1], "noise.kind": "gaussian", "noise.sigma": 0.1, "noise.at": "test"},
}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    region = STUDY["tasks"]["region"]
    tasks = {"region": region, "again": {**region, "set": {"averaging": "weighted"}}}
    changes = {"tasks": tasks, "evaluations": [STUDY["evaluations"][0], NOISY]}
    return plan_study(load_study(write_study(tmp_path, **small(**changes))), tmp_path / "studies", write=False)


def finished(plan, wanted) -> pd.DataFrame:
    runs = [run for run in plan.runs if wanted(run)]
    made = [result(run, 0.5 + 0.1 * (run["pretraining"] == "CT")) for run in runs]
    named = [{**each.backbone, "pretraining": run["pretraining"]} for each, run in zip(made, runs, strict=True)]
    return study_table(replace(each, backbone=backbone) for each, backbone in zip(made, named, strict=True))


def test_before_any_result_every_run_has_the_main_metric_of_its_task(plan):
    table = planned_runs(plan, study_table([]))
    assert len(table) == len([*plan.runs])
    assert set(table["metric"]) == {"balanced_accuracy"}
    assert not table.duplicated().any()


def test_runs_with_noise_have_it_in_their_columns(plan):
    table = planned_runs(plan, study_table([]))
    noise = table.groupby("protocol")[["noise", "noise_sigma"]].first()
    assert noise.loc["knn"].tolist() == ["gaussian test", 0.1]
    assert noise.loc["linear_probe"].tolist() == ["none", 0.0]


def test_a_target_without_results_is_expected_to_have_the_metrics_of_others(plan):
    table = planned_runs(
        plan, finished(plan, lambda run: run["task"] == "region" and run["protocol"] == "linear_probe")
    )
    metrics = table.groupby(["task", "protocol"])["metric"].unique().map(set)
    assert metrics["region", "linear_probe"] == metrics["again", "linear_probe"] == {"balanced_accuracy", "auroc"}
    assert metrics["again", "knn"] == {"balanced_accuracy"}


def test_a_half_finished_study_is_decided_at_the_levels_of_the_whole(plan):
    frame = finished(plan, lambda run: run["task"] == "region" and run["fraction"] == 0.5)
    frame["value"] += 0.01 * (frame["pretraining_seed"].to_numpy(float) * (frame["pretraining"] == "CT").to_numpy(bool))
    table = contrasts(frame, planned=planned_runs(plan, frame)).set_index("metric")
    assert table.loc["balanced_accuracy", "level"] == pytest.approx(0.05 / 2)  # two targets at this fraction
