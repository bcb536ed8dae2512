"""Allocation of the GPUs of this machine to jobs, without a scheduler."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ssl_transfer.console import say
from ssl_transfer.errors import RunError
from ssl_transfer.run import claimed

VISIBLE = "CUDA_VISIBLE_DEVICES"
SCHEDULERS = ("SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST", "PBS_JOBID", "LSB_JOBID")  # set inside their jobs
SECONDS_BETWEEN_LOOKS = 2.0


def machine_gpus() -> list[str]:
    """CUDA's names of the GPUs of this machine (or container), without loading torch."""
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def claimable_gpus(wanted: int) -> list[str]:
    """Names of the GPUs that jobs of this process may claim; empty under a scheduler, and on a machine without GPUs.

    Args:
        wanted: Number of GPUs that a job requests.

    Raises:
        RunError: If the machine has GPUs, but fewer.
    """
    visible = os.environ.get(VISIBLE)
    present = machine_gpus() if visible is None else [name for name in visible.split(",") if name]
    if any(name in os.environ for name in SCHEDULERS):
        return []
    if present and wanted > len(present):
        raise RunError(
            f"the job requests {wanted} GPUs, but this machine has {len(present)}. Change `resources`, or {VISIBLE}."
        )
    return present


@contextmanager
def claimed_gpus(wanted: int, locks: Path | None = None) -> Iterator[list[str]]:
    """Claim GPUs of this machine while the block runs; `CUDA_VISIBLE_DEVICES` is set for this process and its children.

    Under a scheduler nothing is claimed. Otherwise the variable, if set, lists the GPUs that may be claimed. A machine
    without a GPU runs the job on its CPU. In a process that has used CUDA before, the variable has no effect, so an
    engine that runs jobs in parallel starts a process for each.

    Args:
        wanted: Number of GPUs; 0: none.
        locks: Folder of the lock files; None: the temporary folder of the system.

    Raises:
        RunError: If the machine has GPUs, but fewer.
    """
    before, present = os.environ.get(VISIBLE), claimable_gpus(wanted)
    if wanted == 0 or not present:
        yield []
        return
    folder = locks or Path(tempfile.gettempdir()) / f"ssl_transfer-gpus-{os.getuid()}"
    announced = False
    while True:
        with ExitStack() as held:
            mine = []
            for name in present:
                if len(mine) < wanted and held.enter_context(claimed(folder / f"{name}.lock", wait=False)):
                    mine.append(name)
            if len(mine) == wanted:
                os.environ[VISIBLE] = ",".join(mine)
                try:
                    yield mine
                finally:
                    del os.environ[VISIBLE]
                    if before is not None:
                        os.environ[VISIBLE] = before
                return
        if not announced:
            announced = True
            say(f"waiting for {wanted} of {len(present)} GPUs")
        time.sleep(SECONDS_BETWEEN_LOOKS)
