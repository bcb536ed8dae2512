"""A run that starts from another backbone: it is measured against this parent, and its best backbone is kept."""

import json
import math

import pytest
import torch

from ssl_transfer.cli import main
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import RecipeError
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.training.loop import Training
from ssl_transfer.training.monitor import OnlineProbes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A labelled store of 24 patients, 144 slices."""
    return ingest("phantom:ct,patients=24,slices=6,size=32", tmp_path_factory.mktemp("stores") / "watched", workers=1)


@pytest.fixture
def start(finished, watched):
    """Overrides of a run that starts from the finished one, and is monitored on `watched` at every step."""
    return f"backbone.init={finished[0] / 'backbone'}", f"monitor={{store: {watched.path}, every_epochs: 0.34}}"


@pytest.fixture
def scripted(monkeypatch):
    """Let the online probes measure given values of kNN, first the parent's, each with a standard error of 0.05."""

    def script(*values):
        left = iter(values)
        monkeypatch.setattr(
            OnlineProbes, "measure", lambda *_: {"knn": next(left), "knn_se": 0.05, "linear_probe": 0.5, "rankme": 3.0}
        )

    return script


class Killed(Exception):
    """Stands for whatever ends a run."""


def test_the_log_begins_with_the_parent_as_its_own_card_says(runs, start, watched, finished, tmp_path):
    runs(tmp_path / "run", *start, "data.size=24")
    first, second, *_ = runs.lines(tmp_path / "run")
    parent = load_backbone(finished[0] / "backbone")
    measured = OnlineProbes(ImageStore(watched.path), "label", 2000, 0).measure(parent, torch.device("cpu"), False)
    assert parent.card.image_size == 16
    assert (first["step"], first["epoch"], first["loss"]) == (0, 0, None) and second["step"] == 1
    assert {name: first[name] for name in measured} == pytest.approx(measured)


def test_a_run_from_scratch_has_no_step_0_and_no_comparison(runs, finished):
    assert runs.lines(finished[0])[0]["step"] == 1
    assert not {"parent", "below_parent", "best", "kept"} & set(runs.card(finished[0])["training"])
    assert not (finished[0] / "backbones").exists()


@pytest.mark.parametrize(("final", "below"), [(0.749, True), (0.751, False), (math.nan, True)])
def test_a_run_that_ends_below_its_parent_by_more_than_one_standard_error_says_so_everywhere(
    runs, start, scripted, tmp_path, capsys, final, below
):
    """The parent has 0.8 ± 0.05."""
    scripted(0.8, 0.7, 0.78, 0.7, 0.7, 0.7, final)
    answer = runs(tmp_path / "run", *start)
    stderr, training = capsys.readouterr().err, runs.card(tmp_path / "run")["training"]
    assert (
        answer["below_parent"] is training["below_parent"] is runs.lines(tmp_path / "run")[-1]["below_parent"] is below
    )
    assert ("ends below its parent tiny: kNN" in stderr) is below
    assert training["parent"]["knn"] == 0.8 and training["parent"]["knn_se"] == 0.05
    assert training["monitored"]["images"] > 10 and training["monitored"]["patients"] > 1
    readme = (tmp_path / "run/backbone/README.md").read_text()
    assert ("**below its parent**" in readme) is below and "0.8000 ± 0.0500" in readme
    if below:
        assert "parent 0.8000, standard error of the parent 0.0500 over" in stderr
        assert f"Best: epoch 0.667, kNN 0.7800, not below it ({tmp_path / 'run'}@best)." in stderr


def test_a_training_that_destroys_the_features_is_found_below_its_parent(runs, start, watched, tmp_path, capsys):
    """Nothing is scripted: a parent that was trained with labels, and a rate that no training survives."""
    monitor = start[1].replace("0.34", "100")
    runs(tmp_path / "parent", f"data.store={watched.path}", "method=supervised", "train.epochs=12", monitor)
    wild = (f"backbone.init={tmp_path / 'parent/backbone'}", "optimizer.lr=3", "monitor.on_collapse=warn")
    answer = runs(tmp_path / "run", monitor, *wild)
    assert answer["parent"]["knn"] - answer["final"]["knn"] > answer["parent"]["knn_se"] > 0
    assert answer["below_parent"] is True and "ends below its parent" in capsys.readouterr().err


def test_a_parent_without_a_labelled_store_is_not_compared_and_the_run_says_so(runs, start, tmp_path, capsys):
    runs(tmp_path / "run", start[0], "monitor.label=none_such")
    assert "was not compared with its parent" in capsys.readouterr().err
    assert "below_parent" not in runs.card(tmp_path / "run")["training"]


