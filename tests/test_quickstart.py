"""The quickstart at its tiny scale, from the outside."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from support.command_line import ssl_transfer
from support.contrast_columns import CONTRAST_COLUMNS

ARMS = {"CT", "cell lines", "photographs", "scratch"}
TIDY_COLUMNS = [
    "protocol",
    "pretraining",
    "task",
    "strategy",
    "fraction",
    "pretraining_seed",
    "seed",
    "metric",
    "value",
    "boundary",
    "run_id",
]


@pytest.fixture(scope="module")
def first(tiny_quickstart):
    """The answer of `ssl-transfer quickstart --scale tiny`."""
    return tiny_quickstart[1]


@pytest.fixture(scope="module")
def workdir(first, tiny_quickstart, tmp_path_factory) -> Path:
    """As if it had been started here: a copy, for what starts it again would write where others read."""
    assert first.status == 0, first.stderr
    workdir = tmp_path_factory.mktemp("quickstart")
    shutil.copytree(tiny_quickstart[0], workdir / "quick")
    return workdir


@pytest.fixture(scope="module")
def folder(workdir) -> Path:
    return workdir / "quick"


def test_the_answer_has_the_findings_the_duration_and_the_path_of_the_report(first, workdir):
    assert {"headline", "report", "out", "seconds"} <= set(first.json)
    assert "balanced accuracy" in first.json["headline"][0]
    assert (workdir / first.json["report"]).is_file()


def test_the_report_is_one_file_that_shows_every_arm_and_picture(folder):
    page = (folder / "report.html").read_text()
    assert all(arm in page for arm in ARMS)
    assert page.count("data:image/png;base64,") >= 4  # UMAP and three contact sheets
    assert not re.search(r"""(src|href)=["']?(?!#|data:|"|')""", re.sub(r'href="https://[^"]*"', "", page))


def test_every_stage_shows_progress(first):
    for kind in ("ingest", "pretrain", "features", "linear_probe", "knn", "finetune", "segment", "UMAP"):
        assert re.search(rf"^{kind}: \d+\.\d s$", first.stderr, re.M)
    assert re.search(r"^\[1/\d+, about .* left\] ingest ct$", first.stderr, re.M)


def test_every_pair_of_arms_is_contrasted_over_pretraining_seeds(folder):
    contrasts = pd.read_csv(folder / "tables" / "contrasts.csv")
    assert list(contrasts.columns) == CONTRAST_COLUMNS
    assert set(contrasts["a"]) | set(contrasts["b"]) == ARMS
    declared = contrasts["family"].isin(["gate", "primary"])  # rows of their own, beside those of the pairs
    pairs = contrasts[~declared]
    assert declared.any() and (pairs.groupby(["protocol", "fraction", "metric"]).size() == 6).all()
    assert set(pairs["protocol"]) == {"linear_probe", "knn", "finetune", "segment"}
    assert {"dice", "hd95", "dice_present"} <= set(pairs.loc[pairs["protocol"] == "segment", "metric"])
    assert set(pairs["unit"]) == {"pretraining_seed"}
    measured = pairs[
        pairs["difference"].notna()
    ]  # the 95th percentile of distances is undefined where nothing is segmented
    assert set(measured["n_a"]) == set(measured["n_b"]) == {2}
    assert (pairs["difference"] - (pairs["mean_a"] - pairs["mean_b"])).abs().max() < 1e-9


def test_the_tidy_table_has_every_run(folder):
    table = pd.read_csv(folder / "tables" / "table.csv")
    assert set(TIDY_COLUMNS) <= set(table.columns)
    shown = table[table["metric"] == "balanced_accuracy"]
    assert len(shown) == 4 * 2 * (2 * 2 + 1)  # arms, seeds, probes at two fractions and a fine-tune
    assert shown["run_id"].nunique() == len(shown)
    assert table.loc[table["metric"] == "dice", "run_id"].nunique() == 4 * 2
    boundaries = shown.groupby("pretraining")["boundary"].first().to_dict()
    assert boundaries == {"CT": "none", "cell lines": "hard", "photographs": "hard", "scratch": "scratch"}


def test_arms_differ_in_the_domain_alone(folder):
    cards = [json.loads(path.read_text()) for path in folder.glob("pretrain/*/backbone/card.json")]
    trained = [card for card in cards if card["method"] != "none"]
    assert (len(cards), len(trained)) == (8, 6)
    assert len({card["source_domain"] for card in trained}) == 3
    assert [sum(stage["images"].values()) for card in trained for stage in card["stages"]] == 6 * [96]
    for card in trained:
        assert card["training"]["steps"] == trained[0]["training"]["steps"]
        for section in ("method", "optimizer", "backbone"):
            assert card["recipe"][section] == trained[0]["recipe"][section]
        for key in ("limit", "size", "views"):
            assert card["recipe"]["data"][key] == trained[0]["recipe"]["data"][key]


def test_a_second_call_computes_nothing_and_gives_the_same_answer(first, folder, workdir):
    made = {
        path: path.stat().st_mtime_ns
        for pattern in (
            "**/model.safetensors",
            "**/result.json",
            "**/features.safetensors",
            "stores/*/*/card.json",
            "pictures/*.png",
        )
        for path in folder.glob(pattern)
    }
    tables = {path: path.read_bytes() for path in folder.glob("tables/*.csv")}
    assert len(made) > 8 + 32 + 8 + 3
    again = ssl_transfer("quickstart", "--scale", "tiny", "--out", "quick", folder=workdir)
    assert again.status == 0
    assert again.stdout.splitlines()[-1] == f"report: {first.json['report']}"
    assert first.json["headline"][0] in again.stdout
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert {path: path.read_bytes() for path in tables} == tables


def test_another_scale_does_not_go_into_the_same_folder(folder, workdir):
    answer = ssl_transfer("quickstart", "--scale", "full", "--out", "quick", folder=workdir)
    assert (answer.status, answer.stdout) == (2, "")
    assert answer.stderr.startswith("UsageError: quick: already holds a quickstart of scale tiny;")
