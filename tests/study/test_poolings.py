"""Poolings and features from files in a study: ViTs that differ in pooling, and trained protocols on features, are refused."""

import numpy as np
import pytest
from support.tiny_study import STUDY, write_study

from ssl_transfer.errors import RecipeError
from ssl_transfer.study.design import load_study
from ssl_transfer.study.plan import external_id
from ssl_transfer.study.planning import plan_study

PROBES = [{"protocol": "linear_probe"}, {"protocol": "knn"}]
VIT = {"backbone": {"name": "vit_tiny_patch16_224", "in_channels": 1}}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """The recipe of the study is named by its path from here."""
    monkeypatch.chdir(tmp_path)


def planned(folder, **changes):
    changes = {"tasks": {"region": STUDY["tasks"]["region"]}, "evaluations": PROBES, **changes}
    return plan_study(load_study(write_study(folder, **changes)), folder / "out", write=False)


def commands(plan, stage):
    return [job.command for job in plan.jobs if job.stage == stage]


def vits(**other):
    return {
        "ours": {"store": "ct", "set": VIT},
        "theirs": {"backbone": "timm:vit_small_patch14_dinov2,pooling=mean"},
        **other,
    }


def test_vits_of_different_poolings_are_refused_with_what_to_write(tmp_path):
    with pytest.raises(
        RecipeError, match=r"its ViTs differ in pooling: mean of theirs, cls of ours\..*`vary`.*pool: \[cls, mean\]"
    ):
        planned(tmp_path, pretrainings=vits())


def test_the_same_pooling_for_all_is_planned_and_a_cnn_does_not_count(tmp_path):
    same = {"ours": {"store": "ct", "set": {**VIT, "backbone.pooling": "mean"}}}
    plan = planned(
        tmp_path, pretrainings={**vits(), **same, "CNN": {"store": "ct"}, "public": {"backbone": "timm:resnet50"}}
    )
    assert any("timm:vit_small_patch14_dinov2,pooling=mean" in command for command in commands(plan, "features"))


def test_probes_that_select_the_pooling_may_mix_them_and_share_one_pass(tmp_path):
    probes = [{**probe, "set": {"pool": ["cls", "mean"]}} for probe in PROBES]
    plan = planned(tmp_path, pretrainings=vits(), evaluations=probes)
    extracted = [command for command in commands(plan, "features") if "trivial" not in command]
    assert extracted and all("pool=all" in command for command in extracted)
    assert len(extracted) == len(
        {
            job.about["arm"] + str(job.about["seed"])
            for job in plan.jobs
            if job.stage == "features" and "trivial" not in job.command
        }
    )
    evaluated = [command for command in commands(plan, "evaluate") if "trivial" not in " ".join(command)]
    assert all('pool=["cls", "mean"]' in command for command in evaluated)


def test_an_axis_may_sweep_the_pooling(tmp_path):
    swept = {"pooling": {name: {"backbone.pooling": name} for name in ("cls", "mean")}}
    theirs = {"backbone": {name: f"timm:vit_small_patch14_dinov2,pooling={name}" for name in ("cls", "mean")}}
    pretrain = {"recipe": "tiny.yaml", "set": VIT}
    plan = planned(tmp_path, vary=swept, pretrain=pretrain, pretrainings={"ours": {"store": "ct"}, "theirs": theirs})
    assert {arm["name"] for arm in plan.arms} == {"ours · cls", "ours · mean", "theirs · cls", "theirs · mean"}


def test_an_axis_of_backbones_by_level_may_sweep_it(tmp_path):
    public = {"cls": "timm:vit_small_patch14_dinov2,pooling=cls", "mean": "timm:vit_small_patch14_dinov2,pooling=mean"}
    plan = planned(tmp_path, vary={"pooling": {"cls": {}, "mean": {}}}, pretrainings={"theirs": {"backbone": public}})
    assert len(plan.arms) == 2


