"""Batches: which images a rank sees is a function of (seed, step)."""

import numpy as np
import pytest
import torch

from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.views import VIEWS, ViewMaker
from ssl_transfer.training.batches import StepSampler, view_batches

POSITIONS = np.arange(100, 126)  # 26 images: 3 batches of 8, two images dropped per epoch


def steps(seed=0, first=0, rank=0, world=1, total=9, batch=8):
    return list(StepSampler(POSITIONS, batch, seed, total, first, rank, world))


def test_an_epoch_shows_every_image_at_most_once_and_only_images_of_the_store():
    for epoch in range(3):
        rows = np.concatenate([rows for e, rows in steps() if e == epoch])
        assert len(rows) == len(set(rows)) == 24 and set(rows) <= set(POSITIONS)


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = ([rows for e, rows in steps() if e == epoch] for epoch in (0, 1))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, [rows for e, rows in steps(seed=1) if e == 0])


@pytest.mark.parametrize("first", [1, 3, 7])
def test_a_run_that_starts_at_a_later_step_sees_the_rest_of_the_unbroken_run(first):
    for (epoch, rows), (other_epoch, others) in zip(steps()[first:], steps(first=first), strict=True):
        assert epoch == other_epoch and np.array_equal(rows, others)


@pytest.mark.parametrize("world", [2, 4])
def test_the_parts_of_the_ranks_are_the_global_batch_in_order(world):
    parts = [steps(rank=rank, world=world) for rank in range(world)]
    for step, (epoch, rows) in enumerate(steps()):
        assert all(part[step][0] == epoch and len(part[step][1]) == 8 // world for part in parts)
        assert np.array_equal(np.concatenate([part[step][1] for part in parts]), rows)


def test_over_many_epochs_every_image_is_seen_about_equally_often():
    rows = np.concatenate([rows for _, rows in steps(total=600)])
    counts = np.bincount(rows - 100, minlength=26)
    assert counts.sum() == 4800 and counts.min() > 165 and counts.max() <= 200


def test_the_number_of_steps_is_told():
    assert len(StepSampler(POSITIONS, 8, 0, 9, 4, 0, 1)) == 5


@pytest.mark.parametrize("workers", [1, 2])
def test_views_are_bit_identical_whoever_makes_them(ct_store, workers):
    maker = ViewMaker(VIEWS["ct"](16, 1, "hu"), Scale(-160, 240), 0, 1)
    cpu, positions = torch.device("cpu"), ct_store.positions("train")

    def batches(workers):
        return list(view_batches(ct_store, maker, StepSampler(positions, 12, 0, 4, 0, 0, 1), cpu, workers))

    for one, other in zip(batches(0), batches(workers), strict=True):
        assert torch.equal(one.rows, other.rows)
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))


def test_reading_draws_nothing_from_the_run_s_own_randomness(ct_store):
    maker = ViewMaker(VIEWS["ct"](16, 1, "hu"), Scale(-160, 240), 0, 1)
    before = torch.get_rng_state()
    list(
        view_batches(
            ct_store, maker, StepSampler(ct_store.positions("train"), 12, 0, 2, 0, 0, 1), torch.device("cpu"), 0
        )
    )
    assert torch.equal(torch.get_rng_state(), before)
