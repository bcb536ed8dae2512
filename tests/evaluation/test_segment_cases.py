"""Segmentation: cases are volumes, distances are in mm, and ignored pixels have no part in loss and score."""

import numpy as np
import pandas
import pytest
import torch
from support.families import family_backbone
from support.tiny_tasks import LEVELS, drawn, judge, mask_task, spots, write_task

from ssl_transfer.evaluation.segment import cases_of, overlap_loss

pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


def cases(folder):
    return pandas.read_parquet(folder / "predictions.parquet")


# Ignored pixels


def test_ignored_pixels_have_no_part_in_the_loss():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    masks = torch.randint(0, 3, (2, 8, 8))
    whole = overlap_loss(False)(logits[..., :4], masks[..., :4])
    ignoring = torch.where(torch.arange(8) < 4, masks, -1)
    loss = overlap_loss(True)(logits, ignoring)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)  # as if the ignored half were not there
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[..., 4:] == 0).all() and (gradient[..., :4] != 0).any()
    assert overlap_loss(True)(logits, masks).item() == pytest.approx(
        overlap_loss(False)(logits, masks).item(), rel=1e-6
    )
    assert torch.isfinite(overlap_loss(True)(logits, torch.full_like(masks, -1)))


def test_ignored_pixels_have_no_part_in_the_score(tmp_path, truthful):
    """The decoder finds tumour in them."""
    masks = np.zeros((12, 32, 32), np.uint8)
    masks[:, 4:12, 4:12], masks[:, 20:28, 20:28] = 1, 2
    images = np.array(LEVELS, np.uint8)[masks][:, None]
    images[:, :, :2], masks[:, :2] = LEVELS[2], 255
    columns = {"patient": [f"p{n}" for n in range(12)]}
    for name, ignore in (("ignoring", 255), ("scoring", None)):
        names = {"1": "liver", "2": "tumour"}
        options = {"target": "mask", "metric": "dice", "mask_ignore": ignore}
        task = write_task(
            tmp_path / name, images, np.repeat(["train", "val", "test"], 4), columns, masks, names, **options
        )
        result = judge("segment", family_backbone("resnet"), task, tmp_path / f"{name} run", "train.steps=1")
        assert (result.metrics["test"]["dice_tumour"] == 1) == (ignore == 255)
        assert ("masks ignore" in " ".join(result.notes)) == (ignore == 255)
        assert task.strata.tolist() == [1] * 12


# Cases


def volumes(folder, series=None, **columns):
    """Four patients of three slices each, whose slices lie in the store in the order 2, 0, 1."""
    count = 12
    named = {
        "patient": [f"p{n // 3}" for n in range(count)],
        "slice": [(2, 0, 1)[n % 3] for n in range(count)],
        "series": series or [f"s{n // 3}" for n in range(count)],
        **columns,
    }
    images, middle = spots(np.ones(count))
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    return write_task(folder, images, splits, named, [middle] * count, {"1": "spot"}, target="mask", metric="dice")


def test_slices_of_a_series_are_one_case_in_their_order(tmp_path):
    task = volumes(tmp_path / "task")
    found = [(name, rows.tolist()) for name, rows, _ in cases_of(task, task.rows("train"))]
    assert found == [("p0/s0", [1, 2, 0]), ("p1/s1", [4, 5, 3])]


def test_two_series_of_a_patient_are_two_cases(tmp_path):
    task = volumes(tmp_path / "task", series=["a", "a", "b"] * 4)
    assert [name for name, *_ in cases_of(task, task.rows("test"))] == ["p3/a", "p3/b"]


def test_an_image_without_a_slice_number_is_a_case_by_itself(tmp_path):
    task = mask_task(tmp_path / "task", held_out=3)
    assert [rows.tolist() for _, rows, _ in cases_of(task, task.rows("test"))] == [[11], [12], [13]]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, None),
        ({"spacing_row_mm": [0.5] * 12, "spacing_col_mm": [0.7] * 12, "spacing_slice_mm": [3.0] * 12}, (3.0, 0.5, 0.7)),
        ({"spacing_row_mm": [0.5] * 12, "spacing_col_mm": [0.7] * 12, "z_mm": [5.0, 0.0, 2.5] * 4}, (2.5, 0.5, 0.7)),
        (
            {
                "spacing_row_mm": [0.5] * 12,
                "spacing_col_mm": [0.7] * 12,
                "spacing_slice_mm": [9.0] * 12,
                "z_mm": [-5.0, 0.0, -2.5] * 4,
            },
            (2.5, 0.5, 0.7),
        ),
        ({"spacing_row_mm": [0.5] * 12, "spacing_col_mm": [0.7] * 12}, None),
        ({"spacing_row_mm": [0.0] * 12, "spacing_col_mm": [0.7] * 12, "spacing_slice_mm": [3.0] * 12}, None),
    ],
    ids=["unknown", "stated", "from positions", "positions before the stated value", "not between slices", "zero"],
)
def test_spacing_is_that_between_slices_rows_and_columns(tmp_path, columns, expected):
    task = volumes(tmp_path / "task", **columns)
    ((_, _, spacing),) = cases_of(task, task.rows("test"))
    assert spacing == expected


