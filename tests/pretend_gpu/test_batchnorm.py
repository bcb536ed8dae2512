"""BatchNorm over the whole batch of several GPUs: the host does not wait for it. Its kernels are made up here."""

import copy

import pytest
import torch
import torch.distributed as distributed
from support import sync_batchnorm
from timm.layers import BatchNormAct2d
from torch import nn

from ssl_transfer.models import batchnorm


@pytest.fixture
def two_gpus(gpu, monkeypatch, tmp_path):
    """One rank, whose layers are those of one of two."""
    sync_batchnorm.register()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    monkeypatch.setattr(batchnorm, "world_size", lambda: 2)
    yield gpu
    distributed.destroy_process_group()


@pytest.mark.parametrize("layer", [nn.BatchNorm2d, BatchNormAct2d])
def test_the_host_waits_for_no_layer(layer, two_gpus):
    plain, images = layer(5).train(), torch.randn(6, 5, 4, 4) * 3 + 1
    layers = batchnorm.globalise_batchnorm(nn.Sequential(copy.deepcopy(plain)), 1)
    expected = plain(images)
    expected.square().sum().backward()
    with two_gpus:
        layers.to("cuda")
        images = images.to("cuda")
        with two_gpus.counting() as counts:
            found = layers(images)
            found.square().sum().backward()
        assert counts.waits.total() == 0, counts.waits
        assert counts.launches < 20
        assert torch.allclose(found.cpu(), expected, atol=1e-5)
        assert torch.allclose(layers[0].weight.grad.cpu(), plain.weight.grad, atol=1e-4)
        for name, value in plain.state_dict().items():
            assert torch.allclose(layers[0].state_dict()[name].cpu(), value, atol=1e-5), name
