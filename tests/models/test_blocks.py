"""Blocks: every parameter in exactly one, from the image to the features; what rests is in eval, and nothing else."""

import pytest
import timm
import torch
from support.families import FAMILIES, family_backbone
from torch import nn

from ssl_transfer.models.blocks import blocks, train_all_but

COARSE = {"resnet": 5, "densenet": 5, "vgg": 9, "convnext": 5, "vit": 3}  # vit: embedding and two transformer blocks
DEEP = {"resnet18": (5, 9), "resnet50": (5, 17), "vit_tiny_patch16_224": (13, 13), "convnext_atto": (5, 13)}


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_in_exactly_one_block(family, coarse):
    model = family_backbone(family).model
    found = [parameter for block in blocks(model, coarse) for parameter in block.parameters.values()]
    assert len(found) == len({id(parameter) for parameter in found})
    assert {id(parameter) for parameter in found} == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_names_its_parameters_as_the_model_does(family):
    model = family_backbone(family).model
    named = dict(model.named_parameters())
    assert all(named[name] is p for block in blocks(model) for name, p in block.parameters.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_names_of_blocks_are_unique(family):
    for coarse in (True, False):
        names = [block.name for block in blocks(family_backbone(family).model, coarse)]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_block_reads_the_image_and_the_last_gives_the_features(family):
    model = family_backbone(family).model
    found = blocks(model)
    assert len(found) == COARSE[family]
    assert next(iter(found[0].parameters.values())) is next(model.parameters())
    last = [name for name, _ in model.named_parameters()][-1]
    assert last in found[-1].parameters


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_images_pass_through_the_blocks_in_their_order(family, coarse):
    model = family_backbone(family).model
    owner = {id(p): n for n, block in enumerate(blocks(model, coarse)) for p in block.parameters.values()}
    passed = []
    for layer in model.modules():
        own = [owner[id(p)] for p in layer.parameters(recurse=False)]
        if own and layer is not model:
            layer.register_forward_hook(lambda *_, own=own: passed.extend(own))
    model(torch.zeros(1, 1, 32, 32))
    assert passed == sorted(passed) and len(set(passed)) >= COARSE[family]


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_block_consists_of_norms_and_biases_alone(family, coarse):
    for block in blocks(family_backbone(family).model, coarse):
        assert any(parameter.ndim > 1 for parameter in block.parameters.values()), block.name


@pytest.mark.parametrize("name", DEEP)
def test_coarse_blocks_are_stages_and_fine_ones_layers_or_residual_units(name):
    model = timm.create_model(name, num_classes=0)
    assert (len(blocks(model)), len(blocks(model, coarse=False))) == DEEP[name]


def test_a_resnet_s_stages_are_its_blocks():
    prefixes = [
        {name.partition(".")[0] for name in block.parameters} for block in blocks(family_backbone("resnet").model)
    ]
    assert prefixes == [{"conv1", "bn1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}]


def small():
    """Two blocks with BatchNorm and dropout each, and dropout between them."""
    first, second = (nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU(), nn.Dropout()) for _ in range(2))
    return nn.Sequential(first, nn.Dropout(), second)


def test_all_blocks_train_if_none_is_frozen():
    model = small().eval()
    train_all_but(model, [])
    assert all(layer.training for layer in model.modules())


def test_a_frozen_block_is_in_eval_mode_with_all_its_layers_and_the_others_train():
    model = small().eval()
    train_all_but(model, list(model[0].parameters()))
    assert not any(layer.training for layer in model[0].modules())
    assert model.training and model[1].training and all(layer.training for layer in model[2].modules())


def test_if_all_blocks_are_frozen_everything_is_in_eval_mode():
    model = small()
    train_all_but(model, list(model.parameters()))
    assert not any(layer.training for layer in model.modules())


def test_a_block_that_is_no_longer_frozen_is_trained_again():
    model = small()
    train_all_but(model, list(model.parameters()))
    train_all_but(model, [])
    assert all(layer.training for layer in model.modules())


def test_a_layer_with_some_trainable_parameters_is_in_train_mode():
    model = small()
    train_all_but(model, [model[0][1].weight])
    assert model[0][1].training


def test_a_frozen_batchnorm_keeps_its_statistics_and_a_trained_one_does_not():
    model = small()
    train_all_but(model, list(model[0].parameters()))
    model(torch.randn(8, 1, 4, 4) + 3)
    assert model[0][1].running_mean == 0 and model[0][1].num_batches_tracked == 0
    assert model[2][1].running_mean != 0


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_stay_as_trainable_as_they_were(family):
    model = family_backbone(family).model
    train_all_but(model, list(model.parameters()))
    assert all(parameter.requires_grad for parameter in model.parameters())
