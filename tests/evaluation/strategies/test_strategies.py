"""What all strategies have in common; full, head_only, lp_ft and llrd by their defining properties."""

import itertools

import numpy as np
import pytest
import torch
from support.families import FAMILIES, family_backbone
from support.strategies import ADAMW, STEPS, made, moved, moved_blocks

from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.settings import evaluate_recipe
from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.models.blocks import blocks

PAIRS = [(strategy, family) for strategy in STRATEGIES for family in FAMILIES if strategy != "lora" or family == "vit"]

pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


# What all have in common


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_every_trainable_parameter_is_in_exactly_one_group(name, family):
    strategy, backbone, head = made(name, family)
    found = [id(parameter) for group in strategy.groups() for parameter in group.parameters]
    trainable = {id(p) for module in (backbone, head) for p in module.parameters() if p.requires_grad}
    assert len(found) == len(set(found)) and set(found) == trainable


def test_the_pairs_are_all_strategies_on_all_families_but_lora_on_vits_alone():
    assert len(PAIRS) == 46


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_every_group_has_a_rate_that_never_exceeds_the_schedule_s(name, family):
    strategy, *_ = made(name, family)
    for step, factor in itertools.product(range(STEPS), (1.0, 0.3)):
        rates = strategy.rates(step, factor)
        assert set(rates) == {group.name for group in strategy.groups()}
        limit = 1 if name == "lp_ft" else factor  # it has schedules of its own
        assert all(0 <= rate <= limit + 1e-9 for rate in rates.values())


@pytest.mark.parametrize("name", STRATEGIES)
def test_all_strategies_take_the_same_number_of_steps_and_in_each_the_head_learns(trained, name):
    record = trained(name, "vit", steps=4)
    assert record.steps == len(record.lines) == 4
    assert all(moved(record, step, "head") == {"linear.weight", "linear.bias"} for step in range(4))


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_starts_from_the_pretrained_features(name):
    images = torch.randn(2, 1, 32, 32)
    strategy, backbone, _ = made(name, "vit")
    with torch.inference_mode():
        assert torch.equal(backbone(images), family_backbone("vit")(images))
    assert strategy.schedule.total_steps == STEPS


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("{name: l2_sp, alpha: -1}", "alpha"),
        ("{name: llrd, decay: 0}", "decay"),
        ("{name: llrd, dekay: 0.5}", "Did you mean 'decay'"),
        ("{name: lp_ft, head_share: 1}", "head_share"),
        ("{name: full, alpha: 1}", "alpha"),
        ("ful", "Did you mean 'full'"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_read(strategy, message):
    with pytest.raises(RecipeError, match=message):
        evaluate_recipe("finetune", [f"strategy={strategy}"])


# full, head_only


@pytest.mark.parametrize("family", FAMILIES)
def test_full_moves_every_weight_and_every_statistic_of_the_backbone(trained, family):
    """Three steps: layers behind which a gain starts at 0 get no gradient in the first."""
    record = trained("full", family, "optimizer={name: adamw, lr: 0.01, weight_decay: 0.0}", steps=3)
    first, last = record.tensors[0], record.tensors[-1]
    names = [name for name, value in first.items() if value.ndim > 1 or "running" in name]
    assert len(names) > 5 and not any(torch.equal(first[name], last[name]) for name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_head_only_leaves_the_backbone_bit_identical_with_its_statistics(trained, family):
    record = trained("head_only", family, ADAMW, steps=3)
    for step in range(3):
        assert moved(record, step, "backbone") == set()
        assert moved(record, step, "head") == {"linear.weight", "linear.bias"}
    assert not any(training for name, training in record.modes[0].items() if name.startswith("backbone"))


def test_head_only_s_gradient_is_that_of_logistic_regression_on_frozen_features(trained):
    record = trained("head_only", "resnet", steps=1)
    before, after = record.tensors
    model = record.model
    batch = model.batch(0)
    with torch.no_grad():
        features = family_backbone("resnet")(batch.views[0].cpu())
    weight, bias = (before[f"head.linear.{name}"] for name in ("weight", "bias"))
    errors = (features @ weight.T + bias).softmax(1) - torch.eye(2)[batch.labels.cpu()]
    expected = weight - 0.05 * errors.T @ features / len(features)
    assert torch.allclose(after["head.linear.weight"], expected, atol=1e-6)


# lp_ft


def test_lp_ft_trains_the_head_alone_for_half_of_the_steps_and_then_everything(trained):
    record = trained("lp_ft")
    for step in range(STEPS):
        assert moved_blocks(record, step) == (set() if step < STEPS // 2 else set(range(5)))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_lp_ft_unfreezes_the_backbone_at_the_stated_share(share):
    strategy, *_ = made("lp_ft", steps=100, head_share=share)
    resting = [strategy.rates(step, 1.0)["backbone"] == 0 for step in range(100)]
    assert resting == [step < 100 * share for step in range(100)]


def test_lp_ft_s_second_part_has_a_lower_rate_and_each_part_its_own_cosine():
    strategy, *_ = made("lp_ft", steps=100, rate_share=0.2)
    rates = [strategy.rates(step, 1.0) for step in range(100)]
    cosine = [0.5 * (1 + np.cos(np.pi * step / 50)) for step in range(50)]
    assert [rate["head"] for rate in rates[:50]] == pytest.approx(cosine)
    assert [rate["head"] for rate in rates[50:]] == pytest.approx([0.2 * value for value in cosine])
    assert [rate["backbone"] for rate in rates[50:]] == [rate["head"] for rate in rates[50:]]


# llrd


@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_learns_more_slowly_by_the_same_factor_than_the_one_behind_it(family):
    strategy, backbone, _ = made("llrd", family, decay=0.5)
    rates = list(strategy.rates(0, 0.8).values())
    assert len(rates) == len(blocks(backbone.model, coarse=False)) + 1
    assert list(strategy.rates(0, 0.8))[-1] == "head" and rates[-1] == 0.8
    assert [lower / upper for lower, upper in itertools.pairwise(rates)] == pytest.approx([0.5] * (len(rates) - 1))


def test_without_decay_llrd_is_full_fine_tuning(trained):
    one, other = trained("full", steps=4), trained("{name: llrd, decay: 1}", steps=4)
    for name, value in one.tensors[-1].items():
        assert torch.allclose(other.tensors[-1][name], value, atol=1e-6), name


def test_the_first_layer_moves_by_its_share(trained):
    """One step of plain SGD: ways are as the rates are."""
    one, other = trained("full", steps=1), trained("{name: llrd, decay: 0.5}", steps=1)
    layers = len(blocks(family_backbone("resnet").model, coarse=False))
    name = "backbone.model.conv1.weight"
    ways = [float((record.tensors[1][name] - record.tensors[0][name]).norm()) for record in (one, other)]
    assert ways[1] / ways[0] == pytest.approx(0.5**layers, rel=0.05)
