"""The command line as a user meets it: a real process in a folder of its own."""

from __future__ import annotations

import atexit
import getpass
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
os.environ.setdefault("NUMBA_OPT", "0")  # in this process and in those below: UMAP compiles in two thirds of the time
COMPILED = (
    Path(tempfile.gettempdir()) / f"numba_opt_0_{getpass.getuser()}"
)  # apart: numba would use that slow code elsewhere, too
os.environ.setdefault("NUMBA_CACHE_DIR", str(COMPILED))
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # the commands of this environment
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict:
        """Standard output, which must be one JSON object in one line and nothing else."""
        assert self.status == 0, self.stderr
        line, nothing = self.stdout.split("\n")
        assert nothing == ""
        return json.loads(line, parse_constant=refuse_constant)


def refuse_constant(constant: str) -> None:
    """NaN and Infinity are Python's, not JSON's."""
    raise AssertionError(f"{constant} is not JSON")


def ssl_transfer(*words: object, folder: Path, timeout: float = 600) -> Answer:
    """Run `ssl-transfer WORDS…` in `folder`: a process forked from one that has imported the libraries, so it starts at once."""
    with tempfile.TemporaryDirectory() as outputs:
        arguments = ([*map(str, words)], str(folder), outputs, ENVIRONMENT)
        process = _forkserver().Process(target=_in_child, args=arguments)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(["ssl-transfer", *map(str, words)], timeout)
        stdout, stderr = (Path(outputs, name).read_text() for name in ("stdout", "stderr"))
        return Answer(process.exitcode, stdout, stderr)


@cache
def _forkserver():
    """A server with the libraries that take seconds to import."""
    context = multiprocessing.get_context("forkserver")
    stages = ("data.ingest", "pretraining", "evaluation", "ranking")
    context.set_forkserver_preload([*(f"ssl_transfer.{name}.stage" for name in stages), "ssl_transfer.study.gather"])
    return context


def _in_child(words: list[str], folder: str, outputs: str, environment: dict[str, str]) -> None:
    """Become `ssl-transfer WORDS…`."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        with open(Path(outputs, name), "wb") as file:
            os.dup2(file.fileno(), stream)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in (1, 2))
    sys.argv = ["ssl-transfer", *words]
    import torch

    from ssl_transfer.cli import main

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # torch was loaded before the environment was set
    try:
        sys.exit(main())
    finally:
        atexit._run_exitfuncs()


def run(command: list[str], folder: Path, timeout: float = 600) -> Answer:
    """Run any command in `folder`, with this checkout importable."""
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)
