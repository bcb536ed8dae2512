"""Splits and label fractions."""

import itertools

import numpy as np
import pytest

from ssl_transfer.data.splits import draw_splits, label_fraction, permuted_labels, shared_groups
from ssl_transfer.errors import SplitError

SHARES = (0.7, 0.15, 0.15)


def cohort(patients=60, slices=4, classes=3):
    groups = np.repeat([f"p{n:03d}" for n in range(patients)], slices)
    labels = np.repeat(np.arange(patients) % classes, slices)
    return groups, labels


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_divided_and_shares_hold_in_every_class(seed):
    groups, labels = cohort(patients=120)
    splits = draw_splits(groups, labels, SHARES, seed)
    assert shared_groups(groups, splits) == []
    for label in (None, 0, 1, 2):
        rows = np.ones(len(groups), bool) if label is None else labels == label
        for split, share in zip(("train", "val", "test"), SHARES, strict=True):
            patients = len(set(groups[rows & (splits == split)]))
            assert abs(patients - share * len(set(groups[rows]))) <= 2


@pytest.mark.parametrize("patients", range(3, 12))
@pytest.mark.parametrize("classes", [1, 3, 50])
def test_every_split_gets_a_group_as_soon_as_there_are_three(patients, classes):
    splits = draw_splits(*cohort(patients, classes=classes), SHARES, seed=0)
    assert set(splits) == {"train", "val", "test"}


def test_two_groups_are_all_train():
    assert set(draw_splits(*cohort(2), SHARES, seed=0)) == {"train"}


def test_a_split_without_a_share_stays_empty():
    assert set(draw_splits(*cohort(), (0.8, 0.0, 0.2), seed=0)) == {"train", "test"}


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_rows():
    groups, labels = cohort()
    splits = draw_splits(groups, labels, SHARES, seed=1)
    order = np.random.default_rng(0).permutation(len(groups))
    assert np.array_equal(draw_splits(groups[order], labels[order], SHARES, seed=1), splits[order])
    assert not np.array_equal(draw_splits(groups, labels, SHARES, seed=2), splits)


def test_images_without_a_label_are_a_stratum_of_their_own():
    groups, _ = cohort(30)
    splits = draw_splits(groups, [None] * len(groups), SHARES, seed=0)
    assert 0.6 < np.mean(splits == "train") < 0.8


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1), (0.5, 0.5)])
def test_wrong_shares_are_refused(shares):
    with pytest.raises(SplitError, match="sum to 1"):
        draw_splits(*cohort(), shares, seed=0)


def test_shared_groups_are_named_with_their_splits():
    assert shared_groups(["a", "a", "b", None, None], ["train", "test", "val", "train", "val"]) == [
        ("a", ["train", "test"])
    ]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_smaller_fractions_are_subsets_of_larger_ones(seed):
    groups, labels = cohort(300)
    rows = [set(label_fraction(groups, labels, fraction, seed)) for fraction in (0.01, 0.1, 1.0)]
    assert rows[0] < rows[1] < rows[2]
    assert len(rows[2]) == len(groups)


@pytest.mark.parametrize("seed", range(20))
def test_fractions_stay_nested_and_complete_when_patients_show_several_classes(seed):
    random = np.random.default_rng(seed)
    patients, labels = random.integers(0, 40, 400), random.integers(0, 5, 400)
    labels[labels == 4] *= random.integers(0, 8, (labels == 4).sum()) == 0  # class 4 is rare and no patient's main one
    chosen = [set(label_fraction(patients, labels, f, seed)) for f in (0.01, 0.05, 0.1, 0.3, 0.6, 1.0)]
    assert all(a <= b for a, b in itertools.pairwise(chosen))
    assert all(set(labels[list(rows)]) == set(labels) for rows in chosen)


def test_a_fraction_takes_whole_patients_and_its_share_of_each_class():
    groups, labels = cohort(200, classes=2)
    rows = label_fraction(groups, labels, 0.1, seed=0)
    assert rows.dtype == np.int64 and np.array_equal(rows, np.sort(rows))
    assert set(np.flatnonzero(np.isin(groups, groups[rows]))) == set(rows)
    assert [len(set(groups[rows][labels[rows] == label])) for label in (0, 1)] == [10, 10]


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01])
def test_a_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(SplitError, match="label fraction"):
        label_fraction(*cohort(), fraction, seed=0)


# Permuted labels


def test_permuted_labels_of_single_images_are_the_same_labels_in_another_order():
    labels = np.arange(200) % 7
    permuted = permuted_labels(labels, np.arange(200), seed=0)
    assert np.array_equal(np.sort(permuted), np.sort(labels)) and not np.array_equal(permuted, labels)


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_with_one_label_keeps_one(seed):
    groups, labels = cohort(patients=30)
    permuted = permuted_labels(labels, groups, seed)
    assert all(len(set(permuted[groups == patient])) == 1 for patient in set(groups))
    assert np.array_equal(np.bincount(permuted), np.bincount(labels)) and not np.array_equal(permuted, labels)


def test_slices_of_equal_position_do_not_keep_their_label():
    groups, labels = np.repeat(np.arange(300), 6), np.tile(np.arange(6), 300)  # every volume from head to foot
    permuted = permuted_labels(labels, groups, seed=0)
    assert np.array_equal(np.sort(permuted), np.sort(labels))
    assert np.mean(permuted == labels) == pytest.approx(1 / 6, abs=4 * np.sqrt(5 / 36 / 1800))


def test_slices_of_a_patient_get_the_labels_of_one_other_patient():
    groups = np.repeat(np.arange(50), 4)
    labels = groups * 10 + np.tile(np.arange(4), 50)  # tells whose it is
    donors = [set(permuted_labels(labels, groups, seed=1)[groups == patient] // 10) for patient in range(50)]
    assert all(len(donor) == 1 for donor in donors) and len(set().union(*donors)) == 50


def test_rows_of_a_multi_label_task_stay_whole():
    labels = np.random.default_rng(0).integers(-1, 2, (90, 4))
    permuted = permuted_labels(labels, np.repeat(np.arange(30), 3), seed=0)
    assert sorted(map(tuple, permuted)) == sorted(map(tuple, labels)) and not np.array_equal(permuted, labels)


def test_a_permutation_is_of_its_seed():
    labels = np.arange(100)
    assert np.array_equal(permuted_labels(labels, labels, (3, 0)), permuted_labels(labels, labels, (3, 0)))
    assert not np.array_equal(permuted_labels(labels, labels, (3, 0)), permuted_labels(labels, labels, (3, 1)))
