"""Checkpoints of a training on a GPU are written while it continues."""

import threading

import pytest
import torch

from ssl_transfer.errors import OutputError
from ssl_transfer.training.checkpoint import Checkpoints


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
