"""BatchNorm over groups of the global batch: statistics really are per group."""

import copy

import pytest
import timm
import torch
import torch.distributed as distributed
import torch.nn.functional as functional
from support.families import FAMILIES, family_backbone
from torch import nn

from ssl_transfer.models.backbone import save_backbone
from ssl_transfer.models.batchnorm import GlobalBatchNorm, globalise_batchnorm


def chunked(images, layer, groups):
    parts = [
        functional.batch_norm(part, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)
        for part in images.chunk(groups)
    ]
    return torch.cat(parts)


@pytest.fixture
def layer():
    made = nn.BatchNorm2d(5)
    nn.init.normal_(made.weight, 1, 0.2)
    nn.init.normal_(made.bias)
    return made


@pytest.fixture
def images():
    return torch.randn(12, 5, 4, 4) * 3 + torch.randn(12, 5, 1, 1)


@pytest.mark.parametrize("groups", [2, 3, 4, 6])
def test_each_group_is_normalised_by_its_own_statistics(layer, images, groups):
    expected = chunked(images, layer, groups)
    found = globalise_batchnorm(nn.Sequential(layer), groups)(images)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.fixture
def a_group_of_one_rank(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("a_group_of_one_rank")
@pytest.mark.parametrize("groups", [1, 3])
def test_sums_over_groups_give_what_groups_by_themselves_give(layer, images, groups):
    """The path for groups that span ranks, on one rank: outputs and gradients of batch normalisation itself."""
    layer.__class__, layer.groups = GlobalBatchNorm, groups
    one, other = images.clone().requires_grad_(), images.clone().requires_grad_()
    expected, found = chunked(one, layer, groups), layer._spread_groups(other)
    weights = torch.randn_like(found)
    gradients = [
        torch.autograd.grad((out * weights).sum(), [x, layer.weight, layer.bias])
        for out, x in ((expected, one), (found, other))
    ]
    assert torch.allclose(found, expected, atol=1e-5)
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_the_mean_over_groups(layer, images):
    groups = globalise_batchnorm(nn.Sequential(layer), 3)
    groups(images)
    parts = images.chunk(3)
    mean = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
    variance = torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0)
    assert torch.allclose(layer.running_mean, 0.1 * mean, atol=1e-6)
    assert torch.allclose(layer.running_var, 0.9 + 0.1 * variance, atol=1e-5)
    assert layer.num_batches_tracked == 1


def test_in_eval_a_global_layer_is_the_plain_layer(layer, images):
    layer.running_mean.normal_()
    expected = copy.deepcopy(layer).eval()(images)
    assert torch.equal(globalise_batchnorm(nn.Sequential(layer), 3).eval()(images), expected)


def test_one_group_on_one_process_leaves_the_layers_as_they_are(layer):
    assert type(globalise_batchnorm(nn.Sequential(layer), 1)[0]) is nn.BatchNorm2d


def test_layers_of_timm_keep_their_activation_and_their_names():
    model = timm.create_model("test_efficientnet", num_classes=0, in_chans=1).double()
    names = list(model.state_dict())
    grouped = globalise_batchnorm(copy.deepcopy(model), 2)
    images = torch.randn(8, 1, 64, 64, dtype=torch.float64)
    parts = [copy.deepcopy(model).train()(part) for part in images.chunk(2)]
    assert list(grouped.state_dict()) == names
    assert torch.allclose(grouped.train()(images), torch.cat(parts), atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_with_global_layers_of_one_group_trains_as_it_did_without(family):
    plain = family_backbone(family, size=64).model.double().train()
    model = globalise_batchnorm(copy.deepcopy(plain), 2)
    for layer in model.modules():
        if isinstance(layer, GlobalBatchNorm):
            layer.groups = 1
    images = torch.randn(4, 1, 64, 64, dtype=torch.float64)
    found, expected = model(images), plain(images)
    assert torch.allclose(found, expected, atol=1e-10)
    found.square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.allclose(one.grad, other.grad, rtol=1e-6, atol=1e-8)
    for key, value in plain.state_dict().items():
        assert torch.allclose(model.state_dict()[key], value, atol=1e-10), key


@pytest.mark.parametrize("family", ["resnet", "densenet", "vgg"])
def test_a_family_with_global_layers_of_two_groups_treats_each_half_as_a_batch(family):
    plain = family_backbone(family, size=64).model.double().train()
    images = torch.randn(8, 1, 64, 64, dtype=torch.float64)
    expected = torch.cat([copy.deepcopy(plain)(part) for part in images.chunk(2)])
    assert torch.allclose(globalise_batchnorm(plain, 2)(images), expected, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backbone_trained_with_global_layers_is_saved_under_the_names_that_timm_loads(tmp_path, family):
    backbone = family_backbone(family)
    globalise_batchnorm(backbone, 2).train()(torch.randn(4, 1, 32, 32))
    save_backbone(backbone.eval(), tmp_path / "b")
    plain = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True).eval()
    images = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(plain(images), backbone(images))
