"""The stage `rank`: what features say of which backbone to take, how sure that is, and what a user reads of it."""

import json
import os
import re
import shutil

import numpy as np
import pandas
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.command_line import ENVIRONMENT, ssl_transfer
from support.rankings import CLASSES, CLEAR, DIM, NOISE, cohort, found, looked_at, ranked, reader
from support.tiny_tasks import mask_task

from ssl_transfer.__main__ import main
from ssl_transfer.errors import BackboneError, SslTransferError, TaskError, UsageError
from ssl_transfer.features import extract_features
from ssl_transfer.measures import transferability
from ssl_transfer.models.backbone import load_backbone, save_backbone
from ssl_transfer.ranking.stage import rank

SCORES = {"nce", "leep", "n_leep", "h_score", "regularized_h_score", "logme", "transrate", "gbc", "sfda"}
CRITERIA = SCORES | {"knn", "linear_probe"}
TINY = "scratch:test_resnet,size=32"
OFFLINE = "timm:resnet18.a1_in1k"
THREE = {"noise": NOISE, "dim": DIM, "clear": CLEAR}


@pytest.fixture
def task(place):
    return cohort(place / "task")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A ranking of three backbones that read noise, little, and the class; and its task."""
    folder = tmp_path_factory.mktemp("known")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        task = cohort(folder / "task")
        return task, ranked(task, THREE, folder / "out", resamples=40), folder / "out"


@pytest.fixture(scope="module")
def desk(tmp_path_factory, ct_store):
    """A folder as a user's: a card for a store of CT slices, and a saved backbone."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "ct").symlink_to(ct_store.path)
    (folder / "region.yaml").write_text("store: ct\ntarget: label\nmetric: balanced_accuracy\n")
    backbone = load_backbone("scratch:test_resnet,in_channels=1,size=32,seed=5")
    backbone.card.update(name="simclr_ct", method="simclr", source_domain="ct", stores=[ct_store.id])
    save_backbone(backbone, folder / "ours")
    return folder


@pytest.fixture
def at_desk(desk, place):
    """A new folder with the same things."""
    for path in desk.iterdir():
        if path.name in ("ct", "region.yaml", "ours"):
            (place / path.name).symlink_to(path)
    return place


