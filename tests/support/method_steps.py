"""Shared by the tests of single methods: some steps of a method, so that what an option changes can be seen."""

import torch
from support.tiny_methods import PRESET, new_batch, new_method

from ssl_transfer.schedule import Schedule

STEPS = 3


def trace(name, kind=None, **options):
    """What a method is and does in three steps: its views, its losses, and its parameters at the end."""
    method = new_method(name, kind, **options)
    method.schedule = Schedule(steps_per_epoch=1, total_steps=10)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    losses = [step_of(method, optimizer, step) for step in range(STEPS)]
    return method.view_presets(PRESET), losses, torch.cat([p.detach().flatten() for p in method.parameters()])


def step_of(method, optimizer, step):
    """One step, in the order of the loop; its loss."""
    loss = method(new_batch(method, step), step)["loss"]
    optimizer.zero_grad()
    loss.backward()
    method.after_backward(step)
    optimizer.step()
    method.after_step(step + 1)
    return loss.item()


def differ(first, second):
    """Whether two traces differ in views, losses or parameters."""
    return first[:2] != second[:2] or first[2].shape != second[2].shape or not torch.equal(first[2], second[2])
