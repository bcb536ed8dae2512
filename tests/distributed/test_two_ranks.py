"""Two processes over gloo: the number of ranks changes neither loss nor gradient, and a wrong launch is refused."""

import copy
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from torch.nn.parallel import DistributedDataParallel

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods import METHODS
from ssl_transfer.models.backbone import Backbone, build, new_card
from ssl_transfer.models.batchnorm import globalise_batchnorm
from ssl_transfer.pretrain import pretrain
from ssl_transfer.recipe import PretrainRecipe, load_recipe

ROOT = Path(__file__).parent.parent.parent
RECIPE_METHODS = {
    "simclr": "{name: simclr, hidden_dim: 32, projection_dim: 16}",
    "byol": "{name: byol, hidden_dim: 32, projection_dim: 16}",
    "moco": "{name: moco, queue: 24, bn_groups: 2, projection_dim: 16}",
}
CASES = {  # moco: groups within a rank, groups that span ranks, one group
    "simclr": ("simclr", {"hidden_dim": 32}),
    "byol": ("byol", {"hidden_dim": 32}),
    "moco_4_groups": ("moco", {"queue": 24, "bn_groups": 4}),
    "moco_3_groups": ("moco", {"queue": 24, "bn_groups": 3}),
    "moco_1_group": ("moco", {"queue": 24, "bn_groups": 1}),
}
IMAGES, SIDE, STEPS = 12, 16, 2
CPU = torch.device("cpu")


def test_the_cases_cover_every_method():
    assert {name for name, _ in CASES.values()} == set(RECIPE_METHODS) == set(METHODS)


def new_method(case):
    name, options = CASES[case]
    arguments = {"channels": [8, 16, 32, 64], "stem_width": 8}
    model = build("resnet10t", 1, SIDE, "standard", arguments, 0)
    card = new_card("made up", "resnet10t", model, 1, SIDE, "standard", arguments, Intensity())
    torch.manual_seed(0)
    method = METHODS[name](Backbone(model, card), projection_dim=16, **options).double()  # differences are no rounding
    if name == "moco":
        method.criterion.float()  # losses, and with them the queue, are float32 always
    return globalise_batchnorm(method, method.bn_groups, CPU).train()


def take_steps(case, rank, world):
    """Two steps on this rank's part of the global batch; losses, gradients of the second, and what has moved."""
    method = new_method(case)
    network = method
    if world > 1:
        network = DistributedDataParallel(method, broadcast_buffers=False)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    mine, losses = slice(rank * IMAGES // world, (rank + 1) * IMAGES // world), []
    for step in range(STEPS):
        torch.manual_seed(10 + step)
        views = [torch.randn(IMAGES, 1, SIDE, SIDE, dtype=torch.float64)[mine] for _ in range(2)]
        optimizer.zero_grad()
        loss = network(ViewBatch(views, torch.arange(IMAGES)[mine]), step)["loss"]
        loss.backward()
        losses.append(loss.detach())
        gradients = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
        if step + 1 < STEPS:
            optimizer.step()
            method.after_step(step + 1, 100)
    losses = torch.stack(losses)
    if world > 1:
        distributed.all_reduce(losses)
    return {"losses": losses / world, "gradients": gradients, "state": copy.deepcopy(method.state_dict())}


def rank_main(rank, folder, recipe):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",  # asked for by Accelerate, though the ranks have met already
    }  # fmt: skip
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    assert distributed.get_world_size() == 2
    for case in CASES:
        torch.save(take_steps(case, rank, 2), f"{folder}/{case}-{rank}.pt")
    with pytest.raises(RecipeError) as refusal:
        pretrain(load_recipe(PretrainRecipe, recipe, ["train.batch_size=9"]), f"{folder}/run")
    Path(folder, f"refusal-{rank}.txt").write_text(str(refusal.value))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder_of_two_ranks(tiny_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(rank_main, (str(folder), tiny_recipe), nprocs=2)
    return folder


@pytest.fixture
def two_ranks(folder_of_two_ranks):
    def results(case):
        return [torch.load(folder_of_two_ranks / f"{case}-{rank}.pt", weights_only=True) for rank in range(2)]

    return results


def assert_close(found, expected, rtol=1e-3, atol=1e-6):
    assert set(found) == set(expected) and len(found) > 10
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value.double(), rtol=rtol, atol=atol), name


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", sorted(CASES))
def test_two_ranks_have_the_losses_of_one(two_ranks, case):
    expected = take_steps(case, 0, 1)["losses"]
    for result in two_ranks(case):
        assert torch.allclose(result["losses"], expected, rtol=1e-5)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", sorted(CASES))
