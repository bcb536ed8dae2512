"""Faults as a user meets them: one sentence, status 2 or that of the signal, and the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.command_line import ENVIRONMENT, ssl_transfer
from support.faults import file_size_limit

from ssl_transfer.cli import main
from ssl_transfer.cli.entry import Terminated
from ssl_transfer.cli.inspect import VERB
from ssl_transfer.writing import locked

TRACEBACK = "Traceback"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Commands run in an empty folder."""
    monkeypatch.chdir(tmp_path)


def start(words, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "ssl_transfer", *map(str, words)],
        cwd=folder,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def until(happened, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("out", ["/proc/out", "/dev/null/out", "/dev/null"])
def test_an_output_that_cannot_be_written_is_a_sentence_before_the_training(tiny_recipe, out, capsys):
    started = time.monotonic()
    assert main(["pretrain", str(tiny_recipe), "train.epochs=1000", "--out", out]) == 2
    said = capsys.readouterr().err
    assert out in said and TRACEBACK not in said and ("cannot be written" in said or "this is a file" in said)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("size", [0, 3_000, 60_000])
def test_a_full_disk_at_any_point_of_a_pretraining_is_a_sentence_and_it_goes_on_when_there_is_room(
    tiny_recipe, runs, finished, capsys, one_thread, size
):
    words = ["pretrain", str(tiny_recipe), "--out", "run"]
    with file_size_limit(size):
        status = main(words)
    said = capsys.readouterr().err
    assert status == 2 and TRACEBACK not in said and "cannot be written" in said.splitlines()[-1]
    assert not Path("run/backbone").exists() and not list(Path().rglob("*.partial"))
    assert main(words) == 0
    assert runs.weights("run") == runs.weights(finished[0])


@pytest.mark.parametrize("verb", ["features", "evaluate", "rank"])
def test_a_full_disk_while_an_artifact_is_written_leaves_nothing_of_it(verb, finished, tmp_path, capsys):
    from support.tiny_tasks import class_task

    task, backbone = class_task(tmp_path / "task"), str(finished[0] / "backbone")
    words = {
        "features": ["features", backbone, str(task.store.path), "--out", "out"],
        "evaluate": ["evaluate", "knn", backbone, str(tmp_path / "task/task.yaml"), "resamples=0", "--out", "out"],
        "rank": ["rank", str(tmp_path / "task/task.yaml"), backbone, "resamples=0", "folds=3", "--out", "out"],
    }[verb]
    with file_size_limit(600):
        assert main(words) == 2
    said = capsys.readouterr().err
    assert TRACEBACK not in said and "cannot be written" in said
    assert not list(Path("out").glob("[!.]*.json"))
    assert main(words) == 0 and main(["verify", "out"]) == 0


def test_a_second_process_on_one_run_folder_is_refused(tiny_recipe, capsys):
    with locked(Path("run"), inside=True):
        assert main(["pretrain", str(tiny_recipe), "--out", "run"]) == 2
    assert f"run: another process is writing it (process {os.getpid()})" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_to_a_command_saves_and_says_how_to_go_on(tiny_recipe, tmp_path, number, status, name):
    words = ["pretrain", tiny_recipe, "train.epochs=3000", "train.checkpoint_every_steps=100000", "--out", "run"]
    process = start(words, tmp_path)
    until(lambda: (tmp_path / "run/log.jsonl").exists() and (tmp_path / "run/log.jsonl").stat().st_size)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status and TRACEBACK not in said
    assert f"stopped by {name} at step" in said and "the same command continues from there" in said
    assert len(list((tmp_path / "run/checkpoints").glob("*.pt"))) == 1 and not (tmp_path / "run/.lock").exists()
    process = start(words, tmp_path)
    line = next(line for line in process.stderr if "continuing" in line or TRACEBACK in line)
    process.kill()
    process.communicate()
    assert "continuing from step" in line


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C. What was finished is kept"),
        (Terminated(), 143, "stopped by SIGTERM. What was finished is kept"),
        (
            OSError(28, "No space left on device", "runs/x"),
            2,
            "OutputError: runs/x: cannot be written: the disk is full",
        ),
        (MemoryError("of numpy"), 2, "RunError: there is too little memory for this: of numpy"),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
            2,
            "RunError: there is too little",
        ),
        (ValueError("a defect"), 1, "Traceback"),
    ],
    ids=["Ctrl-C", "SIGTERM", "full", "memory", "torch's memory", "a defect"],
)
def test_how_a_verb_ends_is_said(monkeypatch, capsys, error, status, message):
    def fails(options):
        raise error

    monkeypatch.setattr("ssl_transfer.cli.entry.VERBS", {"inspect": type(VERB)("", VERB.arguments, fails)})
    assert main(["inspect", "x"]) == status
    assert message in capsys.readouterr().err


def test_sigterm_removes_what_is_half_written(monkeypatch, tmp_path):
    from ssl_transfer.run import whole_folder

    def writes(options):
        with whole_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        return {}

    monkeypatch.setattr("ssl_transfer.cli.entry.VERBS", {"inspect": type(VERB)("", VERB.arguments, writes)})
    before = signal.getsignal(signal.SIGTERM)
    assert main(["inspect", "x"]) == 143
    assert list(tmp_path.iterdir()) == [] and signal.getsignal(signal.SIGTERM) == before


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ssl_transfer", "list", "recipes"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_from_data_do_not_command_the_terminal(monkeypatch, capsys):
    hostile = {"name": "a\x1b]0;owned\x07b\x1b[2J"}
    monkeypatch.setattr(
        "ssl_transfer.cli.entry.VERBS", {"inspect": type(VERB)("", VERB.arguments, lambda options: hostile)}
    )
    assert main(["inspect", "x"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert main(["inspect", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == hostile


def test_a_plan_of_a_stranger_runs_nothing(tmp_path):
    job = {
        "id": "x1",
        "stage": "evaluate",
        "title": "t",
        "inputs": [],
        "external": {},
        "command": [
            "accelerate",
            "launch",
            "--no_python",
            "/bin/sh",
            "-c",
            f"touch {tmp_path}/PWNED",
            "ssl_transfer",
            "x",
        ],
        "output": "none",
        "about": {},
        "resources": {"gpus": 0, "cpus": 1, "memory_gb": 1, "minutes": 5},
        "cost": {"kind": "x", "like": "x", "units": 1, "seconds": 1, "disk_mb": 1},
        "runs": [],
    }
    plan = {"schema": 1, "kind": "plan", "name": "e", "recipe": {}, "arms": [], "tasks": {}, "jobs": [job]}
    (tmp_path / "s").mkdir()
    (tmp_path / "s/plan.json").write_text(json.dumps(plan))
    for words in (["study", "job", "s", "x1"], ["study", "run", "s"]):
        answer = ssl_transfer(*words, folder=tmp_path)
        assert answer.status == 2 and "plan.json: job x1: it launches something else" in answer.stderr
    assert not (tmp_path / "PWNED").exists()
