"""Batches: which images a rank sees is a function of (seed, step)."""

import numpy as np
import pytest
import torch

from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.positives import Partners
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.training_set import StoreShare, TrainingSet
from ssl_transfer.data.views import ViewMaker
from ssl_transfer.training.batches import StepSampler, view_batches

POSITIONS = np.arange(10, 36)  # 26 images: 3 batches of 8, two images dropped per epoch
CPU = torch.device("cpu")


@pytest.fixture
def steps(ct_store):
    def sampled(seed=0, first=0, rank=0, world=1, total=9, batch=8, accumulate=1):
        training_set = TrainingSet([StoreShare(ct_store, POSITIONS, None)], seed)
        return list(StepSampler(training_set, batch, total, first, rank, world, accumulate))

    return sampled


@pytest.fixture
def training_set(ct_store):
    views = VIEWS["ct"](16, 1, "hu")
    return TrainingSet(
        [StoreShare(ct_store, ct_store.positions("train"), ViewMaker([views, views], Scale(-160, 240), 0, 1))], 0
    )


@pytest.fixture
def other_positives(ct_store):
    """Whose second views are of other images of the same patient."""
    views, positions = VIEWS["ct"](16, 1, "hu", positive="patient"), np.array(ct_store.positions("train"))
    maker = ViewMaker([views, views], Scale(-160, 240), 0, 1)
    return TrainingSet(
        [StoreShare(ct_store, positions, maker, partners=Partners(ct_store, positions, "patient", None))], 0
    )


@pytest.fixture
def mixed(ct_store, photo_store):
    parts = []
    for store, preset, share in ((ct_store, "ct", 0.75), (photo_store, "natural", 0.25)):
        views = VIEWS[preset](16, 3, store.units)
        scale = Scale.of_store(store.card, views.intensity.window_hu)
        parts.append(StoreShare(store, store.positions("train"), ViewMaker([views, views], scale, 0, 3), share))
    return TrainingSet(parts, 0, labels=np.arange(96))


def test_an_epoch_shows_every_image_of_the_training_set_at_most_once_and_no_others(steps):
    for epoch in range(3):
        rows = np.concatenate([rows for e, rows in steps() if e == epoch])
        assert len(rows) == len(set(rows)) == 24 and set(rows) <= set(POSITIONS)


def test_orders_differ_between_epochs_and_seeds(steps):
    first, second = ([rows for e, rows in steps() if e == epoch] for epoch in (0, 1))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, [rows for e, rows in steps(seed=1) if e == 0])


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("first", [1, 3, 7])
def test_a_run_that_starts_at_a_later_step_sees_the_rest_of_the_unbroken_run(steps, first, accumulate):
    rest = steps(accumulate=accumulate)[first * accumulate :]
    for (epoch, rows), (other_epoch, others) in zip(rest, steps(first=first, accumulate=accumulate), strict=True):
        assert epoch == other_epoch and np.array_equal(rows, others)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_parts_of_ranks_and_micro_batches_are_the_global_batch_in_order(steps, world, accumulate):
    """Micro-batches follow each other; within each, the ranks do."""
    parts = [steps(rank=rank, world=world, accumulate=accumulate) for rank in range(world)]
    whole = steps()
    assert all(len(part) == len(whole) * accumulate for part in parts)
    for step, (epoch, rows) in enumerate(whole):
        micro = [[part[step * accumulate + m] for part in parts] for m in range(accumulate)]
        pieces = [piece for ranks in micro for piece in ranks]
        assert all(e == epoch and len(r) == 8 // world // accumulate for e, r in pieces)
        assert np.array_equal(np.concatenate([r for _, r in pieces]), rows)


def test_over_many_epochs_every_image_is_seen_about_equally_often(steps):
    rows = np.concatenate([rows for _, rows in steps(total=600)])
    counts = np.bincount(rows - 10, minlength=26)
    assert counts.sum() == 4800 and counts.min() > 165 and counts.max() <= 200


@pytest.mark.parametrize(("accumulate", "expected"), [(1, 5), (4, 20)])
def test_the_length_of_the_sampler_is_the_number_of_micro_batches(training_set, accumulate, expected):
    assert len(StepSampler(training_set, 8, 9, 4, 0, 1, accumulate)) == expected


def same(one, other):
    assert torch.equal(one.rows, other.rows)
    assert (one.labels is None) == (other.labels is None) and (
        one.labels is None or torch.equal(one.labels, other.labels)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("which", ["training_set", "other_positives", "mixed"])
def test_views_are_bit_identical_with_any_number_of_workers(request, which, workers):
    training_set = request.getfixturevalue(which)

    def batches(workers):
        return list(view_batches(training_set, StepSampler(training_set, 12, 4, 0, 0, 1), CPU, workers))

    for one, other in zip(batches(0), batches(workers), strict=True):
        same(one, other)


def test_two_ranks_of_two_micro_batches_see_the_views_of_one_process(mixed):
    def batches(rank, world, accumulate):
        return list(view_batches(mixed, StepSampler(mixed, 12, 2, 0, rank, world, accumulate), CPU, 0))

    ranks = [batches(rank, 2, 2) for rank in range(2)]
    for step, whole in enumerate(batches(0, 1, 1)):
        pieces = [ranks[rank][2 * step + micro] for micro in range(2) for rank in range(2)]
        for view in range(2):
            assert torch.equal(torch.cat([piece.views[view] for piece in pieces]), whole.views[view])
        assert torch.equal(torch.cat([piece.labels for piece in pieces]), whole.labels)


def test_reading_does_not_advance_the_run_s_random_generator(training_set):
    before = torch.get_rng_state()
    list(view_batches(training_set, StepSampler(training_set, 12, 2, 0, 0, 1), CPU, 0))
    assert torch.equal(torch.get_rng_state(), before)
