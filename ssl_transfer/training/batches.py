"""Batches of views. Which images a rank gets at a step is a function of (seed, step)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ssl_transfer.data.counters import shuffled
from ssl_transfer.data.training_set import RawBatch, TrainingSet
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.processes import end_with_parent
from ssl_transfer.training.reader_health import delivered
from ssl_transfer.training.view_stream import ViewStream

FEW_CORES = 4  # with fewer threads, a worker process would slow the model down


class StepSampler(Sampler):
    """Yields (epoch, rows of this rank) for every micro-batch of every step; its only state is the step.

    An epoch is split into global batches (an incomplete last one is dropped), a global batch into `accumulate`
    micro-batches, and a micro-batch into one consecutive part per rank.

    Args:
        training_set: The training images.
        batch_size: Global batch size.
        total_steps: Number of steps of the run.
        first_step: First step to yield, counted from 0.
        rank: Rank of this process.
        world: Number of processes.
        accumulate: Micro-batches per step.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        batch_size: int,
        total_steps: int,
        first_step: int,
        rank: int,
        world: int,
        accumulate: int = 1,
    ):
        self.training_set, self.batch_size, self.accumulate = training_set, batch_size, accumulate
        self.total_steps, self.first_step = total_steps, first_step
        micro = batch_size // accumulate
        self.mine = [
            slice(m * micro + rank * micro // world, m * micro + (rank + 1) * micro // world) for m in range(accumulate)
        ]
        self.steps_per_epoch = len(training_set) // batch_size

    def __len__(self) -> int:
        return (self.total_steps - self.first_step) * self.accumulate

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for step in range(self.first_step, self.total_steps):
            epoch, batch = divmod(step, self.steps_per_epoch)
            positions = np.arange(batch * self.batch_size, (batch + 1) * self.batch_size)
            for mine in self.mine:
                yield epoch, self.training_set.rows(epoch, positions[mine])


class StreamSampler(Sampler):
    """Yields (passes, rows of this rank) for every step of an endless stream of images, for training sets of any size.

    Passes over the images follow each other without a gap, so a batch may be larger than the training set. The number of the
    pass is yielded with each image, so that its views differ between passes. If there are several strata, their images alternate,
    so that every batch has equally many images of each stratum.

    Args:
        strata: Rows of each stratum, int64; a single one is a plain stream.
        seed: Seed of the run.
        batch_size: Global batch size.
        total_steps: Number of steps of the run.
        first_step: First step to yield, counted from 0.
        rank: Rank of this process.
        world: Number of processes.
    """

    def __init__(
        self,
        strata: Sequence[np.ndarray],
        seed: int,
        batch_size: int,
        total_steps: int,
        first_step: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        self.strata, self.seed, self.batch_size = strata, seed, batch_size
        self.total_steps, self.first_step = total_steps, first_step
        self.mine = slice(rank * batch_size // world, (rank + 1) * batch_size // world)

    def __len__(self) -> int:
        return self.total_steps - self.first_step

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.at(step) for step in range(self.first_step, self.total_steps))

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Passes and rows of this rank at a step, int64, shape (n,) each."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[self.mine]
        turns, owners = np.divmod(positions, len(self.strata))
        passes, rows = np.empty_like(positions), np.empty_like(positions)
        for index, stratum in enumerate(self.strata):
            mine = owners == index
            passes[mine], slots = np.divmod(turns[mine], len(stratum))
            for number in np.unique(passes[mine]):
                now = mine & (passes == number)
                order = int(number) * len(self.strata) + index
                rows[now] = stratum[shuffled(slots[passes[mine] == number], len(stratum), self.seed, order)]
        return passes, rows


class BagSampler(Sampler):
    """Yields as many images of each group of a stream of groups at every step.

    The images of a group are drawn without repetition, others in every pass; a group that has fewer repeats them.

    Args:
        groups: Draws the numbers of the groups of each step.
        members: Rows of the images of each group.
        bag_size: Images of each group in a batch.
    """

    def __init__(self, groups: StreamSampler, members: Sequence[np.ndarray], bag_size: int):
        self.groups, self.members, self.bag_size = groups, members, bag_size

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.at(step) for step in range(self.groups.first_step, self.groups.total_steps))

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Passes and rows of this rank at a step, int64, shape (n,) each; the images of a group stand together."""
        passes, groups = self.groups.at(step)
        rows = [
            self._drawn(self.members[group], int(number) * len(self.members) + int(group))
            for number, group in zip(passes, groups, strict=True)
        ]
        return np.repeat(passes, self.bag_size), np.concatenate([np.empty(0, np.int64), *rows])

    def _drawn(self, rows: np.ndarray, order: int) -> np.ndarray:
        slots = np.arange(self.bag_size) % len(rows)
        return rows[shuffled(slots, len(rows), self.groups.seed, order)]


class ViewDataset(Dataset):
    """Maps (epoch, rows) to the views of a batch, or with `make=False` to raw pixels, for views that are made on a GPU."""

    def __init__(self, training_set: TrainingSet, make: bool):
        self.training_set, self.make = training_set, make

    def __getitem__(self, key: tuple[int | np.ndarray, np.ndarray]):
        epoch, rows = key
        read = self.training_set.read(rows, epoch)
        return self.training_set.views(read, rows, epoch) if self.make else (read, rows, epoch)


def batch_at(
    training_set: TrainingSet, sampler: StreamSampler | BagSampler, step: int, device: torch.device
) -> ViewBatch:
    """This rank's batch of a step, on `device`."""
    epoch, rows = sampler.at(step)
    return training_set.views(_moved(training_set.read(rows, epoch), device), rows, epoch)


def view_batches(
    training_set: TrainingSet,
    sampler: StepSampler | StreamSampler | BagSampler,
    device: torch.device,
    workers: int | None,
    timed: Callable[[Iterator[Any]], Iterator[Any]] = iter,
) -> Generator[ViewBatch, None, None]:
    """Yield batches of views on `device`, read by worker processes in advance or in this process.

    On a CPU, workers also make the views. For a GPU, workers only read, and views are made on the GPU.

    Args:
        workers: Number of worker processes; 0: read in this process; None: see `suited_workers`.
        timed: Wraps the iterator of what is read, before views are made on a GPU, to measure how long it is waited for.

    Raises:
        RunError: If reader processes hang.
    """
    on_device = device.type != "cpu"
    workers = suited_workers(device) if workers is None else workers
    loader = DataLoader(
        ViewDataset(training_set, not on_device),
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        pin_memory=on_device,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_start_reader,
        generator=torch.Generator(),  # the loader draws a number, which must not come from the run's generator
    )
    items: Any = iter(loader)
    stream = ViewStream(device) if device.type == "cuda" else None
    try:
        for item in timed(delivered(items) if workers else items):
            if on_device:
                make = partial(_views_of, item, training_set, device)
                item = make() if stream is None else stream.made(make)
            yield item
    finally:  # workers ignore SIGTERM, so after an error Python would wait for them forever
        if workers:
            items._shutdown_workers()


def _views_of(
    item: tuple[Sequence[RawBatch], np.ndarray, int | np.ndarray], training_set: TrainingSet, device: torch.device
) -> ViewBatch:
    """Views, on `device`, of an item of a `ViewDataset` that reads only."""
    read, rows, epoch = item
    return training_set.views(_moved(read, device), np.asarray(rows), np.asarray(epoch))


def _moved(read: Sequence[RawBatch], device: torch.device) -> list[RawBatch]:
    """Move raw batches to `device`; the loader has converted their arrays to tensors."""
    return [
        RawBatch(
            part,
            np.asarray(chosen),
            images.to(device, non_blocking=True),
            *(None if more is None else more.to(device, non_blocking=True) for more in further),
        )
        for part, chosen, images, *further in read
    ]


def suited_workers(device: torch.device) -> int:
    """Default number of workers: 4 for a GPU, 1 on a CPU, and 0 with so few cores that a worker would slow the model down.

    `benchmarks/pretrain_throughput.py --with train.workers=1` measures the effect of a worker.
    """
    if device.type != "cpu":
        return 4
    return 1 if torch.get_num_threads() >= FEW_CORES else 0


def _start_reader(number: int) -> None:
    """Ignore SIGTERM and Ctrl-C in a worker.

    SLURM and a terminal send them to all processes; if a worker ended, the run would fail without a checkpoint.
    """
    for ignored in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    end_with_parent()
