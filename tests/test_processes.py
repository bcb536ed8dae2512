"""No child process outlives its parent: workers, launched commands, the jobs of a study, benchmarks."""

import functools
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from support.command_line import ROOT
from support.stand_in import LOG, SECONDS
from support.tiny_study import small, write_study

SIGNALS = [signal.SIGTERM, signal.SIGINT]
each_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)

WORKERS = """
import time
from ssl_transfer.processes import worker_processes

if __name__ == "__main__":
    with worker_processes(2) as pool:
        for future in [pool.submit(time.sleep, 120) for _ in range(2)]:
            future.result()
"""

COMMAND = """
import sys
from ssl_transfer import processes

processes.GRACE_SECONDS = 1.0
grandchild = "import signal, time; signal.signal(signal.SIGTERM, signal.{on_sigterm}); time.sleep(120)"
child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {{grandchild!r}}])"
with processes.Command([sys.executable, "-c", child]) as command:
    command.process.wait()
print("stopped" if command.stopped else "ended")
"""

STUDY = """
from pathlib import Path
from ssl_transfer.errors import Interrupted
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.plan import Job, Plan

words = ["accelerate", "launch", "-m", "ssl_transfer", "pretrain", "recipe.yaml"]
cost = {"kind": "pretrain", "like": "pretrain", "units": 1, "seconds": 1.0, "disk_mb": 0}
job = Job("a", "pretrain", "a", [], {}, words, "study/out", {}, {"gpus": 0}, cost)
try:
    run_plan(Plan("study", Path("study"), {}, [], {}, [job]), perform=print)
except Interrupted:
    print("interrupted")
"""

STUDY_AT_ONCE = """
import os
from pathlib import Path
from support.stand_in import perform
from ssl_transfer.errors import Interrupted
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.plan import Job, Plan

def job(name):
    cost = {"kind": "pretrain", "like": "pretrain", "units": 1, "seconds": 1.0, "disk_mb": 0}
    return Job(name, "pretrain", name, [], {}, ["ssl-transfer", name], "study/out", {}, {"gpus": 0}, cost)

try:
    run_plan(Plan("study", Path("study"), {}, [], {}, [job(name) for name in "abc"]), perform, jobs=2)
except Interrupted:
    print("interrupted")
"""

LAUNCHER = """
import subprocess, sys, time

ranks = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"]) for _ in range(2)]
time.sleep(120)
"""


class Family:
    """A running command and its descendants."""

    def __init__(self, command, folder, descendants, **variables):
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
        )
        self.command = psutil.Process(self.process.pid)
        deadline = time.monotonic() + 60
        while len(self.command.children(recursive=True)) < descendants:
            assert self.process.poll() is None and time.monotonic() < deadline, "its children never started"
            time.sleep(0.02)
        time.sleep(0.3)

    def survivors(self, number, seconds=20):
        """Descendants that are left after a signal to the command alone, which is waited for."""
        family = self.command.children(recursive=True)
        self.process.send_signal(number)
        try:
            self.output, _ = self.process.communicate(timeout=seconds)
        finally:
            _, alive = psutil.wait_procs(family, timeout=10)
            for process in [*alive, self.command]:
                if process.is_running():
                    process.kill()
        return alive


def script(folder, text):
    """Write a script; returns its command."""
    (folder / "script.py").write_text(text)
    return [sys.executable, "script.py"]


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGKILL], ids=lambda number: number.name)
def test_workers_end_with_their_parent(tmp_path, number):
    family = Family(script(tmp_path, WORKERS), tmp_path, descendants=3)  # and the resource tracker
    assert family.survivors(number) == []


@pytest.mark.parametrize("on_sigterm", ["SIG_DFL", pytest.param("SIG_IGN", marks=pytest.mark.long)])
@each_signal
def test_a_command_ends_with_all_that_it_started(tmp_path, number, on_sigterm):
    family = Family(script(tmp_path, COMMAND.format(on_sigterm=on_sigterm)), tmp_path, descendants=2)
    assert family.survivors(number) == [] and family.output == "stopped\n"


