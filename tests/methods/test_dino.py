"""DINO against a naive transcription of its paper: terms, centre, temperatures, the held output layer."""

import pytest
import torch
from support.naive_methods import assert_equal_losses_and_gradients, perturb, twin
from support.tiny_methods import FIXED_VIT, IMAGES, RESNET, SIDE, VIT, new_batch, new_method

from ssl_transfer.errors import RecipeError
from ssl_transfer.schedule import Schedule


def naive_loss_and_center(naive, batch, center, target_temperature, temperature=0.1, center_momentum=0.9):
    """Caron et al. 2021, Algorithm 1, with the sum of its equation 3 over global x and all other views x′."""
    local = batch.views[2:]
    features = [naive.backbone(torch.cat(batch.views[:2]))]  # BatchNorm sees all views of a size, its head all views
    features += [naive.backbone(torch.cat(local))] if local else []
    s = naive.projection_head(torch.cat(features)).chunk(len(batch.views))
    t = naive.momentum_network[1](naive.momentum_network[0](torch.cat(batch.views[:2]))).detach().chunk(2)

    def h(target, output):
        p = torch.softmax((target - center) / target_temperature, dim=0)
        return -(p * torch.log(torch.softmax(output / temperature, dim=0))).sum()

    terms = [(a, b) for a in range(2) for b in range(len(s)) if a != b]
    loss = sum(h(t[a][i], s[b][i]) for a, b in terms for i in range(IMAGES)) / IMAGES / len(terms)
    return loss, center_momentum * center + (1 - center_momentum) * torch.cat(t).mean(0)


def prepared(kind, **options):
    """A DINO some steps on: its slow copy and its centre are others than at the start."""
    method = new_method("dino", kind, **options)
    perturb(method.momentum_network, 0.3)
    method.criterion.center += torch.randn(24) * 0.1
    return method


@pytest.mark.parametrize("local_views", [0, 1, 3])
@pytest.mark.parametrize("kind", [RESNET, VIT], ids=["resnet", "vit"])
def test_dino_is_the_paper_s_cross_entropy_over_all_pairs_of_other_views(kind, local_views):
    method = prepared(kind, local_views=local_views)
    naive, batch = twin(method), new_batch(method)
    assert len(batch.views) == 2 + local_views
    naive_loss, _ = naive_loss_and_center(naive, batch, method.criterion.center.double()[0, 0], 0.04)
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


def test_dino_s_centre_follows_the_mean_target_and_the_next_loss_sees_it():
    method = new_method("dino")
    perturb(method.momentum_network, 0.3)
    naive = twin(method)
    center = torch.zeros(24, dtype=torch.float64)
    for step in range(4):
        batch = new_batch(method, step)
        expected, center = naive_loss_and_center(naive, batch, center, 0.04)
        assert method(batch, step)["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
        assert torch.allclose(method.criterion.center.double()[0, 0], center, atol=1e-6)
    assert center.abs().max() > 1e-3


def test_dino_s_centre_is_in_the_state_so_that_a_resumed_run_has_it():
    method, other = prepared(RESNET), new_method("dino")
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.criterion.center, method.criterion.center)


@pytest.mark.parametrize(
    ("step", "temperature"), [(0, 0.04), (10, 0.05), (15, 0.055), (29, 0.069), (30, 0.07), (99, 0.07)]
)
def test_dino_s_target_temperature_warms_up_over_steps_and_the_loss_uses_it(step, temperature):
    """The paper, section 3.2: a linear warm-up from 0.04 to 0.07 during the first epochs."""
    method = prepared(RESNET, target_temperature=0.07, warmup_target_temperature=0.04, warmup_epochs=3)
    method.schedule = Schedule(steps_per_epoch=10, total_steps=100)
    assert method.target_temperature(step) == pytest.approx(temperature)
    naive, batch = twin(method), new_batch(method)
    expected, _ = naive_loss_and_center(naive, batch, method.criterion.center.double()[0, 0], temperature)
    assert method(batch, step)["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_dino_without_a_warm_up_has_one_target_temperature():
    method = new_method("dino", target_temperature=0.06, warmup_epochs=0)
    assert [method.target_temperature(step) for step in (0, 1, 50)] == [0.06] * 3


def test_dino_freezes_only_its_output_layer_during_the_first_epochs():
    """Appendix C: the last layer is held during the first epoch; decay and momentum of the optimiser included."""
    method = new_method("dino", frozen_output_epochs=1.5)
    method.schedule = Schedule(steps_per_epoch=4, total_steps=100)
    optimizer = torch.optim.SGD(
        [p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9, weight_decay=0.1
    )
    moves = {"projection_head.last_layer.weight_v": [], "projection_head.layers.0.weight": []}
    for step in range(8):
        before = {name: method.get_parameter(name).clone() for name in moves}
        method(new_batch(method, step), step)["loss"].backward()
        method.after_backward(step)
        optimizer.step()
        optimizer.zero_grad()
        for name, moved in moves.items():
            moved.append(not torch.equal(method.get_parameter(name), before[name]))
    assert moves["projection_head.last_layer.weight_v"] == [False] * 6 + [True] * 2
    assert all(moves["projection_head.layers.0.weight"])


def test_dino_s_output_layer_has_rows_of_length_one():
    method = new_method("dino")
    method(new_batch(method), 0)
    assert torch.allclose(method.projection_head.last_layer.weight.norm(dim=1), torch.ones(24, dtype=torch.float64))


@pytest.mark.parametrize(("kind", "norms"), [(RESNET, 4), (VIT, 0)], ids=["resnet", "vit"])
def test_dino_is_free_of_batchnorm_on_a_vit(kind, norms):
    method = new_method("dino", kind)
    heads = [method.projection_head, method.momentum_network[1]]
    assert sum(isinstance(m, torch.nn.BatchNorm1d) for head in heads for m in head.modules()) == norms


def test_local_views_on_a_vit_of_one_size_are_refused():
    with pytest.raises(
        RecipeError, match=rf"method.local_size: {FIXED_VIT[0]} cannot read images of 8 px .*"
    ) as refusal:
        new_method("dino", FIXED_VIT)
    assert "set backbone.options.dynamic_img_size=true and a multiple of its patch size" in str(refusal.value)


def test_local_views_larger_than_the_global_ones_are_refused():
    with pytest.raises(RecipeError, match=r"method\.local_size: 96 px, larger than the global views"):
        new_method("dino", FIXED_VIT, local_size=96)


@pytest.mark.parametrize("options", [{"local_views": 0}, {"local_size": SIDE}], ids=["none", "as large"])
def test_a_vit_of_one_size_takes_views_of_its_size(options):
    method = new_method("dino", FIXED_VIT, **options)
    assert torch.isfinite(method(new_batch(method), 0)["loss"])
