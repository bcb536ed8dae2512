"""`verify` finds every flipped byte of an artifact, and nothing in one that is whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.command_line import ssl_transfer
from support.faults import flip, rewrite
from support.tiny_tasks import class_task

from ssl_transfer.cli import main
from ssl_transfer.errors import BackboneError, UsageError
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.export.stage import export_backbone
from ssl_transfer.features import extract_features
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.models.card import weights_digest
from ssl_transfer.models.tensor_files import stored_digest
from ssl_transfer.verification.stage import verify


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory):
    """A run with its backbone, features and a result, in one folder."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(finished[0], folder / "run")
    task = class_task(folder / "task")
    backbone = load_backbone(folder / "run/backbone")
    extract_features(backbone, task.store, folder / "features")
    evaluate("knn", backbone, task, folder / "result", folder / "features", resamples=0)
    export_backbone(backbone, "timm", folder / "export")
    return folder


@pytest.fixture
def copied(made, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


ARTIFACTS = ("run", "run/backbone", "features", "result", "export", "task/store", "")


@pytest.mark.parametrize("name", ARTIFACTS)
def test_what_is_whole_has_no_problem(made, name):
    answer = verify(made / name)
    assert answer["ok"] and answer["problems"] == [] and answer["checked"]


@pytest.mark.parametrize(
    ("artifact", "file"),
    [
        ("run", "backbone/model.safetensors"),
        ("run/backbone", "model.safetensors"),
        ("features", "features.safetensors"),
        ("result", "predictions.parquet"),
        ("result", "result.json"),
        ("task/store", "pixels-00000.npy"),
        ("task/store", "rows.parquet"),
        ("export", "model.safetensors"),
        ("export", "preprocessing.json"),
    ],
)
def test_a_flipped_byte_is_found(copied, artifact, file):
    path = copied / artifact / file
    middle = path.read_bytes().index(b"0.") + 2 if file == "result.json" else path.stat().st_size // 2
    flip(path, middle)
    answer = verify(copied / artifact)
    assert not answer["ok"] and str(copied / artifact) in answer["problems"][0]["path"]
    assert not verify(copied)["ok"]


@pytest.mark.parametrize(
    ("artifact", "file"),
    [
        ("run", "run.json"),
        ("run", "recipe.yaml"),
        ("run/backbone", "card.json"),
        ("run/backbone", "config.json"),
        ("run/backbone", "model.safetensors"),
        ("features", "card.json"),
        ("features", "features.safetensors"),
        ("features", "rows.parquet"),
        ("result", "result.json"),
        ("export", "export.json"),
        ("export", "config.json"),
        ("task/store", "card.json"),
        ("task/store", "pixels-00000.npy"),
    ],
)
def test_a_truncated_file_is_found(copied, artifact, file):
    path = copied / artifact / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert not verify(copied / artifact)["ok"]


def test_the_readme_of_an_export_may_be_edited_and_its_files_may_not_lie_elsewhere(copied):
    (copied / "export/README.md").write_text("Ours.")
    assert verify(copied / "export")["ok"]
    content = json.loads((copied / "export/export.json").read_text())
    rewrite(copied / "export/export.json", files={**content["files"], "../run/run.json": "0" * 32})
    assert "no digests" in verify(copied / "export")["problems"][0]["text"]


def test_every_weight_counts(copied):
    path = copied / "run/backbone/model.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    for position in np.linspace(header, path.stat().st_size - 1, 12, dtype=int):
        flip(path, int(position))
        assert not verify(path.parent)["ok"]
        with pytest.raises(BackboneError, match="these are not the weights of its card"):
            load_backbone(path.parent)
        flip(path, int(position))
    assert verify(path.parent)["ok"]


def test_the_digest_from_the_file_is_that_of_the_loaded_model(made):
    backbone = load_backbone(made / "run/backbone")
    found = stored_digest(made / "run/backbone/model.safetensors", backbone.card)
    assert found == weights_digest(backbone.model, backbone.card) == backbone.id


def test_a_backbone_of_another_run_is_found(copied):
    rewrite(copied / "run/run.json", run_id="0123")
    assert "this is the folder of run 0123" in verify(copied / "run")["problems"][0]["text"]


def test_damaged_lines_and_checkpoints_of_a_run_are_found(copied):
    run = copied / "run"
    shutil.rmtree(run / "backbone")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/checkpoint-00000002.pt").write_bytes(b"x")
    (run / "checkpoints/checkpoint-00000002.sha256").write_text("0")
    log = run / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 9, "lo')
    assert [Path(found["path"]).name for found in verify(run)["problems"]] == ["checkpoint-00000002.pt"]
    log.write_text(f'{{"step": 9, "lo\n{log.read_text()}')
    assert {Path(found["path"]).name for found in verify(run)["problems"]} == {"checkpoint-00000002.pt", "log.jsonl"}


def test_a_folder_without_an_artifact_is_refused(tmp_path):
    with pytest.raises(UsageError, match="found no artifact"):
        verify(tmp_path)


def test_the_command_prints_a_line_per_finding_and_ends_with_status_2_if_something_is_wrong(copied, capsys):
    assert main(["verify", str(copied / "result")]) == 0
    assert "no problems" in capsys.readouterr().out
    flip(copied / "result/predictions.parquet", 100)
    assert main(["verify", str(copied / "result")]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("WRONG  ") and lines[-1].endswith("1 problem")
    assert main(["verify", str(copied / "result"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_a_study_is_verified_with_all_that_it_made(tiny_quickstart, tmp_path):
    shutil.copytree(tiny_quickstart[0], tmp_path / "quick")
    answer = ssl_transfer("verify", "quick", "--json", folder=tmp_path)
    assert answer.status == 0, answer.stdout
    kinds = {entry["text"].partition(" ")[0] for entry in answer.json["checked"]}
    assert {"store", "backbone", "features", "result", "study"} <= kinds
    weights = next((tmp_path / "quick").rglob("model.safetensors"))
    flip(weights, -1)
    answer = ssl_transfer("verify", "quick", folder=tmp_path)
    assert answer.status == 2 and "weights, architecture and intensity give" in answer.stdout
