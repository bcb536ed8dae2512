"""MoCo v2 against a naive transcription of its paper: the queue, the copy, the shuffled keys."""

import pytest
import torch
import torch.nn.functional as functional
from support.naive_methods import assert_equal_losses_and_gradients, perturb, twin
from support.tiny_methods import IMAGES, new_batch, new_method

from ssl_transfer.errors import RecipeError
from ssl_transfer.models.batchnorm import globalise_batchnorm
from ssl_transfer.schedule import Schedule


def naive_loss_and_keys(naive, batch, queue, temperature):
    """He et al. 2020, Algorithm 1, with v2's temperature and head."""
    q = functional.normalize(naive.projection_head(naive.backbone(batch.views[0])), dim=1)
    with torch.no_grad():
        k = functional.normalize(naive.momentum_network[1](naive.momentum_network[0](batch.views[1])), dim=1)
    l_pos = torch.stack([q[i] @ k[i] for i in range(len(q))])[:, None]
    l_neg = q @ queue.T
    logits = torch.cat([l_pos, l_neg], 1) / temperature
    return -(logits[:, 0] - torch.logsumexp(logits, 1)).mean(), k


def test_moco_is_the_paper_s_info_nce_against_its_queue():
    method = new_method("moco", temperature=0.2)
    perturb(method.momentum_network)
    naive, batch = twin(method), new_batch(method)
    naive_loss, _ = naive_loss_and_keys(naive, batch, method.criterion.memory_bank.bank.double(), 0.2)
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


def test_moco_s_queue_drops_its_oldest_keys_and_the_next_loss_sees_the_new_ones():
    method = new_method("moco", queue=3 * IMAGES)
    naive = twin(method)
    queue = list(method.criterion.memory_bank.bank.double())  # oldest first
    for step in range(7):
        batch = new_batch(method, step)
        expected, keys = naive_loss_and_keys(naive, batch, torch.stack(queue), 0.2)
        assert method(batch, step)["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
        queue = queue[IMAGES:] + list(keys)
    found = method.criterion.memory_bank.bank.roll(-int(method.criterion.memory_bank.bank_ptr), 0)
    assert torch.allclose(found.double(), torch.stack(queue), atol=1e-6)


def test_moco_s_momentum_network_is_updated_with_the_same_momentum_at_every_step():
    method = new_method("moco", momentum=0.9)
    method.schedule = Schedule(steps_per_epoch=10, total_steps=100)
    online = dict(torch.nn.Sequential(method.backbone, method.projection_head).named_parameters())
    for step in (1, 50, 100):
        before = {name: p.clone() for name, p in method.momentum_network.named_parameters()}
        perturb(method.backbone)
        method.after_step(step)
        for name, moved in method.momentum_network.named_parameters():
            assert torch.allclose(moved, 0.9 * before[name] + 0.1 * online[name]), name


def test_moco_s_queue_is_in_the_state_so_that_a_resumed_run_has_it():
    method, other = new_method("moco"), new_method("moco")
    method(new_batch(method), 0)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.criterion.memory_bank.bank, method.criterion.memory_bank.bank)
    assert int(other.criterion.memory_bank.bank_ptr) == IMAGES


def test_shuffling_does_not_change_keys_that_do_not_depend_on_other_images():
    method = new_method("moco", bn_groups=4).eval()
    images = new_batch(method).views[1]
    with torch.no_grad():
        expected = method.momentum_network(images)
        for step in range(5):
            assert torch.allclose(method._keys(images, step), expected, atol=1e-9)


def test_moco_s_keys_are_shuffled_differently_at_every_step_and_with_every_seed():
    method = new_method("moco", bn_groups=4)
    globalise_batchnorm(method, 4)
    images = new_batch(method).views[1]

    def keys(seed, step):
        method.seed = seed
        with torch.no_grad():
            return method._keys(images, step)

    assert torch.equal(keys(0, 3), keys(0, 3))
    assert not torch.allclose(keys(0, 3), keys(0, 4)) and not torch.allclose(keys(0, 3), keys(1, 3))


def test_moco_s_queries_are_normalised_in_groups_of_their_own():
    method = new_method("moco", bn_groups=4)
    naive = twin(method)
    globalise_batchnorm(method, method.bn_groups)
    views = new_batch(method).views[0]
    expected = torch.cat([naive.projection_head(naive.backbone(part)) for part in views.chunk(4)])
    assert torch.allclose(method.projection_head(method.backbone(views)), expected, atol=1e-8)


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (24, r"method.queue: 64 keys are not a multiple of train.batch_size 24.* Set method.queue=48"),
        (2, r"method.bn_groups: a batch of 2 cannot be cut into 8"),
        (8, r"equal groups of two or more"),
    ],
)
def test_moco_refuses_a_batch_that_does_not_fit_its_queue_or_groups(batch_size, message):
    with pytest.raises(RecipeError, match=message):
        new_method("moco", queue=64, bn_groups=8).check_batch(batch_size)
