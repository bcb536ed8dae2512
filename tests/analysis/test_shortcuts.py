"""Shortcut test and robustness index: planted scanners are found, and nothing is found where none was planted."""

import numpy as np
import pandas as pd
import pytest

from ssl_transfer.analysis.robustness import robustness_index, robustness_indices
from ssl_transfer.analysis.shortcuts import shortcut_tests

DIM = 24


def cohort(seed, *, associated, seen, signal=0.6, along=False, patients=100, images=4):
    """Features of patients with a target and a scanner.

    Args:
        seed: Of everything random.
        associated: Share of the patients whose scanner is that of their class.
        seen: Distance of the scanners in the features, in standard deviations of the noise.
        signal: Distance of the classes, likewise.
        along: Whether both are encoded in the same direction.
    """
    random = np.random.default_rng(seed)
    ill = random.permutation(np.arange(patients) % 2)
    scanner = np.where(random.random(patients) < associated, ill, 1 - ill)
    directions = np.linalg.qr(random.normal(size=(DIM, 2)))[0].T
    means = signal * np.outer(ill, directions[0]) + seen * np.outer(scanner, directions[0 if along else 1])
    rows = np.repeat(np.arange(patients), images)
    features = (means + 0.4 * random.normal(size=means.shape))[rows] + random.normal(size=(len(rows), DIM))
    words = pd.DataFrame({"label": np.where(ill, "ill", "well")[rows], "scanner": np.where(scanner, "A", "B")[rows]})
    return features.astype(np.float32), words, np.array([f"p{row}" for row in rows])


def probed(seed, **options):
    features, words, groups = cohort(seed, **options)
    [row] = shortcut_tests(features, words["label"], words[["scanner"]], groups, seed).to_dict("records")
    return row


CONTROLS = (
    {"associated": 0.85, "seen": 0.0},  # the scanner goes with the target, and features do not know it
    {"associated": 0.5, "seen": 3.0},  # features know the scanner, which has nothing to do with the target
    {"associated": 0.5, "seen": 3.0, "along": True},  # likewise, in the direction of the target
    {"associated": 0.5, "seen": 0.0},
)


def test_20_planted_shortcuts_are_found():
    found = [probed(seed, associated=0.85, seen=3.0, signal=0.6) for seed in range(20)]
    assert [row["shortcut"] for row in found] == [True] * 20
    assert all(0 < row["drop_low"] < row["drop"] < row["drop_high"] and row["explained"] > 0.1 for row in found)


def test_0_of_20_controls_are_found():
    found = [probed(seed, **CONTROLS[seed % len(CONTROLS)], signal=1.2) for seed in range(20)]
    assert [row["shortcut"] for row in found] == [False] * 20
    assert np.mean([row["before"] for row in found]) > 0.65  # and yet the target is predicted


@pytest.mark.long
@pytest.mark.parametrize("control", CONTROLS)
def test_controls_are_found_as_rarely_as_stated(control):
    found = [probed(seed, **control, signal=1.2)["shortcut"] for seed in range(100, 200)]
    assert sum(found) <= 4  # P(more) < .4 % at a level of 1 %


def test_what_the_nuisance_explains_is_told_apart_from_what_the_target_has_of_its_own():
    """Without any signal of the target, all of the score is the scanner's; with 400 patients the eraser is nearly exact."""
    row = probed(0, associated=0.9, seen=3.0, signal=0.0, patients=400, images=2)
    assert row["before"] > 0.75 and row["explained"] > 0.7 and row["before"] < row["nuisance_alone"] + 0.05
    other = probed(0, associated=0.6, seen=3.0, signal=2.0, patients=400, images=2)
    assert other["before"] > 0.85 and other["explained"] < 0.1


def test_columns_that_cannot_be_tested_are_left_out():
    features, words, groups = cohort(0, associated=0.5, seen=0.0)
    table = words.assign(constant="x", number=np.arange(len(words)) % 40 + 0.5)
    names = ["scanner", "constant", "number", "label"]
    found = shortcut_tests(features, words["label"], table[names], groups)
    assert found["nuisance"].tolist() == ["scanner", "number"]
    assert not len(shortcut_tests(features, pd.Series(np.arange(400.0), name="label"), table[names], groups))


