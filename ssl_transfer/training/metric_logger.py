"""Log of losses and speed of a training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import Accelerator

from ssl_transfer.measures.geometry import alignment, normalised_std, uniformity
from ssl_transfer.methods.objective import Losses
from ssl_transfer.run import Log
from ssl_transfer.schedule import Schedule
from ssl_transfer.training.monitor import Alarms

ROWS_SHOWN = 8  # in the message of an alarm
Batch = TypeVar("Batch")


class MetricLogger:
    """Collects losses on the device and writes them every few steps, since reading a loss synchronises the device.

    Args:
        accelerator: Processes and trackers.
        schedule: Batch size and steps per epoch.
        log: Log file; None on all ranks but the first.
        alarms: Checks of losses and projections.
        key: Name of a row of the training set, for messages.
    """

    def __init__(
        self, accelerator: Accelerator, schedule: Schedule, log: Log | None, alarms: Alarms, key: Callable[[int], str]
    ):
        self.accelerator, self.schedule, self.log, self.alarms, self.key = accelerator, schedule, log, alarms, key
        self.pending: list[tuple[int, torch.Tensor, list[torch.Tensor]]] = []
        self.waited, self.message = 0.0, ""
        self.since = time.perf_counter()

    def start(self, measured: dict[str, float]) -> None:
        """Write what was measured before the first step, as step 0, which has no loss; nothing if nothing was measured."""
        if not measured:
            return
        if self.log is not None:
            world = self.accelerator.num_processes
            self.log.write(step=0, epoch=0.0, loss=None, lr=None, world_size=world, **measured)
        self.accelerator.log(measured, step=0)
        self.since = time.perf_counter()

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield what is read, and measure the time spent waiting for it."""
        while True:
            started = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - started
            yield batch

    def add(
        self, step: int, losses: list[Losses], rows: list[torch.Tensor], gradient_norm: torch.Tensor | None
    ) -> None:
        """Add the losses and rows of a step."""
        self.pending.append((step, torch.stack([part["loss"] for part in losses]).mean(), rows))
        self.projections, self.gradient_norm = losses[-1]["projections"], gradient_norm

    def flush(self, rate: float, watch: Callable[[], dict[str, float]]) -> None:
        """Write a line for the steps since the last line, and check them. The time of `watch` is not training time."""
        elapsed = time.perf_counter() - self.since
        losses: Any = self.accelerator.reduce(torch.stack([loss for _, loss, _ in self.pending]).float(), "mean")
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0])
            step, _, rows = self.pending[first]
            self.alarms.nonfinite(step, float(losses[first]), partial(self._keys, rows))
        step, _, rows = self.pending[-1]
        measured = watch()
        images_per_second = len(self.pending) * self.schedule.batch_size / max(elapsed, 1e-9)
        values = {
            "step": step,
            "epoch": step / self.schedule.steps_per_epoch,
            "loss": float(losses.mean()),
            "lr": rate,
            "world_size": self.accelerator.num_processes,
            "images_per_second": round(images_per_second, 1),
            "data_wait": round(self.waited / max(elapsed, 1e-9), 4),
            **self._geometry(),
        }
        if self.gradient_norm is not None:
            values["gradient_norm"] = float(self.gradient_norm)
        if self.accelerator.device.type == "cuda":
            values["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        values |= measured
        if self.log is not None:
            self.log.write(**values)
        self.accelerator.log({k: v for k, v in values.items() if k != "step"}, step=step)
        self.message = f"loss {values['loss']:.3f}  {images_per_second:.0f} images/s" + (
            f"  kNN {measured['knn']:.3f}" if "knn" in measured else ""
        )
        self.pending, self.waited, self.since = [], 0.0, time.perf_counter()
        if "normalised_std" in values:
            self.alarms.projection_std(step, values["normalised_std"], partial(self._keys, rows))

    def _geometry(self) -> dict[str, float]:
        """Standard deviation, uniformity and alignment of the last batch's projections; empty if the method has none."""
        views: list[Any] = [self.accelerator.gather(view) for view in self.projections]
        if not views:
            return {}
        values = {"normalised_std": normalised_std(views[0]), "uniformity": uniformity(views[0])}
        return values | ({"alignment": alignment(views[0], views[1])} if len(views) > 1 else {})

    def _keys(self, rows: list[torch.Tensor]) -> str:
        """The first rows of a batch over all ranks, for a message. All ranks must call it together."""
        gathered: list[Any] = [self.accelerator.gather(part.to(self.accelerator.device)) for part in rows]
        all_rows = torch.cat(gathered).tolist()
        shown = ", ".join(map(self.key, all_rows[:ROWS_SHOWN]))
        return f"{shown}, … ({len(all_rows)})" if len(all_rows) > ROWS_SHOWN else shown
