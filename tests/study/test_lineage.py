"""A chain in the report of a study: the domains, stores, images and steps of all its stages, against arms of one stage."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_study import result, small, write_study

from ssl_transfer.cards import BackboneCard, TrainingStage, lineage
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.run import read_json, write_json
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.finished import finished
from ssl_transfer.study.gather import report_study, study_evidence
from ssl_transfer.study.planning import plan_study

ARMS = {
    "CT": {"store": "ct"},
    "photographs": {"store": "photographs"},
    "CT → photographs": {"store": "photographs", "init": "CT"},
    "ImageNet → CT": {"store": "ct", "init": "timm:resnet10t"},
}
CT = TrainingStage(name="CT", method="simclr", domain="ct", images={"c": 1500}, steps=300)
PHOTOGRAPHS = TrainingStage(name="photographs", method="simclr", domain="photograph", images={"p": 1500}, steps=300)
IMAGENET = TrainingStage(name="ImageNet", method="public weights", domain="photograph", images={})
STAGES = {
    "CT": (CT,),
    "photographs": (PHOTOGRAPHS,),
    "CT → photographs": (CT, PHOTOGRAPHS),
    "ImageNet → CT": (IMAGENET, CT),
}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A study whose backbones are cards alone, and whose results are made up."""
    monkeypatch.chdir(tmp_path)
    made = plan_study(load_study(write_study(tmp_path, **small(pretrainings=ARMS))), Path("studies/tiny"))
    jobs = {" ".join(job.words): job for job in made.jobs}

    def perform(words):
        job = jobs[" ".join(words)]
        if job.stage == "pretrain":
            folder = Path(job.output) / "backbone"
            folder.mkdir(parents=True)
            facts = {"architecture": "resnet10t", "in_channels": 1, "image_size": 32, "stem": "standard", "options": {}}
            stages = lineage(*STAGES[job.about["arm"]])
            card = BackboneCard(name="x", **facts, feature_dim=16, intensity=Intensity(), method="simclr", **stages)
            replace(card, training={"flops": 10**12}).save(folder)
        for run in job.runs:
            Path(run["result"]).parent.mkdir(parents=True)
            result(run, 0.5).save(Path(run["result"]).parent)

    run_plan(made, perform)
    return made


def test_a_chain_has_the_images_and_steps_of_its_parent_too(plan):
    arms = {arm["name"]: arm for arm in study_evidence(plan, {}, {job.id: "done" for job in plan.jobs}).arms}
    assert {name: (arm["images"], arm["steps"]) for name, arm in arms.items()} == {
        "CT": (1500, 300),
        "photographs": (1500, 300),
        "CT → photographs": (3000, 600),
        "ImageNet → CT": (None, None),
    }
    assert arms["CT → photographs"]["domain"] == "ct + photograph"
    assert arms["CT → photographs"]["note"] == "starts from CT; images by stage: 1,500 ct, then 1,500 photograph"
    assert arms["ImageNet → CT"]["note"].endswith(
        "public weights (photograph), then 1,500 ct; public weights: unequal budget"
    )


def test_a_pretraining_has_the_flops_and_minutes_of_its_parent_too_and_the_seeds_that_have_results(plan):
    for path in (plan.folder / "jobs").glob("*.json"):
        write_json(path, {**read_json(path), "seconds": 60.0})
    states = {job.id: "done" for job in plan.jobs}
    arms = {arm["name"]: arm for arm in study_evidence(plan, dict(finished(plan)), states).arms}
    assert {name: arm["flops"] for name, arm in arms.items()} == {
        "CT": 10**12,
        "photographs": 10**12,
        "CT → photographs": 2 * 10**12,
        "ImageNet → CT": 10**12,
    }
    assert [arm["minutes"] for arm in arms.values()] == [1, 1, 2, 1]
    assert [arm["seeds"] for arm in arms.values()] == [2] * len(ARMS)


def test_the_report_states_three_thousand_images_and_warns_of_the_unequal_budget(plan):
    page = re.sub(r"\s+", " ", Path(report_study(plan)["report"]).read_text())
    warning = "Unequal budget: pretrainings differ in images (CT 1,500, photographs 1,500, CT → photographs 3,000)"
    assert warning in page
    assert "pretrainings differ in steps (CT 300, photographs 300, CT → photographs 600)" in page
    assert re.search(r"CT → photographs</t[dh]>.*?3,000</td>", page)
