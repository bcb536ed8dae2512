"""FSDP over two gloo ranks: weights are shared out, and nothing else changes: losses, backbone, checkpoints.

Accelerate offers FSDP on GPUs only, so the ranks enable it after the start; all else is Accelerate's own code and ours.
"""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from accelerate import Accelerator
from accelerate.utils import DistributedType
from support import gloo
from torch.distributed.tensor import DTensor

from ssl_transfer.errors import RunError
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.pretraining.stage import pretrain
from ssl_transfer.recipe import PretrainRecipe, load_recipe
from ssl_transfer.training import loop, machine

VIT = (
    "backbone={name: vit_tiny_patch16_224, options: {patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2, "
    "dynamic_img_size: true}}"
)
METHODS = {
    "simclr": "method={name: simclr, hidden_dim: 32, projection_dim: 16}",
    "mocov3": "method={name: mocov3, hidden_dim: 32, projection_dim: 16, momentum: 0.5}",
    "dino": (
        "method={name: dino, output_dim: 24, hidden_dim: 32, bottleneck_dim: 8, local_views: 2, local_size: 8, "
        "momentum: 0.5}"
    ),
    "dinov2": (
        "method={name: dinov2, output_dim: 24, hidden_dim: 32, bottleneck_dim: 8, local_views: 2, local_size: 8, "
        "momentum: 0.5, koleo_weight: 0.001}"
    ),
    "distill": "method={name: distill, teacher: 'scratch:test_resnet,size=32', queue: 24}",
    "mae": "method={name: mae, decoder_dim: 24, decoder_depth: 1, decoder_heads: 3}",
    "three channels": "method={name: simclr, hidden_dim: 32, projection_dim: 16}",
    "lars": "method={name: simclr, hidden_dim: 32, projection_dim: 16}",
    "cnn": "method={name: simclr, hidden_dim: 32, projection_dim: 16}",
}
OTHERWISE = {
    "three channels": "backbone.in_channels=3",
    "lars": "optimizer={name: lars, lr: 0.3}",
    "cnn": (  # of three channels, whose weights would be channels_last without FSDP
        "backbone={name: resnet10t, in_channels: 3, options: {channels: [8, 16, 32, 64], stem_width: 8}}"
    ),
}
BLOCKS = {"cnn": "BasicBlock"}  # the class that is sharded one by one, if it is not that of ViTs
LAUNCH = {  # what `accelerate launch` makes of launch/accelerate/fsdp8.yaml
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Block",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


def overrides(method):
    otherwise = (OTHERWISE[method],) if method in OTHERWISE else ()
    return METHODS[method], VIT, "optimizer={name: sgd, lr: 0.03}", "train.epochs=1", *otherwise


def continued(folder):
    """A run that starts from that of SimCLR on two ranks, with a frozen backbone in the first of its two epochs."""
    start = (f"backbone.init={folder}/simclr/two/backbone", "train.freeze_epochs=1", "train.epochs=2")
    return (*overrides("simclr"), *start, "keep=[1]")


RESUMED = (METHODS["mocov3"], VIT, "optimizer={name: adamw, lr: 0.01}", "train.checkpoint_every_steps=2")


class Killed(Exception):
    """Stands for whatever ends a run."""


def rank_main(rank, folder, recipe):
    gloo.join(rank, folder, **LAUNCH)
    shares = []

    class OnCpu(Accelerator):
        def __init__(self, fsdp_plugin, **options):
            super().__init__(fsdp_plugin=fsdp_plugin, **options)
            self.state.distributed_type, self.state.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

        def prepare(self, objective, optimizer):
            prepared = super().prepare(objective, optimizer)
            assert all(isinstance(p, DTensor) for p in objective.parameters())
            shares.append(sum(p.to_local().numel() for p in objective.parameters()))
            shares.append(sum(p.numel() for p in objective.parameters()))
            return prepared

        def end_training(self):
            """Accelerate would end the process group, and here more runs follow."""

    machine.Accelerator = OnCpu
    for method in METHODS:
        os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = BLOCKS.get(method, "Block")
        pretrain(load_recipe(PretrainRecipe, recipe, overrides(method)), f"{folder}/{method}/two")

    os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "Block"
    pretrain(load_recipe(PretrainRecipe, recipe, continued(folder)), f"{folder}/continued/two")

    advance = loop.Training._advance

    def killed(training, batches):
        if training.step == 3:
            raise Killed
        return advance(training, batches)

    again = load_recipe(PretrainRecipe, recipe, RESUMED)
    pretrain(again, f"{folder}/unbroken")
    loop.Training._advance = killed
    with pytest.raises(Killed):
        pretrain(again, f"{folder}/broken")
    loop.Training._advance = advance
    pretrain(again, f"{folder}/broken")
    Path(folder, f"shares-{rank}.json").write_text(json.dumps(shares))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def sharded(tiny_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    multiprocessing.spawn(rank_main, (str(folder), tiny_recipe), nprocs=2)
    return folder


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", sorted(METHODS))
def test_sharded_weights_are_trained_like_unsharded_ones(sharded, tiny_recipe, method):
    pretrain(load_recipe(PretrainRecipe, tiny_recipe, overrides(method)), sharded / method / "one")
    two, one = log_of(sharded / method / "two"), log_of(sharded / method / "one")
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-3)
    assert [line["gradient_norm"] for line in two] == pytest.approx([line["gradient_norm"] for line in one], rel=1e-2)
    assert two[-1]["knn"] == pytest.approx(one[-1]["knn"], abs=0.17)  # one of six validation images
    weights = load_backbone(sharded / method / "two" / "backbone").state_dict()
    for name, expected in load_backbone(sharded / method / "one" / "backbone").state_dict().items():
        assert torch.allclose(weights[name], expected, rtol=0.05, atol=2e-3), name


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
def test_sharded_weights_are_frozen_and_released_like_unsharded_ones(sharded, tiny_recipe):
    pretrain(load_recipe(PretrainRecipe, tiny_recipe, continued(sharded)), sharded / "continued" / "one")
    two, one = (log_of(sharded / "continued" / name) for name in ("two", "one"))
    assert [line["step"] for line in two] == list(range(7)) and two[0]["knn"] == one[0]["knn"]
    assert [line["loss"] for line in two[1:]] == pytest.approx([line["loss"] for line in one[1:]], rel=1e-3)
    parent, frozen, last = (
        load_backbone(folder).state_dict()
        for folder in (sharded / "simclr/two/backbone", f"{sharded}/continued/two@1", f"{sharded}/continued/two@2")
    )
    assert all(torch.equal(frozen[name], weight) for name, weight in parent.items())
    assert sum(not torch.equal(last[name], weight) for name, weight in parent.items()) > len(parent) / 2


@pytest.mark.long
def test_each_rank_holds_about_half_of_the_state(sharded):
    for rank in range(2):
        shares = json.loads((sharded / f"shares-{rank}.json").read_text())
        for mine, whole in zip(shares[::2], shares[1::2], strict=True):
            assert 0.4 * whole < mine < 0.6 * whole


@pytest.mark.long
def test_a_resumed_run_ends_with_the_same_bytes(sharded):
    unbroken, resumed = (sharded / name / "backbone" / "model.safetensors" for name in ("unbroken", "broken"))
    assert resumed.read_bytes() == unbroken.read_bytes()


def test_fsdp_version_1_is_refused(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(RunError, match="fsdp_version: 2"):
        runs(tmp_path / "run")
