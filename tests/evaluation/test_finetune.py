"""Fine-tuning: what is selected, resumed, recorded and refused."""

import json

import numpy as np
import pandas
import pytest
import torch
from support.families import family_backbone
from support.finetuned import ADAMW, THOROUGH, lines, scores
from support.tiny_tasks import SIDE, class_task, judge, mask_task, recorded_models

from ssl_transfer.errors import RecipeError, RunError, SplitError, TaskError
from ssl_transfer.evaluation import task_model
from ssl_transfer.evaluation.settings import evaluate_recipe, evaluate_recipes
from ssl_transfer.measures.scoring import Scoring
from ssl_transfer.training import loop, session

LONG = (ADAMW, "train.steps=12", "train.check_every_steps=3")


pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return class_task(tmp_path_factory.mktemp("task"), train=16, held_out=8)


@pytest.fixture(scope="module")
def finished_run(task, tmp_path_factory):
    """One whole run on one thread: its folder and its result."""
    folder, before = tmp_path_factory.mktemp("runs") / "done", torch.get_num_threads()
    torch.set_num_threads(1)
    result = judge("finetune", family_backbone("resnet"), task, folder, *LONG)
    torch.set_num_threads(before)
    return folder, result


# Selection


def test_a_bright_spot_is_learnt(task, tmp_path):
    result = judge("finetune", family_backbone("convnext"), task, tmp_path / "r", *THOROUGH)
    assert result.metrics["test"]["accuracy"] == 1 and result.metrics["val"]["accuracy"] == 1


def test_the_step_with_the_best_validation_is_selected_and_the_earlier_of_equals(finished_run):
    folder, result = finished_run
    checks = {line["step"]: line["val_accuracy"] for line in lines(folder) if "val_accuracy" in line}
    assert list(checks) == [3, 6, 9, 12]
    assert result.selected == {"step": max(checks, key=checks.get)}
    assert result.metrics["val"]["accuracy"] == pytest.approx(max(checks.values()))


def test_other_test_labels_change_the_test_score_but_neither_the_choice_nor_validation(finished_run, tmp_path):
    folder, result = finished_run
    other = class_task(tmp_path / "other", train=16, held_out=8, shift=1)
    found = judge("finetune", family_backbone("resnet"), other, tmp_path / "r", *LONG)
    assert found.selected == result.selected and found.metrics["val"] == result.metrics["val"]
    assert np.array_equal(scores(tmp_path / "r"), scores(folder))
    assert found.metrics["test"]["accuracy"] == pytest.approx(1 - result.metrics["test"]["accuracy"])


def validating(monkeypatch, accuracies):
    """Replace the accuracies on validation by these, check by check; test is measured."""
    scripted, measure = iter(accuracies), Scoring.metrics

    def metrics(scoring, *arguments):
        measured = measure(scoring, *arguments)
        return measured if scoring.temperature else {**measured, "accuracy": next(scripted)}

    monkeypatch.setattr(Scoring, "metrics", metrics)


