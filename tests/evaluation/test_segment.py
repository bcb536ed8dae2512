"""Segmentation: every family decodes, cases are volumes, distances are in mm, large images go through windows."""

import json
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from support.families import FAMILIES, family_backbone
from support.tiny_tasks import class_task, judge, mask_task, recorded_models, spots, weights, write_task

from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.views import ViewMaker
from ssl_transfer.errors import RecipeError, TaskError
from ssl_transfer.evaluation.segment import cases_of, overlap_loss
from ssl_transfer.evaluation.strategies.lora import LoRA
from ssl_transfer.evaluation.task_model import TaskModel
from ssl_transfer.models.heads import SegmentationHead

ADAMW = "optimizer={name: adamw, lr: 0.003}"
pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def cases(folder):
    return pandas.read_parquet(folder / "predictions.parquet")


# What is learnt, and how


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_segments_one_class_and_several(tmp_path, family, classes):
    task = mask_task(tmp_path / "task", classes=classes)
    result = judge("segment", family_backbone(family), task, tmp_path / "r")
    names = [f"band{number}" for number in range(1, classes + 1)]
    expected = {name for kind in ("dice", "hd95", "dice_present") for name in (kind, *(f"{kind}_{n}" for n in names))}
    assert set(result.metrics["test"]) == set(result.metrics["val"]) == expected
    assert 0 <= result.metrics["test"]["dice"] <= 1
    assert all(np.isfinite(line["loss"]) for line in lines(tmp_path / "r"))


def test_a_spot_is_learnt(tmp_path):
    task = mask_task(tmp_path / "task")
    result = judge("segment", family_backbone("resnet"), task, tmp_path / "r", ADAMW, "train.steps=40")
    assert result.metrics["test"]["dice"] > 0.8


def test_bands_are_learnt_each_by_its_name(tmp_path):
    task = mask_task(tmp_path / "task", classes=2)
    views = "views={name: ct, flip: 0.0, rotation_degrees: 0.0, crop_scale: [0.9, 1.0]}"  # which band is which depends on place
    result = judge("segment", family_backbone("resnet"), task, tmp_path / "r", ADAMW, "train.steps=80", views)
    assert min(result.metrics["test"][f"dice_{name}"] for name in ("band1", "band2")) > 0.6


@pytest.mark.parametrize("family", FAMILIES)
def test_head_only_leaves_the_encoder_bit_identical_and_full_does_not(tmp_path, family):
    task = mask_task(tmp_path / "task")
    before = {f"backbone.{name}": value for name, value in family_backbone(family).state_dict().items()}
    changed = {}
    for strategy in ("head_only", "full"):
        with recorded_models() as trained:
            judge("segment", family_backbone(family), task, tmp_path / strategy, ADAMW, f"strategy={strategy}")
        after = weights(trained[0])
        changed[strategy] = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert changed["head_only"] == [] and len(changed["full"]) > len(before) / 2


@pytest.mark.parametrize("strategy", ["head_only", "gradual_last_first", "lp_ft", "l2_sp", "auto_rgn", "llrd"])
def test_strategies_treat_an_encoder_as_they_treat_a_classifier(tmp_path, strategy):
    task = mask_task(tmp_path / "task")
    result = judge("segment", family_backbone("vit"), task, tmp_path / "r", f"strategy={strategy}")
    assert result.strategy == strategy and len(lines(tmp_path / "r")) == 3


def test_lora_adapts_an_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(
        LoRA, "finish", lambda strategy, backbone: None
    )  # adapters are looked at before they are merged
    before = family_backbone("vit").state_dict()
    with recorded_models() as trained:
        judge("segment", family_backbone("vit"), mask_task(tmp_path / "task"), tmp_path / "r", "strategy=lora")
    after = {name.replace(".base_layer", ""): value for name, value in weights(trained[0]).items()}
    assert all(torch.equal(after[f"backbone.{name}"], value) for name, value in before.items())
    assert any("lora_" in name for name in after)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_trainable_parameter_gets_a_gradient(tmp_path, family, monkeypatch):
    """Else several processes would wait for it in vain."""
    found = []

    def watched(model, step):
        found.append([name for name, p in model.named_parameters() if p.requires_grad and p.grad is None])

    monkeypatch.setattr(TaskModel, "after_backward", watched)
    judge("segment", family_backbone(family), mask_task(tmp_path / "task"), tmp_path / "r", "train.steps=1")
    assert found == [[]]


