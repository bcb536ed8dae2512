"""The stage `pretrain`: the same run gives the same bytes, also when it was killed; and what it refuses, it explains."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ssl_transfer.__main__ import main
from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.views import VIEWS
from ssl_transfer.errors import RecipeError, RunError, StoreError, UsageError
from ssl_transfer.methods import METHODS
from ssl_transfer.models.backbone import build, load_backbone
from ssl_transfer.pretrain import pretrain
from ssl_transfer.recipe import PretrainRecipe, choose, load_recipe
from ssl_transfer.training.batches import StepSampler
from ssl_transfer.training.optim import OPTIMIZERS

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
# Stochastic depth draws from torch's own generator: a run that restores less than everything ends elsewhere.
DROP_PATH = (
    "backbone.name=vit_tiny_patch16_224",
    "backbone.options={patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2, drop_path_rate: 0.5}",
)
LONG = ("train.epochs=40", "train.checkpoint_every_steps=5")  # 120 steps

pytestmark = pytest.mark.usefixtures("one_thread")


def run(recipe, out, *overrides, **options):
    """Pretrain in this process."""
    return pretrain(load_recipe(PretrainRecipe, recipe, overrides), out, where=str(recipe), **options)


def weights(out):
    return (Path(out) / "backbone" / "model.safetensors").read_bytes()


def lines(out):
    try:
        return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return []


def start(recipe, out, *overrides):
    """Pretrain in a process of its own, which leads its group as a SLURM step does."""
    return subprocess.Popen(
        [sys.executable, ROOT / "pretrain.py", recipe, *overrides, "--out", out], cwd=ROOT, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_after(process, out, logged, how):
    """Send `how` to the whole group once `logged` steps are in the log; returns its status and standard error."""
    while len(lines(out)) < logged and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, how)
    return process.wait(60), process.stderr.read()


@pytest.fixture(scope="module")
def finished(tiny_recipe, tmp_path_factory):
    """One run of the tiny recipe: its folder and its answer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "finished"
    answer = run(tiny_recipe, out)
    torch.set_num_threads(before)
    return out, answer


