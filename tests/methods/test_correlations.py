"""Barlow Twins and VICReg against naive transcriptions of their papers."""

import pytest
import torch
from lightly.loss import VICRegLoss
from support.naive_methods import assert_equal_losses_and_gradients, twin
from support.tiny_methods import IMAGES, new_batch, new_method

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.vicreg import vicreg_loss

DIM = 16


def project(naive, batch):
    return [naive.projection_head(naive.backbone(view)) for view in batch.views]


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize(("redundancy", "scale"), [(5e-3, 1.0), (0.5, 0.025)])
def test_barlow_twins_is_the_paper_s_distance_of_the_cross_correlation_from_identity(redundancy, scale):
    """Zbontar et al. 2021, Algorithm 1: Σ_i (1 − C_ii)² + λ Σ_i Σ_{j≠i} C_ij², C of projections standardised over the batch.

    The spread is BatchNorm's, as in the authors' code: ddof 0, and 1e-5 is added to the variance.
    """
    method = new_method("barlowtwins", redundancy=redundancy, loss_scale=scale)
    naive, batch = twin(method), new_batch(method)

    def standardised(z):
        columns = []
        for d in range(DIM):
            centre = mean([z[i, d] for i in range(IMAGES)])
            variance = mean([(z[i, d] - centre) ** 2 for i in range(IMAGES)])
            columns.append([(z[i, d] - centre) / (variance + 1e-5).sqrt() for i in range(IMAGES)])
        return columns

    a, b = (standardised(z) for z in project(naive, batch))
    naive_loss = 0
    for i in range(DIM):
        for j in range(DIM):
            c = mean([a[i][n] * b[j][n] for n in range(IMAGES)])
            naive_loss = naive_loss + ((1 - c) ** 2 if i == j else redundancy * c**2)
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, scale * naive_loss)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_vicreg_is_the_paper_s_invariance_variance_and_covariance(weights):
    """Bardes, Ponce & LeCun 2022, Algorithm 1: λ·mse + μ·hinge of √(var + 1e-4) at 1 + ν·off-diagonal cov²/D.

    Variance and covariance have ddof 1. The hinge is the mean of both views', as in the authors' code;
    the paper's listing adds them.
    """
    method = new_method("vicreg", **dict(zip(("invariance", "variance", "covariance"), weights, strict=True)))
    method.projection_head.layers[-1].weight.data *= 2  # some dimensions spread by more than 1, others by less
    naive, batch = twin(method), new_batch(method)
    a, b = project(naive, batch)
    invariance = mean([mean([(a[i, d] - b[i, d]) ** 2 for d in range(DIM)]) for i in range(IMAGES)])

    def covariance(z, i, j):
        centre_i, centre_j = mean(list(z[:, i])), mean(list(z[:, j]))
        return sum((z[n, i] - centre_i) * (z[n, j] - centre_j) for n in range(IMAGES)) / (IMAGES - 1)

    spreads = [[(covariance(z, d, d) + 1e-4).sqrt() for d in range(DIM)] for z in (a, b)]
    assert any(s > 1 for s in spreads[0]) and any(s < 1 for s in spreads[0])
    variance = mean([mean([torch.clamp(1 - spread, min=0) for spread in of_view]) for of_view in spreads])
    off_diagonal = [
        sum(covariance(z, i, j) ** 2 for i in range(DIM) for j in range(DIM) if i != j) / DIM for z in (a, b)
    ]
    naive_loss = weights[0] * invariance + weights[1] * variance + weights[2] * sum(off_diagonal)
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


def test_vicreg_s_loss_is_lightly_s():
    first, second = torch.randn(2, 8, 16, dtype=torch.float64).requires_grad_()
    losses = vicreg_loss(first, second, (25.0, 10.0, 2.0)), VICRegLoss(25.0, 10.0, 2.0)(first, second)
    gradients = [torch.autograd.grad(loss, (first, second)) for loss in losses]
    assert torch.allclose(*losses)
    assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", ["barlowtwins", "vicreg"])
def test_swapping_the_two_views_does_not_change_the_loss(name):
    method = new_method(name)
    batch = new_batch(method)
    swapped = ViewBatch(batch.views[::-1], batch.rows)
    assert method(batch, 0)["loss"].item() == pytest.approx(method(swapped, 0)["loss"].item(), rel=1e-6)


def test_a_projection_head_that_is_much_larger_than_the_backbone_is_said(capsys):
    new_method("vicreg", hidden_dim=16, projection_dim=16)
    assert "VICReg" not in capsys.readouterr().err
    new_method("vicreg", hidden_dim=2048, projection_dim=2048)
    assert "method.hidden_dim=1024" in capsys.readouterr().err
