"""L2-SP and L1-SP: the penalty on the distance from the pretrained weights."""

import numpy as np
import pytest
import torch
from support.families import family_backbone
from support.strategies import made

from ssl_transfer.training.optim import OPTIMIZERS, parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


# l2_sp, l1_sp


def away(name, by=0.5, **options):
    """A strategy whose backbone has moved from its start by as much in every number."""
    strategy, backbone, head = made(name, **options)
    start = {name: parameter.detach().clone() for name, parameter in backbone.named_parameters()}
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += by
    return strategy, backbone, head, start


@pytest.mark.parametrize("name", ["l2_sp", "l1_sp"])
def test_at_the_start_the_penalty_is_the_head_s_alone(name):
    strategy, _, head = made(name, alpha=3.0, beta=0.1)
    expected = 0.05 * sum(float(p.detach().double().square().sum()) for p in head.parameters())
    assert float(strategy.penalty()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["l2_sp", "l1_sp"])
def test_the_penalty_is_the_formula_of_the_paper(name):
    strategy, backbone, _, _ = away(name, 0.5, alpha=3.0, beta=0.0)
    count = sum(parameter.numel() for parameter in backbone.parameters())
    expected = 3 / 2 * 0.25 * count if name == "l2_sp" else 3 * 0.5 * count
    assert float(strategy.penalty()) == pytest.approx(expected, rel=1e-4)


def test_l2_sp_s_gradient_is_alpha_times_the_difference_from_the_start_and_beta_times_the_head():
    strategy, backbone, head, start = away("l2_sp", alpha=3.0, beta=0.1)
    strategy.penalty().backward()
    for name, parameter in backbone.named_parameters():
        assert torch.allclose(parameter.grad, 3 * (parameter - start[name]), rtol=1e-4, atol=1e-6)
    assert torch.allclose(head.linear.weight.grad, 0.1 * head.linear.weight, rtol=1e-4)


def test_l1_sp_s_gradient_is_alpha_times_the_sign_of_the_difference_from_the_start():
    for by in (0.5, -0.5):
        strategy, backbone, _, _ = away("l1_sp", by, alpha=3.0)
        strategy.penalty().backward()
        assert all((p.grad == np.sign(by) * 3).all() for p in backbone.parameters())


@pytest.mark.parametrize("name", ["l2_sp", "l1_sp"])
def test_the_pull_is_towards_the_start_and_not_towards_zero(name):
    strategy, backbone, _, start = away(name, 0.5, alpha=1.0)
    optimizer = OPTIMIZERS["sgd"](strategy.groups(), 4, lr=0.01, weight_decay=0.5, momentum=0.0)
    for _ in range(10):
        optimizer.zero_grad()
        strategy.penalty().backward()
        optimizer.step()
    rest = {name: (p - start[name]) / 0.5 for name, p in backbone.named_parameters()}
    assert all(((way > 0.75) & (way < 0.95)).all() for way in rest.values())  # 0.99¹⁰, or 10 · 0.01 of 0.5 less


@pytest.mark.parametrize("name", ["l2_sp", "l1_sp"])
def test_the_optimiser_s_own_decay_is_off(name):
    strategy, *_ = made(name)
    assert all(group["weight_decay"] == 0 for group in parameter_groups(strategy.groups(), 0.1, 0.5, 1.0))


@pytest.mark.parametrize("name", ["l2_sp", "l1_sp"])
def test_the_penalty_is_float32_under_autocast(name):
    strategy, *_ = away(name)
    expected = strategy.penalty()
    with torch.autocast("cpu", torch.bfloat16):
        assert strategy.penalty().dtype == torch.float32 and torch.equal(strategy.penalty(), expected)


def way_of(record):
    """How far the backbone's parameters have moved."""
    names = [f"backbone.{name}" for name, _ in family_backbone("resnet").named_parameters()]
    return sum(float((record.tensors[-1][name] - record.tensors[0][name]).square().sum()) for name in names) ** 0.5


@pytest.mark.parametrize(("name", "alpha"), [("l2_sp", 5.0), ("l1_sp", 0.05)])
def test_a_stronger_penalty_ends_nearer_to_the_start(trained, name, alpha):
    ways = [way_of(trained(f"{{name: {name}, alpha: {strength}}}")) for strength in (0.0, alpha)]
    assert ways[1] < 0.8 * ways[0]


def test_without_penalties_l2_sp_is_full_fine_tuning(trained):
    one, other = trained("full", steps=4), trained("{name: l2_sp, alpha: 0, beta: 0}", steps=4)
    for name, value in one.tensors[-1].items():
        assert torch.allclose(other.tensors[-1][name], value, atol=1e-6), name


def test_the_loss_that_is_logged_has_the_penalty_in_it(trained):
    without, with_it = trained("full", steps=1), trained("{name: l2_sp, alpha: 0, beta: 100}", steps=1)
    head = with_it.tensors[0]["head.linear.weight"]
    assert with_it.lines[0]["loss"] - without.lines[0]["loss"] == pytest.approx(
        50 * float(head.square().sum()), rel=1e-3
    )
