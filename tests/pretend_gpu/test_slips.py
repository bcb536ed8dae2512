"""Slips that CUDA would refuse are refused by the pretend GPU: a tensor that is left on the CPU."""

import numpy as np
import pytest
import torch
from support.families import family_backbone
from support.pretend_gpu import MixedDevices
from support.tiny_tasks import class_task, judge

from ssl_transfer.data import training_set, transfer, view_steps, views
from ssl_transfer.evaluation.strategies.starting_point import StartingPoint
from ssl_transfer.methods import dinov2, mae, mocov3
from ssl_transfer.models import embedding

CPU = torch.device("cpu")
VIT = (
    "backbone={name: vit_tiny_patch16_224, "
    "options: {patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2, dynamic_img_size: true}}"
)


def left(tensor, device):
    """Stands for `to_device`, and forgets to copy."""
    return tensor


def on_the_cpu(values, device, dtype=torch.float32, channels=False, *, original=transfer.constant):
    """Stands for `constant`, and forgets the device."""
    return original(values, CPU, dtype, channels)


SLIPS = {  # where, what stands there instead, overrides of the recipe
    "draws of views": (views, "to_device_together", left, []),
    "normalisation": (view_steps, "constant", on_the_cpu, []),
    "labels": (training_set, "to_device", left, ["method={name: supervised}"]),
    "masks of MAE": (mae, "to_device", left, ["method={name: mae, decoder_dim: 24, decoder_heads: 3}", VIT]),
    "masks of DINOv2": (
        dinov2,
        "to_device",
        left,
        ["method={name: dinov2, output_dim: 24, hidden_dim: 32, bottleneck_dim: 8, local_views: 0}", VIT],
    ),
    "keys of MoCo v3": (
        mocov3,
        "gather",
        lambda keys: keys.cpu(),
        ["method={name: mocov3, hidden_dim: 32, projection_dim: 16}"],
    ),
}


@pytest.mark.parametrize(
    "slip", [name if name == "draws of views" else pytest.param(name, marks=pytest.mark.long) for name in SLIPS]
)
def test_a_tensor_of_a_pretraining_that_is_left_on_the_cpu_is_found(slip, runs, gpu, monkeypatch, tmp_path):
    owner, name, slipped, overrides = SLIPS[slip]
    monkeypatch.setattr(owner, name, slipped)
    with gpu, pytest.raises((MixedDevices, NotImplementedError, RuntimeError), match="cuda:0"):
        runs(tmp_path / "run", "train.epochs=1", *overrides)


@pytest.mark.long
@pytest.mark.parametrize(
    ("owner", "name", "slipped"), [(transfer, "constant", on_the_cpu), (embedding, "to_device", left)]
)
def test_images_of_features_that_are_left_on_the_cpu_are_found(owner, name, slipped, ct_store, gpu, monkeypatch):
    monkeypatch.setattr(owner, name, slipped)
    with gpu, pytest.raises(MixedDevices):
        embedding.embed(family_backbone("resnet").to("cuda"), ct_store, np.arange(4), device="cuda")


@pytest.mark.long
def test_a_starting_point_that_is_left_on_the_cpu_is_found(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(
        StartingPoint, "register_buffer", lambda module, name, tensor: module.__dict__.update({name: tensor})
    )
    monkeypatch.setattr(StartingPoint, "get_buffer", lambda module, name: module.__dict__[name])
    with gpu, pytest.raises(MixedDevices):
        judge("finetune", family_backbone("resnet"), class_task(tmp_path / "task"), tmp_path / "run", "strategy=l2_sp")