def test_features_from_a_file_are_an_arm_whose_jobs_follow_their_content(tmp_path):
    path = tmp_path / "closed.npz"
    np.savez(path, row=np.arange(3), features=np.zeros((3, 2)))
    arms = {"ours": {"store": "ct"}, "closed": {"backbone": f"features:{path}"}}
    plan = planned(tmp_path, pretrainings=arms)
    assert any(f"features:{path}" in command for command in commands(plan, "features"))
    before = external_id(f"features:{path}")
    assert before and before == external_id(f"features:{tmp_path}/{{store}}.npz")
    np.savez(path, row=np.arange(3), features=np.ones((3, 2)))
    assert external_id(f"features:{path}") != before


def test_a_protocol_that_trains_is_refused_for_features_unless_it_is_skipped(tmp_path):
    np.savez(tmp_path / "closed.npz", row=np.arange(3), features=np.zeros((3, 2)))
    arms = {"ours": {"store": "ct"}, "closed": {"backbone": f"features:{tmp_path / 'closed.npz'}"}}
    evaluations = [*PROBES, {"protocol": "finetune"}]
    with pytest.raises(RecipeError, match=r"pretrainings.closed: .* finetune cannot train. Leave it out: `skip"):
        planned(tmp_path, pretrainings=arms, evaluations=evaluations)
    skip = [{"pretraining": "closed", "protocol": "finetune"}]
    plan = planned(tmp_path, pretrainings=arms, evaluations=evaluations, skip=skip)
    assert {run["pretraining"] for run in plan.runs if run["protocol"] == "finetune"} == {"ours"}


def grouped(**changes):
    """The task of the study, with a label per series and changes of its card."""
    return {**STUDY["tasks"]["region"], "set": {"target_of": "series", **changes}}


def test_a_pooling_of_groups_is_refused_for_a_task_with_a_label_per_image(tmp_path):
    evaluations = [{"protocol": "linear_probe", "set": {"group_pool": ["attention"]}}]
    tasks = {"region": STUDY["tasks"]["region"], "series": grouped()}
    with pytest.raises(RecipeError, match=r"linear_probe on region: group_pool: .*region has a label per image"):
        planned(tmp_path, evaluations=evaluations, tasks=tasks)
    exception = [{"task": "series", "to": {"group_pool": ["attention"]}}]
    plan = planned(tmp_path, evaluations=PROBES[:1], tasks=tasks, set=exception)
    stated = [any("group_pool" in word for word in command) for command in commands(plan, "evaluate")]
    assert stated.count(True) == stated.count(False) > 0


@pytest.mark.parametrize(
    ("evaluation", "card"),
    [
        ({"protocol": "knn", "set": {"group_pool": ["topk"]}}, {}),
        (
            {"protocol": "linear_probe", "set": {"group_pool": ["attention"]}},
            {"target": "regression", "column": "z_mm", "metric": "mae"},
        ),
        ({"protocol": "finetune", "tune": {"grid": {"group_pool": [["mean"], ["middle"]]}}}, {}),
    ],
    ids=lambda value: value.get("protocol"),
)
def test_a_pooling_of_groups_that_a_protocol_does_not_have_is_refused(tmp_path, evaluation, card):
    with pytest.raises(RecipeError, match=r"group_pool: found (topk|attention|middle), expected some of .*mean"):
        planned(tmp_path, evaluations=[evaluation], tasks={"region": grouped(**card)})


def test_a_probe_of_groups_is_planned_for_every_seed_only_if_it_draws_something(tmp_path):
    tasks = {"region": grouped(), "height": grouped(target="regression", column="z_mm", metric="mae")}
    plan = planned(tmp_path, evaluations=[{"protocol": "linear_probe", "seeds": 3}], tasks=tasks)
    seeds = {name: {run["seed"] for run in plan.runs if run["task"] == name} for name in tasks}
    assert seeds == {"region": {0, 1, 2}, "height": {0}}


def test_backbones_are_ranked_on_a_task_with_a_label_per_group(tmp_path):
    plan = planned(tmp_path, evaluations=PROBES[:1], tasks={"region": grouped()}, rank={"set": {"group_pool": ["max"]}})
    ranked = commands(plan, "rank")
    assert ranked and all('group_pool=["max"]' in command for command in ranked)