def test_test_is_scored_with_the_weights_of_the_selected_step(task, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        validating(patch, [0.1, 0.9, 0.2, 0.3])
        best, backbone = tmp_path / "best", family_backbone("resnet")
        result = judge("finetune", backbone, task, best, *LONG, "strategy=head_only")
        assert result.selected == {"step": 6} and result.metrics["val"]["accuracy"] == 0.9
    last = tmp_path / "last"
    with monkeypatch.context() as patch:
        validating(patch, [0.1, 0.2, 0.3, 0.9])
        judge("finetune", family_backbone("resnet"), task, last, *LONG, "strategy=head_only")
    assert not np.allclose(scores(best), scores(last), atol=1e-6)


def test_a_metric_of_which_less_is_better_is_minimised(tmp_path):
    task = class_task(tmp_path / "task", metric="brier")
    result = judge("finetune", family_backbone("resnet"), task, tmp_path / "r", *LONG)
    checks = {line["step"]: line["val_brier"] for line in lines(tmp_path / "r") if "val_brier" in line}
    assert result.selected == {"step": min(checks, key=checks.get)} and len(set(checks.values())) > 1


def test_a_run_without_improvement_stops_when_patience_ends(task, tmp_path, monkeypatch):
    validating(monkeypatch, [0.5, 0.7, 0.7, 0.6, 0.9])
    result = judge(
        "finetune",
        family_backbone("resnet"),
        task,
        tmp_path / "r",
        ADAMW,
        "train.steps=100",
        "train.check_every_steps=2",
        "train.patience=2",
    )
    assert [line["step"] for line in lines(tmp_path / "r") if "val_accuracy" in line] == [2, 4, 6, 8]
    assert result.selected == {"step": 4} and result.settings["train"]["steps"] == 100


def test_a_metric_that_validation_leaves_undefined_is_refused(tmp_path):
    labels = [0, 1] * 4 + [1] * 4 + [0, 1] * 2
    task = class_task(tmp_path / "task", labels=labels, metric="auroc")
    with pytest.raises(TaskError, match="auroc is undefined on the validation images"):
        judge("finetune", family_backbone("resnet"), task, tmp_path / "r")


# Resumption


class Killed(Exception):
    """Stands for whatever ends a run."""


@pytest.mark.parametrize("step", [5, 8])
@pytest.mark.parametrize("strategy", ["full", "gradual_last_first", "lp_ft", "l2_sp", "auto_rgn"])
def test_an_interrupted_run_resumes_to_the_same_result(task, tmp_path, monkeypatch, strategy, step):
    settings = (*LONG, f"strategy={strategy}", "train.checkpoint_every_steps=3")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    expected = judge("finetune", family_backbone("resnet"), task, unbroken, *settings)
    advance = loop.Training._advance

    def killed(training, batches):
        if training.step == step:
            raise Killed
        return advance(training, batches)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "_advance", killed)
        with pytest.raises(Killed):
            judge("finetune", family_backbone("resnet"), task, broken, *settings)
    assert not (broken / "result.json").exists()
    result = judge("finetune", family_backbone("resnet"), task, broken, *settings)
    assert (result.metrics, result.selected, result.run_id) == (expected.metrics, expected.selected, expected.run_id)
    assert np.array_equal(scores(broken), scores(unbroken))
    for key in ("step", "loss", "lr"):
        assert [line[key] for line in lines(broken)] == [line[key] for line in lines(unbroken)]


def test_a_finished_run_is_read_not_repeated_and_keeps_no_checkpoints(finished_run, task, monkeypatch):
    folder, result = finished_run
    assert not (folder / "checkpoints").exists()
    monkeypatch.setattr(loop.Training, "_advance", lambda *_: pytest.fail("trained again"))
    assert judge("finetune", family_backbone("resnet"), task, folder, *LONG) == result


def test_the_seed_alone_decides_a_run(task, tmp_path):
    losses = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        judge("finetune", family_backbone("resnet"), task, tmp_path / str(number), f"seed={seed}")
        losses.append([line["loss"] for line in lines(tmp_path / str(number))])
    assert losses[0] == losses[1] != losses[2]


# Channels, precision, size


@pytest.mark.parametrize("way", ["repeat", "adapt"])
@pytest.mark.parametrize(("images", "backbone"), [(1, 3), (3, 1)])
def test_grey_images_and_rgb_backbones_can_be_combined_and_the_reverse(tmp_path, images, backbone, way):
    task = class_task(tmp_path / "task", channels=images, train=16, units="display" if images == 1 else "rgb")
    network = family_backbone("convnext", channels=backbone)
    result = judge("finetune", network, task, tmp_path / "r", *THOROUGH, f"channels={way}")
    assert result.metrics["test"]["accuracy"] == 1 and result.settings["channels"] == way
    (note,) = [note for note in result.notes if note.startswith("channels: ")]
    expected = {"repeat": "repeated" if images == 1 else "luminance", "adapt": f"{backbone} → {images} input channels"}
    assert expected[way] in note
    assert network.model.stem[0].in_channels == backbone


