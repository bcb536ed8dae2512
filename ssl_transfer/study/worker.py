"""What a worker process of the engine does with a job."""

from __future__ import annotations

import importlib
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ssl_transfer.console import label_lines, say
from ssl_transfer.errors import Interrupted, OutputError
from ssl_transfer.study.devices import claimed_gpus
from ssl_transfer.study.performing import Perform, attempt
from ssl_transfer.study.plan import Job

TARGET = f"{__name__}:work"  # for `processes.Workers`


@dataclass(frozen=True)
class Task:
    """A job for a worker.

    Attributes:
        folder: Folder of the study.
        job: The job.
        perform: `module:function` that runs the arguments of `ssl-transfer`.
        gpus: Number of GPUs that this worker claims before its first job and keeps.
        threads: Number of threads.
        label: In front of every line that the job prints.
    """

    folder: Path
    job: Job
    perform: str
    gpus: int
    threads: int
    label: str


def work(task: Task) -> str:
    """Run a job in this process: `done`, `failed`, `busy`, or `stopped` by a signal."""
    label_lines(task.label)
    _claim(task.gpus)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(task.threads)  # the former job may have changed it
    try:
        return attempt(task.folder, task.job, _imported(task.perform))
    except Interrupted as interruption:
        say(str(interruption))
        return "stopped"
    except OutputError as error:  # recorded, if that could be written
        say(f"failed: {task.job.title}: {error}")
        return "failed"


def named(perform: Perform) -> str:
    """`module:function` of a function, by which another process imports it.

    Raises:
        ValueError: If it is not a function of a module.
    """
    name = f"{getattr(perform, '__module__', '')}:{getattr(perform, '__qualname__', '')}"
    try:
        if _imported(name) is perform:
            return name
    except (AttributeError, ImportError, ValueError):
        pass
    raise ValueError(f"{perform!r} is not a function of a module, so that no other process can run it. Take jobs=1.")


def _imported(name: str) -> Perform:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


@cache
def _claim(gpus: int) -> ExitStack:
    """Claim GPUs until this process ends: once it has used CUDA, it cannot change to others."""
    held = ExitStack()
    held.enter_context(claimed_gpus(gpus))
    return held