def test_a_parent_whose_features_are_not_finite_is_not_compared_and_the_run_says_so(
    runs, start, scripted, tmp_path, capsys
):
    scripted(math.nan, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    runs(tmp_path / "run", *start)
    assert "was not compared with its parent, whose features are NaN or infinite" in capsys.readouterr().err
    assert "below_parent" not in runs.card(tmp_path / "run")["training"]


# The best backbone


def test_the_best_is_that_of_the_highest_knn_and_the_backbone_is_the_last(runs, start, scripted, tmp_path):
    scripted(0.9, 0.5, 0.7, 0.8, 0.8, 0.6, 0.5)
    answer = runs(tmp_path / "run", *start, f"keep=[{1 / 3}, 1]")
    folder = tmp_path / "run" / "backbones"
    best = load_backbone(f"{tmp_path / 'run'}@best")
    assert (answer["best"]["step"], answer["best"]["epoch"], answer["best"]["knn"]) == (
        3,
        1,
        0.8,
    )  # the earliest of equals
    assert best.id == load_backbone(folder / "epoch-1").id != load_backbone(tmp_path / "run/backbone").id
    assert best.card.name == "tiny@best" and best.card.stages[-1].steps == 3 and len(best.card.stages) == 2


def test_steps_with_a_frozen_backbone_are_not_the_best(runs, start, scripted, tmp_path):
    """They are the parent."""
    scripted(0.9, 0.9, 0.9, 0.9, 0.6, 0.7, 0.5)
    assert runs(tmp_path / "run", *start, "train.freeze_epochs=1")["best"]["step"] == 5


@pytest.mark.parametrize(("keep", "kept"), [((), False), (("keep.best=true",), True), (("keep.best=false",), False)])
def test_a_run_from_scratch_keeps_its_best_if_asked_to(runs, tmp_path, keep, kept):
    answer = runs(tmp_path / "run", "monitor.every_epochs=1", *keep)
    assert (tmp_path / "run/backbones/best/card.json").exists() is kept is ("best" in answer)


def test_a_best_backbone_without_labels_to_choose_it_by_is_refused(runs, tmp_path):
    with pytest.raises(RecipeError, match=r"keep.best: .*Name one in monitor.store"):
        runs(tmp_path / "run", "keep.best=true", "monitor.label=none_such")


# Resuming


def files(run):
    """Content of all that a run leaves but clocks: weights, cards and the log."""
    weights = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("model.safetensors")}
    cards = {str(path.relative_to(run)): json.loads(path.read_text()) for path in run.rglob("card.json")}
    for card in cards.values():
        for clock in ("seconds", "gpu_hours", "images_per_second", "run", "backbone"):
            card["training"].pop(clock, None)
        card["training"].get("best", {}).pop("backbone", None)
    measured = ("step", "loss", "lr", "knn", "knn_se", "below_parent")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return weights, cards, [{name: line.get(name) for name in measured} for line in log]


def test_a_continued_run_that_is_killed_ends_as_an_unbroken_one(runs, start, tmp_path, monkeypatch):
    """Before its first checkpoint, while the backbone is frozen, and after its best one."""
    advance = Training._advance
    settings = (*start, "train.freeze_epochs=0.67", "optimizer.layer_decay=0.7", "keep=[0.34, 1, 1.34]")
    settings = (*settings, "train.checkpoint_every_steps=1", "train.epochs=3")

    def killed_at(step):
        def killed(training, batches):
            if training.step == step:
                raise Killed
            return advance(training, batches)

        monkeypatch.setattr(Training, "_advance", killed)
        with pytest.raises(Killed):
            runs(tmp_path / "broken", *settings)

    for step in (0, 1, 4, 7):
        killed_at(step)
    monkeypatch.setattr(Training, "_advance", advance)
    runs(tmp_path / "broken", *settings)
    runs(tmp_path / "unbroken", *settings)
    weights, cards, log = files(tmp_path / "unbroken")
    assert (weights, cards, log) == files(tmp_path / "broken")
    assert len(weights) == 5 and [line["step"] for line in log] == list(range(10))


def test_the_same_command_answers_with_the_comparison(runs, start, tiny_recipe, tmp_path, capsys):
    answer = runs(tmp_path / "run", *start)
    assert main(["pretrain", str(tiny_recipe), *start, "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer
