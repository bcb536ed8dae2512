"""Optimisers: rates of the papers, and which parameters are decayed and scaled."""

import copy

import pytest
import torch
from lightly.utils.lars import LARS
from torch import nn

from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.objective import one_group
from ssl_transfer.training.optim import OPTIMIZERS, parameter_groups, scaled_rate


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    made[2].bias.requires_grad_(False)
    return made


@pytest.mark.parametrize(
    ("lr", "rule", "batch", "expected"),
    [
        (4.8, "none", 4096, 4.8),
        (0.3, "linear", 4096, 4.8),
        (0.3, "linear", 256, 0.3),
        (0.075, "sqrt", 4096, 4.8),
        (0.075, "sqrt", 512, 0.075 * 512**0.5),
    ],
)
def test_the_rate_follows_the_batch_by_its_rule(lr, rule, batch, expected):
    assert scaled_rate(lr, rule, batch) == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimiser_starts_at_its_scaled_rate(network, name):
    optimizer = OPTIMIZERS[name](one_group(network), 512, lr=0.1, rate_rule="linear")
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.2)] * 2


def test_there_are_three_optimisers():
    assert sorted(OPTIMIZERS) == ["adamw", "lars", "sgd"]


def test_norms_and_biases_are_not_decayed_and_frozen_parameters_are_left_out(network):
    decayed, free = parameter_groups(one_group(network), 0.1, 0.01, 1.0)
    assert decayed["weight_decay"] == 0.01 and free["weight_decay"] == 0
    assert [id(p) for p in decayed["params"]] == [id(network[0].weight), id(network[2].weight)]
    assert [id(p) for p in free["params"]] == [id(network[0].bias), id(network[1].weight), id(network[1].bias)]


def test_lars_is_the_paper_s_step_for_weights_and_plain_sgd_for_norms_and_biases(network):
    """You et al. 2017, Algorithm 1: v ← m v + γ λ (∇w + βw), λ = η‖w‖ / (‖∇w‖ + β‖w‖)."""
    rate, decay, momentum, embedding_quality = 0.5, 1e-2, 0.9, 0.001
    optimizer = OPTIMIZERS["lars"](
        one_group(network), 1, lr=rate, weight_decay=decay, momentum=momentum, trust_coefficient=embedding_quality
    )
    naive = {name: p.detach().clone() for name, p in network.named_parameters()}
    velocity = dict.fromkeys(naive, 0.0)
    for step in range(3):
        torch.manual_seed(step)
        for name, parameter in network.named_parameters():
            if not parameter.requires_grad:
                continue
            parameter.grad = torch.randn_like(parameter)
            update = parameter.grad
            if parameter.ndim > 1:
                w, g = naive[name].norm(), parameter.grad.norm()
                update = embedding_quality * w / (g + decay * w) * (parameter.grad + decay * naive[name])
            velocity[name] = momentum * velocity[name] + rate * update
            naive[name] = naive[name] - velocity[name]
        optimizer.step()
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter, naive[name], rtol=1e-5, atol=1e-7), name


def test_lars_is_lightly_s(network):
    reference = copy.deepcopy(network)
    own = OPTIMIZERS["lars"](one_group(network), 1, lr=0.3, weight_decay=1e-3)
    groups = parameter_groups(one_group(reference), 0.3, 1e-3, 1.0)
    theirs = LARS(groups, lr=0.3, momentum=0.9)
    for step in range(4):
        torch.manual_seed(step)
        for parameter, twin in zip(network.parameters(), reference.parameters(), strict=True):
            parameter.grad = torch.randn_like(parameter)
            twin.grad = parameter.grad.clone()
        own.step()
        theirs.step()
    for parameter, twin in zip(network.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(parameter, twin, rtol=1e-6, atol=1e-8)


def test_lars_moves_a_bias_that_is_zero(network):
    network[1].bias.data.zero_()
    network[1].bias.grad = torch.ones(8)
    OPTIMIZERS["lars"](one_group(network), 1, lr=0.1).step()
    assert torch.allclose(network[1].bias, torch.tensor(-0.1))


def test_lars_without_a_decay_is_refused_because_it_would_scale_nothing(network):
    with pytest.raises(RecipeError, match="LARS scales only decayed weights; set it above 0"):
        OPTIMIZERS["lars"](one_group(network), 1, lr=0.1, weight_decay=0.0)


def test_the_rate_may_change_between_steps_without_changing_the_decay_groups(network):
    """The loop sets the rate at every step; an optimiser must read it then."""
    for name in OPTIMIZERS:
        one = copy.deepcopy(network)
        optimizer = OPTIMIZERS[name](one_group(one), 1, lr=0.1)
        before = one[0].weight.clone()
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        one[0].weight.grad = torch.ones_like(one[0].weight)
        optimizer.step()
        assert torch.equal(one[0].weight, before)