@pytest.mark.parametrize("family", ["densenet", "vgg", "convnext", "vit"])
def test_the_first_layer_of_every_family_adapts(tmp_path, family):
    task = class_task(tmp_path / "task")
    result = judge(
        "finetune", family_backbone(family, channels=3), task, tmp_path / "r", "channels=adapt", "train.steps=1"
    )
    assert any("3 → 1 input channels" in note for note in result.notes)


def test_matching_channels_need_no_message(finished_run):
    assert not any("channels" in note for note in finished_run[1].notes)


@pytest.mark.parametrize("strategy", ["full", "l2_sp", "auto_rgn", "head_only"])
def test_bf16_trains_nearly_as_fp32_and_keeps_its_weights_in_float32(task, tmp_path, strategy):
    losses = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        with recorded_models() as trained:
            result = judge(
                "finetune", family_backbone("convnext"), task, folder, f"precision={precision}", f"strategy={strategy}"
            )
        losses[precision] = [line["loss"] for line in lines(folder)]
        assert result.settings["precision"] == precision
        assert all(parameter.dtype == torch.float32 for parameter in trained[0].parameters())
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02) and losses["bf16"] != losses["fp32"]


def test_another_size_than_that_of_pretraining_is_what_the_backbone_sees(task, tmp_path, monkeypatch):
    sides = []
    forward = task_model.TaskModel.forward
    monkeypatch.setattr(
        task_model.TaskModel,
        "forward",
        lambda self, batch, step: sides.append(batch.views[0].shape[-1]) or forward(self, batch, step),
    )
    result = judge("finetune", family_backbone("resnet"), task, tmp_path / "r", "size=48")
    assert set(sides) == {48} and result.settings["size"] == 48


# Label fractions, and what a result says


def test_fractions_differ_in_training_images_alone(tmp_path):
    task = class_task(tmp_path / "task", train=16, held_out=8)
    recipes = list(evaluate_recipes("finetune", ["fraction=[0.25, 0.5, 1.0]"]))
    assert [recipe.fraction for recipe, _ in recipes] == [0.25, 0.5, 1.0]
    assert all(options == recipes[0][1] for _, options in recipes)
    results = [
        judge("finetune", family_backbone("resnet"), task, tmp_path / str(f), f"fraction={f}") for f in (0.25, 0.5, 1.0)
    ]
    assert [result.n["train"] for result in results] == [{"images": n, "patients": n} for n in (4, 8, 16)]
    assert all(result.n["test"] == {"images": 8, "patients": 8} for result in results)
    assert all(result.settings == results[0].settings for result in results)
    assert [len(lines(tmp_path / str(f))) for f in (0.25, 0.5, 1.0)] == [3, 3, 3]


def test_fewer_training_images_than_a_batch_are_enough(tmp_path):
    task = class_task(tmp_path / "task", train=16)
    result = judge("finetune", family_backbone("resnet"), task, tmp_path / "r", "fraction=0.25", "train.batch_size=12")
    assert result.n["train"]["images"] == 4 and len(lines(tmp_path / "r")) == 3


def test_a_fraction_without_one_of_the_classes_is_refused(tmp_path):
    labels = [0] * 15 + [1] + [0, 1] * 4
    task = class_task(tmp_path / "task", train=16, labels=labels)
    try:
        assert (
            judge("finetune", family_backbone("resnet"), task, tmp_path / "r", "fraction=0.1").n["train"]["images"] >= 2
        )
    except SplitError as refusal:
        assert "no training image of class 1 at fraction 0.1" in str(refusal)


def test_result_json_says_what_was_done(finished_run):
    folder, result = finished_run
    content = json.loads((folder / "result.json").read_text())
    assert (content["protocol"], content["strategy"], content["fraction"], content["seed"]) == (
        "finetune",
        "full",
        1.0,
        0,
    )
    assert content["n"] == {
        "train": {"images": 16, "patients": 16},
        "val": {"images": 8, "patients": 8},
        "test": {"images": 8, "patients": 8},
    }
    settings = content["settings"]
    assert {"strategy", "optimizer", "views", "train", "precision", "world_size", "noise", "size", "channels"} <= set(
        settings
    )
    assert settings["strategy"] == {"name": "full"}
    assert settings["optimizer"]["name"] == "adamw" and settings["optimizer"]["lr"] == 0.003
    assert (settings["train"]["steps"], settings["train"]["batch_size"], settings["train"]["balance"]) == (
        12,
        4,
        "none",
    )
    assert settings["views"]["name"] == "ct" and (settings["size"], settings["world_size"]) == (SIDE, 1)
    assert set(content["metrics"]) == {"val", "test"} and result.selected == content["selected"]


