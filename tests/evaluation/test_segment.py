"""Segmentation: every family decodes, large images go through windows, images and masks are cut together."""

import json

import numpy as np
import pandas
import pytest
import torch
from support.families import FAMILIES, family_backbone
from support.tiny_tasks import class_task, drawn, judge, mask_task, recorded_models, spots, weights, write_task

from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.views import ViewMaker
from ssl_transfer.errors import RecipeError, TaskError
from ssl_transfer.evaluation.strategies.lora import LoRA
from ssl_transfer.evaluation.task_model import TaskModel
from ssl_transfer.measures.metrics import metrics_of
from ssl_transfer.models.heads import SegmentationHead

ADAMW = "optimizer={name: adamw, lr: 0.003}"
pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def cases(folder):
    return pandas.read_parquet(folder / "predictions.parquet")


# What is learnt, and how


@pytest.mark.parametrize("classes", [pytest.param(1, marks=pytest.mark.long), 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_segments_one_class_and_several(tmp_path, family, classes):
    task = mask_task(tmp_path / "task", classes=classes)
    result = judge("segment", family_backbone(family), task, tmp_path / "r")
    names = [f"band{number}" for number in range(1, classes + 1)]
    expected = {name for kind in metrics_of("segmentation") for name in (kind, *(f"{kind}_{n}" for n in names))}
    assert set(result.metrics["test"]) == set(result.metrics["val"]) == expected
    assert 0 <= result.metrics["test"]["dice"] <= 1
    assert all(np.isfinite(line["loss"]) for line in lines(tmp_path / "r"))


def test_a_spot_is_learnt(tmp_path):
    task = mask_task(tmp_path / "task")
    result = judge("segment", family_backbone("resnet"), task, tmp_path / "r", ADAMW, "train.steps=40")
    assert result.metrics["test"]["dice"] > 0.8


@pytest.mark.long
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