@pytest.fixture
def told(capsys):
    """Run a command in this process: status, standard output, standard error."""

    def tell(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return tell


def plain(answer):
    """An answer without what differs between two runs of the same."""
    backbones = [{key: value for key, value in one.items() if key != "seconds"} for one in answer["backbones"]]
    return {key: answer[key] for key in ("order", "first", "agreement", "recommendation")} | {"backbones": backbones}


# the order


def test_the_clearly_better_one_comes_first_and_is_recommended(known):
    _, answer, _ = known
    assert answer["order"] == ["clear", "dim", "noise"]
    assert answer["first"]["clear"] > 0.99
    assert answer["recommendation"].startswith("Take clear") and "apart" not in answer["recommendation"]
    assert answer["not_told_apart"] == []


@pytest.mark.parametrize("by", ["knn", "logme", "gbc"])
def test_the_order_is_best_first_by_what_was_asked_for(known, place, by):
    task, _, _ = known
    answer = ranked(task, {**THREE, "half": (0, 6)}, place / "out", by=by, resamples=0)
    assert sorted(answer["order"]) == ["clear", "dim", "half", "noise"]
    values = [found(answer, name)[by] for name in answer["order"]]
    assert values == sorted(values, reverse=True) and answer["by"] == by
    assert by not in answer["agreement"]


def test_of_an_error_less_is_better(place):
    answer = ranked(cohort(place / "task", metric="brier"), THREE, place / "out")
    assert answer["order"][0] == "clear" and answer["first"]["clear"] > 0.99
    probes = [found(answer, name)["linear_probe"] for name in answer["order"]]
    assert probes == sorted(probes)


def test_the_order_in_which_backbones_are_given_changes_nothing(known, place):
    task, answer, _ = known
    turned = ranked(task, dict(reversed(THREE.items())), place / "out", resamples=40)
    assert turned["order"] == answer["order"] and turned["first"] == answer["first"]
    assert all(found(turned, name) == found(answer, name) for name in THREE)


def test_the_same_features_under_two_names_are_not_told_apart(place, task):
    answer = ranked(task, {"one": CLEAR, "two": CLEAR, "noise": NOISE}, place / "out")
    assert answer["first"] == {"one": 0.5, "two": 0.5, "noise": 0.0}
    assert sorted(answer["not_told_apart"]) == ["one", "two"]
    assert "not tell one and two apart" in answer["recommendation"] and "noise" not in answer["recommendation"]


def test_a_single_backbone_is_scored_and_nothing_is_recommended(place, task):
    answer = ranked(task, {"it": DIM}, place / "out")
    assert answer["order"] == ["it"] and answer["first"] == {"it": 1.0}
    assert "only candidate" in answer["recommendation"]


def test_random_initialisation_among_the_best_is_said(place, task):
    backbones = {"scratch": reader(*CLEAR, method="none"), "pretrained": reader(*DIM)}
    assert "Random initialisation" in ranked(task, backbones, place / "out")["recommendation"]


# values


@pytest.mark.parametrize("name", THREE)
def test_scores_are_those_of_the_functions_on_train_and_val(known, place, name):
    task, answer, _ = known
    rows = looked_at(task)
    features, labels = extract_features(reader(*THREE[name]), task.store).values[rows], task.labels[rows]
    values = found(answer, name)
    for score in sorted(SCORES - {"nce", "leep"}):
        assert values[score] == pytest.approx(getattr(transferability, score)(features, labels), rel=1e-9), score


def test_what_has_no_value_is_null_and_everything_else_a_number(known):
    _, answer, _ = known
    for one in answer["backbones"]:
        assert set(one["scores"]) == SCORES
        assert {name for name, value in one["scores"].items() if value is None} == {"nce", "leep"}
        assert 0 <= one["knn"] <= 1 and 0 <= one["linear_probe"] <= 1


def test_probes_are_cross_validated_good_where_the_class_is_told_and_chance_where_it_is_not(known):
    _, answer, _ = known
    assert found(answer, "clear")["linear_probe"] > 0.95 and found(answer, "clear")["knn"] > 0.95
    assert found(answer, "noise")["linear_probe"] < 0.5 and found(answer, "noise")["knn"] < 0.5


@pytest.mark.parametrize("probe", ["linear_probe", "knn"])
@pytest.mark.parametrize("patients", ["of all classes", "of one class each"])
def test_what_tells_the_class_without_fail_has_an_auroc_of_one(place, patients, probe):
    """Folds have heads of their own, whose scores need not be on one scale: images are compared within a fold."""
    who = np.repeat(np.random.default_rng(0).permutation(np.arange(20) % 2), 3)
    labels = who if patients == "of one class each" else (np.arange(60) % CLASSES == 0).astype(int)
    task = cohort(place / "task", {"label": labels.astype(str)}, metric="auroc")
    features = 40.0 * labels[:, None] - 20 + np.random.default_rng(1).normal(size=(60, 3))
    backbone, folder = reader(*CLEAR), place / "features"
    extract_features(backbone, task.store, folder)
    save_file({"features": features.astype(np.float32)}, folder / "features.safetensors")
    answer = ranked(task, {"it": backbone}, place / "out", resamples=0, features=[folder])
    assert found(answer, "it")[probe] > 0.99


@pytest.mark.parametrize("metric", ["auroc", "balanced_accuracy"])
def test_test_images_and_their_labels_are_not_looked_at(place, metric):
    labels = np.arange(60) % CLASSES
    altered = np.where(np.arange(60) >= 51, (labels + 1) % CLASSES, labels)
    one = cohort(place / "one", metric=metric)
    other = cohort(place / "other", {"label": altered.astype(str)}, test_pixels=9.0, metric=metric)
    assert one.store.id != other.store.id
    two = {"dim": DIM, "noise": NOISE}
    first, second = (ranked(task, two, place / name) for task, name in ((one, "first"), (other, "second")))
    assert plain(first) == plain(second)


def test_images_and_patients_of_train_and_val_are_counted(known):
    assert known[1]["n"] == {"images": 51, "patients": 17}


def test_a_fraction_of_the_training_patients_is_looked_at(place, task):
    answer = ranked(task, {"it": CLEAR}, place / "out", fraction=0.5, resamples=0)
    assert answer["n"] == {"images": 30, "patients": 10}


def test_where_patients_are_unknown_a_caveat_says_so(place):
    answer = ranked(cohort(place / "task", known=False), {"it": CLEAR}, place / "out")
    assert answer["n"] == {"images": 51, "patients": None}
    assert any("atients are unknown" in said for said in answer["caveats"])


# how sure that is


def test_intervals_contain_the_value(known):
    _, answer, _ = known
    for one in answer["backbones"]:
        values = found(answer, one["name"])
        assert set(one["intervals"]) == {name for name, value in values.items() if value is not None}
        for name, (low, high) in one["intervals"].items():
            assert low <= high and low - 1e-9 <= values[name] <= high + 1e-9, (one["name"], name)


def test_intervals_of_noise_are_wide_and_those_of_certainty_have_no_width(known):
    _, answer, _ = known
    widths = {one["name"]: np.ptp(one["intervals"]["linear_probe"]) for one in answer["backbones"]}
    assert widths["noise"] > 0.05 and widths["clear"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("resamples", [1, 7, 40])
def test_shares_of_first_places_sum_to_one(place, task, resamples):
    shares = ranked(task, {"one": DIM, "two": NOISE, "three": NOISE}, place / "out", resamples=resamples)["first"]
    assert set(shares) == {"one", "two", "three"} and min(shares.values()) >= 0
    assert sum(shares.values()) == pytest.approx(1, abs=2e-4)  # each has four digits


def test_without_resamples_there_are_no_intervals_and_no_shares(place, task):
    answer = ranked(task, THREE, place / "out", resamples=0)
    assert answer["first"] is None and answer["order"] == ["clear", "dim", "noise"]
    assert all(one["intervals"] == {} for one in answer["backbones"])
    assert "clear" in answer["recommendation"]


def test_the_same_seed_gives_the_same_answer_and_another_seed_other_folds_and_resamples(place, task):
    one, same, other = (
        ranked(task, {"dim": DIM, "noise": NOISE}, place / name, seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert plain(one) == plain(same)
    assert found(one, "dim")["linear_probe"] != found(other, "dim")["linear_probe"]
    assert found(one, "dim")["logme"] == found(other, "dim")["logme"]
    intervals = [answer["backbones"][0]["intervals"]["logme"] for answer in (one, other)]
    assert intervals[0] != intervals[1]


# several labels


@pytest.fixture
def several(place):
    draw = np.random.default_rng(0)
    bright = (np.arange(60) % CLASSES == 0).astype(int).astype(str)
    dark = np.where(draw.random(60) < 0.2, "unknown", (np.arange(60) % CLASSES == 2).astype(int).astype(str))
    return cohort(place / "several", {"bright": bright, "dark": dark}, target=["bright", "dark"], metric="auroc")


def test_multi_label_tasks_have_logme_and_the_probes_and_a_caveat_says_so(place, several):
    answer = ranked(several, THREE, place / "out")
    for one in answer["backbones"]:
        assert {name for name, value in found(answer, one["name"]).items() if value is not None} == {
            "logme",
            "knn",
            "linear_probe",
        }
        assert set(one["intervals"]) == {"logme", "knn", "linear_probe"}
    assert answer["order"][0] == "clear"
    assert any("LogME" in said and "multi-label" in said for said in answer["caveats"])


def test_logme_of_several_labels_is_the_mean_over_labels_where_they_are_known(place, several):
    rows = looked_at(several)
    features, labels = extract_features(reader(*CLEAR), several.store).values[rows], several.labels[rows]
    assert (labels < 0).any()
    each = [
        transferability.logme(features[column >= 0], column[column >= 0], target="multilabel") for column in labels.T
    ]
    value = found(ranked(several, {"it": CLEAR}, place / "out", resamples=0), "it")["logme"]
    assert value == pytest.approx(np.mean(each), rel=1e-9)


def test_a_score_of_classes_cannot_order_backbones_for_several_labels(place, several):
    with pytest.raises(UsageError, match=r"by=gbc.*linear_probe"):
        ranked(several, {"it": CLEAR}, place / "out", by="gbc", resamples=0)


@pytest.mark.parametrize("known", ["everywhere", "for a few"])
def test_a_label_so_rare_that_resamples_miss_it_is_ranked_all_the_same(place, known):
    """Seventeen patients: a resample leaves out any two of them one time in eight."""
    rare = np.array(["0"] * 60, object)
    rare[[3, 30]] = "1"
    if known == "for a few":
        rare[[n for n in range(60) if n % 12 and n not in (3, 30)]] = None
    task = cohort(place / "task", {"rare": rare}, target=["rare"], metric="accuracy")
    answer = ranked(task, {"it": CLEAR}, place / "out", resamples=100)
    low, high = answer["backbones"][0]["intervals"]["logme"]
    assert low - 1e-9 <= found(answer, "it")["logme"] <= high + 1e-9


def test_an_auroc_that_no_fold_can_have_is_refused_with_a_reason(place):
    """Patients of one class each, and a fold for each patient."""
    who = np.repeat(np.arange(20) % 2, 3).astype(str)
    task = cohort(place / "task", {"label": who}, metric="auroc")
    with pytest.raises(SslTransferError):
        ranked(task, {"it": CLEAR}, place / "out", folds=17, resamples=5)
    assert not (place / "out").exists()


def test_a_metric_that_is_undefined_is_refused_with_a_reason(place):
    never = {"a": ["0"] * 60, "b": ["0"] * 60}
    task = cohort(place / "never", never, target=["a", "b"], metric="auroc")
    with pytest.raises(SslTransferError):
        ranked(task, {"it": CLEAR}, place / "out", resamples=5)


# what cannot be ranked


def test_masks_are_refused(place):
    with pytest.raises(TaskError, match="segmentation"):
        ranked(mask_task(place / "task"), {"it": CLEAR}, place / "out")


def test_features_that_are_no_numbers_are_refused_by_the_backbone_s_name(place, task):
    with pytest.raises(BackboneError, match=r"spoilt: .*no numbers"):
        ranked(task, {"good": CLEAR, "spoilt": reader(*DIM, factor=float("nan"))}, place / "out", resamples=0)
    with pytest.raises(BackboneError, match=r"huge: .*no numbers"):
        ranked(task, {"huge": reader(*DIM, factor=float("inf"))}, place / "out", resamples=0)
    assert not (place / "out").exists()


def test_features_that_never_vary_are_chance_and_no_crash(place, task):
    answer = ranked(task, {"black": reader(*DIM, factor=0.0), "clear": CLEAR}, place / "out")
    assert answer["order"] == ["clear", "black"]
    values = found(answer, "black")
    assert values["linear_probe"] <= 0.4 and values["h_score"] == 0
    assert all(np.isfinite(value) for value in values.values() if value is not None)


# the folder


def test_the_folder_holds_the_answer_and_a_table_of_every_value(known):
    _, answer, folder = known
    assert json.loads((folder / "rank.json").read_text()) == answer
    table = pandas.read_csv(folder / "scores.csv")
    assert len(table) == len(THREE) * len(CRITERIA) and set(table["criterion"]) == CRITERIA
    for row in table.itertuples():
        value = found(answer, row.backbone)[row.criterion]
        assert np.isnan(row.value) if value is None else row.value == pytest.approx(value)


def test_without_a_place_it_is_named_by_its_inputs(place, task):
    first, folder = rank(task, {"it": reader(*CLEAR)}, resamples=0)
    assert str(folder.parent) == "runs/rank" and folder.name == first["run_id"]
    _, same = rank(task, {"it": reader(*CLEAR)}, resamples=0)
    others = [
        rank(task, {"it": reader(*CLEAR)}, resamples=0, seed=1)[1],
        rank(task, {"it": reader(*DIM)}, resamples=0)[1],
        rank(task, {"other name": reader(*CLEAR)}, resamples=0)[1],
        rank(cohort(place / "other", seed=1), {"it": reader(*CLEAR)}, resamples=0)[1],
    ]
    assert same == folder and len({folder, *others}) == 5


def test_the_same_again_is_answered_from_the_folder_without_any_work(place, task):
    first = ranked(task, THREE, place / "out")
    before = (place / "out" / "rank.json").stat().st_mtime_ns
    shutil.rmtree("runs")
    assert ranked(task, THREE, place / "out") == first
    assert (place / "out" / "rank.json").stat().st_mtime_ns == before and not os.path.exists("runs")


@pytest.mark.parametrize("holds", ["another ranking", "something else"])
def test_a_folder_that_holds_something_else_is_refused_and_kept(place, task, holds):
    if holds == "another ranking":
        ranked(task, {"it": DIM}, place / "out", resamples=0)
    else:
        (place / "out").mkdir()
        (place / "out" / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in (place / "out").iterdir()}
    with pytest.raises(UsageError, match=r"Give another --out"):
        ranked(task, {"it": CLEAR}, place / "out", resamples=0)
    assert {path: path.read_bytes() for path in (place / "out").iterdir()} == before


def test_nothing_is_left_behind_by_a_ranking_that_failed(place, task):
    with pytest.raises(UsageError, match="by=leep"):
        ranked(task, {"it": CLEAR}, place / "out", by="leep", resamples=0)
    assert not [path for path in place.iterdir() if path.name.strip(".").startswith("out")]


# features that are there


def test_given_features_are_used_and_none_are_written(place, task):
    backbones = {"clear": reader(*CLEAR), "dim": reader(*DIM)}
    for name, backbone in backbones.items():
        extract_features(backbone, task.store, place / f"of {name}")
    assert not (place / "runs").exists()
    given = [place / f"of {name}" for name in backbones]
    answer = ranked(task, backbones, place / "out", features=given)
    assert not (place / "runs").exists()
    assert plain(answer) == plain(ranked(task, backbones, place / "alone"))


def test_it_is_the_given_features_that_are_scored(place, task):
    backbone, folder = reader(*DIM), place / "features"
    extract_features(backbone, task.store, folder)
    save_file({"features": extract_features(reader(*CLEAR), task.store).values}, folder / "features.safetensors")
    answer = ranked(task, {"it": backbone}, place / "out", resamples=0, features=[folder])
    assert found(answer, "it")["linear_probe"] > 0.95


def test_features_of_test_images_do_not_matter(place, task):
    backbone, folder = reader(*DIM), place / "features"
    expected = ranked(task, {"it": backbone}, place / "clean")
    extract_features(backbone, task.store, folder)
    features = load_file(folder / "features.safetensors")["features"].copy()
    features[task.store.column("split") == "test"] = np.nan
    save_file({"features": features}, folder / "features.safetensors")
    assert plain(ranked(task, {"it": backbone}, place / "out", features=[folder])) == plain(expected)


@pytest.mark.parametrize("strange", ["backbone", "store", "size", "folder"])
def test_features_of_something_else_are_refused(place, task, strange):
    backbone, folder = reader(*DIM), place / "features"
    if strange == "folder":
        folder.mkdir()
    else:
        other = cohort(place / "other", seed=1).store if strange == "store" else task.store
        size = 8 if strange == "size" else None
        extract_features(reader(*CLEAR) if strange == "backbone" else backbone, other, folder, size=size)
    with pytest.raises(UsageError, match="features"):
        ranked(task, {"it": backbone}, place / "out", resamples=0, features=[folder])


# the command


@pytest.fixture(scope="module")
def commanded(desk):
    """One command in a process of its own, as a user gives it; and the answer."""
    words = ["rank", "region.yaml", "ours", TINY, f"{TINY},seed=1", "resamples=10", "--candidates", OFFLINE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "HF_HUB_OFFLINE", "1")
        patch.setitem(ENVIRONMENT, "HF_HOME", str(desk / "nothing"))
        return words, ssl_transfer(*words, "--out", "ranking", "--json", folder=desk)


def test_json_is_one_object_with_what_others_rely_on(commanded, desk):
    answer = commanded[1].json
    assert {
        "backbones",
        "order",
        "first",
        "agreement",
        "recommendation",
        "caveats",
        "n",
        "ranking",
        "task",
        "by",
        "settings",
    } <= set(answer)
    for one in answer["backbones"]:
        assert {"name", "scores", "knn", "linear_probe", "intervals", "seconds", "source_classes"} <= set(one)
        assert all(seconds >= 0 for seconds in one["seconds"].values())
    assert (desk / answer["ranking"]).is_file()
    assert {one["name"] for one in answer["backbones"]} == set(answer["order"]) == set(answer["first"])
    assert answer["n"] == {"images": 42, "patients": 7}


def test_backbones_are_named_so_that_they_are_told_apart(commanded):
    names = [one["name"] for one in commanded[1].json["backbones"]]
    assert names[0] == "simclr_ct" and len(set(names)) == 3 and "seed 1" in names[2].replace("=", " ")


def test_a_backbone_in_a_folder_of_its_own_name_has_that_name(at_desk, told):
    (at_desk / "simclr_ct").symlink_to((at_desk / "ours").resolve())
    status, shown, _ = told("rank", "region.yaml", "simclr_ct", "resamples=0", "--json")
    assert status == 0 and json.loads(shown)["order"] == ["simclr_ct"]


def test_a_backbone_pretrained_on_this_very_store_is_named(commanded):
    (said,) = (said for said in commanded[1].json["caveats"] if "very store" in said)
    assert "simclr_ct" in said and "scratch" not in said


def test_people_read_a_table_the_recommendation_and_the_caveats(commanded, desk, monkeypatch, told, offline):
    monkeypatch.chdir(desk)
    answer = commanded[1].json
    status, shown, _ = told(*commanded[0], "--out", "ranking")
    assert status == 0
    lines = shown.splitlines()
    for place, name in enumerate(answer["order"], 1):
        (line,) = (line for line in lines if line.startswith(f"{place}. "))
        assert name in line and f"{found(answer, name)['linear_probe']:.3f}" in line
        assert f"{found(answer, name)['logme']:.3f}" in line
    assert answer["recommendation"] in shown
    assert len(answer["caveats"]) > 1 and all(said in shown for said in answer["caveats"])
    assert answer["ranking"] in lines[-1]


def test_a_second_call_is_answered_from_the_folder(commanded, desk, monkeypatch, told, offline):
    monkeypatch.chdir(desk)
    shutil.rmtree(desk / "runs" / "features", ignore_errors=True)
    before = (desk / "ranking" / "rank.json").stat().st_mtime_ns
    status, shown, said = told(*commanded[0], "--out", "ranking", "--json")
    assert status == 0 and json.loads(shown) == commanded[1].json
    assert "rank: " not in said and "features: " not in said
    assert (desk / "ranking" / "rank.json").stat().st_mtime_ns == before
    assert not (desk / "runs" / "features").exists()


@pytest.mark.parametrize("words", [["folds=4"], ["resamples=9"], ["by=knn"]])
def test_another_ranking_does_not_go_into_its_folder(commanded, desk, monkeypatch, told, offline, words):
    monkeypatch.chdir(desk)
    status, shown, said = told(*commanded[0], *words, "--out", "ranking")
    assert (status, shown) == (2, "")
    assert re.findall(r"^\w+Error: .*", said, re.M) == re.findall(
        r"^UsageError: ranking: .*another --out\.$", said, re.M
    )
    assert "UsageError" in said


def test_inspect_shows_a_ranking(commanded, desk, monkeypatch, told):
    monkeypatch.chdir(desk)
    status, shown, _ = told("inspect", "ranking", "--json")
    answer = commanded[1].json
    kept = json.loads(shown)
    assert status == 0 and all(kept[key] == answer[key] for key in answer if key not in ("ranking", "caveats"))
    assert kept["caveats"] == [said for said in answer["caveats"] if "Left out" not in said]
    status, shown, _ = told("inspect", "ranking")
    assert status == 0 and answer["recommendation"] in shown


def test_features_of_the_command_are_taken_by_the_command(at_desk, told):
    assert told("features", "ours", "ct", "--out", "features")[0] == 0
    assert not (at_desk / "runs").exists()
    status, shown, _ = told("rank", "region.yaml", "ours", "resamples=0", "--features", "features", "--json")
    assert status == 0 and json.loads(shown)["order"] == ["simclr_ct"]
    assert not (at_desk / "runs" / "features").exists()


def test_a_source_of_the_command_gives_leep_and_nce(at_desk, told):
    words = ["rank", "region.yaml", "ours", TINY, "resamples=0", "--source", "ct:label", "--json"]
    status, shown, said = told(*words)
    assert status == 0, said
    answer = json.loads(shown)
    assert found(answer, "simclr_ct")["leep"] <= 0 and found(answer, "simclr_ct")["nce"] <= 0
    assert found(answer, "scratch")["leep"] is None
    assert any("LEEP and NCE of simclr_ct" in said and "ct (label)" in said for said in answer["caveats"])


def test_settings_may_stand_before_and_behind_options(at_desk, told):
    orders = [["by=knn", TINY, "resamples=0", "--json"], [TINY, "--json", "resamples=0", "by=knn"]]
    answers = [told("rank", "region.yaml", *words) for words in orders]
    assert [status for status, _, _ in answers] == [0, 0]
    one, two = (json.loads(shown) for _, shown, _ in answers)
    assert one == two and one["by"] == "knn"


WRONG = {
    "a criterion that there is not": (f"region.yaml {TINY} by=nonsense", r"by: found 'nonsense'.*'logme'"),
    "two folds": (f"region.yaml {TINY} folds=2", r"folds.*at least 3"),
    "no folds": (f"region.yaml {TINY} folds=0", r"folds.*'0'"),
    "a setting that there is not": (f"region.yaml {TINY} foldz=5", r"foldz.*Did you mean 'folds'"),
    "a negative seed": (f"region.yaml {TINY} seed=-1", r"seed.*'-1'"),
    "a fraction above one": (f"region.yaml {TINY} fraction=2", r"fraction"),
    "a score that applies to none": (f"region.yaml {TINY} by=leep resamples=0", r"by=leep.*none of the backbones"),
    "no backbone": ("region.yaml", r"BACKBONE"),
    "no backbone but settings": ("region.yaml by=knn", r"no backbone.*BACKBONE"),
    "a backbone twice": (f"region.yaml {TINY} ours {TINY}", r"scratch:test_resnet,size=32.*twice"),
    "a folder twice": ("region.yaml ours ours", r"ours.*twice"),
    "a folder twice in other words": ("region.yaml ours ./ours/", r"ours.*twice"),
    "a folder that is no backbone": ("region.yaml ct", r"ct: this is no backbone"),
    "public weights that there are not": ("region.yaml timm:resnet18.a1_in2k", r"timm knows no such public weights"),
    "a candidate that there is not": (
        f"region.yaml {TINY} --candidates timm:resnet1888",
        r"timm has no such architecture",
    ),
    "a candidate that is not public": (f"region.yaml {TINY} --candidates {TINY}", r"expected timm:NAME"),
    "a task that there is not": (f"regoin {TINY}", r"TaskError: regoin"),
    "masks": (f"masks.yaml {TINY}", r"TaskError: .*segmentation"),
    "a place that holds something else": (f"region.yaml {TINY} resamples=0 --out ct", r"ct: .*another --out"),
    "a place that is a file": (f"region.yaml {TINY} resamples=0 --out region.yaml", r"this is a file"),
    "features that there are not": (f"region.yaml {TINY} --features none", r"none: no features folder"),
    "a source that there is not": (f"region.yaml {TINY} --source none", r"none: there is no such store"),
    "a column that there is not": (f"region.yaml {TINY} --source ct:lable", r"no column 'lable'.*'label'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_ends_with_status_2_and_one_message(at_desk, told, name):
    mask_task(at_desk / "masked")
    (at_desk / "masks.yaml").write_text((at_desk / "masked" / "task.yaml").read_text())
    words, message = WRONG[name]
    status, shown, said = told("rank", *words.split())
    assert (status, shown) == (2, "") and "Traceback" not in said
    assert len(re.findall(r"^\w+Error: .*", said, re.M)) == 1 and re.search(message, said), said
    assert not (at_desk / "runs" / "rank").exists()


# public weights without a network


@pytest.fixture
def offline(place, monkeypatch):
    """The hub's client as HF_HUB_OFFLINE=1 makes it at its import, with nothing kept."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place / "nothing"))


def test_candidates_that_cannot_be_fetched_are_left_out_and_the_rest_is_ranked(commanded):
    answer, said = commanded[1].json, commanded[1].stderr
    assert len(answer["backbones"]) == len(answer["order"]) == 3
    (caveat,) = (caveat for caveat in answer["caveats"] if OFFLINE in caveat)
    assert caveat.startswith("Left out") and "hf download" in caveat
    assert said.count(f"left out: {OFFLINE}") == 1 and "Traceback" not in said


def test_people_read_every_candidate_that_was_left_out(at_desk, told, offline):
    names = [OFFLINE, "timm:resnet50.a1_in1k"]
    status, shown, _ = told("rank", "region.yaml", TINY, "resamples=0", "--candidates", ",".join(names))
    assert status == 0
    for name in names:
        assert len(re.findall(rf"^- Left out: {re.escape(name)}: ", shown, re.M)) == 1


def test_a_caveat_of_what_was_left_out_is_of_this_call(at_desk, told, offline):
    words = ["rank", "region.yaml", TINY, "resamples=0", "--json"]
    answers = [told(*words), told(*words, "--candidates", OFFLINE), told(*words)]
    assert [status for status, _, _ in answers] == [0, 0, 0]
    assert ["Left out" in shown for _, shown, _ in answers] == [False, True, False]


def test_the_same_public_weights_as_a_backbone_are_an_error(at_desk, told, offline):
    status, shown, said = told("rank", "region.yaml", TINY, OFFLINE, "resamples=0", "--json")
    assert (status, shown) == (2, "") and "Traceback" not in said
    assert re.findall(r"^\w+Error: (\S+): the public weights could not be loaded", said, re.M) == [OFFLINE]
    assert not (at_desk / "runs" / "rank").exists()


def test_a_pretrained_model_is_left_as_it_was(place, task):
    backbone = load_backbone("scratch:test_resnet,in_channels=1,size=32").train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    ranked(task, {"it": backbone}, place / "out", resamples=0)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
