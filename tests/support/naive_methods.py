"""Shared by the tests of methods: how a method is held against a naive transcription of its paper."""

import copy

import pytest
import torch
from support.tiny_methods import assert_same_tensors, gradients


def unit(vector):
    """A vector (D,) of length 1."""
    return vector / vector.norm()


def twin(method):
    """A copy to transcribe with; what a weight norm has computed must be let go first, it is no parameter."""
    for module in method.modules():
        if hasattr(module, "weight_v"):
            module.weight = module.weight.detach()
    return copy.deepcopy(method)


def perturb(module, strength=0.1):
    """Make a momentum network another one than its original, as it is some steps later."""
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter) * strength)


def assert_equal_losses_and_gradients(method, loss, naive, naive_loss):
    """Back-propagate both; losses and the gradient of every parameter must agree."""
    for module, value in ((method, loss), (naive, naive_loss)):
        module.zero_grad()
        value.backward()
    assert float(loss.detach()) == pytest.approx(float(naive_loss.detach()), rel=1e-6)
    expected = gradients(naive)
    assert len(expected) > 10
    assert_same_tensors(gradients(method), expected)
