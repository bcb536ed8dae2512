"""Writing: a kernel that refuses becomes a sentence with the path, nothing half-written stays, and a folder has one writer."""

import errno
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from support.command_line import run
from support.faults import file_size_limit

from ssl_transfer.errors import OutputError
from ssl_transfer.run import Log, read_json, whole_folder, write_json
from ssl_transfer.training.checkpoint import Checkpoints
from ssl_transfer.writing import locked, write_failure, writes


def test_a_json_file_that_does_not_fit_leaves_the_old_one_and_says_where(tmp_path):
    write_json(tmp_path / "card.json", {"a": 1})
    with (
        file_size_limit(4096),
        pytest.raises(OutputError, match=r"card\.json: cannot be written: .*limit for file sizes"),
    ):
        write_json(tmp_path / "card.json", {"a": "x" * 10_000})
    assert read_json(tmp_path / "card.json") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_a_device_that_is_full_is_named(tmp_path):
    with (
        pytest.raises(
            OutputError, match=r"^/dev/full: cannot be written: the disk is full\. What was finished before is kept"
        ),
        writes("/dev/full"),
        open("/dev/full", "w") as file,
    ):
        file.write("x")
        file.flush()


def test_a_folder_whose_disk_is_full_leaves_nothing(tmp_path):
    refused = pytest.raises(OutputError, match="artifact: cannot be written")
    with file_size_limit(4096), refused, whole_folder(tmp_path / "artifact") as temporary:
        (temporary / "weights").write_bytes(bytes(10_000))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_does_not_fit_keeps_the_one_before_and_names_it(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", "run")
    checkpoints.save(5, {"weights": torch.ones(10)})
    with (
        file_size_limit(100_000),
        pytest.raises(OutputError, match=r"cannot be written: .*Kept: checkpoint-00000005\.pt"),
    ):
        checkpoints.save(10, {"weights": torch.ones(100_000)})
    assert sorted(path.name for path in checkpoints.folder.iterdir() if "10" in path.name) in (
        [],
        ["checkpoint-00000010.sha256"],
    )
    assert checkpoints.load()["step"] == 5
    checkpoints.save(10, {"weights": torch.ones(100_000)})
    assert checkpoints.load()["step"] == 10


def test_a_log_that_does_not_fit_is_named(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    with file_size_limit(4096), pytest.raises(OutputError, match=r"log\.jsonl: cannot be written"):
        for step in range(1000):
            log.write(step=step, loss=0.5)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/proc/out", "nothing can be created there"),
        ("/dev/null/out", "a part of the path is a file"),
        ("/sys/out", "(no permission|.*read-only|nothing can).*"),
        (f"/tmp/{'x' * 300}", "the name is too long"),
    ],
)
def test_a_path_that_cannot_be_a_folder_is_refused_before_anything_is_computed(path, reason):
    message = rf"{path[:20]}.*: cannot be written: ({reason})\. Nothing was computed"
    with pytest.raises(OutputError, match=message), locked(Path(path)):
        raise AssertionError


def test_an_input_that_is_missing_is_no_output_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError), writes(tmp_path / "out"):
        (tmp_path / "input").read_text()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_the_reason_is_found_behind_the_errors_of_libraries(number):
    try:
        try:
            raise OSError(number, "of the system")
        except OSError as error:
            raise RuntimeError("[enforce fail at inline_container.cc]") from error
    except RuntimeError as error:
        assert write_failure(error)
    assert not write_failure(RuntimeError("of something else"))


# Locks


def test_a_locked_folder_is_refused_with_the_process_that_has_it(tmp_path):
    refused = pytest.raises(OutputError, match=rf"run: another process is writing it \(process {os.getpid()}\)\. Wait")
    with locked(tmp_path / "run"), refused, locked(tmp_path / "run"):
        raise AssertionError
    with locked(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    kill = """
import os, signal
from pathlib import Path
from ssl_transfer.writing import locked
with locked(Path('run'), inside=True):
    os.kill(os.getpid(), signal.SIGKILL)"""
    assert run([sys.executable, "-c", kill], tmp_path).status == -signal.SIGKILL
    assert (tmp_path / "run" / ".lock").exists()
    with locked(tmp_path / "run", inside=True):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def hold_and_count(folder: Path, rounds: int, counter) -> None:
    """Take the lock again and again; within it, nobody else is in it."""
    for _ in range(rounds):
        try:
            with locked(folder):
                with counter.get_lock():
                    counter.value += 1
                    assert counter.value == 1
                with counter.get_lock():
                    counter.value -= 1
        except OutputError:
            continue


def test_two_processes_are_never_in_one_folder_although_lock_files_are_removed(tmp_path):
    context = multiprocessing.get_context("fork")
    counter = context.Value("i", 0)
    processes = [context.Process(target=hold_and_count, args=(tmp_path / "run", 300, counter)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_only_the_first_rank_takes_the_lock(tmp_path, monkeypatch):
    with locked(tmp_path / "run"):
        monkeypatch.setenv("RANK", "1")
        with locked(tmp_path / "run"):
            pass
