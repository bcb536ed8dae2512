"""BYOL and SimSiam against naive transcriptions of their papers, and the momentum that rises along a cosine."""

import math

import pytest
import torch
from support.naive_methods import assert_equal_losses_and_gradients, perturb, twin, unit
from support.tiny_methods import IMAGES, new_batch, new_method

from ssl_transfer.schedule import Schedule


def test_byol_is_the_paper_s_loss_in_both_directions():
    """Grill et al. 2020, Algorithm 1: Σ over both directions of 2 − 2cos(q(z), sg(z′)), mean over images."""
    method = new_method("byol")
    perturb(method.momentum_network)
    naive, batch = twin(method), new_batch(method)
    online = [naive.prediction_head(naive.projection_head(naive.backbone(view))) for view in batch.views]
    target = [naive.momentum_network[1](naive.momentum_network[0](view)).detach() for view in batch.views]
    naive_loss = (
        sum(2 - 2 * unit(online[a][i]) @ unit(target[b][i]) for a, b in ((0, 1), (1, 0)) for i in range(IMAGES))
        / IMAGES
    )
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


def test_simsiam_is_half_of_the_negative_cosines_with_stopped_projections():
    """Chen & He 2021, Algorithm 1: L = D(p₁, sg(z₂))/2 + D(p₂, sg(z₁))/2, D the negative cosine, mean over images."""
    method = new_method("simsiam")
    naive, batch = twin(method), new_batch(method)
    z = [naive.projection_head(naive.backbone(view)) for view in batch.views]
    p = [naive.prediction_head(projection) for projection in z]

    def distance(predictions, projections):
        return -sum(unit(predictions[i]) @ unit(projections[i].detach()) for i in range(IMAGES)) / IMAGES

    naive_loss = distance(p[0], z[1]) / 2 + distance(p[1], z[0]) / 2
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


@pytest.mark.parametrize("name", ["byol", "mocov3", "dino", "moco"])
def test_a_momentum_network_has_no_gradient_and_starts_as_its_original(name):
    method = new_method(name)
    method(new_batch(method), 0)["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in method.momentum_network.parameters())
    for original, slow in ((method.backbone, 0), (method.projection_head, 1)):
        pairs = zip(original.parameters(), method.momentum_network[slow].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["byol", "mocov3", "dino"])
@pytest.mark.parametrize("step", [1, 250, 500, 750, 1000])
def test_the_momentum_goes_from_its_start_to_one_along_a_cosine(name, step):
    """Grill et al. 2020, section 3.3: τ = 1 − (1 − τ₀)(cos(πk/K) + 1)/2; MoCo v3 and DINO took it over."""
    method, total = new_method(name, momentum=0.9), 1000
    method.schedule = Schedule(steps_per_epoch=100, total_steps=total)
    before = twin(method.momentum_network)
    perturb(method.backbone, 1.0)
    perturb(method.projection_head, 1.0)
    method.after_step(step)
    momentum = 1 - (1 - 0.9) * (math.cos(math.pi * step / total) + 1) / 2
    originals = [*method.backbone.parameters(), *method.projection_head.parameters()]
    for old, moved, original in zip(before.parameters(), method.momentum_network.parameters(), originals, strict=True):
        assert torch.allclose(moved, momentum * old + (1 - momentum) * original, atol=1e-3)
