"""Strategies, each by its defining property: what learns when, how fast, and what holds it back."""

import copy
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.families import FAMILIES, family_backbone
from support.tiny_tasks import class_task, judge

from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.stage import evaluate_recipe
from ssl_transfer.evaluation.strategies.auto_rgn import relative_shares
from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.evaluation.task_model import TaskModel
from ssl_transfer.methods.objective import Course
from ssl_transfer.models.blocks import blocks
from ssl_transfer.models.heads import ClassifierHead
from ssl_transfer.training.optim import OPTIMIZERS, parameter_groups

PAIRS = [(strategy, family) for strategy in STRATEGIES for family in FAMILIES if strategy != "lora" or family == "vit"]
STEPS = 12
ADAMW = "optimizer={name: adamw, lr: 0.01, weight_decay: 0.1}"
pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


def made(name, family="resnet", steps=STEPS, steps_per_epoch=1, **options):
    """A strategy, its backbone and its head."""
    backbone = family_backbone(family)
    torch.manual_seed(0)
    head = ClassifierHead(backbone.feature_dim, 2)
    return STRATEGIES[name](backbone, head, Course(0, steps_per_epoch, steps), **options), backbone, head


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return class_task(tmp_path_factory.mktemp("task"))


@pytest.fixture
def trained(task, tmp_path, monkeypatch):
    """Fine-tunes, and records every tensor and every layer's mode before each step, and the tensors in the end."""
    number = itertools.count()

    def train(strategy, family="resnet", *overrides, steps=STEPS):
        tensors, modes, learners = [], [], []
        before_step = TaskModel.before_step

        def recorded(learner, step):
            before_step(learner, step)
            learners.append(learner)
            tensors.append(copy.deepcopy(learner.state_dict()))
            modes.append({name: layer.training for name, layer in learner.named_modules()})

        with monkeypatch.context() as patch:
            patch.setattr(TaskModel, "before_step", recorded)
            backbone, out = family_backbone(family), tmp_path / str(next(number))
            judge("finetune", backbone, task, out, f"strategy={strategy}", f"train.steps={steps}", *overrides)
        tensors.append(copy.deepcopy(learners[-1].state_dict()))
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return SimpleNamespace(tensors=tensors, modes=modes, lines=lines, learner=learners[-1], steps=len(modes))

    return train


def moved(record, step, part):
    """Names of a part's tensors that a step changes, without the part's name."""
    now, then = record.tensors[step], record.tensors[step + 1]
    return {
        name.removeprefix(f"{part}.")
        for name in now
        if name.startswith(part) and not torch.equal(now[name], then[name])
    }


def moved_blocks(record, step):
    """Numbers of the blocks of which a step changes a parameter or a statistic."""
    found = blocks(family_backbone("resnet").model)
    layers = [{name.rpartition(".")[0] for name in block.parameters} for block in found]
    changed = {name.rpartition(".")[0] for name in moved(record, step, "backbone.model")}
    return {number for number, own in enumerate(layers) if own & changed}


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
def test_a_rate_is_told_for_every_group_and_never_exceeds_the_schedule_s(name, family):
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
    assert strategy.course.total_steps == STEPS


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
    learner = record.learner
    batch = learner.batch(0)
    with torch.no_grad():
        features = family_backbone("resnet")(batch.views[0])
    weight, bias = (before[f"head.linear.{name}"] for name in ("weight", "bias"))
    errors = (features @ weight.T + bias).softmax(1) - torch.eye(2)[batch.labels]
    expected = weight - 0.05 * errors.T @ features / len(features)
    assert torch.allclose(after["head.linear.weight"], expected, atol=1e-6)


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


def test_a_block_that_opens_carries_no_momentum_from_before(trained):
    """The first step of the last block is that of plain SGD, though its gradients were computed all along."""
    momentum = "optimizer={name: sgd, lr: 0.05, momentum: 0.99, weight_decay: 0.0}"
    record = trained("gradual_last_first", "resnet", momentum)
    state = record.tensors[2]
    learner, rate = record.learner, record.lines[2]["lr"]
    learner.load_state_dict(state)
    name = "backbone.model.layer4.1.bn2.weight"  # a gain that starts at 0; the layers before it get no gradient yet
    gradient = dict(
        zip([name for group in learner.groups() for name in _names(learner, group)], learner.gradients(2), strict=True)
    )[name]
    difference = record.tensors[3][name] - state[name]
    assert difference.abs().max() > 1e-5 and torch.allclose(difference, -rate * gradient, rtol=1e-3, atol=1e-7)


