"""Methods, each against a naive transcription of its paper's algorithm: losses, gradients, and what moves after a step."""

import copy
import math

import pytest
import torch
import torch.nn.functional as functional

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods import METHODS
from ssl_transfer.models.backbone import Backbone, build, new_card
from ssl_transfer.models.batchnorm import globalise_batchnorm
from ssl_transfer.recipe import Named, choose

IMAGES, SIDE = 8, 16


def new_method(name, **options):
    """A method in float64, so that agreement with the transcription is agreement, not rounding."""
    arguments = {"channels": [8, 16, 32, 64], "stem_width": 8}
    model = build("resnet10t", 1, SIDE, "standard", arguments, 0)
    card = new_card("made up", "resnet10t", model, 1, SIDE, "standard", arguments, Intensity())
    torch.manual_seed(0)
    method = METHODS[name](Backbone(model, card), projection_dim=16, **options).double().train()
    if name == "moco":
        method.criterion.float()  # losses, and with them the queue, are float32 always
    return method


def new_batch(seed=1, images=IMAGES):
    torch.manual_seed(seed)
    return ViewBatch([torch.randn(images, 1, SIDE, SIDE, dtype=torch.float64) for _ in range(2)], torch.arange(images))


def gradients(method, loss):
    method.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def assert_equal_losses_and_gradients(method, loss, naive, naive_loss):
    found, expected = gradients(method, loss), gradients(naive, naive_loss)
    assert float(loss.detach()) == pytest.approx(float(naive_loss.detach()), rel=1e-5)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-5, atol=1e-6), name  # lightly computes losses in float32


def unit(vector):
    return vector / vector.norm()


def test_there_are_three_methods():
    assert sorted(METHODS) == ["byol", "moco", "simclr"]


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_is_the_paper_s_nt_xent_over_all_pairs(temperature):
    """Chen et al. 2020, Algorithm 1: l(i, j) = −log exp(s_ij/τ) / Σ_{k≠i} exp(s_ik/τ), mean over 2N ordered pairs."""
    method = new_method("simclr", temperature=temperature, hidden_dim=32)
    naive, batch = copy.deepcopy(method), new_batch()
    z = naive.projection_head(naive.backbone(torch.cat(batch.views)))
    interleaved = [row for k in range(IMAGES) for row in (z[k], z[k + IMAGES])]  # the paper's 2k−1 and 2k
    similarity = [[unit(a) @ unit(b) for b in interleaved] for a in interleaved]

    def term(i, j):
        rest = sum(torch.exp(similarity[i][k] / temperature) for k in range(2 * IMAGES) if k != i)
        return -torch.log(torch.exp(similarity[i][j] / temperature) / rest)

    naive_loss = sum(term(2 * k, 2 * k + 1) + term(2 * k + 1, 2 * k) for k in range(IMAGES)) / (2 * IMAGES)
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


def test_byol_is_the_paper_s_loss_in_both_directions():
    """Grill et al. 2020, Algorithm 1: Σ over both directions of 2 − 2cos(q(z), sg(z′)), mean over images."""
    method, batch = new_method("byol", hidden_dim=32), new_batch()
    for parameter in method.momentum_network.parameters():  # some steps later the target is another network
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    naive = copy.deepcopy(method)
    online, target = [], []
    for view in batch.views:
        online.append(naive.prediction_head(naive.projection_head(naive.backbone(view))))
    for view in batch.views:
        target.append(naive.momentum_network[1](naive.momentum_network[0](view)).detach())
    naive_loss = sum(
        2 - 2 * unit(online[a][i]) @ unit(target[b][i]) for a, b in ((0, 1), (1, 0)) for i in range(IMAGES)
    ) / IMAGES  # fmt: skip
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


