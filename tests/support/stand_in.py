"""Stands in for the verbs in worker processes, and does what environment variables say."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

LOG, DIES, SECONDS = "STAND_IN_LOG", "STAND_IN_DIES", "STAND_IN_SECONDS"


def perform(words: list[str]) -> None:
    """Log a command, its process and its threads; die of it if it contains the words in `DIES`; take some seconds."""
    entry = {"command": " ".join(words), "process": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}
    with Path(os.environ[LOG]).open("a") as log:
        log.write(json.dumps(entry) + "\n")
    if os.environ.get(DIES) and os.environ[DIES] in entry["command"]:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(os.environ.get(SECONDS, "0")))


def logged(path: Path) -> list[dict]:
    """What was logged, in order."""
    return [json.loads(line) for line in path.read_text().splitlines()]