def test_bf16_trains_nearly_as_fp32(tmp_path):
    task = mask_task(tmp_path / "task", classes=2)
    losses = {}
    for precision in ("fp32", "bf16"):
        judge("segment", family_backbone("convnext"), task, tmp_path / precision, f"precision={precision}")
        losses[precision] = [line["loss"] for line in lines(tmp_path / precision)]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02) and losses["bf16"] != losses["fp32"]


def test_grey_volumes_can_be_segmented_by_an_rgb_encoder(tmp_path):
    task = mask_task(tmp_path / "task")
    for way in ("repeat", "adapt"):
        result = judge("segment", family_backbone("resnet", channels=3), task, tmp_path / way, f"channels={way}")
        assert any(note.startswith("channels: ") for note in result.notes)


# A decoder that is right


LEVELS = (0, 120, 240)  # grey value of background and of each class


@pytest.fixture
def truthful(monkeypatch):
    """Where images are predicted, a decoder says the class whose grey value is nearest, and moves all by some columns."""
    facts = SimpleNamespace(columns=0, shapes=[])
    learnt = SegmentationHead.forward

    def forward(head, backbone, images):
        if not torch.is_inference_mode_enabled():
            return learnt(head, backbone, images)
        facts.shapes.append(tuple(images.shape[-2:]))
        values = 255 * (images[:, :1] * 0.25 + 0.5)
        return -(values - torch.tensor(LEVELS).view(1, -1, 1, 1)).abs().roll(facts.columns, -1)

    monkeypatch.setattr(SegmentationHead, "forward", forward)
    return facts