def test_volumes_of_a_series_are_cases_apart(tmp_path):
    task = volumes(tmp_path / "task", series=["s"] * 12, volume=[0, 0, 1] * 4)
    assert [(name, rows.tolist()) for name, rows, _ in cases_of(task, task.rows("test"))] == [
        ("p3/s/0", [10, 9]),
        ("p3/s/1", [11]),
    ]


@pytest.mark.parametrize("positions", [[0.0, 2.0, 4.0, 8.0], [0.0, 2.0, 4.0, 6.0]], ids=["gap", "even"])
def test_a_case_with_a_missing_slice_has_no_distance_and_is_named(tmp_path, truthful, positions):
    truthful.columns = 2
    columns = {f"spacing_{name}_mm": [0.5] * 12 for name in ("row", "col")}
    columns |= {"patient": ["a"] * 4 + ["b"] * 4 + ["c"] * 4, "slice": [0, 1, 2, 3] * 3, "z_mm": positions * 3}
    result = judge("segment", family_backbone("resnet"), drawn(tmp_path / "t", 32, 32, **columns), tmp_path / "r")
    distances, notes = cases(tmp_path / "r")["hd95"], " ".join(result.notes)
    if positions[-1] == 8:
        assert distances.isna().all() and np.isfinite(result.metrics["test"]["dice"])
        assert "hd95 and nsd leave out 1 case(s) with uneven distances of slices: c/" in notes
    else:
        assert distances.tolist() == [1, 1] and "leaves out" not in notes


def test_a_volume_is_scored_as_one_case(tmp_path):
    result = judge("segment", family_backbone("resnet"), volumes(tmp_path / "task"), tmp_path / "r")
    frame = cases(tmp_path / "r")
    assert frame["case"].tolist() == ["p3/s3"] and frame["patient"].tolist() == ["p3"]
    assert frame["truth_voxels"].tolist() == [3 * 16 * 16]
    assert result.n["test"] == {"images": 3, "patients": 1} and result.notes[1].startswith("1 test case;")


@pytest.mark.parametrize(("spacing", "unit"), [(None, "pixels"), (0.5, "mm")])
def test_distances_are_in_mm_where_every_case_has_a_spacing(tmp_path, truthful, spacing, unit):
    truthful.columns = 2
    columns = {f"spacing_{name}_mm": [spacing] * 12 for name in ("row", "col", "slice")} if spacing else {}
    task = drawn(tmp_path / "task", 32, 32, **columns)
    result = judge("segment", family_backbone("resnet"), task, tmp_path / "r", "train.steps=1")
    assert result.metrics["test"]["hd95"] == pytest.approx(2 * (spacing or 1))
    assert f"hd95 in {unit}" in " ".join(result.notes) and set(cases(tmp_path / "r")["unit"]) == {unit}


def test_one_case_without_a_spacing_puts_all_in_pixels(tmp_path, truthful):
    truthful.columns = 2
    spacing = [0.5] * 11 + [None]
    task = drawn(tmp_path / "task", 32, 32, **{f"spacing_{name}_mm": spacing for name in ("row", "col", "slice")})
    result = judge("segment", family_backbone("resnet"), task, tmp_path / "r", "train.steps=1")
    assert result.metrics["test"]["hd95"] == 2 and set(cases(tmp_path / "r")["unit"]) == {"pixels"}


def test_predictions_have_every_case_and_class_with_its_score(tmp_path):
    task = mask_task(tmp_path / "task", classes=2, held_out=3)
    result = judge("segment", family_backbone("resnet"), task, tmp_path / "r")
    frame = cases(tmp_path / "r")
    assert {"case", "patient", "class", "dice", "hd95", "truth_voxels", "found_voxels"} <= set(frame)
    assert frame.groupby("class").size().to_dict() == {"band1": 3, "band2": 3}
    assert result.metrics["test"]["dice"] == pytest.approx(frame["dice"].mean(), abs=1e-5)
