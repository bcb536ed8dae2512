"""`ssl-transfer list`: every name that a recipe or command takes, with a sentence; and the artifacts below a folder."""

import json

import pytest
from support.command_line import ROOT
from support.tiny_tasks import class_task

from ssl_transfer.cli import catalogue, main
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.measures.transferability import SCORES
from ssl_transfer.methods.registry import METHODS
from ssl_transfer.models.importing.layouts import LAYOUTS
from ssl_transfer.training.optim import OPTIMIZERS

NAMES = {
    "methods": METHODS,
    "views": VIEWS,
    "optimizers": OPTIMIZERS,
    "strategies": STRATEGIES,
    "scores": SCORES,
    "layouts": [layout.name for layout in LAYOUTS],
    "recipes": [path.stem for path in (ROOT / "recipes").glob("*.yaml")],
    "tasks": [path.stem for path in (ROOT / "recipes/tasks").glob("*.yaml")],
    "studies": [path.stem for path in (ROOT / "recipes/studies").glob("*.yaml")],
}


@pytest.fixture
def listed(capsys):
    """The entries that the command answers."""

    def entries(*words):
        assert main(["list", *map(str, words), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)["entries"]

    return entries


@pytest.mark.parametrize("what", catalogue.COMPONENTS)
def test_every_name_is_listed_with_a_sentence(listed, what):
    entries = listed(what)
    assert sorted(entry["name"] for entry in entries) == sorted(NAMES.get(what, [entry["name"] for entry in entries]))
    assert entries and all(
        len(entry["summary"]) >= len("timm") and entry["summary"][-1] not in ".:" for entry in entries
    )


def test_without_a_word_it_says_what_can_be_listed(listed):
    assert [entry["name"] for entry in listed()] == [*catalogue.COMPONENTS, "runs"]
    assert listed()[0]["summary"] == f"{len(METHODS)} pretraining methods"


def test_artifacts_are_listed_with_their_kind_and_what_they_are(finished, tmp_path, listed, capsys):
    task = class_task(tmp_path / "task")
    backbone = finished[0] / "backbone"
    result = evaluate("knn", backbone, task, tmp_path / "runs/knn", tmp_path / "features", resamples=0)
    (tmp_path / "copy").symlink_to(finished[0])
    entries = {entry["name"]: entry for entry in listed("runs", tmp_path)}
    kinds = {name.removeprefix(f"{tmp_path}/"): entry["kind"] for name, entry in entries.items()}
    assert kinds.pop("runs/knn") == "result" and kinds.pop("task/store") == "store" and kinds["copy"] == "run"
    accuracy = f"accuracy {result.metrics['test']['accuracy']:.4f}"
    assert accuracy in entries[f"{tmp_path}/runs/knn"]["summary"]
    assert f"{len(task.store):,} images" in entries[f"{tmp_path}/task/store"]["summary"]
    assert main(["list", "runs", str(tmp_path)]) == 0 and accuracy in " ".join(capsys.readouterr().out.split())


def test_an_unfinished_run_and_a_damaged_card_are_listed_as_such(tmp_path, listed):
    for name, record in (("run", '{"run_id": "a", "stage": "pretrain"}'), ("torn", '{"kind":')):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("run.json" if name == "run" else "card.json")).write_text(record)
    unfinished, torn = listed("runs", tmp_path)
    assert unfinished["summary"] == "not finished" and torn["kind"] == "?" and "verify" in torn["summary"]


@pytest.mark.parametrize(
    ("what", "name", "option"),
    [
        ("methods", "simclr", "temperature=0.5"),
        ("views", "ct", "crop_scale=[0.3, 1.0]"),
        ("protocols", "knn", "fraction=1.0"),
        ("protocols", "finetune", "train.patience=null"),
        ("strategies", "lora", "rank=8"),
    ],
)
def test_the_options_of_a_name_have_defaults_and_sentences(listed, what, name, option):
    options = listed(what, name)
    assert option in [entry["name"] for entry in options]
    assert all(len(entry["summary"]) > 12 for entry in options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method"], "Did you mean 'methods'?"),
        (["methods", "simcl"], "Did you mean 'simclr'?"),
        (["recipes", "runs"], "`list runs` takes a folder"),
        (["runs", "nowhere"], "no such folder"),
    ],
)
def test_what_cannot_be_listed_is_refused(words, message, capsys):
    assert main(["list", *words]) == 2 and message in capsys.readouterr().err
