"""Limits of reading: a file that crashes, hangs or fills the memory costs itself only, and results keep their order."""

import os
import signal
import time

import pytest
from support.reading import act, fail, native, pid, same, slow_here

from ssl_transfer.data.readers import workers
from ssl_transfer.data.readers.workers import ordered
from ssl_transfer.errors import Interrupted, SourceError


def never(item):
    return False


def results(items, is_native, count=2):
    return list(ordered(act, items, "reading", count, fail=fail, native=is_native))


@pytest.fixture(autouse=True)
def short_limits(monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 3.0)


def test_a_crash_a_hang_and_a_bomb_cost_their_item_only_and_the_order_is_kept(monkeypatch):
    items = [*range(10), "abort", 11, "hang", "bomb", "error", *range(15, 40)]
    answers = results(items, native)
    assert [a for a, i in zip(answers, items, strict=True) if isinstance(i, int)] == [
        f"read {i}" for i in items if isinstance(i, int)
    ]
    assert answers[10] == "abort: its decoder crashed: the process was ended by SIGABRT"
    assert answers[12] == "hang: reading it took longer than 3 s"
    assert answers[13] == "bomb: reading it takes more than 1.0 GB of memory"
    assert answers[14] == "error: reading it failed: KeyError: 'odd layout'"


def test_limits_hold_in_this_process_too_and_no_process_is_started(monkeypatch):
    monkeypatch.setattr(workers.Workers, "start", None)
    answers = results([1, "spin", "bomb", "error", 5], never)
    assert answers[0] == "read 1" and answers[4] == "read 5"
    assert answers[1] == "spin: reading it took longer than 3 s"
    assert "memory" in answers[2] and "KeyError" in answers[3]


@pytest.mark.parametrize("is_native", [native, never])
def test_an_error_of_the_user_s_input_ends_the_reading(is_native):
    with pytest.raises(SourceError, match="the whole source is wrong"):
        results([1, "refused", 3], is_native)


def test_many_items_go_to_workers_and_to_this_process_if_they_would_take_long(monkeypatch):
    monkeypatch.setattr(workers, "MEASURED", 3)
    monkeypatch.setattr(workers, "WORTH_SECONDS", 0)
    pids = list(ordered(slow_here, range(200), "reading", 2))
    assert set(pids[:3]) == {os.getpid()} and len(set(pids)) == 2 and len(pids) == 200


def test_items_that_take_long_are_left_to_the_workers(monkeypatch):
    monkeypatch.setattr(workers, "MEASURED", 3)
    monkeypatch.setattr(workers, "WORTH_SECONDS", 0)
    monkeypatch.setattr(workers, "QUICK_SECONDS", 0)
    pids = list(ordered(pid, range(60), "reading", 2))
    assert set(pids[:3]) == {os.getpid()} and os.getpid() not in pids[3:]


def test_items_for_native_decoders_never_come_to_this_process_and_the_order_is_kept(monkeypatch):
    monkeypatch.setattr(workers, "MEASURED", 3)
    monkeypatch.setattr(workers, "WORTH_SECONDS", 0)
    for is_native in (lambda item: item % 7 == 3, lambda item: item > 500):
        pids = list(ordered(pid, range(1000), "reading", 2, native=is_native))
        assert all(number != os.getpid() for item, number in enumerate(pids) if is_native(item))
        assert list(ordered(same, range(1000), "reading", 2, native=is_native)) == list(range(1000))


def test_results_that_nobody_has_taken_are_few(monkeypatch):
    taken = ordered(same, range(1000), "reading", 1, native=native)
    first = next(taken)
    time.sleep(0.5)
    assert first == 0 and sum(1 for _ in taken) == 999


def test_a_signal_ends_the_reading_and_its_workers():
    reading = ordered(act, [1, *["hang"] * 20], "reading", 2, native=native)
    assert next(reading) == "read 1"
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted):
        next(reading)


def test_malloc_keeps_arrays_again_after_the_readings(monkeypatch):
    sizes = []
    monkeypatch.setattr(workers, "_allocate_apart", sizes.append)
    with pytest.raises(KeyError), workers.shared_workers(1), workers.freed_memory_kept():
        raise KeyError
    assert sizes == [workers.LISTED_BYTES, workers.KEPT_BYTES, workers.LISTED_BYTES, workers.KEPT_BYTES]
