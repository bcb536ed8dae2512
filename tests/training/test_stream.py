"""The endless stream: pass after pass over the images, classes taking turns; a function of (seed, step)."""

import numpy as np
import pytest
import torch

from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.training_set import StoreShare, TrainingSet
from ssl_transfer.data.views import ViewMaker
from ssl_transfer.training.batches import StreamSampler, batch_at, view_batches

ROWS = np.arange(10, 23)  # 13 images: passes end in the middle of batches
STRATA = [np.arange(5), np.arange(20, 31), np.array([40])]
CPU = torch.device("cpu")


def stream(strata=(ROWS,), seed=0, batch=4, steps=13, **where):
    return list(StreamSampler(strata, seed, batch, steps, **where))


def joined(parts):
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


@pytest.mark.parametrize("batch", [1, 4, 13, 50])
def test_every_pass_shows_every_image_once(batch):
    passes, rows = joined(stream(batch=batch, steps=-(-39 // batch)))
    for number in range(3):
        assert sorted(rows[passes == number]) == ROWS.tolist()


def test_passes_follow_each_other_without_a_gap():
    passes, _ = joined(stream(steps=13))
    assert passes.tolist() == [place // 13 for place in range(52)]


def test_a_batch_larger_than_the_set_shows_no_image_twice_in_one_pass():
    (passes, rows), *_ = stream(batch=30, steps=1)
    assert len(rows) == 30 and len(set(zip(passes, rows, strict=True))) == 30 and set(rows) == set(ROWS)


def test_orders_differ_between_passes_and_seeds():
    passes, rows = joined(stream(batch=13, steps=2))
    _, others = joined(stream(batch=13, steps=2, seed=1))
    assert not np.array_equal(rows[passes == 0], rows[passes == 1]) and not np.array_equal(rows, others)


@pytest.mark.parametrize("strata", [(ROWS,), STRATA], ids=["plain", "strata"])
@pytest.mark.parametrize("first", [1, 5, 12])
def test_a_run_that_starts_at_a_later_step_sees_the_rest_of_the_unbroken_run(strata, first):
    rest, resumed = stream(strata)[first:], stream(strata, first_step=first)
    assert len(rest) == len(resumed) == 13 - first
    assert all(
        np.array_equal(a, b) for one, two in zip(rest, resumed, strict=True) for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("strata", [(ROWS,), STRATA], ids=["plain", "strata"])
def test_any_step_can_be_read_directly(strata):
    sampler = StreamSampler(strata, 0, 4, 13)
    for step, expected in reversed(list(enumerate(sampler))):
        assert all(np.array_equal(a, b) for a, b in zip(sampler.at(step), expected, strict=True))


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("strata", [(ROWS,), STRATA], ids=["plain", "strata"])
def test_the_parts_of_the_ranks_are_the_global_batch_in_order(strata, world):
    parts = [stream(strata, batch=8, rank=rank, world=world) for rank in range(world)]
    for step, whole in enumerate(stream(strata, batch=8)):
        pieces = [part[step] for part in parts]
        assert all(len(rows) == 8 // world for _, rows in pieces)
        assert all(np.array_equal(a, b) for a, b in zip(joined(pieces), whole, strict=True))


def owners(rows):
    return np.array([next(n for n, stratum in enumerate(STRATA) if row in stratum) for row in rows])


def test_every_batch_shows_the_strata_equally_often_however_many_images_they_have():
    for _, rows in stream(STRATA, batch=6, steps=20):
        assert np.bincount(owners(rows), minlength=3).tolist() == [2, 2, 2]


def test_counts_differ_by_one_at_most_where_the_strata_do_not_divide_the_batch():
    for _, rows in stream(STRATA, batch=4, steps=20):
        counts = np.bincount(owners(rows), minlength=3)
        assert counts.max() - counts.min() == 1


def test_every_stratum_is_sampled_without_replacement_within_its_pass():
    passes, rows = joined(stream(STRATA, batch=6, steps=33))
    for stratum in STRATA:
        own = np.isin(rows, stratum)
        for number in range(66 // len(stratum)):
            assert sorted(rows[own & (passes == number)]) == sorted(stratum.tolist())


def test_the_length_of_the_sampler_is_the_number_of_steps():
    assert len(StreamSampler([ROWS], 0, 4, 13, first_step=5)) == 8


@pytest.fixture
def training_set(ct_store):
    maker = ViewMaker([VIEWS["ct"](16, 1, "hu")], Scale(-160, 240), 0, 1)
    return TrainingSet([StoreShare(ct_store, ct_store.positions("train"), maker)], 0, labels=np.arange(48))


def test_an_image_has_another_view_in_another_pass(training_set):
    batch = batch_at(training_set, StreamSampler([np.array([3])], 0, 4, 1), 0, CPU)
    views = batch.views[0]
    assert batch.rows.tolist() == [3] * 4
    assert all(not torch.equal(views[i], views[j]) for i in range(4) for j in range(i))


def test_labels_are_those_of_the_rows(training_set):
    batch = batch_at(training_set, StreamSampler([ROWS], 0, 30, 1), 0, CPU)
    assert batch.labels.tolist() == batch.rows.tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_step_s_batch_is_the_one_that_training_sees(training_set, workers):
    sampler = StreamSampler([ROWS], 0, 5, 4)
    for step, batch in enumerate(view_batches(training_set, sampler, CPU, workers)):
        again = batch_at(training_set, sampler, step, CPU)
        assert torch.equal(torch.as_tensor(batch.rows), again.rows) and torch.equal(batch.views[0], again.views[0])


def test_two_ranks_see_the_views_of_one_process(training_set):
    whole = batch_at(training_set, StreamSampler([ROWS], 0, 30, 1), 0, CPU)
    parts = [batch_at(training_set, StreamSampler([ROWS], 0, 30, 1, rank=rank, world=2), 0, CPU) for rank in range(2)]
    assert torch.equal(torch.cat([part.views[0] for part in parts]), whole.views[0])
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