@pytest.fixture(scope="module")
def unbroken(tiny_recipe, tmp_path_factory):
    """A longer run with stochastic depth that nothing interrupts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    run(tiny_recipe, out, *DROP_PATH, *LONG)
    torch.set_num_threads(before)
    return out


def test_a_run_answers_with_its_backbone_and_what_it_did(finished):
    out, answer = finished
    assert answer["backbone"] == str(out / "backbone") and answer["run"] == str(out)
    assert (answer["world_size"], answer["steps"]) == (1, 6)
    assert set(answer["final"]) == {"loss", "knn", "rankme"} and all(answer["final"].values())
    assert answer["images_per_second"] > 0


def test_the_backbone_s_card_says_where_it_comes_from(finished, ct_store):
    card = load_backbone(finished[0] / "backbone").card
    assert (card["method"], card["source_domain"], card["stores"]) == ("simclr", "ct", [ct_store.id])
    assert (card["in_channels"], card["image_size"], card["pretraining_seed"], card["parents"]) == (1, 16, 0, [])


def test_the_log_has_one_line_per_step_with_every_promised_name(finished):
    log = lines(finished[0])
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    promised = {"step", "epoch", "loss", "lr", "world_size", "images_per_second"}
    assert all(promised <= set(line) and line["world_size"] == 1 for line in log)
    assert log[-1]["epoch"] == 2 and {"knn", "rankme"} <= set(log[-1])


def test_the_run_folder_holds_the_complete_recipe_and_its_environment_and_no_checkpoint(finished):
    out, _ = finished
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["method"] == {"name": "simclr", "temperature": 0.5, "hidden_dim": 32, "projection_dim": 16}
    assert recipe["backbone"]["in_channels"] == 1 and recipe["data"]["views"]["rotation_degrees"] == 15
    assert {"versions", "git_commit", "device"} <= set(json.loads((out / "environment.json").read_text()))
    assert not (out / "checkpoints").exists()


@pytest.mark.parametrize("overrides", [(), DROP_PATH], ids=["resnet", "stochastic depth"])
def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(tiny_recipe, tmp_path, overrides):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(7)  # whatever happened before in this process
        run(tiny_recipe, tmp_path / name, *overrides, f"train.seed={seed}")
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_neither_workers_nor_logging_nor_cadence_change_the_weights(tiny_recipe, finished, tmp_path):
    run(tiny_recipe, tmp_path / "other", "train.workers=1", "train.log_every_steps=4", "train.checkpoint_every_steps=100",
        "monitor.every_epochs=1")  # fmt: skip
    assert weights(tmp_path / "other") == weights(finished[0])


def test_a_run_killed_by_sigkill_resumes_to_the_bytes_of_the_unbroken_one(tiny_recipe, unbroken, tmp_path, capsys):
    out = tmp_path / "killed"
    status, _ = kill_after(start(tiny_recipe, out, *DROP_PATH, *LONG), out, 33, signal.SIGKILL)
    assert status == -signal.SIGKILL and not (out / "backbone").exists()
    run(tiny_recipe, out, *DROP_PATH, *LONG)
    assert "going on from step" in capsys.readouterr().err
    assert weights(out) == weights(unbroken)
    assert [line["step"] for line in lines(out)] == list(range(1, 121))
    assert [line["loss"] for line in lines(out)] == [line["loss"] for line in lines(unbroken)]


def test_sigterm_to_a_whole_job_leaves_a_checkpoint_of_that_step_and_status_143(
    tiny_recipe, unbroken, tmp_path, capsys
):
    overrides = (*DROP_PATH, *LONG, "train.checkpoint_every_steps=100000", "train.workers=1")
    out = tmp_path / "terminated"
    status, told = kill_after(start(tiny_recipe, out, *overrides), out, 7, signal.SIGTERM)
    stopped = len(lines(out))
    assert status == 143, told
    assert f"stopped by SIGTERM at step {stopped} of 120; the same command goes on from there" in told
    run(tiny_recipe, out, *overrides)
    assert f"going on from step {stopped}" in capsys.readouterr().err
    assert weights(out) == weights(unbroken)


@pytest.mark.long
def test_runs_killed_at_random_moments_end_as_the_unbroken_one(tiny_recipe, unbroken, tmp_path):
    draw, out, kills = random.Random(0), tmp_path / "killed", 0
    while not (out / "backbone").exists():
        process = start(tiny_recipe, out, *DROP_PATH, *LONG)
        before = len(lines(out))
        while len(lines(out)) <= before and process.poll() is None and before < 115:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.3))
        kills += process.poll() is None
        os.killpg(process.pid, draw.choice([signal.SIGKILL, signal.SIGTERM])) if process.poll() is None else None
        process.communicate(timeout=120)
    assert kills >= 3
    assert weights(out) == weights(unbroken)


@pytest.fixture
def interrupted(tiny_recipe, ct_store, tmp_path):
    """A run that failed in step 3 of 6, with checkpoints of steps 1 and 2: the store that it was watched on is damaged."""
    shutil.copytree(ct_store.path, tmp_path / "watched")
    os.truncate(tmp_path / "watched" / "pixels-00000.npy", 500)
    watching = f"monitor={{store: {tmp_path / 'watched'}, every_epochs: 1}}"
    with pytest.raises(StoreError, match="truncated"):
        run(tiny_recipe, tmp_path / "run", watching, "train.checkpoint_every_steps=1")
    return tmp_path / "run"


def damage(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_a_truncated_newest_checkpoint_falls_back_to_the_one_before_and_says_so(
    tiny_recipe, interrupted, finished, capsys
):
    damage(interrupted / "checkpoints" / "checkpoint-00000002.pt")
    run(tiny_recipe, interrupted)
    told = capsys.readouterr().err
    assert "checkpoint-00000002.pt: this checkpoint is damaged; trying the one before" in told
    assert "going on from step 1" in told
    assert weights(interrupted) == weights(finished[0])


def test_if_every_checkpoint_is_damaged_the_run_ends_with_status_2_until_told_to_start_anew(
    tiny_recipe, interrupted, finished, capsys
):
    for path in (interrupted / "checkpoints").glob("*.pt"):
        damage(path)
    assert main(["pretrain", str(tiny_recipe), "--out", str(interrupted)]) == 2
    assert "all 2 checkpoint(s) are damaged" in capsys.readouterr().err
    assert main(["pretrain", str(tiny_recipe), "--out", str(interrupted), "--resume", "never"]) == 0
    assert weights(interrupted) == weights(finished[0])


def test_a_finished_run_is_already_there(tiny_recipe, finished, capsys):
    out, answer = finished
    before = (out / "backbone" / "model.safetensors").stat().st_mtime_ns
    assert main(["pretrain", str(tiny_recipe), "--out", str(out), "--json", "name=called_otherwise"]) == 0
    told = capsys.readouterr()
    assert "already there" in told.err and json.loads(told.out) == answer
    assert (out / "backbone" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("override", ["train.seed=1", "data.size=24", "method.temperature=0.1"])
def test_a_folder_of_another_run_is_refused_with_status_2(tiny_recipe, finished, capsys, override):
    before = weights(finished[0])
    assert main(["pretrain", str(tiny_recipe), override, "--out", str(finished[0])]) == 2
    assert "Give it another --out" in capsys.readouterr().err
    assert weights(finished[0]) == before


def test_a_folder_of_other_files_is_refused(tiny_recipe, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="already holds other files"):
        run(tiny_recipe, tmp_path)


def test_a_store_moved_elsewhere_is_still_the_same_input(tiny_recipe, finished, ct_store, tmp_path, capsys):
    shutil.copytree(ct_store.path, tmp_path / "moved")
    assert run(tiny_recipe, finished[0], f"data.store={tmp_path / 'moved'}") == finished[1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.batch_size=37"], "train.batch_size: 37 images per batch, but .* offers 36 training images"),
        (["data.limit=10"], "train.batch_size: 12 images per batch, but .* offers 10 training images"),
        (["method.temprature=1"], r"method.temprature: .* takes no such option. Did you mean 'temperature'"),
        (["method.name=simclear"], "found 'simclear'. Did you mean 'simclr'"),
        (["optimizer.lr=fast"], r"optimizer.lr: found 'fast'"),
        (["data.views.name=cat"], "found 'cat'. Did you mean 'ct'"),
        (["data.views.zoom=2"], "takes no such option"),
        (["data.views=natural"], "this backbone reads one channel"),
        (["method={name: moco, queue: 64, bn_groups: 1}"], "64 keys are no multiple of train.batch_size 12"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_anything_is_written(tiny_recipe, tmp_path, overrides, message):
    with pytest.raises(RecipeError, match=message):
        run(tiny_recipe, tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


def test_a_missing_store_is_answered_with_the_command_that_makes_it(tiny_recipe, tmp_path, capsys):
    assert main(["pretrain", str(tiny_recipe), "data.store=stores/nowhere", "--out", str(tmp_path / "run")]) == 2
    assert "ssl-transfer ingest SOURCE --out stores/nowhere" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_is_reported_with_its_step_and_rows(tiny_recipe, ct_store, tmp_path, capsys):
    arguments = ["pretrain", str(tiny_recipe), "optimizer={name: sgd, lr: 1e20}", "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    told = re.search(
        r"RunError: step (\d+): the loss is (nan|inf). Rows of the batch: ([0-9, ]+)", capsys.readouterr().err
    )
    step = int(told[1])
    assert [line["step"] for line in lines(tmp_path / "run")] == list(range(1, step))
    sampler = StepSampler(ct_store.positions("train"), 12, 0, 6, step - 1, 0, 1)
    assert told[3].startswith(", ".join(map(str, next(iter(sampler))[1][:8])))
    assert not (tmp_path / "run" / "backbone").exists()


def test_the_alarm_stops_a_run_in_which_every_projection_is_the_same(tiny_recipe, ct_store, tmp_path, capsys):
    """A store of nothing but air: each view is black, so the projections are constant, and MoCo's loss does not tell."""
    shutil.copytree(ct_store.path, tmp_path / "air")
    np.save(tmp_path / "air" / "pixels-00000.npy", np.full((48, 1, 32, 32), -1000, np.int16))
    still = "data.views={name: ct, noise: 0, brightness: 0, contrast: 0}"
    arguments = (f"data.store={tmp_path / 'air'}", still, "method={name: moco, queue: 24, bn_groups: 1}")
    with pytest.raises(
        RunError, match=r"step 55: the representation has collapsed: normalised std of projections 0\.000"
    ):
        run(tiny_recipe, tmp_path / "run", *arguments, "train.epochs=30")
    assert not (tmp_path / "run" / "backbone").exists()
    run(tiny_recipe, tmp_path / "other", *arguments, "train.epochs=20", "monitor.on_collapse=warn")
    assert capsys.readouterr().err.count("the representation has collapsed") == 1


