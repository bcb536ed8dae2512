"""Floating-point operations: equal to counts by hand, and counting changes nothing."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.flops import counted_flops

RESNET_50_MACS = 4.1e9  # at 224 px: He et al. 2016 (1512.03385), Table 1, with the stride in the 3 x 3 convolution


def passes(model, inputs) -> int:
    """Operations of a forward and a backward pass."""
    with counted_flops() as flops:
        model(inputs).sum().backward()
    return flops.count


def test_a_linear_layer_costs_two_operations_per_weight_and_row_and_twice_that_backwards():
    model = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
    forward = 2 * 11 * (7 * 5 + 5 * 3)
    backward = 2 * forward - 2 * 11 * 7 * 5  # the images need no gradient
    assert passes(model, torch.randn(11, 7)) == forward + backward


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_convolution_costs_its_kernel_at_every_position_also_in_groups_and_frozen_layers_no_gradient(groups, frozen):
    first, second = nn.Conv2d(4, 8, 3, padding=1, groups=groups), nn.Conv2d(8, 4, 3, stride=2, groups=groups)
    first.requires_grad_(not frozen)
    at_first, at_second = 2 * 5 * 81 * 9 * 8 * (4 // groups), 2 * 5 * 16 * 9 * 4 * (8 // groups)
    expected = at_first + 2 * at_second if frozen else 2 * at_first + 3 * at_second
    assert passes(nn.Sequential(first, second), torch.randn(5, 4, 9, 9)) == expected


def test_a_transposed_convolution_costs_its_kernel_at_every_position_of_its_input():
    layer, images = nn.ConvTranspose2d(4, 6, 2, stride=2), torch.randn(3, 4, 5, 5, requires_grad=True)
    assert passes(layer, images) == 3 * (2 * 3 * 25 * 4 * 4 * 6)


def test_attention_costs_two_products_and_five_backwards():
    query, key, value = (torch.randn(2, 3, 9, 8, requires_grad=True) for _ in range(3))
    with counted_flops() as flops:
        nn.functional.scaled_dot_product_attention(query, key, value).sum().backward()
    assert flops.count == 7 * (2 * 2 * 3 * 9 * 9 * 8)  # backwards, the scores are computed again


def test_layers_whose_activations_are_computed_again_cost_another_forward_pass():
    block, images = nn.Sequential(nn.Linear(7, 5), nn.Tanh()), torch.randn(11, 7, requires_grad=True)
    assert passes(lambda inputs: checkpoint(block, inputs, use_reentrant=False), images) == 4 * (2 * 11 * 7 * 5)


def test_a_resnet_50_costs_what_its_authors_state():
    model = Architecture("resnet50", 3, 224).build(seed=0).eval()
    with torch.inference_mode(), counted_flops() as flops:
        model(torch.zeros(1, 3, 224, 224))
    assert flops.count == pytest.approx(2 * RESNET_50_MACS, rel=0.01)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_counting_changes_no_bit_of_gradients_statistics_and_random_numbers(name):
    found = []
    for counts in (False, True):
        torch.manual_seed(0)
        model = Architecture(name, 3, 160, options={"drop_path_rate": 0.2}).build(seed=0).train()
        images = torch.randn(4, 3, 160, 160)
        if counts:
            assert passes(model, images) > 0
        else:
            model(images).sum().backward()
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        found.append([*gradients, *model.buffers(), torch.randn(3)])
    assert len(found[0]) == len(found[1]) and all(map(torch.equal, *found))
