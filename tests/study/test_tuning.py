"""Tuning in a study: as many trials for every arm, on validation, at the first evaluation seed of each pretraining seed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from support.tiny_study import result, small, write_study

from ssl_transfer.cli.stages import check
from ssl_transfer.errors import RecipeError
from ssl_transfer.result import Tuning
from ssl_transfer.study.costs import Costs
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.gather import report_study
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.stage import check_settings

FINETUNE = {
    "protocol": "finetune",
    "strategies": ["full", "head_only"],
    "fractions": [0.5, 1.0],
    "seeds": [2, 3],
    "tune": {"grid": {"optimizer.lr": [0.001, 0.01, 0.1]}},
}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Plan a study that tunes a fine-tune; keywords change the evaluation."""
    monkeypatch.chdir(tmp_path)

    def planned(statistics=None, **changes):
        changed = {"evaluations": [{**FINETUNE, **changes}]}
        changed["statistics"] = {"primary": {"protocol": "finetune", "metric": "balanced_accuracy"}}
        return plan_study(load_study(write_study(tmp_path, **small(**changed))), Path("studies/tiny"))

    return planned


def of_stage(plan, stage):
    return [job for job in plan.jobs if job.stage == stage]


def test_there_is_a_tuning_per_arm_pretraining_seed_strategy_and_fraction(plan):
    made = plan()
    assert made.by_stage()["tune"] == 2 * 2 * 2 * 2 and made.by_stage()["evaluate"] == 2 * 2 * 2 * 2 * 2


def test_every_arm_has_the_same_trials(plan):
    words = [{word for word in job.command if word.startswith("grid.")} for job in of_stage(plan(), "tune")]
    assert all(grid == {"grid.optimizer.lr=[0.001, 0.01, 0.1]"} for grid in words)


def test_trials_are_at_the_first_evaluation_seed_and_serve_all_of_them(plan):
    made = plan()
    assert all("seed=2" in job.command for job in of_stage(made, "tune"))
    tunings = {job.id: job for job in of_stage(made, "tune")}
    for job in of_stage(made, "evaluate"):
        (tuning,) = [tunings[needed] for needed in job.inputs if needed in tunings]
        assert job.command[job.command.index("--tuning") + 1] == tuning.output
        same = [word for word in job.command if word.startswith(("fraction=", "strategy="))]
        assert set(same) <= set(tuning.command) and tuning.about["seed"] == job.about["seed"]


def test_its_estimated_time_is_that_of_all_trials(plan):
    made = plan()
    tuning, evaluation = (Costs().seconds(of_stage(made, stage)[0]) for stage in ("tune", "evaluate"))
    assert tuning == 3 * evaluation


def test_another_grid_repeats_the_evaluations(plan):
    before, after = plan(), plan(tune={"grid": {"optimizer.lr": [0.001]}})
    assert not {job.id for job in of_stage(before, "evaluate")} & {job.id for job in of_stage(after, "evaluate")}
    assert not {job.output for job in of_stage(before, "evaluate")} & {
        job.output for job in of_stage(after, "evaluate")
    }


def test_the_settings_of_every_trial_are_checked_before_the_first_job(plan):
    with pytest.raises(RecipeError, match="optimizer"):
        check_settings(plan(tune={"grid": {"optimizer.rate": [0.1]}}), check)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"set": {"optimizer.lr": 0.1}}, r"optimizer\.lr is both set and in `tune`"),
        ({"tune": {"grid": {}}}, "Expected at least one setting with candidates"),
        ({"tune": {"grid": {"optimizer.lr": []}}}, "Expected at least one setting with candidates"),
        ({"protocol": "knn", "strategies": []}, "knn selects its settings on validation itself"),
    ],
)
def test_wrong_input_is_refused_with_what_to_do(plan, change, message):
    with pytest.raises(RecipeError, match=message):
        plan(**change)


def test_the_report_has_every_trial_and_what_was_selected(plan):
    made = plan(fractions=[1.0], strategies=["full"])
    jobs = {" ".join(job.words): job for job in made.jobs}

    def perform(words):
        job = jobs[" ".join(words)]
        Path(job.output).mkdir(parents=True, exist_ok=True)
        if job.stage == "tune":
            write_tuning(job)
        for run in job.runs:
            result(run, 0.5 + 0.1 * run["seed"]).save(Path(run["result"]).parent)

    run_plan(made, perform)
    page = Path(report_study(made)["report"]).read_text()
    table = pd.read_csv(made.folder / "tables" / "tuning.csv")
    assert len(table) == 2 * 2 * 3 and table.groupby(["pretraining", "pretraining_seed"])["selected"].sum().eq(1).all()
    assert "2 of 2" in page and "0 of 2" in page and "optimizer.lr 0.01" in page
    assert "the same settings were tried on validation for every arm (optimizer.lr 0.001, 0.01, 0.1)" in page


def write_tuning(job):
    """A tuning in which the middle rate is the best."""
    trials = [
        {"settings": {"optimizer.lr": rate}, "validation": {"balanced_accuracy": value}, "selected": {}, "seconds": 1.0}
        for rate, value in ((0.001, 0.6), (0.01, 0.8), (0.1, 0.7))
    ]
    Tuning(
        run_id=job.id,
        protocol="finetune",
        strategy="full",
        backbone="b",
        task="region",
        metric="balanced_accuracy",
        fraction=1.0,
        seed=2,
        trials=tuple(trials),
        selected={"optimizer.lr": 0.01},
        n={},
        environment={},
    ).save(Path(job.output))
