"""Runs and results: identity, and the rule that what is not whole does not exist."""

import json
import sys
from dataclasses import asdict, replace

import pytest
from support.command_line import run

from ssl_transfer.environment import environment
from ssl_transfer.errors import UsageError
from ssl_transfer.result import EvalResult
from ssl_transfer.run import Artifact, Log, read_json, run_id, whole_folder, write_json

RESULT = EvalResult(
    run_id="0123",
    protocol="knn",
    strategy=None,
    backbone={"id": "a", "name": "b", "method": "simclr", "source_domain": "ct", "parents": []},
    task={"name": "region", "target_domain": "ct"},
    boundary="none",
    fraction=0.1,
    seed=0,
    pretraining_seed=None,
    n={split: {"images": 3, "patients": None} for split in ("train", "val", "test")},
    selected={"k": 5},
    metrics={"val": {"auroc": 0.5}, "test": {"auroc": None}},
    intervals={"auroc": [0.4, 0.6]},
    seen_in_pretraining=False,
    cost={"seconds": 1.0, "device": "cpu"},
    environment={},
)


def test_the_id_of_a_run_depends_on_stage_settings_and_inputs():
    name = run_id("pretrain", {"lr": 1}, ["store"])
    assert name == run_id("pretrain", {"lr": 1}, ["store"])
    others = {
        run_id("evaluate", {"lr": 1}, ["store"]),
        run_id("pretrain", {"lr": 2}, ["store"]),
        run_id("pretrain", {"lr": 1}, []),
    }
    assert len({name, *others}) == 4
    assert len(name) == 16


def test_a_json_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "card.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[1, 2]", b"\xff\xfe", b"null"])
def test_a_truncated_json_file_is_read_as_none(tmp_path, content):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    assert read_json(path) is None


def test_a_missing_json_file_is_read_as_none(tmp_path):
    assert read_json(tmp_path / "card.json") is None


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
    with whole_folder(tmp_path / "artifact") as temporary:
        (temporary / "weights").write_text("…")
        assert not (tmp_path / "artifact").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_a_folder_whose_writing_failed_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "artifact") as temporary:
        (temporary / "weights").write_text("…")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_killed_process_are_not_taken_for_the_folder_and_do_not_block_the_next(tmp_path):
    kill = """
import os, signal
from pathlib import Path
from ssl_transfer.run import whole_folder
with whole_folder(Path('artifact')) as temporary:
    (temporary / 'half').write_text('…')
    os.kill(os.getpid(), signal.SIGKILL)"""
    assert run([sys.executable, "-c", kill], tmp_path).status == -9
    assert not (tmp_path / "artifact").exists()
    with whole_folder(tmp_path / "artifact") as temporary:
        (temporary / "whole").write_text("…")
    assert [path.name for path in (tmp_path / "artifact").iterdir()] == ["whole"]


def test_a_log_has_one_object_a_line_and_writes_nan_as_null(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.write(step=1, loss=float("nan"))
    log.write(step=2, loss=0.5)
    log.close()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": None}, {"step": 2, "loss": 0.5}]


def test_a_resumed_log_drops_lines_after_its_checkpoint_and_an_incomplete_last_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    log = Log(path, last_step=2)
    log.write(step=3, again=True)
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "again": True},
    ]


def test_the_environment_names_versions_device_and_time():
    found = environment("cpu")
    assert {"ssl_transfer", "git_commit", "python", "platform", "versions", "device", "threads", "time"} <= set(found)
    assert {"torch", "lightly", "timm", "faiss", "numpy"} <= set(found["versions"])


def test_a_result_is_read_back_as_it_was_saved(tmp_path):
    path = RESULT.save(tmp_path)
    assert path.name == "result.json"
    assert EvalResult.load(tmp_path) == EvalResult.load(path) == RESULT


def test_a_result_of_another_schema_is_refused(tmp_path):
    write_json(tmp_path / "result.json", asdict(replace(RESULT, schema=99)))
    with pytest.raises(UsageError, match="expected a result of schema 1"):
        EvalResult.load(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"kind": "store", "schema": 1}', '{"kind": "result", "schema": 1}']
)
def test_a_file_that_is_no_result_is_refused(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(UsageError, match=r"result\.json: "):
        EvalResult.load(tmp_path)


def test_a_folder_without_a_result_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no readable result"):
        EvalResult.load(tmp_path)


def test_a_result_has_the_documented_keys():
    assert {
        "schema",
        "run_id",
        "protocol",
        "strategy",
        "backbone",
        "task",
        "boundary",
        "fraction",
        "seed",
        "pretraining_seed",
        "n",
        "selected",
        "metrics",
        "intervals",
        "seen_in_pretraining",
        "cost",
        "environment",
    } <= set(asdict(RESULT))


# Artifacts


def artifact(folder, **settings):
    return Artifact.of("rank", settings, ["store"], folder, record="rank.json")


def test_an_artifact_is_finished_once_its_record_is_there_and_says_so(tmp_path, capsys):
    own = artifact(tmp_path / "r", by="knn")
    assert not own.is_finished()
    with whole_folder(own.folder) as folder:
        write_json(folder / "rank.json", {"run_id": own.id})
        assert not own.is_finished()
    assert own.is_finished() and capsys.readouterr().err == f"{tmp_path / 'r'}: already there.\n"


def test_an_artifact_is_below_runs_by_its_stage_and_id_or_by_its_name():
    assert artifact(None).folder.as_posix() == f"runs/rank/{artifact(None).id}"
    named = Artifact.of("pretrain", {}, [], None, record="backbone/card.json", name="ct")
    assert named.folder.as_posix() == f"runs/ct-{named.id[:8]}"


def test_a_folder_that_holds_another_artifact_is_refused_with_both_ids(tmp_path):
    first, second = artifact(tmp_path / "r", by="knn"), artifact(tmp_path / "r", by="logme")
    with whole_folder(first.folder) as folder:
        write_json(folder / "rank.json", {"run_id": first.id})
    message = f"already holds run {first.id}; this is run {second.id}. Give another --out."
    with pytest.raises(UsageError, match=message):
        second.is_finished()


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "rank.json"])
def test_a_folder_of_other_files_is_refused(tmp_path, name):
    (tmp_path / name).write_text("half a rec")
    with pytest.raises(UsageError, match=rf"already holds other files \({name}\)"):
        artifact(tmp_path).is_finished()


def test_a_file_at_the_path_of_the_folder_is_refused(tmp_path):
    (tmp_path / "r").write_text("")
    with pytest.raises(UsageError, match="this is a file"):
        artifact(tmp_path / "r").is_finished()


def test_an_interrupted_run_continues_in_its_own_folder_and_refuses_that_of_others(tmp_path):
    shared = {"folder": tmp_path, "record": "result.json", "started": "run.json", "partial": ("log.jsonl",)}
    (tmp_path / "log.jsonl").write_text("")
    assert not Artifact("a", **shared).is_finished()
    write_json(tmp_path / "run.json", {"run_id": "a"})
    assert not Artifact("a", **shared).is_finished()
    with pytest.raises(UsageError, match="already holds run a; this is run b"):
        Artifact("b", **shared).is_finished()
