"""Reader processes that hang or are killed end the run with their names, within a minute and not never."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ssl_transfer.errors import RunError
from ssl_transfer.training import reader_health
from ssl_transfer.training.batches import _start_reader
from ssl_transfer.training.reader_health import delivered, named_reader_failures


class Slow(Dataset):
    """Items that take a while, as computing or as waiting; from `after` on."""

    def __init__(self, seconds: float = 0.0, computes: bool = False, after: int = 0):
        self.seconds, self.computes, self.after = seconds, computes, after

    def __len__(self):
        return 6

    def __getitem__(self, index):
        end = time.monotonic() + (self.seconds if index >= self.after else 0)
        while time.monotonic() < end:
            if not self.computes:
                time.sleep(0.05)
        return np.full(2, index)


@pytest.fixture(autouse=True)
def short_looks(monkeypatch):
    """Looks after a fraction of a second."""
    monkeypatch.setattr(reader_health, "LOOK_SECONDS", 0.3)


def loader(dataset, workers=1):
    return iter(
        DataLoader(
            dataset,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=_start_reader,
            generator=torch.Generator(),
            multiprocessing_context="fork",
        )
    )


def readers(items) -> list[int]:
    return [worker.pid for worker in items._workers]


def test_readers_that_work_are_waited_for_as_long_as_they_do():
    items = loader(Slow(2.0, computes=True, after=5))
    assert [int(item[0]) for item in delivered(items)] == list(range(6))


def test_a_reader_that_sleeps_forever_is_named(capsys):
    items = loader(Slow(1000.0, after=2))
    pid, started = readers(items)[0], time.monotonic()
    with pytest.raises(RunError, match=rf"no reader process does anything: {pid} sleeps\. .*same command continues"):
        list(delivered(items))
    assert time.monotonic() - started < 20
    assert f"reader processes: {pid} sleeps" in capsys.readouterr().err
    items._shutdown_workers()
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.long
def test_a_stopped_reader_is_named_and_ended():
    items = loader(Slow(0.1))
    stream = delivered(items)
    next(stream)
    os.kill(pid := readers(items)[0], signal.SIGSTOP)
    with pytest.raises(RunError, match=f"{pid} stopped"):
        list(stream)
    items._shutdown_workers()
    assert not os.path.exists(f"/proc/{pid}")


def test_a_killed_reader_is_a_sentence(tmp_path):
    items = loader(Slow(0.3))
    stream = delivered(items)
    next(stream)
    pid = readers(items)[0]
    with (
        pytest.raises(
            RunError, match=rf"run: reader process {pid} (is killed by signal: Killed|exited)\. Was there too"
        ),
        named_reader_failures(tmp_path / "run"),
    ):
        os.kill(pid, signal.SIGKILL)
        list(stream)
        time.sleep(5)


def test_another_error_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match=r"^of the model$"), named_reader_failures(tmp_path):
        raise RuntimeError("of the model")


def test_readers_outlive_ctrl_c_and_sigterm_as_the_run_saves_first():
    items = loader(Slow(0.1))
    stream = delivered(items)
    next(stream)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(readers(items)[0], number)
    assert len(list(stream)) == 5


def test_a_reader_that_is_stopped_while_it_hands_over_a_batch_is_noticed(monkeypatch):
    """Tensors are fetched from the reader itself, so that the run waits for it without a time-out of torch."""
    items = loader(Tensors())
    stream = delivered(items)
    next(stream)
    time.sleep(0.5)  # others are ready
    os.kill(pid := readers(items)[0], signal.SIGSTOP)
    with pytest.raises(RunError, match=f"{pid} stopped"):
        list(stream)
    items._shutdown_workers()


class Tensors(Slow):
    """Items that are tensors of some megabytes."""

    def __getitem__(self, index):
        return torch.full((1000, 1000), index)