def test_byol_s_target_has_no_gradient_and_starts_as_the_online_network():
    method = new_method("byol", hidden_dim=32)
    method(new_batch(), 0)["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in method.momentum_network.parameters())
    for online, target in (
        (method.backbone, method.momentum_network[0]),
        (method.projection_head, method.momentum_network[1]),
    ):
        assert all(torch.equal(a, b) for a, b in zip(online.parameters(), target.parameters(), strict=True))


def test_byol_s_momentum_goes_from_its_start_to_one_along_a_cosine():
    """Grill et al. 2020, section 3.3: τ = 1 − (1 − τ₀)(cos(πk/K) + 1)/2."""
    total = 1000
    for step in (1, 250, 500, 750, 1000):
        method = new_method("byol", momentum=0.9, hidden_dim=32)
        weight = method.backbone.model.layer1[0].conv1.weight
        target = method.momentum_network[0].model.layer1[0].conv1.weight
        before = target.clone()
        weight.data += 1
        method.after_step(step, total)
        momentum = 1 - (1 - 0.9) * (math.cos(math.pi * step / total) + 1) / 2
        assert torch.allclose(target, momentum * before + (1 - momentum) * weight, atol=1e-3)


def naive_moco_loss(naive, batch, queue, temperature):
    """He et al. 2020, Algorithm 1, with v2's temperature and head."""
    q = functional.normalize(naive.projection_head(naive.backbone(batch.views[0])), dim=1)
    with torch.no_grad():
        k = functional.normalize(naive.momentum_network[1](naive.momentum_network[0](batch.views[1])), dim=1)
    l_pos = torch.stack([q[i] @ k[i] for i in range(len(q))])[:, None]
    l_neg = q @ queue.T
    logits = torch.cat([l_pos, l_neg], 1) / temperature
    return -(logits[:, 0] - torch.logsumexp(logits, 1)).mean(), k


def test_moco_is_the_paper_s_info_nce_against_its_queue():
    method, batch = new_method("moco", queue=32, bn_groups=1, temperature=0.2), new_batch()
    naive = copy.deepcopy(method)
    naive_loss, _ = naive_moco_loss(naive, batch, method.criterion.memory_bank.bank.double(), 0.2)
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


def test_moco_s_queue_drops_its_oldest_keys_and_the_next_loss_sees_the_new_ones():
    method = new_method("moco", queue=3 * IMAGES, bn_groups=1)
    naive = copy.deepcopy(method)
    queue = list(method.criterion.memory_bank.bank.double())  # oldest first
    for step in range(7):
        batch = new_batch(step)
        expected, keys = naive_moco_loss(naive, batch, torch.stack(queue), 0.2)
        assert method(batch, step)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
        queue = queue[IMAGES:] + list(keys)
    found = method.criterion.memory_bank.bank.roll(-int(method.criterion.memory_bank.bank_ptr), 0)
    assert torch.allclose(found.double(), torch.stack(queue), atol=1e-6)


def test_moco_s_copy_moves_by_its_momentum():
    method = new_method("moco", queue=32, bn_groups=1, momentum=0.9)
    copies = {name: p.clone() for name, p in method.momentum_network.named_parameters()}
    online = dict(torch.nn.Sequential(method.backbone, method.projection_head).named_parameters())
    for parameter in online.values():
        parameter.data.add_(torch.randn_like(parameter))
    method.after_step(1, 100)
    for name, moved in method.momentum_network.named_parameters():
        assert torch.allclose(moved, 0.9 * copies[name] + 0.1 * online[name]), name


def test_moco_s_queue_is_in_the_state_so_that_a_resumed_run_has_it():
    method, other = new_method("moco", queue=32, bn_groups=1), new_method("moco", queue=32, bn_groups=1)
    method(new_batch(), 0)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.criterion.memory_bank.bank, method.criterion.memory_bank.bank)
    assert int(other.criterion.memory_bank.bank_ptr) == IMAGES


def test_shuffling_leaves_the_keys_as_they_are_when_nothing_depends_on_the_companions():
    method = new_method("moco", queue=32, bn_groups=4).eval()
    images = new_batch().views[1]
    with torch.no_grad():
        expected = method.momentum_network(images)
        for step in range(5):
            assert torch.allclose(method._keys(images, step), expected, atol=1e-9)


def test_moco_s_keys_meet_other_companions_at_every_step_and_with_every_seed():
    method = new_method("moco", queue=32, bn_groups=4)
    globalise_batchnorm(method, 4, torch.device("cpu"))
    images = new_batch().views[1]

    def keys(seed, step):
        method.seed = seed
        with torch.no_grad():
            return method._keys(images, step)

    assert torch.equal(keys(0, 3), keys(0, 3))
    assert not torch.allclose(keys(0, 3), keys(0, 4)) and not torch.allclose(keys(0, 3), keys(1, 3))


def test_moco_s_queries_are_normalised_in_groups_of_their_own():
    method = new_method("moco", queue=32, bn_groups=4)
    naive = copy.deepcopy(method)
    globalise_batchnorm(method, method.bn_groups, torch.device("cpu"))
    views = new_batch().views[0]
    expected = torch.cat([naive.projection_head(naive.backbone(part)) for part in views.chunk(4)])
    assert torch.allclose(method.projection_head(method.backbone(views)), expected, atol=1e-8)


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [(24, r"method.queue: 64 keys are no multiple of train.batch_size 24.* Set method.queue=48"),
     (2, r"method.bn_groups: a batch of 2 cannot be cut into 8"), (8, r"equal groups of two or more")],
)  # fmt: skip
def test_moco_refuses_a_batch_that_does_not_fit_its_queue_or_groups(batch_size, message):
    with pytest.raises(RecipeError, match=message):
        new_method("moco", queue=64, bn_groups=8).check_batch(batch_size)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_forward_pass_gives_a_loss_and_the_projections_of_this_batch(name):
    method = new_method(name, **({"queue": 32, "bn_groups": 2} if name == "moco" else {"hidden_dim": 32}))
    losses = method(new_batch(), 0)
    assert losses["loss"].ndim == 0 and losses["loss"].requires_grad
    assert losses["projections"].shape == (IMAGES, 16) and not losses["projections"].requires_grad


def test_the_defaults_are_the_papers():
    defaults = {name: choose(METHODS, Named(name=name), "recipe", ("backbone",)) for name in METHODS}
    assert (defaults["byol"]["hidden_dim"], defaults["byol"]["projection_dim"], defaults["byol"]["momentum"]) == (
        4096,
        256,
        0.996,
    )
    moco = defaults["moco"]
    assert (moco["queue"], moco["momentum"], moco["temperature"], moco["projection_dim"]) == (65536, 0.999, 0.2, 128)
    assert defaults["simclr"]["projection_dim"] == 128
