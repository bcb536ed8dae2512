"""The only optimisation loop."""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as distributed
from accelerate import Accelerator
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from ssl_transfer.console import Progress
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import Interrupted
from ssl_transfer.measures.geometry import alignment, normalised_std, uniformity
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.run import Log
from ssl_transfer.training.checkpoint import Checkpoints
from ssl_transfer.training.monitor import Alarms
from ssl_transfer.training.schedule import warmup_cosine

KEYS_SHOWN = 8
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)  # gathered on rank 0


@dataclass(frozen=True)
class Pace:
    """How long and how often. Steps are optimiser steps; `batch_size` is global, `accumulate` micro-batches make it."""

    total_steps: int
    steps_per_epoch: int
    warmup_steps: int
    batch_size: int
    log_every: int
    checkpoint_every: int
    watch_every: int
    clip_gradient: float | None = None
    accumulate: int = 1


class Training:
    """One training: its network, optimiser, and everything that a checkpoint holds.

    Under FSDP every rank keeps a part of each weight and of the optimiser's state; checkpoints and backbones are whole.

    Args:
        objective: The method.
        optimizer: Over its parameters; each group's present rate is its peak.
        accelerator: Placement, precision, processes, trackers.
        pace: How long and how often.
        label: Of the progress bar.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        pace: Pace,
        label: str = "pretrain",
    ):
        self.label = label
        self.objective, self.accelerator, self.pace = objective, accelerator, pace
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.names = [group.name for group in objective.groups() for _ in ("weights", "norms and biases")]
        self._whole = copy.deepcopy(objective.backbone).cpu() if accelerator.is_fsdp2 else None
        self.network, self.optimizer = accelerator.prepare(objective, optimizer)
        self.step = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds. All ranks must call it together."""
        rng = [_rng_state()]
        if self.accelerator.num_processes > 1:
            rng = [None] * self.accelerator.num_processes
            distributed.all_gather_object(rng, _rng_state())
        scaler = self.accelerator.scaler
        if self._whole:
            objective = get_model_state_dict(self.objective, options=WHOLE)
            optimizer = get_optimizer_state_dict(self.objective, self.optimizer.optimizer, options=WHOLE)
        else:
            objective, optimizer = self.objective.state_dict(), self.optimizer.state_dict()
        return {
            "objective": objective,
            "optimizer": optimizer,
            "scaler": scaler.state_dict() if scaler else {},
            "rng": rng,
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Continue where a checkpoint was written."""
        if self._whole:
            options = StateDictOptions(full_state_dict=True)
            set_model_state_dict(self.objective, checkpoint["objective"], options=options)
            set_optimizer_state_dict(self.objective, self.optimizer.optimizer, checkpoint["optimizer"], options=options)
        else:
            self.objective.load_state_dict(checkpoint["objective"])
            self.optimizer.load_state_dict(checkpoint["optimizer"])
        if self.accelerator.scaler and checkpoint["scaler"]:
            self.accelerator.scaler.load_state_dict(checkpoint["scaler"])
        _restore_rng(checkpoint["rng"][self.accelerator.process_index])
        self.step = checkpoint["step"]

    def backbone(self) -> Backbone:
        """The backbone with all of its weights. All ranks must call it together; only rank 0 may use it."""
        if not self._whole:
            return self.objective.backbone
        weights = get_model_state_dict(self.objective.backbone, options=WHOLE)
        if self.accelerator.is_main_process:
            self._whole.to(self.accelerator.device).load_state_dict(weights)
        return self._whole

    def run(
        self,
        batches: Iterator[ViewBatch],
        log: Log | None,
        checkpoints: Checkpoints,
        alarms: Alarms,
        watch: Callable[[], dict[str, float]],
        key: Callable[[int], str],
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train to the last step, or until it is enough.

        Args:
            batches: This rank's micro-batches of views, from the present step on.
            log: On rank 0.
            watch: Measures what is trained; called on all ranks every `watch_every` steps and at the end.
            key: Names a row of a batch for a person.
            enough: Asked before every step, with the same answer on all ranks: whether to stop early.

        Raises:
            RunError: If an alarm stops the run.
            Interrupted: After a SIGTERM, with a checkpoint written.
        """
        pace, journal = self.pace, MetricLogger(self.accelerator, self.pace, log, alarms, key)
        self.network.train()
        with _Terminations() as terminations, Progress(self.label, pace.total_steps, self.step) as progress:
            while self.step < pace.total_steps and not enough():
                losses, rows, gradient_norm = self._advance(journal.timed(batches))
                self.step += 1
                journal.add(self.step, losses, rows, gradient_norm)
                last = self.step == pace.total_steps
                watching = last or self.step % pace.watch_every == 0
                saving = last or self.step % pace.checkpoint_every == 0
                stopping = terminations.agreed(self.accelerator)
                if stopping or self._logged(self.step):
                    journal.flush(self.rate, watch if watching else dict)
                progress.update(journal.note)
                if saving or stopping:
                    state = self.state()
                    if self.accelerator.is_main_process:
                        checkpoints.save(self.step, state)
                    self.accelerator.wait_for_everyone()
                if stopping and not last:
                    raise Interrupted(
                        f"stopped by SIGTERM at step {self.step} of {pace.total_steps}; the same command goes on from there."
                    )

    @property
    def rate(self) -> float:
        """The highest learning rate of all parameter groups."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def _logged(self, step: int) -> bool:
        pace = self.pace
        return step == pace.total_steps or any(
            step % n == 0 for n in (pace.log_every, pace.watch_every, pace.checkpoint_every)
        )

    def _advance(self, batches: Iterator[ViewBatch]) -> tuple[list[Losses], list[torch.Tensor], torch.Tensor | None]:
        """One optimiser step over its micro-batches."""
        self.objective.before_step(self.step)
        self._set_rates()
        losses, rows = [], []
        for micro in range(self.pace.accumulate):
            batch = next(batches)
            last = micro + 1 == self.pace.accumulate
            with nullcontext() if last else self.accelerator.no_sync(self.network):  # ranks meet at the last one
                found = self.network(batch, self.step)
                self.accelerator.backward(found["loss"] / self.pace.accumulate)
            losses.append({"loss": found["loss"].detach(), "projections": found["projections"]})
            rows.append(batch.rows)
        self.objective.after_backward(self.step)
        for group in self.optimizer.param_groups:
            if group["lr"] == 0:  # else it would count for clipping, and collect momentum
                for parameter in group["params"]:
                    parameter.grad = None
        gradient_norm = None
        if self.pace.clip_gradient or self._logged(self.step + 1):
            limit = self.pace.clip_gradient or math.inf
            gradient_norm = self.accelerator.clip_grad_norm_(list(self.objective.parameters()), limit)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.after_step(self.step + 1)
        return losses, rows, gradient_norm

    def _set_rates(self) -> None:
        factor = warmup_cosine(self.step, self.pace.total_steps, self.pace.warmup_steps)
        shares = self.objective.rates(self.step, factor)
        for group, peak, name in zip(self.optimizer.param_groups, self.peaks, self.names, strict=True):
            group["lr"] = peak * shares[name]


class MetricLogger:
    """Collects losses on the device and writes them every few steps, so that training never waits for a number."""

    def __init__(
        self, accelerator: Accelerator, pace: Pace, log: Log | None, alarms: Alarms, key: Callable[[int], str]
    ):
        self.accelerator, self.pace, self.log, self.alarms, self.key = accelerator, pace, log, alarms, key
        self.pending: list[tuple[int, torch.Tensor, list[torch.Tensor]]] = []
        self.waited, self.note = 0.0, ""
        self.since = time.perf_counter()

    def timed(self, batches: Iterator[ViewBatch]) -> Iterator[ViewBatch]:
        """The batches, while the time spent waiting for them is counted."""
        while True:
            asked = time.perf_counter()
            batch = next(batches)
            self.waited += time.perf_counter() - asked
            yield batch

    def add(
        self, step: int, losses: list[Losses], rows: list[torch.Tensor], gradient_norm: torch.Tensor | None
    ) -> None:
        """Remember a step."""
        self.pending.append((step, torch.stack([part["loss"] for part in losses]).mean(), rows))
        self.projections, self.gradient_norm = losses[-1]["projections"], gradient_norm

    def flush(self, rate: float, watch: Callable[[], dict[str, float]]) -> None:
        """Write one line for the steps since the last, and judge them; watching does not count as training time."""
        elapsed = time.perf_counter() - self.since
        losses = self.accelerator.reduce(torch.stack([loss for _, loss, _ in self.pending]).float(), "mean")
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0])
            step, _, rows = self.pending[first]
            self.alarms.nonfinite(step, float(losses[first]), partial(self._keys, rows))
        step, _, rows = self.pending[-1]
        seen = watch()
        images_per_second = len(self.pending) * self.pace.batch_size / max(elapsed, 1e-9)
        values = {
            "step": step,
            "epoch": step / self.pace.steps_per_epoch,
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
        values |= seen
        if self.log is not None:
            self.log.write(**values)
        self.accelerator.log({k: v for k, v in values.items() if k != "step"}, step=step)
        self.note = f"loss {values['loss']:.3f}  {images_per_second:.0f} images/s" + (
            f"  kNN {seen['knn']:.3f}" if "knn" in seen else ""
        )
        self.pending, self.waited, self.since = [], 0.0, time.perf_counter()
        if "normalised_std" in values:
            self.alarms.spread(step, values["normalised_std"], partial(self._keys, rows))

    def _geometry(self) -> dict[str, float]:
        """How the projections of the last batch lie; nothing where a method has none."""
        views = [self.accelerator.gather(view) for view in self.projections]
        if not views:
            return {}
        found = {"normalised_std": normalised_std(views[0]), "uniformity": uniformity(views[0])}
        return found | ({"alignment": alignment(views[0], views[1])} if len(views) > 1 else {})

    def _keys(self, rows: list[torch.Tensor]) -> str:
        """The first rows of a batch over all ranks, for a message. All ranks must call it together."""
        everyone = torch.cat([self.accelerator.gather(part.to(self.accelerator.device)) for part in rows]).tolist()
        shown = ", ".join(map(self.key, everyone[:KEYS_SHOWN]))
        return f"{shown}, … ({len(everyone)})" if len(everyone) > KEYS_SHOWN else shown


class _Terminations:
    """Turns SIGTERM into a question that the loop asks between steps."""

    def __enter__(self) -> _Terminations:
        self.asked = False
        try:
            self.before = signal.signal(signal.SIGTERM, self._ask)
        except ValueError:  # not in the main thread: signals go elsewhere
            self.before = None
        return self

    def __exit__(self, *exception: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)

    def _ask(self, *arguments: object) -> None:
        self.asked = True

    def agreed(self, accelerator: Accelerator) -> bool:
        """True on all ranks once any rank was asked to stop."""
        if accelerator.num_processes == 1:
            return self.asked
        flag = torch.tensor(float(self.asked), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum") > 0)


def _rng_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _restore_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
