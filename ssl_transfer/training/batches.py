"""Batches of views: which images each rank sees at each step, as a function of (seed, step)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.views import ViewBatch, ViewMaker


class StepSampler(Sampler):
    """Yields (epoch, rows of this rank) for every step; nothing to restore but the first step.

    Each epoch is a permutation drawn from (seed, epoch), cut into global batches, the rest dropped; a rank takes a
    consecutive part of each global batch. Twelve million rows are one integer array.
    """

    def __init__(
        self,
        positions: np.ndarray,
        batch_size: int,
        seed: int,
        total_steps: int,
        first_step: int,
        rank: int,
        world: int,
    ):
        self.positions, self.batch_size, self.seed = positions, batch_size, seed
        self.total_steps, self.first_step = total_steps, first_step
        self.mine = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self.steps_per_epoch = len(positions) // batch_size

    def __len__(self) -> int:
        return self.total_steps - self.first_step

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        order, drawn = None, -1
        for step in range(self.first_step, self.total_steps):
            epoch, batch = divmod(step, self.steps_per_epoch)
            if epoch != drawn:
                order = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self.positions))
                drawn = epoch
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size][self.mine]
            yield epoch, np.asarray(self.positions[chosen])


class ViewDataset(Dataset):
    """Turns (epoch, rows) into the batch's views; with `maker=None` into raw pixels, for views made on a GPU."""

    def __init__(self, store: ImageStore, maker: ViewMaker | None):
        self.store, self.maker = store, maker

    def __getitem__(self, key: tuple[int, np.ndarray]):
        epoch, rows = key
        images = torch.from_numpy(self.store.__getitems__(rows))
        return self.maker(images, rows, epoch) if self.maker else (images, rows, epoch)


def view_batches(
    store: ImageStore, maker: ViewMaker, sampler: StepSampler, device: torch.device, workers: int | None
) -> Iterator[ViewBatch]:
    """Batches of views on `device`, read ahead by worker processes.

    On a CPU a worker makes the views as well: one is enough, and leaves the other cores to the model. For a GPU
    workers only read, and the views are made there.

    Args:
        workers: Processes that read ahead; None: 1 on a CPU, 4 for a GPU. 0 reads in this process.
    """
    on_device = device.type != "cpu"
    workers = (4 if on_device else 1) if workers is None else workers
    loader = DataLoader(
        ViewDataset(store, None if on_device else maker), batch_size=None, sampler=sampler, num_workers=workers,
        pin_memory=on_device, prefetch_factor=2 if workers else None, worker_init_fn=_outlive_sigterm,
        generator=torch.Generator(),  # the loader draws a number; from the run's own generator a resumed run would lack it
    )  # fmt: skip
    for item in loader:
        if on_device:
            images, rows, epoch = item
            yield maker(images.to(device, non_blocking=True), np.asarray(rows), int(epoch))
        else:
            yield item


def _outlive_sigterm(worker: int) -> None:
    """SLURM sends SIGTERM to every process; a reader that dies of it would take the run down before its checkpoint."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
