"""Checkpoints: written whole, checked by digest, the last two kept, another run's refused."""

import pytest
import torch

from ssl_transfer.errors import RunError
from ssl_transfer.training.checkpoint import Checkpoints


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", "run-a")


def state(step):
    return {"weights": torch.full((1000,), float(step))}


def test_without_a_checkpoint_there_is_nothing_to_load(checkpoints):
    assert checkpoints.load() is None


def test_the_newest_state_comes_back(checkpoints):
    for step in (5, 10):
        checkpoints.save(step, state(step))
    found = checkpoints.load()
    assert (found["step"], found["run_id"]) == (10, "run-a")
    assert torch.equal(found["weights"], state(10)["weights"])


def test_the_last_two_are_kept(checkpoints):
    for step in (5, 10, 15, 20):
        checkpoints.save(step, state(step))
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == [f"checkpoint-000000{step}.{suffix}" for step in (15, 20) for suffix in ("pt", "sha256")]


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit", "no digest", "empty digest"])
def test_a_damaged_newest_checkpoint_is_replaced_by_the_previous_one_with_a_warning(checkpoints, capsys, damage):
    for step in (5, 10):
        checkpoints.save(step, state(step))
    newest = checkpoints.folder / "checkpoint-00000010.pt"
    content = newest.read_bytes()
    if damage == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "one bit":
        newest.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
    elif damage == "no digest":
        newest.with_suffix(".sha256").unlink()
    else:
        newest.with_suffix(".sha256").write_text("")
    assert checkpoints.load()["step"] == 5
    assert "checkpoint-00000010.pt: this checkpoint is damaged; trying the previous one" in capsys.readouterr().err


def test_if_all_are_damaged_the_run_is_refused(checkpoints):
    for step in (5, 10):
        checkpoints.save(step, state(step))
    for path in checkpoints.folder.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"all 2 checkpoint\(s\) are damaged.* --resume never"):
        checkpoints.load()


def test_a_checkpoint_of_another_run_is_refused(checkpoints):
    checkpoints.save(5, state(5))
    with pytest.raises(RunError, match="belongs to run run-a, this is run run-b"):
        Checkpoints(checkpoints.folder, "run-b").load()


def test_an_interrupted_write_is_never_taken_for_a_checkpoint(checkpoints):
    checkpoints.save(5, state(5))
    content = (checkpoints.folder / "checkpoint-00000005.pt").read_bytes()
    (checkpoints.folder / "checkpoint-00000010.partial").write_bytes(content[:100])
    (checkpoints.folder / "checkpoint-00000010.sha256").write_text("0" * 64)
    assert checkpoints.load()["step"] == 5


def test_clearing_removes_everything_and_may_be_repeated(checkpoints):
    checkpoints.save(5, state(5))
    (checkpoints.folder / "checkpoint-00000010.partial").write_bytes(b"half")
    for _ in range(2):
        checkpoints.clear()
        assert not checkpoints.folder.exists()


def test_a_checkpoint_that_would_run_code_is_taken_as_damaged(checkpoints, tmp_path):
    class Sneaky:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    checkpoints.save(5, {"weights": Sneaky()})
    with pytest.raises(RunError, match="damaged"):
        checkpoints.load()
    assert not (tmp_path / "run").exists()
