"""The schedule: linear warm-up, half a cosine, nothing remembered."""

import math

import pytest

from ssl_transfer.schedule import warmup_cosine


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
