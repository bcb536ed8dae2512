"""Gradual unfreezing: which block opens when, and what a closed one keeps."""

import pytest
import torch
from support.families import FAMILIES, family_backbone
from support.strategies import ADAMW, STEPS, made, moved_blocks

from ssl_transfer.models.blocks import blocks

pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


# gradual


def open_blocks(direction, step):
    """Of the five blocks of a ResNet in twelve steps."""
    if direction == "last_first":
        phase = step // 2  # six phases: head, and each block
        return set(range(5 - phase, 5))
    return set(range(step * 5 // STEPS + 1))  # five: head and stem together, and each further block


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("direction", ["last_first", "first_last"])
def test_gradual_opens_the_right_block_at_the_right_step_and_keeps_it_open(trained, direction, optimizer):
    record = trained(f"gradual_{direction}", "resnet", *([ADAMW] if optimizer == "adamw" else []))
    assert len(blocks(family_backbone("resnet").model)) == 5
    for step in range(STEPS):
        assert moved_blocks(record, step) == open_blocks(direction, step)


@pytest.mark.parametrize("direction", ["last_first", "first_last"])
def test_the_batchnorm_of_a_closed_block_is_in_eval_and_that_of_an_open_one_in_train(trained, direction):
    record = trained(f"gradual_{direction}")
    norms = ["bn1", "layer1.0.bn1", "layer2.0.bn2", "layer3.0.downsample.1", "layer4.1.bn2"]  # one of each block
    for step, modes in enumerate(record.modes):
        assert {n for n, norm in enumerate(norms) if modes[f"backbone.model.{norm}"]} == open_blocks(direction, step)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("direction", ["last_first", "first_last"])
def test_gradual_divides_the_steps_equally_and_ends_with_everything_open(direction, family):
    phases = len(blocks(family_backbone(family).model)) + (direction == "last_first")
    strategy, *_ = made(f"gradual_{direction}", family, steps=10 * phases)
    counts = [sum(rate > 0 for rate in strategy.rates(step, 1.0).values()) for step in range(10 * phases)]
    first = 1 if direction == "last_first" else 2
    assert counts == [first + step // 10 for step in range(10 * phases)]
    assert counts[-1] == len(strategy.groups())


def test_closed_blocks_do_not_count_for_clipping(trained):
    """While the head learns alone, its step has exactly the clipped length."""
    record = trained("gradual_last_first", "resnet", "train.clip_gradient=0.01")
    step = torch.cat(
        [
            (record.tensors[1][name] - record.tensors[0][name]).flatten()
            for name in ("head.linear.weight", "head.linear.bias")
        ]
    )
    assert float(step.norm()) == pytest.approx(0.05 * 0.01, rel=1e-3)


def test_a_block_that_starts_to_train_has_no_momentum(trained):
    """The first step of the last block is that of plain SGD, though its gradients were computed all along."""
    momentum = "optimizer={name: sgd, lr: 0.05, momentum: 0.99, weight_decay: 0.0}"
    record = trained("gradual_last_first", "resnet", momentum)
    state = record.tensors[2]
    model, rate = record.model, record.lines[2]["lr"]
    model.load_state_dict(state)
    name = "backbone.model.layer4.1.bn2.weight"  # a gain that starts at 0; the layers before it get no gradient yet
    gradient = dict(
        zip([name for group in model.groups() for name in _names(model, group)], model.gradients(2), strict=True)
    )[name]
    difference = record.tensors[3][name] - state[name]
    assert difference.abs().max() > 1e-5
    torch.testing.assert_close(difference, -rate * gradient.cpu(), rtol=1e-3, atol=1e-7)


def _names(model, group):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for parameter in group.parameters]
