"""Dice and HD95 per case against all pairs of surface voxels; empty masks are counted and never dropped."""

import itertools

import numpy as np
import pandas
import pytest
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from scipy import ndimage

from ssl_transfer.measures.metrics import case_overlap, metric_sign, overlap_intervals, overlap_metrics
from ssl_transfer.measures.overlap import overlap_counts, policy_note

LIVER = {1: "liver"}


def surface(mask):
    """Voxels that share a face with one outside, one by one; beyond the border everything is outside."""
    inside = set(map(tuple, np.argwhere(mask)))
    steps = [np.array(step) for step in itertools.product((-1, 0, 1), repeat=mask.ndim) if np.abs(step).sum() == 1]
    return np.array([voxel for voxel in inside if any(tuple(voxel + step) not in inside for step in steps)])


def naive_hd95(truth, found, spacing):
    one, other = surface(truth) * np.array(spacing), surface(found) * np.array(spacing)
    distances = np.linalg.norm(one[:, None] - other[None], axis=2)
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


def blob(seed, shape):
    """A smooth random shape, with hollows and islands."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2, mode="constant")
    return (noise > np.quantile(noise, 0.8)).astype(int)


def only(rows):
    (row,) = rows
    return row


def mask(shape, *voxels):
    out = np.zeros(shape, int)
    for voxel in voxels:
        out[voxel] = 1
    return out


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0), (5.0, 0.7, 0.9)], ids=["pixels", "even", "anisotropic"])
@pytest.mark.parametrize("shape", [(1, 24, 18), (7, 14, 12), (2, 9, 9)], ids=["image", "volume", "two slices"])
@pytest.mark.parametrize("seed", range(3))
def test_dice_and_hd95_are_the_naive_ones(shape, spacing, seed):
    truth, found = blob(seed, shape), blob(seed + 10, shape)
    row = only(case_overlap(truth, found, LIVER, spacing))
    flat = shape[0] == 1
    step = (spacing or (1, 1, 1))[1:] if flat else spacing or (1, 1, 1)
    pair = (truth[0], found[0]) if flat else (truth, found)
    assert row["hd95"] == pytest.approx(naive_hd95(*pair, step), rel=1e-5)
    assert row["dice"] == pytest.approx(2 * np.sum(truth * found) / (truth.sum() + found.sum()))
    assert (row["truth_voxels"], row["found_voxels"]) == (truth.sum(), found.sum())


def test_a_single_slice_is_measured_in_the_plane():
    """In space every voxel of a lone slice would be surface; in the plane the middle of a square is not."""
    truth = mask((1, 30, 30), np.s_[0, 2:28, 2:28])
    hollow = truth.copy()
    hollow[0, 12:18, 12:18] = 0
    found = only(case_overlap(truth, hollow, LIVER, None))["hd95"]
    assert found == pytest.approx(naive_hd95(truth[0], hollow[0], (1, 1))) and found > 5


@pytest.mark.parametrize(
    ("truth", "found", "dice", "hd95", "nsd"),
    [((), (), 1, 0, 1), ((), ((1, 2, 2),), 0, 3, 0), (((1, 2, 2),), (), 0, 3, 0)],
    ids=["both empty", "truth empty", "found empty"],
)
def test_empty_masks_follow_the_policy(truth, found, dice, hd95, nsd):
    shape = (3, 4, 5)  # 2 x 3 x 4 steps make 1 x 2 x 2 mm, whose diagonal is 3 mm
    row = only(case_overlap(mask(shape, *truth), mask(shape, *found), LIVER, (1 / 2, 2 / 3, 1 / 2)))
    assert (row["dice"], row["hd95"], row["nsd"]) == (dice, pytest.approx(hd95), nsd)


@pytest.mark.parametrize("tolerance", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("spacing", [None, (5.0, 0.7, 0.9)], ids=["pixels", "anisotropic"])
@pytest.mark.parametrize("shape", [(1, 24, 18), (7, 14, 12)], ids=["image", "volume"])
def test_nsd_is_monai_s_and_so_is_hd95(shape, spacing, tolerance):
    truth, found = blob(0, shape), blob(10, shape)
    row = only(case_overlap(truth, found, LIVER, spacing, tolerance))
    pair = [torch.from_numpy(one[0] if shape[0] == 1 else one)[None, None] for one in (found, truth)]
    step = list(spacing or (1, 1, 1))[-pair[0].ndim + 2 :]
    peer = compute_surface_dice(*pair, [tolerance], include_background=True, spacing=step)
    assert np.float32(row["nsd"]) == peer.item()
    peer = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=step)
    assert row["hd95"] == peer.item()


def test_no_distance_is_above_that_of_an_empty_mask():
    shape = (3, 5, 9)
    one, other = mask(shape, (0, 0, 0)), mask(shape, (2, 4, 8))
    corners = only(case_overlap(one, other, LIVER, (3, 1, 2)))["hd95"]
    missed = only(case_overlap(one, mask(shape), LIVER, (3, 1, 2)))["hd95"]
    assert corners == pytest.approx(missed) and missed == pytest.approx(np.sqrt(6**2 + 4**2 + 16**2))


def test_the_diagonal_of_a_single_slice_lies_in_the_plane():
    row = only(case_overlap(mask((1, 4, 5), (0, 1, 1)), mask((1, 4, 5)), LIVER, (9.0, 1.0, 1.0)))
    assert row["hd95"] == 5


@pytest.mark.parametrize("shape", [(1, 6, 6), (4, 6, 6)], ids=["image", "volume"])
def test_hd95_of_two_single_voxels_is_their_distance(shape):
    row = only(case_overlap(mask(shape, (0, 0, 0)), mask(shape, (0, 3, 4)), LIVER, (7, 1, 1)))
    assert (row["dice"], row["hd95"]) == (0, pytest.approx(5))
    same = only(case_overlap(mask(shape, (0, 5, 5)), mask(shape, (0, 5, 5)), LIVER, (7, 1, 1)))
    assert (same["dice"], same["hd95"]) == (1, 0)


def test_ignored_voxels_are_in_neither_mask():
    draw = np.random.default_rng(0)
    truth, found = draw.integers(0, 2, (2, 3, 8, 8))
    ignored = draw.random(truth.shape) < 0.3
    row = only(case_overlap(np.where(ignored, -1, truth), found, LIVER, (2, 1, 1)))
    assert row == only(case_overlap(truth * ~ignored, found * ~ignored, LIVER, (2, 1, 1)))


def test_a_distance_that_is_nan_is_left_out_of_means():
    shared = {"class": "liver", "dice": 0.5, "nsd": 0.5, "truth_voxels": 1}
    rows = [{"case": number, "hd95": distance, **shared} for number, distance in enumerate((2, np.nan, 4))]
    metrics = overlap_metrics(pandas.DataFrame(rows), ["liver"])
    assert metrics["hd95"] == 3 and metrics["dice"] == 0.5


@pytest.mark.parametrize("shape", [(1, 12, 12), (5, 12, 12)], ids=["image", "volume"])
def test_the_border_of_a_case_is_surface(shape):
    truth, found = mask(shape, np.s_[:, :4, :]), mask(shape, np.s_[:, :, :])
    pair = (truth[0], found[0]) if shape[0] == 1 else (truth, found)
    row = only(case_overlap(truth, found, LIVER, (2, 1, 1)))
    assert row["hd95"] == pytest.approx(naive_hd95(*pair, (2, 1, 1)[-pair[0].ndim :]))


def test_only_named_classes_are_measured_and_never_the_background():
    draw = np.random.default_rng(0)
    truth, found = draw.integers(0, 4, (2, 3, 8, 8))
    rows = case_overlap(truth, found, {0: "background", 2: "tumour", 1: "liver"}, None)
    assert [row["class"] for row in rows] == ["tumour", "liver"]
    assert rows[0] == only(case_overlap((truth == 2) * 1, (found == 2) * 1, {1: "tumour"}, None))


def test_a_distant_voxel_outside_the_other_mask_s_box_counts():
    truth, found = mask((1, 40, 40), np.s_[0, 5:9, 5:9]), mask((1, 40, 40), (0, 38, 38))
    assert only(case_overlap(truth, found, LIVER, None))["hd95"] == pytest.approx(
        naive_hd95(truth[0], found[0], (1, 1)), rel=1e-5
    )


def test_segmentations_of_unequal_shape_are_refused():
    with pytest.raises(ValueError, match="expected one shape"):
        case_overlap(np.zeros((1, 4, 4), int), np.zeros((1, 4, 5), int), LIVER, None)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (np.nan, 1, 1)])
def test_a_spacing_that_is_not_three_lengths_is_refused(spacing):
    with pytest.raises(ValueError, match="expected three lengths"):
        case_overlap(np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int), LIVER, spacing)


@pytest.fixture
def cases():
    """Twelve cases of five patients, two classes; the tumour is missing, missed, or made up now and then."""
    draw, rows = np.random.default_rng(0), []
    for case in range(12):
        for name in ("liver", "tumour"):
            empty = name == "tumour" and case % 3
            rows.append(
                {
                    "case": case,
                    "patient": f"p{case % 5}",
                    "class": name,
                    "dice": draw.random(),
                    "hd95": 20 * draw.random(),
                    "truth_voxels": 0 if empty else 50,
                    "found_voxels": 0 if empty == 2 or case == 3 else 40,
                }
            )
    return pandas.DataFrame(rows)


def test_means_are_over_cases_and_then_over_classes(cases):
    found = overlap_metrics(cases[:-1], ["liver", "tumour"])  # the last case has no row of tumour
    for measure in ("dice", "hd95"):
        means = cases[:-1].groupby("class")[measure].mean()
        assert found[f"{measure}_liver"] == pytest.approx(means["liver"])
        assert found[f"{measure}_tumour"] == pytest.approx(means["tumour"])
        assert found[measure] == pytest.approx(means.mean())
    measures = ("dice", "hd95", "dice_present")
    assert list(found) == [*measures, *(f"{measure}_{name}" for measure in measures for name in ("liver", "tumour"))]


def test_a_second_dice_counts_the_cases_that_have_the_class_in_truth(cases):
    found, own = overlap_metrics(cases, ["liver", "tumour"]), cases[cases["truth_voxels"] > 0]
    means = own.groupby("class")["dice"].mean()
    assert found["dice_present_tumour"] == pytest.approx(means["tumour"]) != pytest.approx(found["dice_tumour"])
    assert found["dice_present"] == pytest.approx(means.mean())


def test_a_class_without_a_row_has_no_value_and_the_mean_is_over_the_others(cases):
    found = overlap_metrics(cases, ["liver", "tumour", "spleen"])
    assert np.isnan(found["dice_spleen"]) and found["dice"] == overlap_metrics(cases, ["liver", "tumour"])["dice"]


def test_empty_masks_are_counted(cases):
    assert overlap_counts(cases, ["liver", "tumour"]) == {
        "n_cases": 12,
        "n_empty_truth_liver": 0,
        "n_empty_found_liver": 1,
        "n_empty_both_liver": 0,
        "n_empty_truth_tumour": 4,
        "n_empty_found_tumour": 1,
        "n_empty_both_tumour": 4,
    }


def test_intervals_are_the_percentiles_of_resampled_patients_with_all_their_cases(cases):
    found = overlap_intervals(cases, cases["patient"].to_numpy(), 4000, 0)
    draw, samples = np.random.default_rng(1), []
    parts = [part for _, part in cases.groupby("patient")]
    for _ in range(800):
        sample = pandas.concat([parts[p] for p in draw.integers(len(parts), size=len(parts))])
        samples.append(overlap_metrics(sample, ["liver", "tumour"]))
    assert set(found) == set(samples[0])
    for metric, interval in found.items():
        expected = np.percentile([sample[metric] for sample in samples], [2.5, 97.5])
        assert interval == pytest.approx(expected, abs=0.04 if metric.startswith("dice") else 0.8), metric


def test_more_dice_is_better_and_less_distance():
    assert [metric_sign(name) for name in ("dice", "dice_liver", "hd95", "hd95_liver")] == [1, 1, -1, -1]


def test_the_note_states_the_policy_and_the_unit():
    assert "both masks empty: Dice 1" in policy_note(True) and policy_note(True).endswith("hd95 in mm; nsd within 2 mm")
    assert policy_note(False, 1.5).endswith("hd95 in pixels; nsd within 1.5 pixels")