@each_signal
def test_the_launched_job_of_a_study_ends_with_it(tmp_path, number):
    (tmp_path / "accelerate/commands").mkdir(parents=True)
    for name in ("accelerate/__init__.py", "accelerate/commands/__init__.py"):
        (tmp_path / name).touch()
    (tmp_path / "accelerate/commands/accelerate_cli.py").write_text(LAUNCHER)
    (tmp_path / "study/jobs").mkdir(parents=True)
    family = Family(script(tmp_path, STUDY), tmp_path, descendants=3)
    assert family.survivors(number) == [] and family.output == "interrupted\n"
    assert not list((tmp_path / "study/jobs").glob("*.json"))  # neither done nor failed


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGKILL], ids=lambda number: number.name)
def test_the_jobs_that_a_study_runs_at_once_end_with_it(tmp_path, number):
    (tmp_path / "study/jobs").mkdir(parents=True)
    variables = {LOG: str(tmp_path / "log"), SECONDS: "120", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    family = Family(script(tmp_path, STUDY_AT_ONCE), tmp_path, descendants=2, **variables)
    while len((tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []) < 2:
        time.sleep(0.05)
    assert family.survivors(number) == []
    assert family.output == ("" if number == signal.SIGKILL else "interrupted\n")
    assert not list((tmp_path / "study/jobs").glob("*.json"))


@pytest.mark.long
@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGKILL], ids=lambda number: number.name)
def test_trainings_that_a_study_runs_at_once_leave_their_checkpoints(tmp_path, number):
    endless = {"train.epochs": 20_000, "train.checkpoint_every_steps": 1_000_000}
    write_study(tmp_path, **small(pretraining_seeds=[0, 1], pretrainings={"CT": {"store": "ct", "set": endless}}))
    command = [sys.executable, "-m", "ssl_transfer", "study", "run", "study.yaml", "--jobs", "2"]
    family = Family(command, tmp_path, descendants=2)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("studies/study/pretrain/*/log.jsonl"))) < 2:
        assert time.monotonic() < deadline, "training never started"
        time.sleep(0.1)
    assert family.survivors(number, seconds=60) == []
    assert len(list(tmp_path.glob("studies/study/pretrain/*/checkpoints/*.pt"))) == 2
    assert number == signal.SIGKILL or family.process.returncode == 143


@pytest.mark.long
@each_signal
def test_the_ranks_of_a_study_s_pretraining_end_with_it_and_leave_a_checkpoint(tmp_path, number):
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    launch = {"pretrain": {"launch": "--config_file launch/accelerate/cpu2.yaml"}}
    long = {"CT": {"store": "ct", "set": {"train.epochs": 20_000}}}
    write_study(tmp_path, **small(resources=launch, pretraining_seeds=[0], pretrainings=long))
    command = [sys.executable, "-m", "ssl_transfer", "study", "run", "study.yaml", "--jobs", "1"]
    family = Family(command, tmp_path, descendants=3, ACCELERATE_USE_CPU="true")  # the launcher and two ranks
    deadline = time.monotonic() + 120
    while not any(log.stat().st_size for log in tmp_path.glob("studies/study/pretrain/*/log.jsonl")):  # a step is done
        assert time.monotonic() < deadline, "training never started"
        time.sleep(0.1)
    assert family.survivors(number, seconds=60) == [] and family.process.returncode == 143
    assert list(tmp_path.glob("studies/study/pretrain/*/checkpoints/*.pt"))


@each_signal
def test_the_workers_of_a_benchmark_end_with_it(tmp_path, number):
    command = [sys.executable, str(ROOT / "benchmarks/kept_memory.py"), "--rounds", "1"]
    family = Family(command, tmp_path, descendants=2)  # a worker and the resource tracker
    assert family.survivors(number) == []


def test_processes_are_started_in_one_module_only():
    starts = re.compile(r"Popen|ProcessPoolExecutor|multiprocessing\.(Pool|Process|get_context)|os\.fork|get_context\(")
    files = [*(ROOT / "ssl_transfer").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    found = [str(file.relative_to(ROOT)) for file in files if starts.search(file.read_text())]
    assert found == ["ssl_transfer/processes.py"]