def drawn(folder, height, width, count=12, **columns):
    """Images that show their masks: rectangles of two classes at random places; a patient each."""
    draw = np.random.default_rng(0)
    masks = np.zeros((count, height, width), np.uint8)
    for mask in masks:
        for number in (1, 2):
            top, left = draw.integers(1, [height // 2, width // 2])
            mask[top : top + height // 3, left : left + width // 3] = number
    images = np.array(LEVELS, np.uint8)[masks][:, None]
    splits = np.repeat(["train", "val", "test"], count // 3)
    columns = {"patient": [f"p{n:02d}" for n in range(count)], **columns}
    return write_task(
        folder, images, splits, columns, masks, {"1": "liver", "2": "tumour"}, target="mask", metric="dice"
    )


@pytest.mark.parametrize(
    ("height", "width"),
    [(32, 32), (32, 20), (17, 32), (64, 64), (50, 33), (33, 70), (24, 40)],
    ids=lambda side: str(side),
)
def test_a_decoder_that_is_right_has_a_dice_of_1_whatever_the_shape_of_the_image(tmp_path, truthful, height, width):
    """As large as the backbone sees, narrower, larger (through windows), larger in one direction alone."""
    task = drawn(tmp_path / "task", height, width)
    result = judge("segment", family_backbone("resnet"), task, tmp_path / "r", "train.steps=1")
    assert result.metrics["test"]["dice"] == 1 and result.metrics["test"]["hd95"] == 0
    assert set(truthful.shapes) <= {(32, 32)} or height == width == 32


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 12), (20, 28)])
def test_small_images_are_enlarged_and_scored_at_their_original_size(tmp_path, truthful, height, width):
    task = drawn(tmp_path / "task", height, width)
    result = judge("segment", family_backbone("resnet"), task, tmp_path / "r", "train.steps=1")
    assert result.metrics["test"]["dice"] > 0.8 and (32, 32) in truthful.shapes
    voxels = cases(tmp_path / "r").groupby("class")["truth_voxels"].sum()
    masks = task.store.masks(task.rows("test"))
    assert voxels.to_dict() == {"liver": int((masks == 1).sum()), "tumour": int((masks == 2).sum())}


def test_a_large_image_is_segmented_in_windows_at_its_original_resolution(tmp_path, truthful):
    judge("segment", family_backbone("resnet"), drawn(tmp_path / "task", 64, 48), tmp_path / "r", "train.steps=1")
    assert set(truthful.shapes) == {(32, 32)}


def test_more_overlap_means_more_windows(tmp_path, monkeypatch):
    counts, learnt = {}, SegmentationHead.forward
    task = drawn(tmp_path / "task", 96, 96)
    for overlap in (0.0, 0.5):
        seen = []

        def forward(head, backbone, images, seen=seen):
            if torch.is_inference_mode_enabled():
                seen.append(len(images))
            return learnt(head, backbone, images)

        monkeypatch.setattr(SegmentationHead, "forward", forward)
        judge(
            "segment", family_backbone("resnet"), task, tmp_path / str(overlap), f"overlap={overlap}", "train.steps=1"
        )
        counts[overlap] = sum(seen)
    assert counts[0.0] % 9 == 0 and counts[0.5] / counts[0.0] == pytest.approx(25 / 9, abs=0.3)


@pytest.mark.parametrize("overlap", ["1.0", "-0.1"])
def test_an_overlap_that_is_no_share_is_refused(tmp_path, overlap):
    with pytest.raises(RecipeError, match="overlap"):
        judge("segment", family_backbone("resnet"), None, tmp_path / "r", f"overlap={overlap}")


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
        assert "hd95 leaves out 1 case(s) with uneven distances of slices: c/" in notes
    else:
        assert distances.tolist() == [1, 1] and "leaves out" not in notes


def test_a_volume_is_scored_as_one_case(tmp_path):
    result = judge("segment", family_backbone("resnet"), volumes(tmp_path / "task"), tmp_path / "r")
    frame = cases(tmp_path / "r")
    assert frame["case"].tolist() == ["p3/s3"] and frame["patient"].tolist() == ["p3"]
    assert frame["truth_voxels"].tolist() == [3 * 16 * 16]
    assert result.n["test"] == {"images": 3, "patients": 1} and "test cases: n_cases 1" in " ".join(result.notes)


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


# Selection, fractions, balance


def test_other_test_masks_change_the_test_score_but_neither_the_choice_nor_validation(tmp_path):
    images, middle = spots(np.ones(12))
    splits = np.array(["train"] * 8 + ["val"] * 2 + ["test"] * 2)
    results = []
    for name, masks in (("right", [middle] * 12), ("wrong", [middle] * 10 + [~middle] * 2)):
        columns = {"patient": [f"p{n}" for n in range(12)]}
        task = write_task(tmp_path / name, images, splits, columns, masks, {"1": "spot"}, target="mask", metric="dice")
        settings = (ADAMW, "train.steps=40", "train.check_every_steps=8")
        results.append(judge("segment", family_backbone("resnet"), task, tmp_path / f"{name}-run", *settings))
    right, wrong = results
    assert right.selected == wrong.selected and right.metrics["val"] == wrong.metrics["val"]
    assert right.metrics["test"]["dice"] > 0.7 > 0.4 > wrong.metrics["test"]["dice"]


def test_fractions_are_of_patients_and_change_no_setting(tmp_path):
    task = mask_task(tmp_path / "task", slices=2)
    results = [
        judge("segment", family_backbone("resnet"), task, tmp_path / str(f), f"fraction={f}") for f in (0.5, 1.0)
    ]
    assert [r.n["train"] for r in results] == [{"images": 8, "patients": 4}, {"images": 16, "patients": 8}]
    assert results[0].settings == results[1].settings


def test_the_result_tells_decoder_overlap_and_policy(tmp_path):
    result = judge(
        "segment", family_backbone("resnet"), mask_task(tmp_path / "task"), tmp_path / "r", "decoder_width=8"
    )
    assert result.settings["decoder_width"] == 8 and result.settings["overlap"] == 0.5
    assert result.settings["strategy"] == {"name": "full"} and result.protocol == "segment"
    assert any(note.startswith("overlap per case and class: both masks empty") for note in result.notes)


def test_balance_by_weights_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="the Dice loss needs no weights"):
        judge(
            "segment", family_backbone("resnet"), mask_task(tmp_path / "task"), tmp_path / "r", "train.balance=weights"
        )


