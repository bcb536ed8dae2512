"""SyncBatchNorm of several GPUs: the host does not wait for it. Its kernels, and another rank, are made up here."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as distributed
from timm.layers import BatchNormAct2d
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from ssl_transfer.models.batchnorm import globalise_batchnorm


def statistics(images, eps):
    variance, mean = torch.var_mean(images, (0, 2, 3), correction=0)
    return mean, (variance + eps).rsqrt()


def gathered(images, means, inverses, running_mean, running_var, momentum, eps, counts):
    mean = (means * counts[:, None]).sum(0) / counts.sum()
    squares = inverses**-2 - eps + (means - mean) ** 2
    variance = (squares * counts[:, None]).sum(0) / counts.sum()
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
    return mean, (variance + eps).rsqrt()


def normalised(images, weight, bias, mean, inverse, eps):
    scale = weight * inverse
    return images * scale[:, None, None] + (bias - mean * scale)[:, None, None]


def of_two_equal_ranks(parts, tensor, *_, **__):
    for part in parts:
        part.copy_(tensor)


@pytest.fixture
def two_gpus(gpu, monkeypatch):
    monkeypatch.setattr(torch, "batch_norm_stats", statistics)
    monkeypatch.setattr(torch, "batch_norm_gather_stats_with_counts", gathered)
    monkeypatch.setattr(torch, "batch_norm_elemt", normalised)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(distributed, "group", SimpleNamespace(WORLD=SimpleNamespace(_get_backend_name=lambda: "gloo")))
    monkeypatch.setattr(distributed, "all_gather", of_two_equal_ranks)
    with gpu:
        yield gpu


@pytest.mark.parametrize("layer", [nn.BatchNorm2d, BatchNormAct2d])
@torch.no_grad()
def test_the_host_waits_for_no_layer(layer, two_gpus):
    images = torch.randn(6, 5, 4, 4) * 3 + 1
    twice = torch.cat([images, images])  # those of both ranks
    expected = layer(5).train()
    output = expected(twice)[:6]
    layers = globalise_batchnorm(nn.Sequential(layer(5)), 1, torch.device("cuda")).to("cuda").train()
    images = images.to("cuda")
    with two_gpus.counting() as counts:
        found = layers(images)
    assert counts.waits.total() == 0, counts.waits
    assert torch.allclose(found.cpu(), output, atol=1e-5)
    for name, value in expected.state_dict().items():
        assert torch.allclose(layers[0].state_dict()[name].cpu(), value, atol=1e-5), name


@torch.no_grad()
def test_that_of_torch_makes_it_wait_three_times(two_gpus):
    layers = convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(5))).to("cuda").train()
    images = torch.randn(6, 5, 4, 4, device="cuda")
    with two_gpus.counting() as counts:
        layers(images)
    assert counts.waits.total() == 3, counts.waits
