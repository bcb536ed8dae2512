"""Tuning: every combination of a grid is tried on validation, no trial can read test, and an evaluation uses the best."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.families import family_backbone
from support.tiny_tasks import SHORT, class_task, mask_task, spots, write_task

from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import RecipeError, UsageError
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.evaluation.tuning import trial_settings, tune
from ssl_transfer.recipe import parse_overrides
from ssl_transfer.result import Tuning
from ssl_transfer.run import write_json

RATES = {"optimizer.lr": [1e-9, 0.05]}
SETTINGS = parse_overrides(SHORT)


@pytest.fixture(scope="module")
def backbone():
    made = family_backbone("resnet")
    made.card = replace(made.card, id="made up")
    return made


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return class_task(tmp_path_factory.mktemp("task"), train=24, held_out=8)


@pytest.fixture(scope="module")
def tuned(backbone, task, tmp_path_factory):
    return tune("finetune", backbone, task, RATES, tmp_path_factory.mktemp("tuned") / "t", **SETTINGS)


def test_every_combination_is_a_trial():
    grid = {"optimizer.lr": [1e-4, 1e-3], "train.steps": [5, 10, 20]}
    trials = [settings for settings, _, _ in trial_settings("finetune", grid, {})]
    assert len(trials) == 6 and trials[0] == {"optimizer.lr": 1e-4, "train.steps": 5}


def test_values_of_a_command_line_get_their_types():
    settings, _, options = next(trial_settings("finetune", {"optimizer.lr": ["1e-4"]}, {}))
    assert settings == {"optimizer.lr": 1e-4} and options["optimizer"].options["lr"] == 1e-4


def test_the_best_on_validation_is_selected(tuned, task):
    values = [trial["validation"]["accuracy"] for trial in tuned.trials]
    assert tuned.selected == tuned.trials[int(np.argmax(values))]["settings"] and tuned.metric == "accuracy"
    assert set(tuned.n) == {"train", "val"} and tuned.n["train"]["images"] == 24


def test_of_equal_trials_the_first_is_selected(backbone, task, tmp_path):
    twice = tune("finetune", backbone, task, {"optimizer.lr": [0.01, 0.01]}, tmp_path / "t", **SETTINGS)
    assert twice.selected is not None and twice.trials[0]["validation"] == twice.trials[1]["validation"]


@pytest.mark.parametrize("protocol", ["finetune", "segment"])
def test_no_trial_reads_an_image_of_test(protocol, backbone, tmp_path, monkeypatch):
    task = {"finetune": class_task, "segment": mask_task}[protocol](tmp_path / "task")
    read, masks, seen = ImageStore.read, ImageStore.masks, set()
    monkeypatch.setattr(ImageStore, "read", lambda store, rows: seen.update(map(int, rows)) or read(store, rows))
    monkeypatch.setattr(ImageStore, "masks", lambda store, rows: seen.update(map(int, rows)) or masks(store, rows))
    tune(protocol, backbone, task, {"optimizer.lr": [0.01]}, tmp_path / "t", **SETTINGS)
    assert seen and seen.isdisjoint(task.rows("test").tolist()) and seen >= set(task.rows("val").tolist())


def test_a_trial_has_no_test_metric_anywhere(tuned):
    text = (tuned.path / "tuning.json").read_text() + "".join(
        file.read_text() for file in tuned.path.rglob("*.json*") if file.name != "tuning.json"
    )
    assert "test" not in text


def test_a_tuning_needs_no_test_split(backbone, tmp_path):
    labels = np.arange(16) % 2
    columns = {"label": labels.astype(str), "patient": [f"p{n:02d}" for n in range(16)]}
    task = write_task(tmp_path / "task", spots(labels)[0], ["train"] * 8 + ["val"] * 8, columns)
    assert len(tune("finetune", backbone, task, RATES, tmp_path / "t", **SETTINGS).trials) == 2


def test_a_finished_tuning_is_read_and_an_interrupted_one_continues(backbone, task, tuned, tmp_path):
    assert tune("finetune", backbone, task, RATES, tuned.path, **SETTINGS).trials == tuned.trials
    shutil.copytree(tuned.path, tmp_path / "t")
    (tmp_path / "t/tuning.json").unlink()
    first = {**tuned.trials[0], "seconds": 1e6}
    write_json(tmp_path / "t/trials/0/trial.json", {"id": f"{tuned.run_id}-0", "trial": first})
    again = tune("finetune", backbone, task, RATES, tmp_path / "t", **SETTINGS)
    assert again.trials[0]["seconds"] == 1e6 and again.selected == tuned.selected


def test_an_evaluation_uses_the_selected_settings_and_says_so(backbone, task, tuned, tmp_path):
    result = evaluate("finetune", backbone, task, tmp_path / "r", tuning=tuned, seed=3, **SETTINGS)
    by_hand = evaluate("finetune", backbone, task, tmp_path / "h", seed=3, **SETTINGS, **tuned.selected)
    assert result.metrics == by_hand.metrics and result.run_id == by_hand.run_id
    assert result.selected["optimizer.lr"] == tuned.selected["optimizer.lr"] and "step" in result.selected
    assert result.settings["tuning"] == {"run_id": tuned.run_id, "trials": 2, "seed": 0}


@pytest.mark.parametrize("change", [{"fraction": 0.5}, {"strategy": "head_only"}])
def test_a_tuning_of_something_else_is_refused(backbone, task, tuned, tmp_path, change):
    with pytest.raises(UsageError, match=f"settings were tuned for {next(iter(change))}"):
        evaluate("finetune", backbone, task, tmp_path / "r", tuning=tuned, **SETTINGS, **change)


@pytest.mark.parametrize(
    "protocol, grid, message",
    [
        ("linear_probe", {"solver": ["sgd"]}, "linear_probe selects its settings on validation itself"),
        ("finetune", {}, "expected a grid"),
        ("finetune", {"optimizer.lr": []}, r"grid\.optimizer\.lr: found \[\], expected"),
        ("finetune", {"optimizer.lr": 0.1}, r"grid\.optimizer\.lr: found 0\.1, expected"),
        ("finetune", {"seed": [0, 1]}, r"grid\.seed"),
        ("finetune", {"optimizer.rate": [0.1]}, "rate"),
    ],
)
def test_what_cannot_be_tuned_is_refused(protocol, grid, message):
    with pytest.raises(RecipeError, match=message):
        list(trial_settings(protocol, grid, {}))


def test_a_tuning_is_read_as_it_was_written(tuned, tmp_path):
    tuned.save(tmp_path)
    assert Tuning.load(tmp_path) == tuned and json.loads((tmp_path / "tuning.json").read_text())["kind"] == "tuning"
