"""The public functions take paths or opened objects, and are what the command line calls."""

from __future__ import annotations

import ast
import json

import pytest
from support.command_line import ROOT
from support.tiny_tasks import class_task

import ssl_transfer as st
from ssl_transfer.cli import main
from ssl_transfer.errors import RecipeError, UsageError

FIRST, SECOND = (f"scratch:test_resnet,in_channels=1,size=32,seed={seed}" for seed in (0, 1))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return class_task(tmp_path_factory.mktemp("task"), train=24, held_out=12, classes=3)


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch):
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys):
    """What the command line answers with `--json`."""

    def run(*words):
        capsys.readouterr()
        assert main([*map(str, words), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


def card(task):
    return task.store.path.parent / "task.yaml"


def test_the_stub_lists_the_public_names_and_where_they_are():
    stub = ast.parse((ROOT / "ssl_transfer" / "__init__.pyi").read_text())
    names = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(st.__all__) == set(dir(st))
    assert all(callable(getattr(st, name)) for name in names)


def test_evaluate_gives_the_same_result_for_paths_and_objects_and_on_the_command_line(task, command):
    result = st.evaluate("knn", FIRST, card(task), fraction=0.5)
    opened = st.evaluate("knn", st.load_backbone(FIRST), task, "opened", fraction=0.5)
    assert (opened.run_id, opened.metrics) == (result.run_id, result.metrics)
    answer = command("evaluate", "knn", FIRST, card(task), "fraction=0.5")
    assert answer == {**result.to_json(), "result": str(result.path / "result.json")}


@pytest.mark.parametrize(
    ("protocol", "settings", "message"),
    [("svm", {}, "no protocol 'svm'"), ("knn", {"fracton": 1}, "Did you mean 'fraction'"), ("knn", {"k": "x"}, "k")],
)
def test_evaluate_refuses_a_wrong_name_or_setting(task, protocol, settings, message):
    with pytest.raises(RecipeError, match=message):
        st.evaluate(protocol, FIRST, task, **settings)


def test_rank_gives_the_same_result_by_path_and_on_the_command_line(task, command):
    ranking = st.rank(card(task), [FIRST, SECOND], resamples=5)
    answer = command("rank", card(task), FIRST, SECOND, "resamples=5")
    assert answer == {**json.loads(json.dumps(ranking.to_json())), "ranking": str(ranking.path / "rank.json")}


def test_backbones_given_twice_are_refused(task):
    with pytest.raises(UsageError, match="given twice"):
        st.rank(task, [FIRST, st.load_backbone(FIRST)])


def test_pretrain_takes_a_recipe_s_path_and_settings_by_dotted_key(tiny_recipe, command):
    settings = {"train.epochs": 1, "monitor.images": 8, "tracker": "none"}
    summary = st.pretrain(tiny_recipe, "run", **settings)
    assert summary["steps"] == 3 and st.load_backbone(summary["backbone"]).card.name == "tiny"
    words = [f"{key}={value}" for key, value in settings.items()]
    assert command("pretrain", tiny_recipe, "--out", "run", *words) == summary


def test_run_study_refuses_a_wrong_setting_before_it_computes(workdir):
    with pytest.raises(RecipeError, match="titel"):
        st.run_study("quickstart_tiny", titel="x")
    assert list(workdir.iterdir()) == []
