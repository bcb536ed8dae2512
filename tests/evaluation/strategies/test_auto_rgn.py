"""Auto-RGN: rates in proportion to relative gradient norms."""

import itertools

import pytest
import torch
from support.families import family_backbone
from support.strategies import made

from ssl_transfer.evaluation.strategies.auto_rgn import relative_shares

pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


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
    model = record.model
    model.load_state_dict(record.tensors[0])
    parameters = {name: p for name, p in model.named_parameters()}
    ratios = dict.fromkeys(parameters, 0.0)
    for step in range(3):
        model.zero_grad()
        model(model.batch(step), step)["loss"].backward()
        for name, parameter in parameters.items():
            ratios[name] += float(parameter.grad.norm() / parameter.detach().norm().clamp(min=1e-12)) / 3
    counted = {name: ratio for name, ratio in ratios.items() if float(parameters[name].detach().norm()) > 0}
    names = {f"backbone.model.{name}": name for name in model.strategy.backbone_parameters} | {
        name: name for name in model.strategy.head_parameters
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
