"""`probe`: the command line's evaluation of frozen features as a function."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.tiny_tasks import class_task, mask_task

import ssl_transfer
from ssl_transfer import features as cached
from ssl_transfer.cli import main
from ssl_transfer.errors import RecipeError, TaskError, UsageError
from ssl_transfer.evaluation.stage import probe
from ssl_transfer.features import extract_features
from ssl_transfer.models.backbone import load_backbone

SPEC = "scratch:test_resnet,in_channels=1,size=32"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return class_task(tmp_path_factory.mktemp("task"), train=24, held_out=12, classes=3)


@pytest.fixture
def backbone():
    return load_backbone(SPEC)


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch):
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def json_answer(capsys):
    """Run a command; its JSON answer."""

    def run(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    ("protocol", "settings"),
    [
        ("linear_probe", {}),
        ("linear_probe", {"fraction": 0.5, "seed": 2, "strengths": [0.1, 10]}),
        ("knn", {"fraction": 0.5}),
    ],
)
def test_probe_gives_the_results_of_the_command_line(protocol, settings, task, backbone, json_answer, workdir):
    card = task.store.path.parent / "task.yaml"
    result = probe(backbone, task, protocol=protocol, out=workdir / "mine", **settings)
    words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    answer = json_answer("evaluate", protocol, SPEC, card, *words, "--out", "theirs", "--json")
    for key in ("metrics", "intervals", "selected", "n", "protocol", "fraction", "seed", "run_id"):
        assert answer[key] == getattr(result, key), key


def test_a_task_is_the_path_of_its_card_or_a_task_object(task, backbone, workdir):
    by_card = probe(backbone, task.store.path.parent / "task.yaml", out=workdir / "a", resamples=0)
    opened = probe(backbone, task, out=workdir / "b", resamples=0)
    assert by_card.run_id == opened.run_id and by_card.metrics == opened.metrics


def test_the_result_is_in_the_command_lines_folder_and_read_when_it_is_there(task, backbone, workdir, monkeypatch):
    first = probe(backbone, task)
    assert (workdir / "runs" / "evaluate" / first.run_id / "result.json").is_file()
    monkeypatch.setattr(cached, "embed", lambda *_, **__: pytest.fail("computed again"))
    again = probe(load_backbone(SPEC), task)
    assert again == first and again.cost == first.cost


def test_cached_features_are_used_and_those_of_another_backbone_refused(task, backbone, workdir, monkeypatch):
    extract_features(backbone, task.store, workdir / "kept")
    monkeypatch.setattr(cached, "embed", lambda *_, **__: pytest.fail("computed again"))
    result = probe(backbone, task, features=workdir / "kept")
    assert set(result.metrics) == {"val", "test"} and not (workdir / "runs" / "features").exists()
    other = load_backbone(f"{SPEC},seed=1")
    with pytest.raises(UsageError, match=r"kept: features of other inputs: backbone .* another .*--features"):
        probe(other, task, features=workdir / "kept", out=workdir / "other")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"CC": 1}, "no setting 'CC'"),
        ({"resample": 0}, "Did you mean 'resamples'"),
        ({"strengths": [-1]}, "strengths"),
        ({"precision": "fp8"}, "precision"),
        ({"fraction": 2.0}, "fraction"),
        ({"fraction": [0.5, 1.0]}, "fraction"),
        ({"seed": -1}, "seed"),
        ({"k": 3}, "no setting 'k'"),  # of k-NN
    ],
)
def test_a_wrong_setting_is_a_recipe_error_before_anything_is_computed(settings, message, task, backbone, workdir):
    with pytest.raises(RecipeError, match=message):
        probe(backbone, task, **settings)
    assert not (workdir / "runs").exists()


def test_settings_may_be_numpy_scalars(task, backbone, workdir):
    plain = probe(backbone, task, fraction=0.5, seed=1, out=workdir / "a")
    assert probe(backbone, task, fraction=np.float64(0.5), seed=np.int64(1), out=workdir / "b").metrics == plain.metrics


def test_a_missing_task_card_or_a_segmentation_task_is_a_task_error(backbone, workdir):
    with pytest.raises(TaskError):
        probe(backbone, workdir / "nowhere.yaml")
    with pytest.raises(TaskError, match="segmentation"):
        probe(backbone, mask_task(workdir / "masks"))


def test_probe_is_a_public_name_and_leaves_the_backbone_unchanged(task, backbone, workdir):
    assert ssl_transfer.probe is probe
    backbone.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    probe(backbone, task, resamples=0)
    assert backbone.training and all((before[name] == value).all() for name, value in backbone.state_dict().items())
