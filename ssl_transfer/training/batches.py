"""Batches of views: which images each rank sees at each step, as a function of (seed, step)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ssl_transfer.data.pool import Pool
from ssl_transfer.data.views import ViewBatch

FEW_CORES = 4


class StepSampler(Sampler):
    """Yields (epoch, rows of this rank) for every micro-batch of every step; nothing to restore but the first step.

    Each epoch is cut into global batches, the rest dropped; a global batch into `accumulate` micro-batches; a rank takes
    a consecutive part of each.

    Args:
        pool: The images.
        batch_size: Global.
        total_steps: Of the run.
        first_step: From 0.
        rank: Of this process.
        world: Processes.
        accumulate: Micro-batches per step.
    """

    def __init__(
        self, pool: Pool, batch_size: int, total_steps: int, first_step: int, rank: int, world: int, accumulate: int = 1
    ):
        self.pool, self.batch_size, self.accumulate = pool, batch_size, accumulate
        self.total_steps, self.first_step = total_steps, first_step
        micro = batch_size // accumulate
        self.mine = [
            slice(m * micro + rank * micro // world, m * micro + (rank + 1) * micro // world) for m in range(accumulate)
        ]
        self.steps_per_epoch = len(pool) // batch_size

    def __len__(self) -> int:
        return (self.total_steps - self.first_step) * self.accumulate

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for step in range(self.first_step, self.total_steps):
            epoch, batch = divmod(step, self.steps_per_epoch)
            places = np.arange(batch * self.batch_size, (batch + 1) * self.batch_size)
            for mine in self.mine:
                yield epoch, self.pool.rows(epoch, places[mine])


class ViewDataset(Dataset):
    """Turns (epoch, rows) into the batch's views; with `make=False` into raw pixels, for views made on a GPU."""

    def __init__(self, pool: Pool, make: bool):
        self.pool, self.make = pool, make

    def __getitem__(self, key: tuple[int, np.ndarray]):
        epoch, rows = key
        read = self.pool.read(rows)
        return self.pool.views(read, rows, epoch) if self.make else (read, rows, epoch)


def view_batches(pool: Pool, sampler: StepSampler, device: torch.device, workers: int | None) -> Iterator[ViewBatch]:
    """Batches of views on `device`, read ahead by worker processes or made in this one.

    On a CPU a worker makes the views as well. For a GPU workers only read, and the views are made there.

    Args:
        workers: Processes that read ahead; None: as `suited_workers` says. 0 reads in this process.
    """
    on_device = device.type != "cpu"
    workers = suited_workers(device) if workers is None else workers
    loader = DataLoader(
        ViewDataset(pool, not on_device), batch_size=None, sampler=sampler, num_workers=workers,
        pin_memory=on_device, prefetch_factor=2 if workers else None, worker_init_fn=_outlive_sigterm,
        generator=torch.Generator(),  # the loader draws a number; from the run's own generator a resumed run would lack it
    )  # fmt: skip
    items = iter(loader)
    try:
        for item in items:
            if on_device:
                read, rows, epoch = item
                moved = [(i, np.asarray(chosen), images.to(device, non_blocking=True)) for i, chosen, images in read]
                yield pool.views(moved, np.asarray(rows), int(epoch))
            else:
                yield item
    finally:  # readers ignore SIGTERM, so after an error Python would wait for them forever
        if workers:
            items._shutdown_workers()


def suited_workers(device: torch.device) -> int:
    """4 for a GPU, 1 on a CPU, and 0 where that has so few cores that a worker would only take them from the model.

    `benchmarks/pretrain_throughput.py --with train.workers=1` measures what a worker gains or costs.
    """
    if device.type != "cpu":
        return 4
    return 1 if torch.get_num_threads() >= FEW_CORES else 0


def _outlive_sigterm(worker: int) -> None:
    """SLURM sends SIGTERM to every process; a reader that dies of it would take the run down before its checkpoint."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
