"""Backbones of the way: which a run keeps, how they are named, and what evaluations over epochs say."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import timm
import torch
import yaml
from support.command_line import ssl_transfer

from ssl_transfer.cli import main
from ssl_transfer.errors import BackboneError, RecipeError
from ssl_transfer.evaluation.trajectory import Trajectory, trajectory_text
from ssl_transfer.kept import expanded, kept_epochs, located
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.study.plan import external_id
from ssl_transfer.verification.stage import verify

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def kept_run(runs, tmp_path_factory):
    """The tiny run of two epochs of three steps, with the backbones of epochs 2/3 and 1: its folder and its answer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("kept") / "run"
    answer = runs(out, "keep={epochs: [0.67, 1, 2], best: true}", "monitor.every_epochs=1")
    torch.set_num_threads(before)
    return out, answer


def test_keeping_changes_neither_the_run_s_id_nor_its_weights(runs, kept_run, finished):
    assert runs.card(kept_run[0])["run_id"] == runs.card(finished[0])["run_id"]
    assert runs.weights(kept_run[0]) == runs.weights(finished[0])


def test_the_last_epoch_is_the_run_s_backbone_and_is_not_written_twice(kept_run):
    run, answer = kept_run
    assert kept_epochs(run) == {0.67: run / "backbones/epoch-0.67", 1: run / "backbones/epoch-1", 2: run / "backbone"}
    assert answer["kept"]["epochs"] == [0.67, 1]


def test_a_kept_backbone_is_that_of_its_step_and_its_card_says_so(runs, kept_run, ct_store, tmp_path):
    """Held against a run that was stopped there: the same weights, since the schedule is the same until then."""
    run, _ = kept_run
    kept = load_backbone(run / "backbones/epoch-1")
    card = kept.card
    assert (card.name, card.steps, card.training["epoch"]) == ("tiny@1", 3, 1)
    assert card.stages[0].images == {ct_store.id: 36} and card.passport == load_backbone(run / "backbone").card.passport
    ids = {load_backbone(folder).id for folder in kept_epochs(run).values()}
    assert len(ids) == 3
    model = timm.create_model(f"local-dir:{run / 'backbones/epoch-1'}", pretrained=True)
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(model.eval()(images), kept(images))


def test_the_run_says_how_much_disk_the_kept_backbones_take(runs, kept_run, tmp_path, capsys):
    runs(tmp_path / "run", "keep.every_epochs=0.34")
    each = sum(tensor.nbytes for tensor in runs.tensors(tmp_path / "run").values())
    said = f"keeps the backbones of epochs 0.34, 0.68, 1.02, 1.36, 1.7: {each / 1e6:.1f} MB each, {5 * each / 1e6:.1f} MB in all"
    assert said in capsys.readouterr().err
    place = tmp_path / "run" / "backbones"
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    assert runs.card(tmp_path / "run")["training"]["kept"]["megabytes"] == pytest.approx(size / 1e6, abs=1e-3)


def test_an_epoch_after_the_last_one_is_refused(runs, tmp_path):
    with pytest.raises(RecipeError, match=r"keep.epochs: epoch 3 is after the last one \(2\)"):
        runs(tmp_path / "run", "keep=[1, 3]")


def test_a_finished_run_that_lacks_an_epoch_says_so(runs, kept_run, capsys):
    runs(kept_run[0], "keep=[1.34]")
    assert "has no backbone of epoch 1.34, which the run passed before `keep` asked for it" in capsys.readouterr().err


def test_verify_checks_kept_backbones(kept_run, tmp_path):
    shutil.copytree(kept_run[0], tmp_path / "run")
    assert verify(tmp_path / "run")["ok"]
    shutil.copy(tmp_path / "run/backbone/model.safetensors", tmp_path / "run/backbones/epoch-1/model.safetensors")
    problems = verify(tmp_path / "run")["problems"]
    assert [problem["path"].endswith("backbones/epoch-1/model.safetensors") for problem in problems] == [True]


# Names


def test_every_epoch_has_a_name_and_best_last_and_all_are_names_too(kept_run):
    run = kept_run[0]
    assert located(f"{run}@1") == run / "backbones/epoch-1"
    assert located(f"{run}@2") == located(f"{run}@last") == run / "backbone"
    assert located(f"{run}@best") == run / "backbones/best"
    assert expanded([f"{run}@all", "scratch:resnet18"]) == [f"{run}@0.67", f"{run}@1", f"{run}@2", "scratch:resnet18"]
    assert expanded([f"{run}@all,pooling=mean"])[1] == f"{run}@1,pooling=mean"
    assert load_backbone(f"{run}@1.0").id == load_backbone(run / "backbones/epoch-1").id


