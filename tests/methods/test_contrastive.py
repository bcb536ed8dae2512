"""SimCLR and MoCo v3 against naive transcriptions of their papers."""

import copy

import pytest
import torch
from lightly.loss import NTXentLoss
from support.naive_methods import assert_equal_losses_and_gradients, perturb, twin, unit
from support.tiny_methods import IMAGES, RESNET, VIT, new_batch, new_method

from ssl_transfer.methods.simclr import nt_xent


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_is_the_paper_s_nt_xent_over_all_pairs(temperature):
    """Chen et al. 2020, Algorithm 1: l(i, j) = −log exp(s_ij/τ) / Σ_{k≠i} exp(s_ik/τ), mean over 2N ordered pairs."""
    method = new_method("simclr", temperature=temperature)
    naive, batch = twin(method), new_batch(method)
    z = naive.projection_head(naive.backbone(torch.cat(batch.views)))
    interleaved = [row for k in range(IMAGES) for row in (z[k], z[k + IMAGES])]  # the paper's 2k−1 and 2k
    similarity = [[unit(a) @ unit(b) for b in interleaved] for a in interleaved]

    def term(i, j):
        rest = sum(torch.exp(similarity[i][k] / temperature) for k in range(2 * IMAGES) if k != i)
        return -torch.log(torch.exp(similarity[i][j] / temperature) / rest)

    naive_loss = sum(term(2 * k, 2 * k + 1) + term(2 * k + 1, 2 * k) for k in range(IMAGES)) / (2 * IMAGES)
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


def test_nt_xent_is_lightly_s():
    first, second = torch.randn(2, 8, 16, dtype=torch.float64).requires_grad_()
    losses = nt_xent(first, second, 0.1), NTXentLoss(0.1)(first, second)
    gradients = [torch.autograd.grad(loss, (first, second)) for loss in losses]
    assert torch.allclose(*losses)
    assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("kind", [RESNET, VIT], ids=["resnet", "vit"])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_mocov3_is_the_paper_s_loss_in_both_directions_times_two_tau(kind, temperature):
    """Chen, Xie & He 2021, Algorithm 1: ctr(q₁, k₂) + ctr(q₂, k₁), each 2τ · cross-entropy of q·k/τ over the batch."""
    method = new_method("mocov3", kind, temperature=temperature)
    perturb(method.momentum_network)
    naive, batch = twin(method), new_batch(method)
    q = [naive.prediction_head(naive.projection_head(naive.backbone(view))) for view in batch.views]
    k = [naive.momentum_network[1](naive.momentum_network[0](view)).detach() for view in batch.views]

    def ctr(queries, keys):
        loss = 0
        for i in range(IMAGES):
            exponentials = [torch.exp(unit(queries[i]) @ unit(keys[j]) / temperature) for j in range(IMAGES)]
            loss = loss - torch.log(exponentials[i] / sum(exponentials)) / IMAGES
        return 2 * temperature * loss

    naive_loss = ctr(q[0], k[1]) + ctr(q[1], k[0])
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


def test_mocov3_keeps_the_initial_patch_embedding_of_a_vit():
    """Section 4.2 of the paper: a random patch projection that is not trained is more stable."""
    method = new_method("mocov3", VIT)
    born = copy.deepcopy(method.backbone.model.patch_embed.state_dict())
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1.0, weight_decay=0.1)
    method(new_batch(method), 0)["loss"].backward()
    optimizer.step()
    method.after_step(1)
    for module in (method.backbone.model, method.momentum_network[0].model):
        assert all(torch.equal(value, born[name]) for name, value in module.patch_embed.state_dict().items())


def test_mocov3_trains_the_patch_embedding_if_told_to():
    method = new_method("mocov3", VIT, frozen_patch_embedding=False)
    method(new_batch(method), 0)["loss"].backward()
    assert method.backbone.model.patch_embed.proj.weight.grad.abs().sum() > 0


def test_mocov3_has_no_gradient_in_its_momentum_network():
    method = new_method("mocov3")
    method(new_batch(method), 0)["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in method.momentum_network.parameters())