def test_two_ranks_have_the_gradient_of_one_for_every_parameter(two_ranks, case):
    expected = take_steps(case, 0, 1)["gradients"]
    for result in two_ranks(case):
        assert_close(result["gradients"], expected)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", sorted(CASES))
def test_two_ranks_have_the_state_of_one(two_ranks, case):
    """Weights, momentum network, running statistics of BatchNorm, queue."""
    expected = take_steps(case, 0, 1)["state"]
    for result in two_ranks(case):
        assert_close(result["state"], expected)


def test_a_batch_that_two_ranks_cannot_share_evenly_is_refused(folder_of_two_ranks):
    for rank in range(2):
        message = (folder_of_two_ranks / f"refusal-{rank}.txt").read_text()
        assert "train.batch_size: 9 images cannot be shared evenly by 2 processes" in message
    assert not (folder_of_two_ranks / "run").exists()


def launch(*arguments, launcher=("accelerate.commands.accelerate_cli", "launch"), **environment):
    """Run pretrain.py under a launcher; no GPU is seen, and nothing of an outer launch is inherited."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "RANK", "WORLD_SIZE", "LOCAL_"))
    }
    return subprocess.run(
        [sys.executable, "-m", *launcher, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=240,
        env={**inherited, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
    )  # fmt: skip


def launch_two(*arguments):
    config = ("--config_file", "launch/accelerate/cpu2.yaml", "pretrain.py")
    return launch(*config, *arguments, ACCELERATE_USE_CPU="true")


@pytest.fixture(scope="module")
def launched(tiny_recipe, tmp_path_factory):
    """Each method trained by `accelerate launch` on two ranks and by one process here: answer, log of two, log of one."""
    made = {}

    def train(method):
        if method not in made:
            folder = tmp_path_factory.mktemp(method)
            overrides = (f"method={RECIPE_METHODS[method]}", "train.epochs=1", "optimizer.lr=1e-4")
            done = launch_two(tiny_recipe, *overrides, "--json", "--out", folder / "two")
            assert done.returncode == 0, done.stderr
            pretrain(load_recipe(PretrainRecipe, tiny_recipe, overrides), folder / "one")
            logs = [(folder / name / "log.jsonl").read_text().splitlines() for name in ("two", "one")]
            made[method] = (json.loads(done.stdout), *([json.loads(line) for line in log] for log in logs))
        return made[method]

    return train


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", sorted(RECIPE_METHODS))
def test_accelerate_launch_trains_on_two_ranks_what_one_process_trains(launched, method):
    answer, two, one = launched(method)
    assert answer["world_size"] == 2 and all(line["world_size"] == 2 for line in two)
    assert [line["step"] for line in two] == [1, 2, 3] and all(line["world_size"] == 1 for line in one)
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)
    assert two[0]["gradient_norm"] == pytest.approx(one[0]["gradient_norm"], rel=1e-4)
    assert two[2]["loss"] == pytest.approx(one[2]["loss"], rel=1e-3)


def test_the_backbone_of_two_ranks_has_the_layers_of_one(launched):
    """The synchronised BatchNorm is gone on export: same names, plain timm loads it."""
    import timm

    answer, _, _ = launched("simclr")
    model = timm.create_model(f"local-dir:{answer['backbone']}", pretrained=True)
    assert model(torch.randn(2, 1, 16, 16)).shape == (2, 64)


def test_two_ranks_that_accelerate_does_not_know_of_are_refused(tiny_recipe, tmp_path):
    done = launch("--standalone", "--nproc_per_node", 2, "pretrain.py", tiny_recipe, "--out", tmp_path / "run",
                  launcher=("torch.distributed.run",))  # fmt: skip
    assert done.returncode != 0 and "exitcode  : 2" in done.stderr
    assert "the launcher started 2 processes, but Accelerate counts 1" in done.stderr
    assert "ACCELERATE_USE_CPU=true accelerate launch --config_file launch/accelerate/cpu2.yaml" in done.stderr
    assert not (tmp_path / "run").exists()