def test_a_study_knows_an_arm_of_an_epoch_by_the_id_in_its_card(kept_run):
    assert external_id(f"{kept_run[0]}@1") == load_backbone(kept_run[0] / "backbones/epoch-1").id
    with pytest.raises(BackboneError, match="this run has no such backbone"):
        external_id(f"{kept_run[0]}@7")


@pytest.mark.parametrize(
    ("which", "message"), [("5", "it has 0.67, 1, 2, best"), ("all", "several backbones, expected one")]
)
def test_an_epoch_that_a_run_does_not_have_is_answered_with_those_that_it_has(kept_run, which, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(f"{kept_run[0]}@{which}")


def test_a_folder_with_such_a_name_is_itself(kept_run, tmp_path):
    shutil.copytree(kept_run[0], tmp_path / "run")
    shutil.copytree(kept_run[0] / "backbone", tmp_path / "run@1")
    assert located(f"{tmp_path}/run@1") == tmp_path / "run@1"


def test_the_next_run_can_start_from_an_epoch(runs, kept_run, tmp_path):
    runs(tmp_path / "run", f"backbone.init={kept_run[0]}@1", "train.epochs=0.4")
    assert load_backbone(tmp_path / "run/backbone").card.parents == (load_backbone(f"{kept_run[0]}@1").id,)


# Over epochs


@pytest.fixture(scope="module")
def place(kept_run, ct_store, tmp_path_factory):
    """A folder with a task card and the run."""
    folder = tmp_path_factory.mktemp("place")
    card = {"store": str(ct_store.path), "target": "label", "metric": "balanced_accuracy"}
    (folder / "task.yaml").write_text(yaml.safe_dump(card))
    shutil.copytree(kept_run[0], folder / "run")
    return folder


def test_all_epochs_are_evaluated_and_validation_chooses_one(place):
    words = ("knn", "run@all", "scratch:resnet10t,size=16", "task.yaml", "k=[1]", "resamples=20")
    answer = ssl_transfer("evaluate", *words, "--figure", "epochs.png", "--json", folder=place).json
    (found,) = answer["trajectories"]
    assert [point["epoch"] for point in found["points"]] == [0.67, 1, 2] and len(answer["results"]) == 4
    for point, result in zip(found["points"], answer["results"], strict=False):
        assert point["val"] == result["metrics"]["val"]["balanced_accuracy"]
        assert point["test"] == result["metrics"]["test"]["balanced_accuracy"]
    best = max(found["points"], key=lambda point: (point["val"], -point["epoch"]))
    assert found["chosen"] == best["epoch"] and (place / "epochs.png").read_bytes()[:4] == b"\x89PNG"


def test_a_figure_of_a_single_backbone_is_refused_before_anything_is_evaluated(place):
    answer = ssl_transfer("evaluate", "knn", "run@2", "task.yaml", "--figure", "one.png", folder=place)
    assert answer.status == 2 and "--figure one.png: draws the epochs of a pretraining" in answer.stderr


def test_rank_and_analyze_take_all_epochs_of_a_run(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["rank", "task.yaml", "run@all", "resamples=0", "--json"]) == 0
    assert {backbone["name"] for backbone in json.loads(capsys.readouterr().out)["backbones"]} == {
        "tiny@0.67",
        "tiny@1",
        "tiny",
    }


def test_inspect_shows_the_measurements_and_the_backbones_of_a_run(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["inspect", "run", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["backbones"] == ["run@0.67", "run@1", "run@2", "run@best"]
    assert [line["epoch"] for line in answer["monitor"]] == [1, 2] and answer["best"]["epoch"] in (1, 2)


TRAJECTORY = Trajectory(
    run="runs/x",
    task="pneumonia",
    protocol="knn",
    metric="auroc",
    fraction=1.0,
    seed=0,
    epochs=(1, 2, 3, 4),
    val=(0.7, 0.8, 0.8, math.nan),
    test=(0.7, 0.6, 0.9, 0.75),
    intervals=(None, (0.5, 0.7), None, None),
)


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [({}, 2), ({"metric": "ece"}, 1), ({"val": (math.nan,) * 4}, None), ({"val": (0.1, 0.2, 0.3, 0.4)}, 4)],
    ids=["earliest of equals", "less is better", "undefined", "last"],
)
def test_the_chosen_epoch_is_the_best_on_validation_whatever_test_says(changes, chosen):
    assert replace(TRAJECTORY, **changes).chosen == chosen


def test_the_table_has_test_values_of_the_chosen_and_the_last_epoch_alone():
    lines = trajectory_text(TRAJECTORY.to_json()).splitlines()
    assert lines[3].split() == ["2", "0.8000", "0.6000", "[0.5000,", "0.7000]", "chosen", "on", "validation"]
    assert lines[5].split() == ["4", "–", "0.7500", "last"] and lines[4].split() == ["3", "0.8000"]
