"""Resuming: from the newest whole checkpoint, with the choices that the machine of the first part made."""

import json

import pytest
import torch
from support.stores import with_damaged_frames

from ssl_transfer.cli import main
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.errors import RunError, StoreError
from ssl_transfer.run import file_sha256
from ssl_transfer.training import machine

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def interrupt(runs, tmp_path):
    """A run that fails in step 3 of 6, with checkpoints of steps 1 and 2: the store that it is watched on is damaged."""

    def interrupted(*overrides):
        ingest("phantom:ct,patients=8,slices=6,size=32", tmp_path / "watched", compress=True, workers=1)
        with_damaged_frames(tmp_path / "watched")
        watching = f"monitor={{store: {tmp_path / 'watched'}, every_epochs: 1}}"
        with pytest.raises(StoreError, match="cannot be decoded"):
            runs(tmp_path / "run", watching, "train.checkpoint_every_steps=1", *overrides)
        return tmp_path / "run"

    return interrupted


def damage(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_a_truncated_newest_checkpoint_is_replaced_by_the_previous_one_with_a_warning(
    runs, interrupt, finished, capsys
):
    out = interrupt()
    damage(out / "checkpoints" / "checkpoint-00000002.pt")
    runs(out)
    stderr = capsys.readouterr().err
    assert "checkpoint-00000002.pt: this checkpoint is damaged; trying the previous one" in stderr
    assert "continuing from step 1" in stderr
    assert runs.weights(out) == runs.weights(finished[0])


def test_if_every_checkpoint_is_damaged_the_run_ends_with_status_2_unless_resume_is_never(
    runs, tiny_recipe, interrupt, finished, capsys
):
    out = interrupt()
    for path in (out / "checkpoints").glob("*.pt"):
        damage(path)
    assert main(["pretrain", str(tiny_recipe), "--out", str(out)]) == 2
    assert "all 2 checkpoint(s) are damaged" in capsys.readouterr().err
    assert main(["pretrain", str(tiny_recipe), "--out", str(out), "--resume", "never"]) == 0
    assert runs.weights(out) == runs.weights(finished[0])


def test_a_checkpoint_whose_optimiser_is_of_another_version_is_refused_with_what_it_lacks(runs, interrupt):
    lars = "optimizer={name: lars, lr: 0.1}"
    out = interrupt(lars)
    path = out / "checkpoints" / "checkpoint-00000002.pt"
    content = torch.load(path, weights_only=True)
    for group in content["optimizer"]["param_groups"]:
        group["trust_coefficient"] = group.pop("trust_coeff")  # as lightly's LARS calls it
    torch.save(content, path)
    path.with_suffix(".sha256").write_text(file_sha256(path))
    with pytest.raises(RunError, match=r"optimiser has no trust_coeff, .* again with --resume never"):
        runs(out, lars)


def machines(out):
    """What run, newest checkpoint and card say of the machine; None where there is none."""
    newest = sorted(out.glob("checkpoints/*.pt"))
    card = out / "backbone" / "card.json"
    chosen = json.loads(card.read_text())["training"] if card.exists() else None
    run = json.loads((out / "run.json").read_text())["machine"]
    return {
        "run": run,
        "checkpoint": torch.load(newest[-1], weights_only=True)["machine"] if newest else None,
        "card": chosen and {key: chosen[key] for key in run},
    }


def test_precision_memory_format_and_threads_are_in_run_checkpoint_and_card(runs, interrupt):
    out = interrupt("train.memory_format=contiguous")
    expected = {
        "precision": "fp32",
        "float32": "ieee",
        "memory_format": "contiguous",
        "threads": 1,
        "deterministic": False,
    }
    assert machines(out) == {"run": expected, "checkpoint": expected, "card": None}
    runs(out, "train.memory_format=contiguous")
    assert machines(out) == {"run": expected, "checkpoint": None, "card": expected}


def test_a_resumed_run_computes_with_the_threads_that_it_began_with(runs, interrupt, finished):
    out = interrupt()
    torch.set_num_threads(2)
    runs(out)
    assert torch.get_num_threads() == 1
    assert machines(out)["run"]["threads"] == machines(out)["card"]["threads"] == 1
    assert runs.weights(out) == runs.weights(finished[0])


# oneDNN's bf16 gradient of a 3 x 3 convolution with stride 2 on a 1 x 1 map has taps that are never written (torch 2.15);
# at 32 px no map is that small.
BF16_SIZE = "data.size=32"


def test_a_resumed_run_keeps_the_precision_that_auto_chose_first(runs, interrupt, tmp_path, monkeypatch):
    """It began where bf16 is native, and goes on where it is not."""
    monkeypatch.setattr(machine, "native_precision", lambda: "bf16")
    runs(tmp_path / "unbroken", "train.precision=auto", BF16_SIZE)
    out = interrupt("train.precision=auto", BF16_SIZE)
    monkeypatch.setattr(machine, "native_precision", lambda: "fp32")
    runs(out, "train.precision=auto", BF16_SIZE)
    assert machines(out)["run"]["precision"] == machines(out)["card"]["precision"] == "bf16"
    assert runs.weights(out) == runs.weights(tmp_path / "unbroken")


def test_the_precision_makes_a_difference(runs, tmp_path):
    """Or the test above would hold of runs that ignore it."""
    for precision in ("bf16", "fp32"):
        runs(tmp_path / precision, f"train.precision={precision}", BF16_SIZE)
    assert runs.weights(tmp_path / "bf16") != runs.weights(tmp_path / "fp32")
