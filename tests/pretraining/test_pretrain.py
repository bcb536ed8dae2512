"""The stage `pretrain`: what it writes, that it is reproducible, and what it refuses. See also `training/` and
`distributed/test_kills.py`."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from support.stores import resealed

from ssl_transfer.cli import main
from ssl_transfer.data.altered import ClearedAir
from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.training_set import StoreShare, TrainingSet
from ssl_transfer.errors import BackboneError, RecipeError, RunError, UsageError
from ssl_transfer.methods.registry import METHODS
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.pretraining.setup import PretrainSetup, resolve
from ssl_transfer.recipe import PretrainRecipe, validate
from ssl_transfer.training.batches import StepSampler

VIT = ("backbone.name=vit_tiny_patch16_224", "backbone.options={patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}")
DROP_PATH = (*VIT, "backbone.options.drop_path_rate=0.5")  # draws from torch's own generator
SMALL = {
    "simclr": "hidden_dim: 32, projection_dim: 16",
    "byol": "hidden_dim: 16, projection_dim: 8",
    "moco": "queue: 24, bn_groups: 3, projection_dim: 16",
    "mocov3": "hidden_dim: 16, projection_dim: 8",
    "barlowtwins": "hidden_dim: 16, projection_dim: 8",
    "vicreg": "hidden_dim: 16, projection_dim: 8",
    "simsiam": "projection_dim: 16, bottleneck_dim: 8",
    "dino": "output_dim: 32, hidden_dim: 16, bottleneck_dim: 8, local_views: 2, local_size: 8",
    "dinov2": "output_dim: 32, hidden_dim: 16, bottleneck_dim: 8, local_views: 0",
    "distill": "teacher: 'scratch:test_resnet,size=16', queue: 24",
    "mae": "decoder_dim: 16, decoder_depth: 1, decoder_heads: 2",
    "supervised": "label_smoothing: 0.1",
}

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_returns_its_backbone_and_a_summary(finished):
    out, answer = finished
    assert answer["backbone"] == str(out / "backbone") and answer["run"] == str(out)
    assert (answer["world_size"], answer["steps"], answer["threads"]) == (1, 6, 1)
    assert set(answer["final"]) == {"loss", "knn", "linear_probe", "rankme"} and all(answer["final"].values())
    assert answer["images_per_second"] > 0


def test_the_backbone_s_card_says_where_it_comes_from(finished, ct_store):
    card = load_backbone(finished[0] / "backbone").card
    assert (card.method, card.source_domain, card.stores) == ("simclr", "ct", (ct_store.id,))
    assert (card.in_channels, card.image_size, card.pretraining_seed) == (1, 16, 0)
    assert card.parents == card.adapted == ()


def test_air_is_cleared_of_ct_stores_alone_and_the_card_names_the_store(runs, ct_store, photo_store, tmp_path):
    def parts(store, air):
        views = "natural" if store is photo_store else "ct"
        data = {"store": str(store.path), "views": views, "size": 16, "air": air}
        recipe = resolve(
            validate(PretrainRecipe, {**yaml.safe_load(runs.recipe.read_text()), "data": data}, "test"), "test"
        )
        return PretrainSetup.build(recipe, "test")

    cleared = parts(ct_store, "clear")
    assert isinstance(cleared.training_set.parts[0].store, ClearedAir)
    assert cleared.objective.backbone.card.stores == (ct_store.id,)
    assert cleared.upstream != parts(ct_store, None).upstream
    assert parts(photo_store, "clear").upstream == [photo_store.id]


def test_the_log_has_one_line_per_step_with_every_promised_name(runs, finished):
    log = runs.lines(finished[0])
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    promised = {
        "step",
        "epoch",
        "loss",
        "lr",
        "world_size",
        "images_per_second",
        "data_wait",
        "gradient_norm",
        "normalised_std",
        "alignment",
        "uniformity",
    }
    assert all(promised <= set(line) and line["world_size"] == 1 for line in log)
    assert log[-1]["epoch"] == 2 and {"knn", "linear_probe", "rankme"} <= set(log[-1])
    for line in log:
        assert 0 <= line["data_wait"] <= 1 and line["gradient_norm"] > 0
        assert 0 < line["alignment"] < 4 and -4 < line["uniformity"] < 0
        assert all(math.isfinite(value) for value in line.values())


def test_a_method_of_one_view_has_no_alignment(runs, tmp_path):
    runs(tmp_path / "run", "method=supervised", "train.epochs=0.4")
    assert "alignment" not in runs.lines(tmp_path / "run")[0] and "uniformity" in runs.lines(tmp_path / "run")[0]


def test_the_run_folder_holds_the_complete_recipe_and_its_environment_and_no_checkpoint(finished):
    out, _ = finished
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["method"] == {"name": "simclr", "temperature": 0.5, "hidden_dim": 32, "projection_dim": 16}
    assert recipe["backbone"]["in_channels"] == 1 and recipe["data"]["views"]["rotation_degrees"] == 15
    assert {"versions", "git_commit", "device"} <= set(json.loads((out / "environment.json").read_text()))
    assert not (out / "checkpoints").exists()


@pytest.mark.parametrize("overrides", [(), DROP_PATH], ids=["resnet", "stochastic depth"])
def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(runs, tmp_path, overrides):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(7)  # whatever happened before in this process
        runs(tmp_path / name, *overrides, f"train.seed={seed}")
    assert runs.weights(tmp_path / "a") == runs.weights(tmp_path / "b") != runs.weights(tmp_path / "c")


def test_neither_workers_nor_logging_nor_cadence_change_the_weights(runs, finished, tmp_path):
    runs(
        tmp_path / "other",
        "train.workers=1",
        "train.log_every_steps=4",
        "train.checkpoint_every_steps=100",
        "monitor.every_epochs=1",
    )
    assert runs.weights(tmp_path / "other") == runs.weights(finished[0])


def test_a_finished_run_is_not_repeated(tiny_recipe, finished, capsys):
    out, answer = finished
    before = (out / "backbone" / "model.safetensors").stat().st_mtime_ns
    assert main(["pretrain", str(tiny_recipe), "--out", str(out), "--json", "name=called_otherwise"]) == 0
    output = capsys.readouterr()
    assert "already there" in output.err and json.loads(output.out) == answer
    assert (out / "backbone" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("override", ["train.seed=1", "data.size=24", "method.temperature=0.1"])
def test_a_folder_of_another_run_is_refused_with_status_2(runs, tiny_recipe, finished, capsys, override):
    before = runs.weights(finished[0])
    assert main(["pretrain", str(tiny_recipe), override, "--out", str(finished[0])]) == 2
    assert "Give another --out" in capsys.readouterr().err
    assert runs.weights(finished[0]) == before


def test_the_untrained_backbone_of_a_recipe_has_the_initial_weights_of_the_trained_one(
    tiny_recipe, finished, tmp_path, capsys
):
    """Random weights of the same seed, the same scaling, and no source domain."""
    command = ["pretrain", str(tiny_recipe), "--untrained", "--out", str(tmp_path / "control")]
    assert main(command) == 0
    control = load_backbone(tmp_path / "control" / "backbone")
    assert control.id == load_backbone(f"scratch:{finished[0] / 'backbone'}").id
    assert (control.card.method, control.card.source_domain, control.card.stores) == ("none", None, ())
    assert control.card.pretraining_seed == 0 and control.card.training["steps"] == 0
    assert main(command) == 0 and "already there" in capsys.readouterr().err
    assert main(command[:2] + command[3:]) == 2  # the trained one is another run


def test_a_folder_of_other_files_is_refused(runs, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="already holds other files"):
        runs(tmp_path)


def test_a_store_moved_elsewhere_is_still_the_same_input(runs, finished, ct_store, tmp_path):
    shutil.copytree(ct_store.path, tmp_path / "moved")
    assert runs(finished[0], f"data.store={tmp_path / 'moved'}") == finished[1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.batch_size=37"], "train.batch_size: 37 images per batch, but .* offers 36 training images"),
        (["data.limit=10"], "train.batch_size: 12 images per batch, but .* offers 10 training images"),
        (["method.temprature=1"], r"method.temprature: .* takes no such option. Did you mean 'temperature'"),
        (["method.name=simclear"], "found 'simclear'. Did you mean 'simclr'"),
        (["method={name: supervised, classes: 3}"], "method.classes: .* takes no such option"),
        (["optimizer.lr=fast"], r"optimizer.lr: found 'fast'"),
        (["data.views.name=cat"], "found 'cat'. Did you mean 'ct'"),
        (["data.views.zoom=2"], "takes no such option"),
        (["data.views=natural"], "the natural preset jitters colour, and the store has one channel"),
        (["data.views=natural", "backbone.in_channels=3"], "the natural preset jitters colour, and the store has one"),
        (["data.views.positive=slices"], "data.views.positive: found 'slices'"),
        (["data.views.positive_mm=5"], "a distance is for positive: slice, and this is same"),
        (["data.views.positive=patient", "method=supervised"], "supervised makes one view of each image"),
        (["method=mae"], "mae needs a plain ViT, and resnet10t is not one"),
        (["method={name: moco, queue: 64, bn_groups: 1}"], "64 keys are not a multiple of train.batch_size 12"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_anything_is_written(runs, tmp_path, overrides, message):
    with pytest.raises(RecipeError, match=message):
        runs(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


def test_a_missing_store_is_answered_with_the_command_that_makes_it(tiny_recipe, tmp_path, capsys):
    assert main(["pretrain", str(tiny_recipe), "data.store=stores/nowhere", "--out", str(tmp_path / "run")]) == 2
    assert "ssl-transfer ingest SOURCE --out stores/nowhere" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


EXPLODING = "optimizer={name: sgd, lr: 1e20}"


def test_a_nan_or_infinite_loss_is_reported_with_its_step_and_rows(runs, tiny_recipe, ct_store, tmp_path, capsys):
    assert main(["pretrain", str(tiny_recipe), EXPLODING, "--out", str(tmp_path / "run")]) == 2
    stderr = capsys.readouterr().err
    found = re.search(r"RunError: step (\d+): the loss is (nan|inf). Rows of the batch: (.*), … \(12\)\.", stderr)
    step = int(found[1])
    assert [line["step"] for line in runs.lines(tmp_path / "run")] == list(range(1, step))
    training_set = TrainingSet([StoreShare(ct_store, ct_store.positions("train"), None)], seed=0)
    (_, rows), *_ = StepSampler(training_set, 12, 6, step - 1, 0, 1)
    assert found[3] == ", ".join(f"{ct_store.path}: {row}" for row in rows[:8])
    assert not (tmp_path / "run" / "backbone").exists()


def test_with_on_nonfinite_warn_a_run_continues_after_a_nan_and_its_backbone_is_not_saved(runs, tmp_path, capsys):
    with pytest.raises(BackboneError, match=r"run/backbone: not saved: .* is NaN or infinite.* --resume never"):
        runs(tmp_path / "run", EXPLODING, "monitor.on_nonfinite=warn", "monitor.every_epochs=1")
    assert capsys.readouterr().err.count("the loss is") == 1
    assert not (tmp_path / "run" / "backbone").exists()

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    for text in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        json.loads(text, parse_constant=refuse)
    assert [line["step"] for line in runs.lines(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_the_alarm_stops_a_run_in_which_every_projection_is_the_same(runs, ct_store, tmp_path, capsys):
    """A store of nothing but air: each view is black, so the projections are constant, and MoCo's loss does not tell."""
    shutil.copytree(ct_store.path, tmp_path / "air")
    np.save(tmp_path / "air" / "pixels-00000.npy", np.full((48, 1, 32, 32), -1000, np.int16))
    resealed(tmp_path / "air")
    still = "data.views={name: ct, noise: 0, brightness: 0, contrast: 0}"
    arguments = (f"data.store={tmp_path / 'air'}", still, "method={name: moco, queue: 24, bn_groups: 1}")
    with pytest.raises(
        RunError, match=r"step 55: the representation has collapsed: normalised std of projections 0\.000.*air: \d+, "
    ):
        runs(tmp_path / "run", *arguments, "train.epochs=30")
    assert not (tmp_path / "run" / "backbone").exists()
    runs(tmp_path / "other", *arguments, "train.epochs=20", "monitor.on_collapse=warn")
    assert capsys.readouterr().err.count("the representation has collapsed") == 1


