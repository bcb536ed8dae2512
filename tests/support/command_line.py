"""The command line as a user meets it: a real process in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
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
    """Run `ssl-transfer WORDS…` in `folder`."""
    return run([sys.executable, "-m", "ssl_transfer", *map(str, words)], folder, timeout)


def run(command: list[str], folder: Path, timeout: float = 600) -> Answer:
    """Run any command in `folder`, with this checkout importable."""
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)