def test_a_backbone_can_start_from_another_and_records_its_parents(tiny_recipe, finished, tmp_path):
    first = load_backbone(finished[0] / "backbone")
    run(tiny_recipe, tmp_path / "second", f"backbone.init={finished[0] / 'backbone'}", "optimizer.lr=1e-9")
    second = load_backbone(tmp_path / "second" / "backbone")
    assert second.card["parents"] == [first.id]
    weight, parent = (b.model.layer1[0].conv1.weight for b in (second, first))
    assert torch.allclose(weight, parent, atol=1e-6)
    run(tiny_recipe, tmp_path / "third", f"backbone.init={tmp_path / 'second' / 'backbone'}")
    assert load_backbone(tmp_path / "third" / "backbone").card["parents"] == [first.id, second.id]


def test_a_parent_of_another_shape_is_refused(tiny_recipe, finished, tmp_path):
    with pytest.raises(RecipeError, match=r"backbone.init: .* does not fit"):
        run(
            tiny_recipe, tmp_path / "run", f"backbone.init={finished[0] / 'backbone'}", "backbone.options.stem_width=16"
        )


def test_a_trial_sees_a_seeded_subset_of_the_training_rows(tiny_recipe, tmp_path):
    assert run(tiny_recipe, tmp_path / "run", "data.limit=25")["steps"] == 4  # 2 epochs of 2 batches


