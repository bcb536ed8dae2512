"""Checkpoints of a training on a GPU are written while it continues."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from ssl_transfer.errors import OutputError
from ssl_transfer.training.checkpoint import Checkpoints
from ssl_transfer.training.loop import Training


def test_the_state_of_the_save_is_written_in_the_background(gpu, monkeypatch, tmp_path):
    checkpoints, may_write, write = Checkpoints(tmp_path / "checkpoints", "run"), threading.Event(), Checkpoints._write

    def waiting(*arguments):
        may_write.wait(60)
        write(*arguments)

    monkeypatch.setattr(Checkpoints, "_write", waiting)
    on_cpu = torch.ones(3)
    with gpu:
        weights = torch.ones(3, device="cuda")
        checkpoints.save(5, {"objective": {"weights": weights}, "steps": [on_cpu]})
        weights.zero_()
        on_cpu.zero_()
    assert checkpoints.load() is None
    may_write.set()
    checkpoints.finish()
    saved = checkpoints.load()
    assert saved["step"] == 5 and saved["objective"]["weights"].tolist() == saved["steps"][0].tolist() == [1, 1, 1]


def test_a_write_that_failed_in_the_background_fails_the_next_save(gpu, tmp_path):
    (tmp_path / "checkpoints").write_text("a file in the place of the folder")
    checkpoints = Checkpoints(tmp_path / "checkpoints", "run")
    with gpu:
        state = {"weights": torch.ones(3, device="cuda")}
        checkpoints.save(5, state)
        with pytest.raises(OutputError, match="checkpoint-00000005"):
            checkpoints.save(10, state)


@pytest.mark.parametrize("stopping", [True, False])
def test_other_processes_wait_for_the_checkpoint_if_the_training_stops(gpu, monkeypatch, tmp_path, stopping):
    """The first process that ends makes a launcher kill the others."""
    checkpoints, write, saved = Checkpoints(tmp_path / "checkpoints", "run"), Checkpoints._write, []

    def slow(*arguments):
        time.sleep(0.3)
        write(*arguments)

    monkeypatch.setattr(Checkpoints, "_write", slow)
    accelerator = SimpleNamespace(
        is_main_process=True, wait_for_everyone=lambda: saved.append(checkpoints.load() is not None)
    )
    with gpu:
        state = {"weights": torch.ones(3, device="cuda")}
        training = SimpleNamespace(step=5, state=lambda: state, accelerator=accelerator)
        Training._save(training, checkpoints, stopping=stopping)
    checkpoints.finish()
    assert saved == [stopping] and checkpoints.load()["step"] == 5