def test_sampling_shows_images_with_and_without_the_class_equally_often(tmp_path, monkeypatch):
    images, middle = spots(np.ones(12))
    masks = [middle if number in (0, 1, 8, 9, 10, 11) else 0 * middle for number in range(12)]
    columns = {"patient": [f"p{n}" for n in range(12)]}
    task = write_task(
        tmp_path / "task",
        images,
        ["train"] * 8 + ["val"] * 2 + ["test"] * 2,
        columns,
        masks,
        {"1": "spot"},
        target="mask",
        metric="dice",
    )
    counts, forward = [], TaskModel.forward

    def watched(model, batch, step):
        counts.append(int((batch.labels.flatten(1).sum(1) > 0).sum()))
        return forward(model, batch, step)

    monkeypatch.setattr(TaskModel, "forward", watched)
    judge("segment", family_backbone("resnet"), task, tmp_path / "r", "train.balance=sampling", "train.steps=5")
    assert counts == [2] * 5


def test_a_multiclass_task_is_refused_with_a_hint_to_other_protocols(tmp_path):
    with pytest.raises(TaskError, match="it is multiclass, which segment cannot score"):
        judge("segment", family_backbone("resnet"), class_task(tmp_path / "task"), tmp_path / "r")


# Images and masks are cut together


@pytest.fixture(params=["ct", "microscopy"])
def pairs(request):
    """Views of images that show their masks (a corner and a bar), and the masks cut with them."""

    def cut(height, width, size=32, epoch=0, **options):
        masks = torch.zeros(16, height, width, dtype=torch.int64)
        masks[:, : height // 2, : width // 3] = 1
        masks[:, 3 * height // 4 :] = 1
        options = {"blur_share": 0.0, "noise": 0.0, "crop_scale": (0.4, 1.0), **options}
        preset = VIEWS[request.param](size, 1, "display", **options)
        maker = ViewMaker([preset], Scale(0, 255), 0, 1)
        images = (255 * masks[:, None]).to(torch.uint8)
        views, cut = maker.pair(images, masks, np.arange(16), epoch)
        return views, cut, maker(images, np.arange(16), epoch)[0], masks

    return cut


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (48, 80), (100, 40)])
def test_an_image_and_its_mask_are_cropped_and_resampled_together(pairs, height, width):
    views, masks, _, _ = pairs(height, width)
    shown = (views[:, 0] > views[:, 0].amin((1, 2), True) / 2 + views[:, 0].amax((1, 2), True) / 2).long()
    mixed = [int(mask.min() != mask.max()) for mask in masks]
    agreement = (shown == masks).float().mean((1, 2))
    assert sum(mixed) >= 14  # a crop may show one class alone
    assert all(float(share) > 0.95 for share, both in zip(agreement, mixed, strict=True) if both)


def test_masks_are_rotated_and_flipped_at_random(pairs):
    _, masks, _, original = pairs(32, 32)
    assert len({mask.numpy().tobytes() for mask in masks}) == 16
    assert sum(torch.equal(mask, whole) for mask, whole in zip(masks, original, strict=True)) <= 1


def test_a_mask_does_not_change_the_view_of_its_image(pairs):
    views, masks, alone, _ = pairs(48, 80)
    assert torch.equal(views, alone) and masks.shape == (16, 32, 32) and masks.dtype == torch.int64


def test_masks_are_never_interpolated(pairs):
    draw = torch.Generator().manual_seed(0)
    masks = 7 * torch.randint(2, (4, 40, 40), generator=draw)
    maker = ViewMaker([VIEWS["ct"](32, 1, "display")], Scale(0, 255), 0, 1)
    _, cut = maker.pair(torch.zeros(4, 1, 40, 40, dtype=torch.uint8), masks, np.arange(4), 0)
    assert set(cut.unique().tolist()) == {0, 7}


def test_another_pass_has_other_crops(pairs):
    assert not torch.equal(pairs(32, 32, epoch=0)[1], pairs(32, 32, epoch=1)[1])
