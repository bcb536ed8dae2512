"""The stage `rank`: what features say of which backbone to take, and how sure that is."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.rankings import (
    CLASSES,
    CLEAR,
    DIM,
    NOISE,
    SCORES,
    THREE,
    cohort,
    criteria_of,
    plain,
    ranked,
    reader,
    train_and_val_rows,
)
from support.tiny_tasks import mask_task

from ssl_transfer.errors import BackboneError, TaskError
from ssl_transfer.features import extract_features
from ssl_transfer.measures import transferability
from ssl_transfer.models.backbone import load_backbone

# the order


def test_the_clearly_better_one_comes_first_and_is_recommended(three_ranked):
    _, answer, _ = three_ranked
    assert answer["order"] == ["clear", "dim", "noise"]
    assert answer["first"]["clear"] > 0.99
    assert answer["recommendation"].startswith("Take clear") and "separate" not in answer["recommendation"]
    assert answer["not_told_apart"] == []


@pytest.mark.parametrize("by", ["knn", "logme", "gbc"])
def test_the_order_is_best_first_by_the_requested_criterion(three_ranked, workdir, by):
    task, _, _ = three_ranked
    answer = ranked(task, {**THREE, "half": (0, 6)}, workdir / "out", by=by, resamples=0)
    assert sorted(answer["order"]) == ["clear", "dim", "half", "noise"]
    values = [criteria_of(answer, name)[by] for name in answer["order"]]
    assert values == sorted(values, reverse=True) and answer["by"] == by
    assert by not in answer["agreement"]


def test_a_lower_error_ranks_higher(workdir):
    answer = ranked(cohort(workdir / "task", metric="brier"), THREE, workdir / "out")
    assert answer["order"][0] == "clear" and answer["first"]["clear"] > 0.99
    probes = [criteria_of(answer, name)["linear_probe"] for name in answer["order"]]
    assert probes == sorted(probes)


def test_the_order_in_which_backbones_are_given_changes_nothing(three_ranked, workdir):
    task, answer, _ = three_ranked
    turned = ranked(task, dict(reversed(THREE.items())), workdir / "out", resamples=40)
    assert turned["order"] == answer["order"] and turned["first"] == answer["first"]
    assert all(criteria_of(turned, name) == criteria_of(answer, name) for name in THREE)


def test_the_same_features_under_two_names_are_not_separated(workdir, task):
    answer = ranked(task, {"one": CLEAR, "two": CLEAR, "noise": NOISE}, workdir / "out")
    assert answer["first"] == {"one": 0.5, "two": 0.5, "noise": 0.0}
    assert sorted(answer["not_told_apart"]) == ["one", "two"]
    assert "not separate one and two" in answer["recommendation"] and "noise" not in answer["recommendation"]


def test_a_single_backbone_is_scored_and_nothing_is_recommended(workdir, task):
    answer = ranked(task, {"it": DIM}, workdir / "out")
    assert answer["order"] == ["it"] and answer["first"] == {"it": 1.0}
    assert "only candidate" in answer["recommendation"]


def test_random_initialisation_among_the_best_is_mentioned(workdir, task):
    backbones = {"scratch": reader(*CLEAR, method="none"), "pretrained": reader(*DIM)}
    assert "Random initialisation" in ranked(task, backbones, workdir / "out")["recommendation"]


# values


@pytest.mark.parametrize("name", THREE)
def test_scores_are_those_of_the_functions_on_train_and_val(three_ranked, workdir, name):
    task, answer, _ = three_ranked
    rows = train_and_val_rows(task)
    features, labels = extract_features(reader(*THREE[name]), task.store).values[rows], task.labels[rows]
    values = criteria_of(answer, name)
    for score in sorted(SCORES - {"nce", "leep"}):
        assert values[score] == pytest.approx(getattr(transferability, score)(features, labels), rel=1e-9), score


def test_what_has_no_value_is_null_and_everything_else_a_number(three_ranked):
    _, answer, _ = three_ranked
    for one in answer["backbones"]:
        assert set(one["scores"]) == SCORES
        assert {name for name, value in one["scores"].items() if value is None} == {"nce", "leep"}
        assert 0 <= one["knn"] <= 1 and 0 <= one["linear_probe"] <= 1


def test_cross_validated_probes_are_good_on_informative_features_and_at_chance_on_noise(three_ranked):
    _, answer, _ = three_ranked
    assert criteria_of(answer, "clear")["linear_probe"] > 0.95 and criteria_of(answer, "clear")["knn"] > 0.95
    assert criteria_of(answer, "noise")["linear_probe"] < 0.5 and criteria_of(answer, "noise")["knn"] < 0.5


@pytest.mark.parametrize("probe", ["linear_probe", "knn"])
@pytest.mark.parametrize("patients", ["of all classes", "of one class each"])
def test_perfectly_informative_features_have_an_auroc_of_one(workdir, patients, probe):
    """Folds have heads of their own, whose scores need not be on one scale: images are compared within a fold."""
    who = np.repeat(np.random.default_rng(0).permutation(np.arange(20) % 2), 3)
    labels = who if patients == "of one class each" else (np.arange(60) % CLASSES == 0).astype(int)
    task = cohort(workdir / "task", {"label": labels.astype(str)}, metric="auroc")
    features = 40.0 * labels[:, None] - 20 + np.random.default_rng(1).normal(size=(60, 3))
    backbone, folder = reader(*CLEAR), workdir / "features"
    extract_features(backbone, task.store, folder)
    save_file({"features": features.astype(np.float32)}, folder / "features.safetensors")
    answer = ranked(task, {"it": backbone}, workdir / "out", resamples=0, features=[folder])
    assert criteria_of(answer, "it")[probe] > 0.99


@pytest.mark.parametrize("metric", ["auroc", "balanced_accuracy"])
def test_test_images_and_their_labels_are_not_looked_at(workdir, metric):
    labels = np.arange(60) % CLASSES
    altered = np.where(np.arange(60) >= 51, (labels + 1) % CLASSES, labels)
    one = cohort(workdir / "one", metric=metric)
    other = cohort(workdir / "other", {"label": altered.astype(str)}, test_pixels=9.0, metric=metric)
    assert one.store.id != other.store.id
    two = {"dim": DIM, "noise": NOISE}
    first, second = (ranked(task, two, workdir / name) for task, name in ((one, "first"), (other, "second")))
    assert plain(first) == plain(second)


def test_images_and_patients_of_train_and_val_are_counted(three_ranked):
    assert three_ranked[1]["n"] == {"images": 51, "patients": 17}


def test_a_fraction_of_the_training_patients_is_looked_at(workdir, task):
    answer = ranked(task, {"it": CLEAR}, workdir / "out", fraction=0.5, resamples=0)
    assert answer["n"] == {"images": 30, "patients": 10}


def test_where_patients_are_unknown_a_caveat_says_so(workdir):
    answer = ranked(cohort(workdir / "task", with_patients=False), {"it": CLEAR}, workdir / "out")
    assert answer["n"] == {"images": 51, "patients": None}
    assert any("atients are unknown" in said for said in answer["caveats"])


# how sure that is


def test_intervals_contain_the_value(three_ranked):
    _, answer, _ = three_ranked
    for one in answer["backbones"]:
        values = criteria_of(answer, one["name"])
        assert set(one["intervals"]) == {name for name, value in values.items() if value is not None}
        for name, (low, high) in one["intervals"].items():
            assert low <= high and low - 1e-9 <= values[name] <= high + 1e-9, (one["name"], name)


def test_intervals_of_noise_are_wide_and_those_of_certainty_have_no_width(three_ranked):
    _, answer, _ = three_ranked
    widths = {one["name"]: np.ptp(one["intervals"]["linear_probe"]) for one in answer["backbones"]}
    assert widths["noise"] > 0.05 and widths["clear"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("resamples", [1, 7, 40])
def test_shares_of_first_ranks_sum_to_one(workdir, task, resamples):
    shares = ranked(task, {"one": DIM, "two": NOISE, "three": NOISE}, workdir / "out", resamples=resamples)["first"]
    assert set(shares) == {"one", "two", "three"} and min(shares.values()) >= 0
    assert sum(shares.values()) == pytest.approx(1, abs=2e-4)  # each has four digits


def test_without_resamples_there_are_no_intervals_and_no_shares(workdir, task):
    answer = ranked(task, THREE, workdir / "out", resamples=0)
    assert answer["first"] is None and answer["order"] == ["clear", "dim", "noise"]
    assert all(one["intervals"] == {} for one in answer["backbones"])
    assert "clear" in answer["recommendation"]


def test_the_same_seed_gives_the_same_answer_and_another_seed_other_folds_and_resamples(workdir, task):
    one, same, other = (
        ranked(task, {"dim": DIM, "noise": NOISE}, workdir / name, seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert plain(one) == plain(same)
    assert criteria_of(one, "dim")["linear_probe"] != criteria_of(other, "dim")["linear_probe"]
    assert criteria_of(one, "dim")["logme"] == criteria_of(other, "dim")["logme"]
    intervals = [answer["backbones"][0]["intervals"]["logme"] for answer in (one, other)]
    assert intervals[0] != intervals[1]


# what cannot be ranked


def test_segmentation_tasks_are_refused(workdir):
    with pytest.raises(TaskError, match="segmentation"):
        ranked(mask_task(workdir / "task"), {"it": CLEAR}, workdir / "out")


def test_features_that_are_nan_are_refused_by_the_backbone_s_name(workdir, task):
    with pytest.raises(BackboneError, match=r"spoilt: .*NaN or infinite"):
        ranked(task, {"good": CLEAR, "spoilt": reader(*DIM, factor=float("nan"))}, workdir / "out", resamples=0)
    with pytest.raises(BackboneError, match=r"huge: .*NaN or infinite"):
        ranked(task, {"huge": reader(*DIM, factor=float("inf"))}, workdir / "out", resamples=0)
    assert not (workdir / "out").exists()


def test_features_that_never_vary_score_at_chance(workdir, task):
    answer = ranked(task, {"black": reader(*DIM, factor=0.0), "clear": CLEAR}, workdir / "out")
    assert answer["order"] == ["clear", "black"]
    values = criteria_of(answer, "black")
    assert values["linear_probe"] <= 0.4 and values["h_score"] == 0
    assert all(np.isfinite(value) for value in values.values() if value is not None)


def test_a_pretrained_model_is_left_as_it_was(workdir, task):
    backbone = load_backbone("scratch:test_resnet,in_channels=1,size=32").train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    ranked(task, {"it": backbone}, workdir / "out", resamples=0)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
