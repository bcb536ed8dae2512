"""The verbs, one after the other as a user would call them; `--json` prints one object and nothing else."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from support.command_line import ROOT, run, ssl_transfer

from ssl_transfer.cli.text import as_lines

PHANTOM = "phantom:ct,patients=8,slices=6,size=32"
SETTINGS = ["train.epochs=2", "train.batch_size=12", "data.size=32", "train.precision=fp32", "train.log_every_steps=1"]
LAUNCHERS = (["python"], ["accelerate", "launch"])
PRETRAIN = ["recipes/quickstart_simclr.yaml", *SETTINGS, "--json"]
STORE_KEYS = {
    "n_images",
    "n_patients",
    "n_refused",
    "refused",
    "splits",
    "channels",
    "size",
    "dtype",
    "units",
    "domain",
    "labels",
}
RESULT_KEYS = {
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
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working directory as a checkout is one."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("recipes", "launch", "pretrain.py"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def ingested(place):
    return ssl_transfer("ingest", PHANTOM, "--out", "stores/phantom_ct", "--json", folder=place).json


@pytest.fixture(scope="module")
def pretrained(place, ingested):
    return ssl_transfer("pretrain", *PRETRAIN, "--out", "runs/ct", folder=place).json


@pytest.fixture(scope="module")
def evaluated(place, pretrained):
    words = ["evaluate", "linear_probe", pretrained["backbone"], "phantom_region", "fraction=0.5", "--json"]
    return ssl_transfer(*words, folder=place).json


def test_ingest_says_what_is_in_the_store_and_where_it_is(ingested, place):
    assert STORE_KEYS | {"store"} <= set(ingested)
    assert (ingested["n_images"], ingested["n_patients"], ingested["n_refused"]) == (48, 8, 0)
    assert set(ingested["splits"]) == {"train", "val", "test"}
    assert sum(split["images"] for split in ingested["splits"].values()) == 48
    assert sum(split["patients"] for split in ingested["splits"].values()) == 8
    assert (ingested["dtype"], ingested["units"], ingested["domain"], len(ingested["labels"])) == (
        "int16",
        "hu",
        "ct",
        6,
    )
    assert (place / ingested["store"] / "card.json").is_file()


def test_inspect_says_the_same_and_draws_a_contact_sheet(ingested, place):
    inspected = ssl_transfer("inspect", "stores/phantom_ct", "--figure", "sheet.png", "--json", folder=place).json
    assert {key: inspected[key] for key in STORE_KEYS} == {key: ingested[key] for key in STORE_KEYS}
    sheet = Image.open(io.BytesIO((place / "sheet.png").read_bytes()))
    assert min(sheet.size) > 300
    assert len(sheet.convert("L").getcolors(256)) > 50


def test_ingesting_again_into_the_same_folder_does_nothing(ingested, place):
    words = ["ingest", PHANTOM, "--out", "stores/phantom_ct", "--json"]
    answer = ssl_transfer(*words, folder=place)
    assert answer.json == ingested
    assert "already there" in answer.stderr


def test_pretrain_returns_the_backbone_and_a_summary(pretrained, place):
    assert {"backbone", "run", "world_size", "steps", "images_per_second", "final"} <= set(pretrained)
    assert {"loss", "knn", "rankme"} <= set(pretrained["final"])
    assert (pretrained["world_size"], pretrained["steps"]) == (1, 6)  # two epochs of three batches of twelve
    assert {"model.safetensors", "config.json", "card.json", "README.md", "passport"} == {
        path.name for path in (place / pretrained["backbone"]).iterdir()
    }


def test_a_run_folder_holds_recipe_environment_and_log(pretrained, place):
    folder = place / pretrained["run"]
    assert {"recipe.yaml", "environment.json", "log.jsonl", "tensorboard"} <= {path.name for path in folder.iterdir()}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert {"step", "epoch", "loss", "lr", "world_size", "images_per_second"} <= set(lines[0])


def test_pretraining_again_does_nothing_and_another_recipe_is_refused(pretrained, place):
    again = ssl_transfer("pretrain", *PRETRAIN, "--out", "runs/ct", "tracker=none", folder=place)
    assert again.json == pretrained
    assert "already there" in again.stderr
    other = ssl_transfer("pretrain", *PRETRAIN, "--out", "runs/ct", "train.seed=5", folder=place)
    assert other.status == 2
    assert other.stderr.startswith("UsageError: runs/ct: already holds run ")


def test_inspect_knows_every_kind_of_artifact(pretrained, evaluated, place):
    kinds = {
        ssl_transfer("inspect", path, "--json", folder=place).json.get("kind", "run")
        for path in ("stores/phantom_ct", "runs/ct", "runs/ct/backbone", evaluated["result"])
    }
    assert kinds == {"store", "run", "backbone", "result"}


def test_features_are_computed_once_and_kept(pretrained, ingested, place):
    words = ["features", pretrained["backbone"], "stores/phantom_ct", "--out", "runs/features_ct", "--json"]
    first, second = (ssl_transfer(*words, folder=place) for _ in range(2))
    assert first.json == second.json
    assert (first.json["shape"], first.json["store"]) == ([48, 256], ingested["id"])
    assert "features: " in first.stderr
    assert "features: " not in second.stderr  # no second pass
    assert ssl_transfer("inspect", "runs/features_ct", "--json", folder=place).json["kind"] == "features"


def test_evaluate_prints_the_content_of_result_json(evaluated, place):
    assert set(evaluated) >= RESULT_KEYS
    written = json.loads((place / evaluated["result"]).read_text())
    assert written.pop("digest")
    assert written == {key: value for key, value in evaluated.items() if key != "result"}
    assert set(written["n"]) == {"train", "val", "test"}
    assert all(set(count) == {"images", "patients"} for count in written["n"].values())
    assert written["n"]["train"]["patients"] == 3  # half of six
    assert {"id", "name", "method", "source_domain", "parents"} <= set(written["backbone"])
    assert (written["backbone"]["method"], written["boundary"], written["seen_in_pretraining"]) == (
        "simclr",
        "none",
        True,
    )
    assert set(written["metrics"]) == {"val", "test"}


def test_evaluating_again_prints_the_same_result_without_computing_it(evaluated, place):
    words = ["evaluate", "linear_probe", "runs/ct/backbone", "phantom_region", "fraction=0.5", "--json"]
    assert ssl_transfer(*words, folder=place).json == evaluated


@pytest.mark.long  # UMAP compiles anew in every process; tests/analysis/test_analyze.py calls the verb in this one
def test_analyze_writes_an_explorer_and_a_second_call_reads_its_folder(pretrained, place):
    words = [
        "analyze",
        pretrained["backbone"],
        "scratch:test_resnet",
        "--store",
        "stores/phantom_ct",
        "neighbors=5",
        "--json",
    ]
    first = ssl_transfer(*words, "--out", "runs/analysis", folder=place)
    again = ssl_transfer(*words, "--out", "runs/analysis", folder=place)
    assert first.json == again.json and "UMAP: " in first.stderr and "UMAP: " not in again.stderr
    assert (first.json["kind"], len(first.json["backbones"])) == ("analysis", 2)
    assert (place / first.json["explorer"]).read_text().startswith("<!")
    assert ssl_transfer("inspect", "runs/analysis", "--json", folder=place).json["run_id"] == first.json["run_id"]
    other = ssl_transfer(*words, "seed=1", "--out", "runs/analysis", folder=place)
    assert other.status == 2 and other.stderr.startswith("UsageError: runs/analysis: ")


def test_analyze_says_what_is_missing(ingested, place):
    without = ssl_transfer("analyze", "scratch:test_resnet", "--json", folder=place)
    assert without.status == 2 and "--store" in without.stderr
    settings = ssl_transfer("analyze", "seed=1", "--store", "stores/phantom_ct", folder=place)
    assert settings.status == 2 and settings.stderr.startswith("UsageError: analyze: found no backbone")


@pytest.fixture(scope="module")
def launched(pretrained, place):
    """What two other ways to start the same run answered, by their first word."""
    commands = {words[0]: [*words, "pretrain.py", *PRETRAIN, "--out", f"runs/{words[0]}"] for words in LAUNCHERS}
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda command: run(command, place), commands.values())
        return dict(zip(commands, answers, strict=True))


@pytest.mark.parametrize("launcher", [words[0] for words in LAUNCHERS])
def test_pretrain_py_answers_like_the_verb(launcher, launched, pretrained, place):
    answer = launched[launcher].json
    assert set(answer) == set(pretrained)
    same = ("world_size", "steps", "final", "precision")
    assert {key: answer[key] for key in same} == {key: pretrained[key] for key in same}
    weights = [(place / "runs" / run / "backbone" / "model.safetensors").read_bytes() for run in ("ct", launcher)]
    assert weights[0] == weights[1]


def test_without_json_the_answer_is_text():
    answer = {
        "n_images": 3,
        "refused": [{"file": "a.png", "kind": "unreadable"}],
        "size": [32, 32],
        "loss": 0.123456,
        "knn": None,
    }
    assert as_lines(answer).splitlines() == [
        "n_images: 3",
        "refused:",
        "  - file a.png, kind unreadable",
        "size: [32, 32]",
        "loss: 0.1235",
        "knn: –",
    ]