def test_the_result_records_the_strategy_s_options_with_their_defaults(task, tmp_path):
    result = judge("finetune", family_backbone("resnet"), task, tmp_path / "r", "strategy={name: l2_sp, beta: 0.5}")
    assert result.strategy == "l2_sp"
    assert result.settings["strategy"] == {"name": "l2_sp", "alpha": 0.1, "beta": 0.5}


def test_predictions_have_every_test_image_once_with_scores_that_add_up_to_1(finished_run, task):
    frame = pandas.read_parquet(finished_run[0] / "predictions.parquet")
    assert frame["row"].tolist() == task.rows("test").tolist() and frame["patient"].notna().all()
    assert scores(finished_run[0]).sum(1) == pytest.approx(np.ones(8))


def test_noise_at_test_changes_test_scores_and_not_the_training(task, finished_run, tmp_path):
    judge(
        "finetune",
        family_backbone("resnet"),
        task,
        tmp_path / "r",
        *LONG,
        "noise={kind: gaussian, sigma: 0.3, at: test}",
    )
    assert [line["loss"] for line in lines(tmp_path / "r")] == [line["loss"] for line in lines(finished_run[0])]
    assert not np.array_equal(scores(tmp_path / "r"), scores(finished_run[0]))


# Faults


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strategy=gradual_last_frist", "Did you mean 'gradual_last_first'"),
        ("optimizer=adam", "Did you mean 'adamw'"),
        ("views=natrual", "Did you mean 'natural'"),
        ("train.step=3", "Did you mean 'steps'"),
        ("train.balance=weight", "weights"),
        ("channels=copy", "repeat"),
        ("stategy=full", "Did you mean 'strategy'"),
        ("views={name: ct, positive: slice}", "views.positive: positives are for pretraining"),
    ],
)
def test_a_misspelt_setting_is_refused_with_the_nearest_name(override, message):
    with pytest.raises(RecipeError, match=message):
        evaluate_recipe("finetune", [override])


def test_lora_on_a_resnet_is_refused_with_a_hint_to_a_vit(task, tmp_path):
    with pytest.raises(RecipeError, match=r"strategy lora: resnet18 .*Take a ViT"):
        judge("finetune", family_backbone("resnet"), task, tmp_path / "r", "strategy=lora")
    assert not (tmp_path / "r").exists()


def test_a_segmentation_task_is_refused_with_a_hint_to_segment(tmp_path):
    with pytest.raises(TaskError, match=r"it is segmentation, which finetune cannot score. Take segment"):
        judge("finetune", family_backbone("resnet"), mask_task(tmp_path / "task"), tmp_path / "r")


def test_a_launch_with_sharded_weights_is_refused(task, tmp_path, monkeypatch):
    start = session.start_accelerator

    def sharded(*arguments, **options):
        accelerator = start(*arguments, **options)
        monkeypatch.setattr(type(accelerator), "is_fsdp2", property(lambda self: True))
        return accelerator

    monkeypatch.setattr(session, "start_accelerator", sharded)
    with pytest.raises(RunError, match="Launch it without FSDP"):
        judge("finetune", family_backbone("resnet"), task, tmp_path / "r")


@pytest.mark.parametrize("lr", [1e30])
def test_a_nan_or_infinite_loss_stops_the_run_with_the_step(task, tmp_path, lr):
    with pytest.raises(RunError, match="step"):
        judge("finetune", family_backbone("resnet"), task, tmp_path / "r", f"optimizer.lr={lr}", "train.steps=6")