def test_more_features_than_images_are_tested_in_their_components():
    features, words, groups = cohort(0, associated=0.95, seen=6.0, signal=0.2, patients=60)
    mixing = np.linalg.qr(np.random.default_rng(0).normal(size=(400, DIM)))[0].T
    [row] = shortcut_tests(features @ mixing, words["label"], words[["scanner"]], groups).to_dict("records")
    assert row["shortcut"] and row["n"] == 240 and row["patients"] == 60


# robustness index


def indexed(seed=0, k=10, **options):
    features, words, groups = cohort(seed, **options)
    return robustness_index(features, words["label"].to_numpy(), words["scanner"].to_numpy(), groups, k)


def test_the_index_tells_features_of_the_label_from_features_of_the_scanner():
    of_label, of_scanner = indexed(associated=0.5, seen=0, signal=12), indexed(associated=0.5, seen=12, signal=0)
    assert of_label["index"] > 0.9 and of_scanner["index"] < 0.1
    neither = indexed(associated=0.5, seen=0, signal=0)
    assert abs(neither["index"] - neither["by_chance"]) < 0.05 and neither["low"] < neither["index"] < neither["high"]


def test_the_index_is_the_one_of_a_count_by_hand():
    features = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [0, 1]], np.float32)
    labels = np.array(["a", "a", "b", "a", "b"], object)
    domains = np.array(["x", "y", "x", None, "y"], object)
    groups = np.array(["p", "q", "r", "s", "t"])
    found = robustness_index(features, labels, domains, groups, k=1)
    # rows 0, 1, 2 and 4 are known; their neighbours are 1 (SO), 0 or 2, 1 and 2: neither
    assert found["n"] == 4 and found["index"] == 1.0 and found["same_domain"] == 0
    # pairs, both ways: (0, 1) is SO; (0, 2) and (1, 4) are OS; (2, 4) is SO
    assert found["by_chance"] == pytest.approx(0.5)


def test_numbers_are_compared_in_thirds_and_not_by_equality():
    draw = np.random.default_rng(0)
    scanner, label = np.arange(150) % 3, np.arange(150) // 3 % 2
    features = 6 * np.eye(8)[scanner] + draw.normal(size=(150, 8))
    nuisances = pd.DataFrame({"scanner": np.array(["A", "B", "C"])[scanner]})
    nuisances["dose"] = 10.0 * scanner + draw.random(150)  # no two alike, and thirds of the images are the scanners
    nuisances["kvp"] = np.array([80, 100, 120])[scanner]
    target = pd.Series(np.array(["well", "ill"])[label], name="label")
    found = robustness_indices(features, target, nuisances, np.arange(150).astype(str), k=10).set_index("nuisance")
    assert found["values"].tolist() == [3, 3, 3] and found.loc["scanner", "index"] < 0.2
    assert (found.drop(columns=["target"]).nunique() == 1).all()


def test_images_of_the_same_patient_are_no_neighbours():
    random = np.random.default_rng(0)
    groups = np.repeat([f"p{number}" for number in range(20)], 5)
    features = random.normal(size=(20, 8)).repeat(5, 0) + 1e-3 * random.normal(size=(100, 8))
    labels, domains = np.tile(["a", "b", "a", "b", "a"], 20), np.repeat(["x", "y"], 50)
    found = robustness_index(features, labels, domains, groups, k=4)
    assert found["same_domain"] < 0.4  # 0.6 if the other images of the patient counted: other labels, same scanner


def test_without_a_neighbour_that_says_anything_the_index_is_unknown():
    features = np.eye(3, dtype=np.float32)
    found = robustness_index(features, np.array(["a"] * 3), np.array(["x"] * 3), np.array(["p", "q", "r"]), k=2)
    assert np.isnan(found["index"]) and np.isnan(found["by_chance"]) and found["n"] == 3
    assert robustness_index(features, np.array([None] * 3), np.array(["x"] * 3), np.array(["p"] * 3), k=2)["n"] == 0
