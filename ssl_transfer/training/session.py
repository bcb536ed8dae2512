"""A training session: the set-up of a training, new or continued from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from ssl_transfer.console import say
from ssl_transfer.data.store_watch import StoreWatch
from ssl_transfer.data.training_set import TrainingSet
from ssl_transfer.errors import RunError
from ssl_transfer.methods.objective import Group, Objective
from ssl_transfer.models.architecture import brief
from ssl_transfer.models.batchnorm import globalise_batchnorm
from ssl_transfer.models.memory import keep_freed_memory
from ssl_transfer.numerics import numerics
from ssl_transfer.run import Log
from ssl_transfer.schedule import Schedule
from ssl_transfer.training.batches import BagSampler, StepSampler, StreamSampler, view_batches
from ssl_transfer.training.checkpoint import Checkpoints
from ssl_transfer.training.loop import Training
from ssl_transfer.training.machine import Machine, start_accelerator
from ssl_transfer.training.metric_logger import MetricLogger
from ssl_transfer.training.monitor import Alarms
from ssl_transfer.training.process_timeouts import named_timeouts
from ssl_transfer.training.reader_health import named_reader_failures
from ssl_transfer.writing import writes

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
OptimizerFactory = Callable[[list[Group], int], torch.optim.Optimizer]  # arguments: parameter groups, global batch size


class Stateful(Protocol):
    """An object whose state can be part of a checkpoint."""

    def state(self) -> dict[str, Any]:
        """The current state."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        ...


