"""The schedule: linear warm-up, half a cosine, and the steps at which something happens."""

import math

import pytest

from ssl_transfer.recipe import FinetuneSection
from ssl_transfer.schedule import Schedule, warmup_cosine


def test_warm_up_rises_linearly_to_the_peak():
    assert [warmup_cosine(step, 100, 4) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_after_warm_up_the_rate_is_half_a_cosine_of_the_remaining_steps():
    for step in range(10, 110):
        assert warmup_cosine(step, 110, 10) == pytest.approx(math.cos(math.pi * (step - 10) / 200) ** 2)


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert warmup_cosine(0, 50, 0) == 1


def test_the_rate_never_rises_after_warm_up_and_ends_near_zero():
    rates = [warmup_cosine(step, 1000, 30) for step in range(30, 1000)]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 1e-5


@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 1), (5, 5), (3, 10)])
def test_runs_shorter_than_their_warm_up_have_a_rate_at_every_step(total, warmup):
    assert all(0 < warmup_cosine(step, total, warmup) <= 1 for step in range(total))


def test_logging_includes_every_checkpoint_every_measurement_and_the_last_step():
    schedule = Schedule(total_steps=17, log_every=10, checkpoint_every=7, watch_every=5)
    steps = range(1, 18)
    assert [step for step in steps if schedule.logs_at(step)] == [5, 7, 10, 14, 15, 17]
    assert [step for step in steps if schedule.checkpoints_at(step)] == [7, 14, 17]
    assert [step for step in steps if schedule.watches_at(step)] == [5, 10, 15, 17]


def test_a_fine_tune_has_as_many_steps_on_few_images_as_on_many():
    few, many = (FinetuneSection(steps=50, batch_size=8).schedule(images) for images in (3, 800))
    assert few.total_steps == many.total_steps == 50
    assert (few.steps_per_epoch, many.steps_per_epoch) == (1, 100)