@pytest.mark.parametrize(
    "method", ["{name: byol, hidden_dim: 16, projection_dim: 8}", "{name: moco, queue: 24, bn_groups: 3}"]
)
def test_every_method_runs_through_the_loop(tiny_recipe, tmp_path, method):
    summary = run(tiny_recipe, tmp_path / "run", f"method={method}")
    assert summary["steps"] == 6
    card = load_backbone(tmp_path / "run" / "backbone").card
    assert card["method"] == method.split(",")[0].removeprefix("{name: ")


def test_pretraining_never_looks_at_validation_or_test_rows(tiny_recipe, ct_store, tmp_path):
    """Blanking every other row's pixels changes nothing but the online kNN."""
    shutil.copytree(ct_store.path, tmp_path / "blank")
    path = tmp_path / "blank" / "pixels-00000.npy"
    pixels = np.load(path)
    others = np.setdiff1d(np.arange(len(pixels)), ct_store.positions("train"))
    pixels[others] = 0
    np.save(path, pixels)
    assert len(others) == 12 and ImageStore(tmp_path / "blank").id == ct_store.id
    run(tiny_recipe, tmp_path / "a")
    run(tiny_recipe, tmp_path / "b", f"data.store={tmp_path / 'blank'}")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_there_are_nine_recipes():
    assert len(RECIPES) == 9


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_down_to_its_options_and_says_how_to_launch_it(path):
    recipe = load_recipe(PretrainRecipe, path)
    views = choose(VIEWS, recipe.data.views, f"{path}: data.views", ("size", "channels", "units"))
    method = choose(METHODS, recipe.method, f"{path}: method", ("backbone",))
    optimizer = choose(OPTIMIZERS, recipe.optimizer, f"{path}: optimizer", ("module", "batch_size"))
    channels = recipe.backbone.in_channels or 3
    VIEWS[recipe.data.views.name](recipe.data.size, channels, "rgb" if channels == 3 else "hu", **views)
    build(recipe.backbone.name, channels, recipe.data.size, recipe.backbone.stem, recipe.backbone.options, 0)
    OPTIMIZERS[recipe.optimizer.name](torch.nn.Linear(2, 2), recipe.train.batch_size, **optimizer)
    if recipe.method.name == "moco":
        assert method["queue"] % recipe.train.batch_size == 0 and recipe.train.batch_size % method["bn_groups"] == 0
    head = path.read_text().splitlines()[:3]
    assert all(line.startswith("#") for line in head)
    assert (
        f"recipes/{path.name}" in head[1]
        and "ssl-transfer ingest" in head[2]
        and f"--out {recipe.data.store}" in head[2]
    )


@pytest.mark.parametrize(
    ("name", "rate"),
    [("radnet_simclr", 4.8), ("imagenet_simclr", 4.8), ("radnet_byol", 7.2), ("radnet_moco", 0.03),
     ("cells_simclr", 0.075 * 512**0.5)],
)  # fmt: skip
def test_the_rates_of_the_recipes_are_the_papers(name, rate):
    recipe = load_recipe(PretrainRecipe, ROOT / "recipes" / f"{name}.yaml")
    options = choose(OPTIMIZERS, recipe.optimizer, name, ("module", "batch_size"))
    optimizer = OPTIMIZERS[recipe.optimizer.name](torch.nn.Linear(2, 2), recipe.train.batch_size, **options)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(rate)] * 2
