"""Ctrl-C does what SIGTERM does: it is a flag between steps; a second one, later, ends at once."""

import os
import signal
import time

import pytest
from accelerate import Accelerator

from ssl_transfer.errors import Interrupted
from ssl_transfer.training import termination
from ssl_transfer.training.loop import Training
from ssl_transfer.training.termination import TerminationFlag


@pytest.mark.parametrize(
    ("number", "name", "status"), [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130)]
)
def test_a_signal_is_a_flag(number, name, status):
    before = signal.getsignal(number)
    with TerminationFlag() as flag:
        accelerator = Accelerator(cpu=True)
        assert not flag.on_any_rank(accelerator)
        os.kill(os.getpid(), number)
        assert flag.on_any_rank(accelerator) and (flag.name, flag.status) == (name, status)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_at_once_unless_it_is_the_first_one_passed_on(monkeypatch):
    with TerminationFlag() as flag:
        for _ in range(3):  # a terminal and a launcher
            os.kill(os.getpid(), signal.SIGINT)
        assert flag.name == "Ctrl-C"
        monkeypatch.setattr(termination, "INSISTING_SECONDS", 0.05)
        time.sleep(0.1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_training_saves_says_so_and_goes_on_to_the_same_weights(
    runs, finished, tmp_path, monkeypatch, one_thread, number, status
):
    advance = Training._advance

    def interrupting(training, batches):
        if training.step == 2:
            os.kill(os.getpid(), number)
        return advance(training, batches)

    monkeypatch.setattr(Training, "_advance", interrupting)
    with pytest.raises(
        Interrupted, match=r"stopped by .* at step 3 of 6; the same command continues from there"
    ) as raised:
        runs(tmp_path / "run", "train.checkpoint_every_steps=1000")
    assert raised.value.status == status
    monkeypatch.undo()
    runs(tmp_path / "run", "train.checkpoint_every_steps=1000")
    assert runs.weights(tmp_path / "run") == runs.weights(finished[0])
