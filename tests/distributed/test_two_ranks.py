"""Two processes over gloo: the number of ranks changes neither loss nor gradient, and a wrong launch is refused."""

import copy
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from support import gloo, sync_batchnorm
from support.tiny_methods import RESNET, VIT, assert_same_tensors, gradients, new_batch, new_method
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.registry import METHODS
from ssl_transfer.models.batchnorm import GlobalBatchNorm, globalise_batchnorm
from ssl_transfer.models.ranks import gather
from ssl_transfer.pretraining.stage import pretrain
from ssl_transfer.recipe import PretrainRecipe, load_recipe
from ssl_transfer.schedule import Schedule

ROOT = Path(__file__).parent.parent.parent
VIT_RECIPE = (
    "backbone={name: vit_tiny_patch16_224, options: {patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2, "
    "dynamic_img_size: true}}"
)
LAUNCHED = {  # one method of each group: overrides of the tiny recipe
    "simclr": ("method={name: simclr, hidden_dim: 32, projection_dim: 16}",),
    "byol": ("method={name: byol, hidden_dim: 32, projection_dim: 16}",),
    "moco": ("method={name: moco, queue: 24, bn_groups: 2, projection_dim: 16}",),
    "mae": ("method={name: mae, decoder_dim: 24, decoder_depth: 1, decoder_heads: 3}", VIT_RECIPE),
    "dino": (
        "method={name: dino, output_dim: 24, hidden_dim: 32, bottleneck_dim: 8, local_views: 2, local_size: 8}",
        VIT_RECIPE,
    ),
    "dinov2": (
        "method={name: dinov2, output_dim: 24, hidden_dim: 32, bottleneck_dim: 8, local_views: 2, local_size: 8}",
        VIT_RECIPE,
    ),
    "distill": ("method={name: distill, teacher: 'scratch:test_resnet,size=32', queue: 24}",),
}
# Its features differ between images from the start; KoLeo's gradient is ill-conditioned where they are almost equal
AVERAGED = (VIT[0], {**VIT[1], "global_pool": "avg", "class_token": False})
CASES = {  # moco: groups within a rank, groups that span ranks, one group
    **{name: (name, None, {}) for name in ("simclr", "byol", "mocov3", "barlowtwins", "vicreg", "simsiam", "dino")},
    "moco_4_groups": ("moco", RESNET, {"queue": 24, "bn_groups": 4}),
    "moco_3_groups": ("moco", RESNET, {"queue": 24, "bn_groups": 3}),
    "moco_1_group": ("moco", RESNET, {"queue": 24, "bn_groups": 1}),
    "supervised": ("supervised", RESNET, {"label_smoothing": 0.1}),
    "mae_vit": ("mae", VIT, {}),
    "mocov3_vit": ("mocov3", VIT, {}),
    "dino_vit": ("dino", VIT, {}),
    "dinov2_sinkhorn": ("dinov2", AVERAGED, {}),
    "dinov2_mean": ("dinov2", VIT, {"koleo_weight": 0.0, "centering": "mean", "separate_heads": False}),
    "distill": ("distill", RESNET, {"queue": 24}),
    "distill_vit": ("distill", VIT, {"queue": 36, "patch_weight": 0.5}),
}
LAYERS = ("maps", "channels_last", "vectors", "without_weights")
IMAGES, STEPS = 12, 2
SCHEDULE = Schedule(steps_per_epoch=1, total_steps=100)  # MAE's masks change, DINO's output layer is let go
BETWEEN_RANKS = {"broadcast_buffers": False, "gradient_as_bucket_view": True}  # as in training


def test_the_cases_cover_every_method():
    assert {name for name, _, _ in CASES.values()} == set(METHODS)


