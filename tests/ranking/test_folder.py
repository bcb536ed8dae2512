"""The folder of a ranking, and features that are there already."""

import json
import os
import shutil

import numpy as np
import pandas
import pytest
from safetensors.numpy import load_file, save_file
from support.rankings import CLEAR, CRITERIA, DIM, THREE, cohort, criteria_of, plain, ranked, reader

from ssl_transfer.errors import UsageError
from ssl_transfer.features import extract_features
from ssl_transfer.ranking.stage import rank

# the folder


def test_the_folder_contains_the_ranking_and_a_table_of_all_values(three_ranked):
    _, answer, folder = three_ranked
    written = json.loads((folder / "rank.json").read_text())
    assert len(written.pop("digest")) == 16 and written == answer
    table = pandas.read_csv(folder / "scores.csv")
    assert len(table) == len(THREE) * len(CRITERIA) and set(table["criterion"]) == CRITERIA
    for row in table.itertuples():
        value = criteria_of(answer, row.backbone)[row.criterion]
        assert np.isnan(row.value) if value is None else row.value == pytest.approx(value)


def test_without_out_the_folder_is_named_by_the_inputs(workdir, task):
    first = rank(task, {"it": reader(*CLEAR)}, resamples=0)
    folder = first.path
    assert str(folder.parent) == "runs/rank" and folder.name == first.run_id
    again = rank(task, {"it": reader(*CLEAR)}, resamples=0)
    assert again == first
    others = [
        rank(task, {"it": reader(*CLEAR)}, resamples=0, seed=1).path,
        rank(task, {"it": reader(*DIM)}, resamples=0).path,
        rank(task, {"other name": reader(*CLEAR)}, resamples=0).path,
        rank(cohort(workdir / "other", seed=1), {"it": reader(*CLEAR)}, resamples=0).path,
    ]
    assert again.path == folder and len({folder, *others}) == 5


def test_the_same_ranking_is_read_from_the_folder_without_computation(workdir, task):
    first = ranked(task, THREE, workdir / "out")
    before = (workdir / "out" / "rank.json").stat().st_mtime_ns
    shutil.rmtree("runs")
    assert ranked(task, THREE, workdir / "out") == first
    assert (workdir / "out" / "rank.json").stat().st_mtime_ns == before and not os.path.exists("runs")


@pytest.mark.parametrize("holds", ["another ranking", "something else"])
def test_a_folder_with_other_content_is_refused_and_kept(workdir, task, holds):
    if holds == "another ranking":
        ranked(task, {"it": DIM}, workdir / "out", resamples=0)
    else:
        (workdir / "out").mkdir()
        (workdir / "out" / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in (workdir / "out").iterdir()}
    with pytest.raises(UsageError, match=r"Give another --out"):
        ranked(task, {"it": CLEAR}, workdir / "out", resamples=0)
    assert {path: path.read_bytes() for path in (workdir / "out").iterdir()} == before


def test_nothing_is_left_behind_by_a_ranking_that_failed(workdir, task):
    with pytest.raises(UsageError, match="by=leep"):
        ranked(task, {"it": CLEAR}, workdir / "out", by="leep", resamples=0)
    assert not [path for path in workdir.iterdir() if path.name.strip(".").startswith("out")]


# features that are there


def test_given_features_are_used_and_none_are_written(workdir, task):
    backbones = {"clear": reader(*CLEAR), "dim": reader(*DIM)}
    for name, backbone in backbones.items():
        extract_features(backbone, task.store, workdir / f"of {name}")
    assert not (workdir / "runs").exists()
    given = [workdir / f"of {name}" for name in backbones]
    answer = ranked(task, backbones, workdir / "out", features=given)
    assert not (workdir / "runs").exists()
    assert plain(answer) == plain(ranked(task, backbones, workdir / "alone"))


def test_it_is_the_given_features_that_are_scored(workdir, task):
    backbone, folder = reader(*DIM), workdir / "features"
    extract_features(backbone, task.store, folder)
    save_file({"features": extract_features(reader(*CLEAR), task.store).values}, folder / "features.safetensors")
    answer = ranked(task, {"it": backbone}, workdir / "out", resamples=0, features=[folder])
    assert criteria_of(answer, "it")["linear_probe"] > 0.95


def test_features_of_test_images_do_not_matter(workdir, task):
    backbone, folder = reader(*DIM), workdir / "features"
    expected = ranked(task, {"it": backbone}, workdir / "clean")
    extract_features(backbone, task.store, folder)
    features = load_file(folder / "features.safetensors")["features"].copy()
    features[task.store.column("split") == "test"] = np.nan
    save_file({"features": features}, folder / "features.safetensors")
    assert plain(ranked(task, {"it": backbone}, workdir / "out", features=[folder])) == plain(expected)


@pytest.mark.parametrize("strange", ["backbone", "store", "size", "folder"])
def test_features_of_something_else_are_refused(workdir, task, strange):
    backbone, folder = reader(*DIM), workdir / "features"
    if strange == "folder":
        folder.mkdir()
    else:
        other = cohort(workdir / "other", seed=1).store if strange == "store" else task.store
        size = 8 if strange == "size" else None
        extract_features(reader(*CLEAR) if strange == "backbone" else backbone, other, folder, size=size)
    with pytest.raises(UsageError, match="features"):
        ranked(task, {"it": backbone}, workdir / "out", resamples=0, features=[folder])