class Session:
    """A training from its first step or its latest checkpoint: machine, processes, seeds, log and checkpoints.

    All ranks create it together, then call `prepare` and `run`.

    Args:
        folder: Folder of the run, for the log and the checkpoints.
        run_id: Id of the run; checkpoints of other runs are refused.
        machine: Machine settings of a new run; a resumed run keeps those of its checkpoint.
        schedule: Length, warm-up and cadence.
        seed: Seed of the run; each process adds its rank.
        resume: `auto` continues from the latest undamaged checkpoint, `never` deletes all checkpoints.
        tracker, longest_wait_minutes: See `start_accelerator`.
        keep: Objects, by name, whose state is part of every checkpoint.

    Attributes:
        machine: As chosen, or as recorded in the checkpoint.
        accelerator: Device, precision and processes.
        training: The loop; set by `prepare`.

    Raises:
        RunError: If no checkpoint can be read or fits the run, or Accelerate counts fewer processes than the launch.
        RecipeError: If the batch cannot be shared evenly by the processes.
    """

    training: Training

    def __init__(
        self,
        folder: Path,
        run_id: str,
        machine: Machine,
        schedule: Schedule,
        seed: int,
        *,
        resume: str = "auto",
        tracker: str = "none",
        longest_wait_minutes: float = 60,
        keep: Mapping[str, Stateful] | None = None,
    ):
        self.folder, self.schedule, self.keep = folder, schedule, dict(keep or {})
        self.longest_wait_minutes = longest_wait_minutes
        self.checkpoints = Checkpoints(folder / "checkpoints", run_id)
        if resume == "never":
            self.checkpoints.clear()
        self._checkpoint = self.checkpoints.load()
        self.machine = machine if self._checkpoint is None else self._recorded_machine(self._checkpoint)
        self.checkpoints.extra = self._extra
        step = self._checkpoint["step"] if self._checkpoint else 0
        self.accelerator = start_accelerator(
            self.machine.precision,
            schedule.batch_size,
            schedule.accumulate,
            tracker,
            folder,
            some_unused=schedule.freezes_at(step),
            longest_wait_minutes=longest_wait_minutes,
        )
        keep_freed_memory(self.accelerator.device)
        torch.set_num_threads(self.machine.threads)  # Accelerate may have changed the number
        torch.manual_seed(seed + self.accelerator.process_index)  # dropout and stochastic depth draw from it

    def prepare(
        self,
        objective: Objective,
        optimizer: OptimizerFactory,
        *,
        compiled: bool = False,
        clip_gradient: float | None = None,
        label: str = "pretrain",
    ) -> Training:
        """Move an objective to the device of this process, build its optimiser, and restore both from the checkpoint.

        Args:
            objective: Backbone, heads and loss.
            optimizer: Builds the optimiser.
            compiled: Whether `torch.compile` is applied.
            clip_gradient: Largest norm of the gradient; None: no clipping.
            label: Label of the progress bar.
        """
        globalise_batchnorm(objective, objective.bn_groups)
        objective.to(device=self.accelerator.device)
        objective.to(memory_format=MEMORY_FORMATS[self.machine.memory_format])
        if compiled:
            for part in objective.compiled_parts():
                part.compile()
        self.training = Training(
            objective,
            optimizer(objective.groups(), self.schedule.batch_size),
            self.accelerator,
            self.schedule,
            clip_gradient=clip_gradient,
            label=label,
        )
        if self._checkpoint:
            with self._fitting():
                self.training.restore(self._checkpoint)
                for name, stateful in self.keep.items():
                    stateful.restore(self._checkpoint[name])
            say(f"{self.folder}: continuing from step {self.training.step}.")
        self._checkpoint = None  # frees its memory
        return self.training

    def _recorded_machine(self, checkpoint: dict[str, Any]) -> Machine:
        with self._fitting():
            return Machine(**checkpoint["machine"])

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        """Raise a `RunError` if a checkpoint does not fit this run."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(
                f"{self.checkpoints.folder}: the latest checkpoint does not fit this run: {brief(error)} Launch it as it was "
                "started, or start a pretraining again with --resume never; for an evaluation, delete its folder."
            ) from error

    @property
    def position(self) -> dict[str, int]:
        """Keyword arguments of a sampler: `first_step`, `rank`, `world`."""
        return {
            "first_step": self.training.step,
            "rank": self.accelerator.process_index,
            "world": self.accelerator.num_processes,
        }

    def run(
        self,
        training_set: TrainingSet,
        sampler: StepSampler | StreamSampler | BagSampler,
        alarms: Alarms,
        watch: Callable[[], dict[str, float]],
        *,
        before: Callable[[], dict[str, float]] = dict,
        after_step: Callable[[int], None] = lambda step: None,
        workers: int | None = None,
        enough: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """Train to the end (see `Training.run`).

        Args:
            training_set: Reads and augments images.
            sampler: Yields this rank's rows, from the current step on.
            alarms: Checks of losses and projections.
            watch: Measures the model; called on all ranks.
            before: Measures before the first step of a new run; called on all ranks.
            after_step: Called after every step (counted from 1), before its checkpoint, on all ranks.
            workers: Number of worker processes that read images; None: see `suited_workers`.
            enough: Whether to stop early; called before every step.

        Returns:
            The last line of the log on rank 0, nothing on the others.
        """
        with ExitStack() as stack:
            stack.callback(self.checkpoints.finish)
            stack.enter_context(numerics(equal_shapes=True, deterministic=self.machine.deterministic))
            if self.accelerator.num_processes > 1:
                stack.enter_context(named_timeouts(self.folder, self.longest_wait_minutes))
            log = None
            if self.accelerator.is_main_process:
                with writes(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(closing(Log(self.folder / "log.jsonl", self.training.step)))
            logger = MetricLogger(self.accelerator, self.schedule, log, alarms, training_set.key)
            batches = stack.enter_context(
                closing(view_batches(training_set, sampler, self.accelerator.device, workers, logger.timed))
            )
            stores = StoreWatch(part.store for part in training_set.parts)
            if self.training.step == 0:
                logger.start(before())
            with named_reader_failures(self.folder):
                self.training.run(
                    batches,
                    logger,
                    self.checkpoints,
                    watch=watch,
                    enough=enough,
                    after_step=after_step,
                    before_save=stores.check,
                )
        return log.last if log else {}

    def _extra(self) -> dict[str, Any]:
        """Additional content of a checkpoint: the machine settings, and the state of the objects in `keep`."""
        return {"machine": self.machine.to_card()} | {name: kept.state() for name, kept in self.keep.items()}