def _names(learner, group):
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    return [names[id(parameter)] for parameter in group.parameters]


# lp_ft


def test_lp_ft_trains_the_head_alone_for_half_of_the_steps_and_then_everything(trained):
    record = trained("lp_ft")
    for step in range(STEPS):
        assert moved_blocks(record, step) == (set() if step < STEPS // 2 else set(range(5)))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_lp_ft_turns_at_the_stated_share(share):
    strategy, *_ = made("lp_ft", steps=100, head_share=share)
    resting = [strategy.rates(step, 1.0)["backbone"] == 0 for step in range(100)]
    assert resting == [step < 100 * share for step in range(100)]


def test_lp_ft_s_second_part_has_a_lower_rate_and_each_part_a_cosine_of_its_own():
    strategy, *_ = made("lp_ft", steps=100, rate_share=0.2)
    rates = [strategy.rates(step, 1.0) for step in range(100)]
    cosine = [0.5 * (1 + np.cos(np.pi * step / 50)) for step in range(50)]
    assert [rate["head"] for rate in rates[:50]] == pytest.approx(cosine)
    assert [rate["head"] for rate in rates[50:]] == pytest.approx([0.2 * value for value in cosine])
    assert [rate["backbone"] for rate in rates[50:]] == [rate["head"] for rate in rates[50:]]


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


def test_l2_sp_s_gradient_is_alpha_times_the_way_from_the_start_and_beta_times_the_head():
    strategy, backbone, head, start = away("l2_sp", alpha=3.0, beta=0.1)
    strategy.penalty().backward()
    for name, parameter in backbone.named_parameters():
        assert torch.allclose(parameter.grad, 3 * (parameter - start[name]), rtol=1e-4, atol=1e-6)
    assert torch.allclose(head.linear.weight.grad, 0.1 * head.linear.weight, rtol=1e-4)


def test_l1_sp_s_gradient_is_alpha_times_the_sign_of_the_way_from_the_start():
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
    assert all(group["weight_decay"] == 0 for group in parameter_groups(strategy.groups(), 0.5))


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
def test_a_stronger_pull_ends_nearer_to_the_start(trained, name, alpha):
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


# auto_rgn


def test_auto_rgn_s_shares_lie_in_0_to_1_reach_1_in_backbone_and_head_and_change_with_every_epoch(trained):
    record = trained("{name: auto_rgn, batches: 2}", steps=6)  # eight images, batches of four: two steps are an epoch
    shares = torch.stack([tensors["strategy.shares"] for tensors in record.tensors[:-1]])
    tensors_of_backbone = len(list(family_backbone("resnet").parameters()))
    assert shares.shape == (6, tensors_of_backbone + 2)
    assert ((shares > 0) & (shares <= 1)).all()
    assert (shares[:, :tensors_of_backbone].amax(1) == 1).all() and (shares[:, tensors_of_backbone:].amax(1) == 1).all()
    assert len({float(share) for share in shares[0]}) > 5
    changed = [not torch.equal(one, other) for one, other in itertools.pairwise(shares)]
    assert changed == [False, True, False, True, False]


def test_auto_rgn_s_rates_are_the_schedule_s_times_the_shares():
    strategy, *_ = made("auto_rgn")
    strategy.shares.copy_(torch.linspace(0.1, 1, len(strategy.shares)))
    assert list(strategy.rates(0, 0.5).values()) == pytest.approx((0.5 * strategy.shares).tolist())


def test_auto_rgn_s_shares_are_those_of_a_naive_computation(trained):
    record = trained("{name: auto_rgn, batches: 3}", "vit", steps=1)
    learner = record.learner
    learner.load_state_dict(record.tensors[0])
    parameters = {name: p for name, p in learner.named_parameters()}
    ratios = dict.fromkeys(parameters, 0.0)
    for step in range(3):
        learner.zero_grad()
        learner(learner.batch(step), step)["loss"].backward()
        for name, parameter in parameters.items():
            ratios[name] += float(parameter.grad.norm() / parameter.detach().norm().clamp(min=1e-12)) / 3
    counted = {name: ratio for name, ratio in ratios.items() if float(parameters[name].detach().norm()) > 0}
    names = {f"backbone.model.{name}": name for name in learner.strategy.backbone_parameters} | {
        name: name for name in learner.strategy.head_parameters
    }
    shares = dict(zip([*names], record.tensors[0]["strategy.shares"].tolist(), strict=True))
    for part in ("backbone", "head"):
        highest = max(ratio for name, ratio in counted.items() if name.startswith(part))
        for name, share in shares.items():
            if name.startswith(part):
                expected = counted[name] / highest if name in counted else 1.0
                assert share == pytest.approx(max(expected, 1e-6), rel=1e-3), name


def test_measuring_gradients_changes_nothing_else(trained):
    record = trained("auto_rgn", steps=1)
    before = family_backbone("resnet").state_dict()
    assert all(torch.equal(record.tensors[0][f"backbone.{name}"], value) for name, value in before.items())


def test_a_fresh_head_does_not_slow_the_backbone_down():
    shares = relative_shares(torch.tensor([1.0, 2.0, 1000.0, 500.0]), torch.ones(4), backbone_tensors=2)
    assert shares.tolist() == [0.5, 1.0, 1.0, 0.5]


def test_a_tensor_of_norm_0_has_the_peak_rate_and_leaves_the_maximum_to_others():
    shares = relative_shares(
        torch.tensor([1.0, 1e12, 4.0, 1.0]), torch.tensor([1.0, 0.0, 1.0, 1.0]), backbone_tensors=3
    )
    assert shares.tolist() == [0.25, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("norms", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
def test_where_nothing_can_be_compared_all_have_the_peak_rate(norms):
    assert relative_shares(torch.zeros(3), torch.tensor(norms), backbone_tensors=2).tolist() == [1.0, 1.0, 1.0]


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


# lora


def test_lora_leaves_the_pretrained_weights_bit_identical_and_moves_adapters_and_head(trained):
    record = trained("lora", "vit", ADAMW, steps=3)
    pretrained = family_backbone("vit").model.state_dict()
    final = {name.replace(".base_layer", ""): value for name, value in record.tensors[-1].items()}
    assert all(torch.equal(final[f"backbone.model.{name}"], value) for name, value in pretrained.items())
    adapters = {name for name in record.tensors[-1] if "lora_" in name}
    assert len(adapters) == 2 * 2 * 2  # two blocks, qkv and proj, A and B
    assert {f"backbone.model.{name}" for name in moved(record, 1, "backbone.model")} == adapters
    assert moved(record, 0, "head") == {"linear.weight", "linear.bias"}


@pytest.mark.parametrize("rank", [1, 4])
def test_an_adapter_has_the_stated_rank(rank):
    strategy, *_ = made("lora", "vit", rank=rank)
    assert {min(parameter.shape) for parameter in strategy.backbone_parameters.values()} == {rank}


def test_lora_can_adapt_other_layers():
    strategy, *_ = made("lora", "vit", layers=("fc1",))
    assert len(strategy.backbone_parameters) == 4 and all(".fc1." in name for name in strategy.backbone_parameters)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "vit"])
def test_lora_on_a_family_without_attention_is_refused_with_what_to_take(family):
    with pytest.raises(RecipeError, match=r"has no linear layers called qkv or proj.*Take a ViT"):
        made("lora", family)


def test_lora_s_random_start_depends_on_the_seed_alone(trained):
    torch.manual_seed(1)
    one = trained("lora", "vit", steps=1)
    torch.manual_seed(2)
    other = trained("lora", "vit", steps=1)
    assert all(torch.equal(value, other.tensors[0][name]) for name, value in one.tensors[0].items())