def take_steps(case, rank, world):
    """Two steps on this rank's part of the global batch; losses, gradients of the second, and what has moved."""
    name, kind, options = CASES[case]
    method = new_method(name, kind, **options)
    method.schedule = SCHEDULE
    globalise_batchnorm(method, method.bn_groups)
    network = DistributedDataParallel(method, **BETWEEN_RANKS) if world > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    mine, losses = slice(rank * IMAGES // world, (rank + 1) * IMAGES // world), []
    for step in range(STEPS):
        whole = new_batch(method, 10 + step, IMAGES)
        batch = ViewBatch([view[mine] for view in whole.views], whole.rows[mine], whole.labels[mine])
        optimizer.zero_grad()
        loss = network(batch, step)["loss"]
        loss.backward()
        method.after_backward(step)
        losses.append(loss.detach())
        if step + 1 < STEPS:
            optimizer.step()
            method.after_step(step + 1)
    losses = torch.stack(losses)
    if world > 1:
        distributed.all_reduce(losses)
    return {"losses": losses / world, "gradients": gradients(method), "state": copy.deepcopy(method.state_dict())}


@cache
def one_rank(case):
    return take_steps(case, 0, 1)


def rank_main(rank, folder, recipe):
    gloo.join(rank, folder)
    assert distributed.get_world_size() == 2
    for case in CASES:
        torch.save(take_steps(case, rank, 2), f"{folder}/{case}-{rank}.pt")
    torch.save(gather(channels_last_images()[rank : rank + 1]), f"{folder}/gathered-{rank}.pt")
    sync_batchnorm.register()
    for case in LAYERS:
        torch.save(layer_by_kernels_of_gpus(case, rank), f"{folder}/{case}-{rank}.pt")
    for batch_size in (9, 1):
        with pytest.raises(RecipeError) as refusal:
            pretrain(load_recipe(PretrainRecipe, recipe, [f"train.batch_size={batch_size}"]), f"{folder}/run")
        Path(folder, f"refusal-{batch_size}-{rank}.txt").write_text(str(refusal.value))
    distributed.destroy_process_group()


def channels_last_images():
    """One image for each of two ranks, whose elements are in another order in memory."""
    return torch.arange(48.0).view(2, 3, 2, 4).contiguous(memory_format=torch.channels_last)


def layer_and_images(case):
    """A layer of BatchNorm, float32 images with a large mean, and weights of the outputs in a loss."""
    draw = torch.Generator().manual_seed(0)
    layer = nn.BatchNorm2d(5, affine=case != "without_weights")
    for weight in layer.parameters():
        nn.init.normal_(weight, generator=draw)
    images, weights = (torch.randn(IMAGES, 5, *(() if case == "vectors" else (3, 4)), generator=draw) for _ in range(2))
    images = images * torch.arange(1, IMAGES + 1).view(-1, *[1] * (images.ndim - 1)) + 20
    if case == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    return layer, images.requires_grad_(), weights


def layer_by_kernels_of_gpus(case, rank):
    """Outputs and gradients of this rank's half of the images, gradients of weights over both, running statistics."""
    layer, images, weights = layer_and_images(case)
    layer.__class__ = GlobalBatchNorm
    images, weights = (values.detach().chunk(2)[rank] for values in (images, weights))
    outputs = layer._whole_batch(images.requires_grad_())
    (outputs * weights).sum().backward()
    of_weights = [weight.grad for weight in layer.parameters()]
    for gradient in of_weights:
        distributed.all_reduce(gradient)
    return outputs.detach(), images.grad, *of_weights, *layer.buffers()


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


def test_images_in_channels_last_are_gathered_in_order(folder_of_two_ranks):
    for rank in range(2):
        gathered = torch.load(folder_of_two_ranks / f"gathered-{rank}.pt", weights_only=True)
        assert torch.equal(gathered, channels_last_images())


@pytest.mark.parametrize("case", LAYERS)
def test_the_kernels_of_gpus_normalise_two_halves_as_one_batch(two_ranks, case):
    """The kernels are those of `support/sync_batchnorm.py`."""
    layer, images, weights = layer_and_images(case)
    if case == "vectors":
        layer.__class__ = nn.BatchNorm1d
    outputs = layer(images)
    (outputs * weights).sum().backward()
    expected = [outputs.detach(), images.grad, *(weight.grad for weight in layer.parameters()), *layer.buffers()]
    for rank, found in enumerate(two_ranks(case)):
        halves = [values.chunk(2)[rank] for values in expected[:2]]
        for one, other in zip([*halves, *expected[2:]], found, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", sorted(CASES))
def test_two_ranks_have_the_losses_of_one(two_ranks, case):
    expected = one_rank(case)["losses"]
    for result in two_ranks(case):
        assert torch.allclose(result["losses"].double(), expected.double(), rtol=1e-5, atol=0)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", sorted(CASES))
def test_two_ranks_have_the_gradient_of_one_for_every_parameter(two_ranks, case):
    expected = one_rank(case)["gradients"]
    assert len(expected) > 10
    for result in two_ranks(case):
        assert_same_tensors(result["gradients"], expected)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", sorted(CASES))
def test_two_ranks_have_the_state_of_one(two_ranks, case):
    """Weights, momentum network, running statistics of BatchNorm, queue, centre."""
    expected = one_rank(case)["state"]
    for result in two_ranks(case):
        assert_same_tensors(result["state"], expected)


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [(9, "9 images cannot be shared evenly by 2 processes"), (1, "1 images at a time are fewer than the 2 processes")],
)
def test_a_batch_that_two_ranks_cannot_share_evenly_is_refused(folder_of_two_ranks, batch_size, message):
    for rank in range(2):
        refusal = (folder_of_two_ranks / f"refusal-{batch_size}-{rank}.txt").read_text()
        assert f"train.batch_size: {message}" in refusal
    assert not (folder_of_two_ranks / "run").exists()


def launch(*arguments, launcher="accelerate.commands.launch", **environment):
    """Run pretrain.py under a launcher; no GPU is seen, and nothing of an outer launch is inherited."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "RANK", "WORLD_SIZE", "LOCAL_"))
    }
    return subprocess.run(
        [sys.executable, "-m", launcher, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env={**inherited, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
    )


def launch_two(*arguments):
    config = ("--config_file", "launch/accelerate/cpu2.yaml", "pretrain.py")
    return launch(*config, *arguments, ACCELERATE_USE_CPU="true")


@pytest.fixture(scope="module")
def launched(tiny_recipe, tmp_path_factory):
    """A method trained by `accelerate launch` on two ranks, and by one process: answer, log of two, log of one."""
    folder = tmp_path_factory.mktemp("launched")

    def log_of(run):
        return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]

    def results(name):
        overrides = (*LAUNCHED[name], "train.epochs=1", "optimizer.lr=1e-4")
        two = launch_two(tiny_recipe, *overrides, "--json", "--out", folder / name / "two")
        assert two.returncode == 0, two.stderr
        pretrain(load_recipe(PretrainRecipe, tiny_recipe, overrides), folder / name / "one")
        return json.loads(two.stdout), log_of(folder / name / "two"), log_of(folder / name / "one")

    return cache(results)


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", LAUNCHED)
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


@pytest.mark.long
def test_two_ranks_that_accelerate_does_not_know_of_are_refused(tiny_recipe, tmp_path):
    done = launch(
        "--standalone",
        "--nproc_per_node",
        2,
        "pretrain.py",
        tiny_recipe,
        "--out",
        tmp_path / "run",
        launcher="torch.distributed.run",
    )
    assert done.returncode != 0 and "exitcode  : 2" in done.stderr
    assert "the launcher started 2 processes, but Accelerate counts 1" in done.stderr
    assert "ACCELERATE_USE_CPU=true accelerate launch --config_file launch/accelerate/cpu2.yaml" in done.stderr
    assert not (tmp_path / "run").exists()