def test_a_trial_sees_a_seeded_subset_of_the_training_rows(runs, tmp_path):
    assert runs(tmp_path / "run", "data.limit=25")["steps"] == 4  # 2 epochs of 2 batches


def test_there_is_a_small_version_of_every_method():
    assert set(SMALL) == set(METHODS) and len(METHODS) == 12


@pytest.mark.parametrize("method", sorted(SMALL))
def test_every_method_runs_through_the_loop(runs, tmp_path, method):
    overrides = (f"method={{name: {method}, {SMALL[method]}}}", *(VIT if method in ("mae", "dinov2") else ()))
    assert runs(tmp_path / "run", *overrides)["steps"] == 6
    assert runs.card(tmp_path / "run")["method"] == method
    assert all(math.isfinite(line["loss"]) and line["gradient_norm"] > 0 for line in runs.lines(tmp_path / "run"))
    began = load_backbone(f"scratch:{tmp_path / 'run' / 'backbone'}").model.state_dict()
    ended = runs.tensors(tmp_path / "run")
    assert sum(not torch.equal(ended[name], weight) for name, weight in began.items()) > len(began) / 2


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_backbone_trains_what_an_uncompiled_one_does(runs, tmp_path):
    overrides = (*VIT, "backbone.options.depth=1", "method=supervised", "train.epochs=1")
    runs(tmp_path / "compiled", *overrides, "train.compile=true")
    runs(tmp_path / "plain", *overrides)
    compiled, plain = (runs.tensors(tmp_path / name) for name in ("compiled", "plain"))
    assert all(torch.allclose(compiled[name], weight, rtol=1e-3, atol=1e-4) for name, weight in plain.items())
    losses = [[line["loss"] for line in runs.lines(tmp_path / name)] for name in ("compiled", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_pretraining_never_looks_at_validation_or_test_rows(runs, ct_store, finished, changed, tmp_path):
    """Blanking every other row's pixels changes nothing but what is watched."""
    others = np.setdiff1d(np.arange(48), ct_store.positions("train"))
    blank = changed(ct_store, "blank", blank=others)
    assert len(others) == 12 and ImageStore(blank.path).id == ct_store.id
    runs(tmp_path / "b", f"data.store={blank.path}")
    assert runs.weights(tmp_path / "b") == runs.weights(finished[0])
