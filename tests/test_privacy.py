"""From a hospital's files to the report of a study: no file of any artifact names a person, the user or the machine."""

import platform
import socket
from pathlib import Path

import pytest
import yaml
from support.planted import dicom, persons_in

from ssl_transfer.cli import main

RECIPE = {
    "backbone": {"name": "test_resnet", "in_channels": 1},
    "method": {"name": "simclr", "hidden_dim": 32, "projection_dim": 16},
    "optimizer": {"name": "adamw", "lr": "1.0e-3"},
    "train": {"epochs": 1, "batch_size": 8, "warmup_epochs": 0, "precision": "fp32", "workers": 0},
}
STUDY = {
    "title": "Two arms",
    "question": "Does it name anybody?",
    "pretrain": {"recipe": "recipe.yaml", "set": {"tracker": "none"}},
    "pretrainings": {"CT": {"store": "ct"}, "scratch": {"store": "ct", "untrained": True}},
    "pretraining_seeds": [0, 1],
    "tasks": {"region": {"card": "task.yaml", "store": "ct"}},
    "evaluations": [{"protocol": "knn", "fractions": [1.0], "seeds": [0]}],
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The working directory of a user, on a machine, whose names must not be stored."""
    folder = tmp_path / "home" / "planteduser" / "project"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name, value in {"HOME": str(folder.parent), "USER": "planteduser", "LOGNAME": "planteduser"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(platform, "node", lambda: "plantedhost")
    monkeypatch.setattr(socket, "gethostname", lambda: "plantedhost")
    return folder


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def write(path: Path, content: dict) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.long
def test_no_file_of_any_artifact_names_a_person(home):
    source = dicom(home / "Erdmuthe" / "Mustermann", patients=12, slices=4)
    store = home / "stores" / "ct"
    run("ingest", source, "--out", store, "--max-refused", "0.2")
    recipe = write(home / "recipe.yaml", RECIPE | {"data": {"store": str(store), "views": "ct", "size": 32}})
    write(home / "task.yaml", {"store": str(store), "target": "label", "metric": "balanced_accuracy"})
    run("pretrain", recipe, "--out", home / "runs" / "simclr")
    backbone = home / "runs" / "simclr" / "backbone"
    run("features", backbone, store, "--out", home / "runs" / "features")
    run("evaluate", "knn", backbone, home / "task.yaml", "--out", home / "runs" / "knn")
    run("rank", home / "task.yaml", backbone, "scratch:test_resnet,size=32", "--out", home / "runs" / "rank")
    run("analyze", backbone, "--store", store, "--out", home / "runs" / "analysis", "neighbors=5")
    study = STUDY | {"stores": {"ct": {"path": str(store)}}}
    run("study", "run", write(home / "study.yaml", study), "--out", home / "studies" / "two")
    run("study", "report", home / "studies" / "two")
    for folder in ("stores", "runs", "studies"):
        assert persons_in(home / folder) == []
    kinds = {path.suffix for folder in ("stores", "runs", "studies") for path in (home / folder).rglob("*")}
    assert kinds >= {".parquet", ".npy", ".safetensors", ".json", ".jsonl", ".html", ".png", ".csv", ".yaml", ".md"}
    assert list((home / "runs").rglob("events.out.tfevents.*.host.*"))


@pytest.mark.long
def test_the_record_of_a_failed_job_names_nobody(home):
    source = dicom(home / "archive")  # one of its files is damaged, which is too many
    study = STUDY | {"stores": {"ct": {"source": "archive"}}}
    write(home / "recipe.yaml", RECIPE | {"data": {"store": "stores/ct", "views": "ct", "size": 32}})
    write(home / "task.yaml", {"store": "stores/ct", "target": "label", "metric": "balanced_accuracy"})
    assert source.exists() and main(["study", "run", str(write(home / "study.yaml", study))]) == 2
    assert list((home / "studies").rglob("*.failed.json")) and persons_in(home / "studies") == []
