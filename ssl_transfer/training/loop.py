"""The optimisation loop of pretraining and fine-tuning."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
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
from ssl_transfer.cost import Cost
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import Interrupted
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.ranks import gpu_count
from ssl_transfer.schedule import Schedule
from ssl_transfer.training.checkpoint import Checkpoints
from ssl_transfer.training.freezing import FrozenBackbone
from ssl_transfer.training.metric_logger import MetricLogger
from ssl_transfer.training.step_cost import StepCost
from ssl_transfer.training.termination import TerminationFlag

FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)  # full tensors, gathered on rank 0


class Training:
    """A training: network, optimiser, and all other state that a checkpoint contains.

    Under FSDP, weights and optimiser state are sharded over ranks; checkpoints and backbones contain the full tensors.

    Args:
        objective: Backbone, heads and loss.
        optimizer: Optimiser of its parameters, with the peak learning rate of each group.
        accelerator: Device, precision, processes and trackers.
        schedule: Length, warm-up and cadence.
        clip_gradient: Largest norm of the gradient; None: no clipping.
        label: Label of the progress bar.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        schedule: Schedule,
        *,
        clip_gradient: float | None = None,
        label: str = "pretrain",
    ):
        self.objective, self.accelerator, self.schedule = objective, accelerator, schedule
        self.clip_gradient, self.label = clip_gradient, label
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.names = [group.name for group in objective.groups() for _ in ("weights", "norms and biases")]
        self._whole = copy.deepcopy(objective.backbone).cpu() if accelerator.is_fsdp2 else None
        self.network, self.optimizer = accelerator.prepare(objective, optimizer)
        self.frozen_backbone = FrozenBackbone(objective)
        self.spent = StepCost(schedule)
        self.step = 0

    @property
    def cost(self) -> Cost:
        """What the training has cost so far, on all ranks, in all processes that have continued it."""
        return self.spent.until(self.step, self.accelerator.num_processes, gpu_count(self.accelerator.device))

    def state(self) -> dict[str, Any]:
        """Weights, optimiser, scaler and random generators, for a checkpoint. All ranks must call it together."""
        rng = [_rng_state()]
        if self.accelerator.num_processes > 1:
            rng = [None] * self.accelerator.num_processes
            distributed.all_gather_object(rng, _rng_state())
        scaler = self.accelerator.scaler
        if self._whole:
            objective = get_model_state_dict(self.objective, options=FULL_STATE)
            optimizer = get_optimizer_state_dict(self.objective, self.optimizer.optimizer, options=FULL_STATE)
        else:
            objective, optimizer = self.objective.state_dict(), self.optimizer.state_dict()
        return {
            "objective": objective,
            "optimizer": optimizer,
            "scaler": scaler.state_dict() if scaler else {},
            "rng": rng,
            "spent": self.spent.state(),
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: If it is of another model or optimiser, or of fewer processes.
        """
        if len(checkpoint["rng"]) < self.accelerator.num_processes:
            raise ValueError(
                f"it was written by {len(checkpoint['rng'])} process(es), and this launch has {self.accelerator.num_processes}"
            )
        settings = [set(group) for group in self.optimizer.param_groups]
        if self._whole:
            options = StateDictOptions(full_state_dict=True)
            set_model_state_dict(self.objective, checkpoint["objective"], options=options)
            set_optimizer_state_dict(self.objective, self.optimizer.optimizer, checkpoint["optimizer"], options=options)
        else:
            self.objective.load_state_dict(checkpoint["objective"])
            self.optimizer.load_state_dict(checkpoint["optimizer"])
        for expected, group in zip(settings, self.optimizer.param_groups, strict=True):
            if missing := sorted(expected - set(group)):
                raise ValueError(f"its optimiser has no {', '.join(missing)}, as one of another version.")
        if self.accelerator.scaler and checkpoint["scaler"]:
            self.accelerator.scaler.load_state_dict(checkpoint["scaler"])
        _restore_rng(checkpoint["rng"][self.accelerator.process_index])
        if spent := checkpoint.get("spent"):  # none in those of earlier versions
            self.spent.restore(spent)
        self.step = checkpoint["step"]

    def backbone(self) -> Backbone:
        """The backbone with its full weights. All ranks must call it together; only rank 0 may use it."""
        if not self._whole:
            return self.objective.backbone
        weights = get_model_state_dict(self.objective.backbone, options=FULL_STATE)
        if self.accelerator.is_main_process:
            self._whole.to(self.accelerator.device).load_state_dict(weights)
        return self._whole

    def run(
        self,
        batches: Iterator[ViewBatch],
        logger: MetricLogger,
        checkpoints: Checkpoints,
        *,
        watch: Callable[[], dict[str, float]] = dict,
        enough: Callable[[], bool] = lambda: False,
        after_step: Callable[[int], None] = lambda step: None,
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        """Train to the last step, or until `enough` returns true.

        Args:
            batches: Micro-batches of views for this rank, starting at the current step.
            logger: Collects and writes losses.
            checkpoints: Writes checkpoints.
            watch: Measures the model; called on all ranks every `watch_every` steps and at the end.
            enough: Whether to stop early; called before every step, with the same answer on all ranks.
            after_step: Called after every step (counted from 1), before its checkpoint, on all ranks.
            before_save: Called before every checkpoint, on all ranks; an error prevents it.

        Raises:
            RunError: If an alarm stops the run.
            Interrupted: After SIGTERM or Ctrl-C, with a checkpoint written.
            StoreError: If a store was replaced meanwhile; no checkpoint is written then.
        """
        schedule, total = self.schedule, self.schedule.total_steps
        self.network.train()
        with TerminationFlag() as termination, Progress(self.label, total, self.step) as progress:
            while self.step < total and not enough():
                losses, rows, gradient_norm = self._advance(batches)
                self.step += 1
                logger.add(self.step, losses, rows, gradient_norm)
                stopping = termination.on_any_rank(self.accelerator)
                if stopping or schedule.logs_at(self.step):
                    logger.flush(self.rate, watch if schedule.watches_at(self.step) else dict)
                progress.update(logger.message)
                after_step(self.step)
                if stopping or schedule.checkpoints_at(self.step):
                    before_save()
                    self._save(checkpoints, stopping=stopping)
                if stopping and not schedule.is_last(self.step):
                    raise Interrupted(
                        f"stopped by {termination.name} at step {self.step} of {total}; the same command continues from there.",
                        termination.status,
                    )

    def _save(self, checkpoints: Checkpoints, *, stopping: bool) -> None:
        state = self.state()
        if self.accelerator.is_main_process:
            checkpoints.save(self.step, state)
            if stopping:  # the first process that ends makes a launcher kill the others, also one that still writes
                checkpoints.finish()
        self.accelerator.wait_for_everyone()

    @property
    def rate(self) -> float:
        """The highest learning rate of all parameter groups."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def _advance(self, batches: Iterator[ViewBatch]) -> tuple[list[Losses], list[torch.Tensor], torch.Tensor | None]:
        """Take one optimiser step; return losses and rows of its micro-batches, and the norm of the gradient."""
        self.frozen_backbone.settle(self.step)
        self.objective.before_step(self.step)
        self._set_rates()
        losses, rows = [], []
        for number in range(self.schedule.accumulate):
            batch = next(batches)
            last = number + 1 == self.schedule.accumulate
            averaged = nullcontext() if last else self.accelerator.no_sync(self.network)  # gradients, over ranks
            with averaged, self.spent.counted(self.step):
                output = self.network(batch, self.step)
                self.accelerator.backward(output["loss"] / self.schedule.accumulate)
            losses.append({"loss": output["loss"].detach(), "projections": output["projections"]})
            rows.append(batch.rows)
        self.objective.after_backward(self.step)
        self._drop_gradients_at_rate_0()
        gradient_norm = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.after_step(self.step + 1)
        return losses, rows, gradient_norm

    def _set_rates(self) -> None:
        shares = self.objective.rates(self.step, self.schedule.rate(self.step))
        for group, peak, name in zip(self.optimizer.param_groups, self.peaks, self.names, strict=True):
            group["lr"] = peak * shares[name]

    def _drop_gradients_at_rate_0(self) -> None:
        """Drop gradients of parameters whose rate is 0; otherwise they would enter the clipped norm and the momentum."""
        for group in self.optimizer.param_groups:
            if group["lr"] == 0:
                for parameter in group["params"]:
                    parameter.grad = None

    def _clip(self) -> torch.Tensor | None:
        """Clip the gradient; return its norm before clipping, if it is clipped or logged."""
        if not self.clip_gradient and not self.schedule.logs_at(self.step + 1):
            return None
        return self.accelerator.clip_grad_norm_(list(self.objective.parameters()), self.clip_gradient or math.inf)


def _rng_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _restore_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
