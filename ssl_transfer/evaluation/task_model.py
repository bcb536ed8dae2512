"""Training on a task: backbone, head and strategy in the shared training loop; the weights are selected on validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from accelerate import Accelerator
from torch import nn

from ssl_transfer.cost import spend
from ssl_transfer.data.presets import VIEWS, mild
from ssl_transfer.data.training_set import StoreShare, TrainingSet
from ssl_transfer.data.views import ViewBatch, ViewMaker
from ssl_transfer.errors import RunError, TaskError
from ssl_transfer.evaluation.context import EvalContext
from ssl_transfer.evaluation.strategies.registry import STRATEGIES, Strategy
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.methods.objective import Group, Losses, Objective
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.blocks import train_all_but
from ssl_transfer.models.ranks import world_size
from ssl_transfer.recipe import Component, FinetuneSection, choose
from ssl_transfer.schedule import Schedule
from ssl_transfer.training.batches import BagSampler, StreamSampler, batch_at
from ssl_transfer.training.machine import Machine
from ssl_transfer.training.monitor import Alarms
from ssl_transfer.training.optim import OPTIMIZERS
from ssl_transfer.training.session import Session

FP16_SCALE = (
    1024.0  # of a loss, so that small gradients do not vanish in fp16; a power of two rounds nothing in fp32 and bf16
)
LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}
Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class TaskModel(Objective):
    """A backbone with a head, trained on a task by a strategy.

    Args:
        backbone: The backbone, with its pretrained weights.
        head: The head: called with the backbone and images, it returns logits.
        strategy: Which layers are trained, and how.
        criterion: Loss of float32 logits and labels, averaged over images.
        schedule: Length, warm-up and cadence of the training.

    Attributes:
        batch: The global batch of a step; set before training.
    """

    batch: Callable[[int], ViewBatch]

    def __init__(
        self, backbone: Backbone, head: nn.Module, strategy: Strategy, criterion: Criterion, schedule: Schedule
    ):
        super().__init__()
        self.backbone, self.head, self.strategy = backbone, head, strategy
        self.criterion, self.schedule = criterion, schedule

    def groups(self) -> list[Group]:
        """Parameter groups of the strategy."""
        return self.strategy.groups()

    def rates(self, step: int, factor: float) -> Mapping[str, float]:
        """Learning rates of the strategy."""
        return self.strategy.rates(step, factor)

    def before_step(self, step: int) -> None:
        """Let the strategy measure gradients, and set modules that are frozen at this step to `eval` mode."""
        self.strategy.before_step(step, self.gradients)
        self.rest(step)

    def rest(self, step: int) -> None:
        """Set modules to `train` mode, those that are frozen at a step to `eval` mode."""
        rates = self.rates(step, 1.0)
        learning = {id(p) for group in self.groups() if rates[group.name] for p in group.parameters}
        train_all_but(self, [p for p in self.parameters() if id(p) not in learning])

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Loss of this rank's part of a batch."""
        logits = self.head(self.backbone, batch.views[0]).float()
        labels: Any = batch.labels  # never None: tasks have labels
        labels = labels[:: len(labels) // len(logits)]  # of each group, if a prediction is of several images
        loss = self.criterion(logits, labels) + self.strategy.penalty()
        return {"loss": loss, "projections": []}

    def gradients(self, step: int) -> list[torch.Tensor | None]:
        """Gradients of the global batch of a step, one per parameter of `groups`; BatchNorm statistics do not change."""
        self.rest(step)
        statistics = {name: buffer.clone() for name, buffer in self.named_buffers()}
        parameters = [parameter for group in self.groups() for parameter in group.parameters]
        loss = self(self.batch(step), step)["loss"] * FP16_SCALE
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for gradient in gradients:
                if gradient is not None:
                    gradient /= FP16_SCALE
            for name, buffer in self.named_buffers():
                buffer.copy_(statistics[name])
        if world_size() > 1:
            for gradient in gradients:
                if gradient is not None:
                    distributed.all_reduce(gradient)
                    gradient /= world_size()
        return list(gradients)


@dataclass
class Best:
    """The best weights so far, by validation.

    Attributes:
        metric: The metric that weights are selected by.
        patience: Validations without improvement after which training stops; None: no early stopping.
        validation, step, weights: Metrics, step and state dict of the best so far; empty before the first validation.
        checks_since: Validations since the best one.
    """

    metric: str
    patience: int | None = None
    validation: dict[str, float] = field(default_factory=dict)
    step: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    checks_since: int = 0

    def judge(self, step: int, validation: dict[str, float], network: nn.Module) -> None:
        """Keep the weights of a step if they are better than all earlier ones; of equal ones the earliest is kept."""
        if not self.validation or self._score(validation) > self._score(self.validation):
            self.validation, self.step, self.checks_since = validation, step, 0
            self.weights = {
                name: tensor.detach().cpu().clone()
                for name, tensor in network.state_dict().items()
                if not name.startswith("strategy.")
            }
        else:
            self.checks_since += 1

    def _score(self, validation: dict[str, float]) -> float:
        value = validation[self.metric]
        return -math.inf if math.isnan(value) else metric_sign(self.metric) * value

    @property
    def undefined(self) -> bool:
        """Whether the metric was NaN at every validation so far."""
        return not self.validation or math.isnan(self.validation[self.metric])

    def enough(self) -> bool:
        """Whether training should stop early."""
        return self.patience is not None and self.checks_since >= self.patience

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        return {name: getattr(self, name) for name in ("validation", "step", "weights", "checks_since")}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        for name, value in state.items():
            setattr(self, name, value)


@dataclass(frozen=True)
class Trained:
    """Result of `learn`.

    Attributes:
        best: The selected step; the model has its weights.
        accelerator: Processes and device, for the evaluation on test.
        precision: Numerical precision of training, validation and test.
    """

    best: Best
    accelerator: Accelerator
    precision: str

    @property
    def lower(self) -> torch.dtype | None:
        """Data type of autocast; None: float32 throughout."""
        return LOWER.get(self.precision)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that the result records."""
        return {"precision": self.precision, "world_size": self.accelerator.num_processes}


def suited_views(context: EvalContext, crop_scale: tuple[float, float] = (0.6, 1.0)) -> Component:
    """The mild augmentation preset for a task's images (see `mild`)."""
    store, channels = context.backbone.inputs(context.task.store), context.backbone.card.in_channels
    name, options = mild(str(context.task.domain), store.units, channels, crop_scale)
    return Component(name=name, **options)


def build_training_set(
    context: EvalContext, views: Component, labels: np.ndarray | None = None, masked: bool = False
) -> TrainingSet:
    """The training images of a task, augmented, with their labels or masks."""
    backbone = context.backbone
    store, channels = backbone.inputs(context.store("train")), backbone.card.in_channels
    options = choose(VIEWS, views, "views")
    preset = VIEWS[views.name](context.size, channels, store.units, **options)
    preset = preset.for_input(backbone.intensity, backbone.card.channels)  # of the backbone, not of the preset
    maker = ViewMaker([preset], backbone.scale(store), context.draw, channels)
    return TrainingSet([StoreShare(store, context.rows["train"], maker)], context.draw, labels, masked)


def build_task_model(
    context: EvalContext, head: nn.Module, criterion: Criterion, strategy: Component, section: FinetuneSection
) -> TaskModel:
    """A model whose random weights (head, adapters) depend on the run's draw only; the caller made `head` under that seed.

    Args:
        strategy: Name and all options of the strategy.
        section: Training settings, for the schedule.
    """
    schedule = section.schedule(len(context.rows["train"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.draw)
        policy = STRATEGIES[strategy.name](context.backbone, head, schedule, **strategy.options)
    return TaskModel(context.backbone, head, policy, criterion, schedule)


def learn(
    context: EvalContext,
    model: TaskModel,
    training_set: TrainingSet,
    strata: Sequence[np.ndarray],
    optimizer: Component,
    section: FinetuneSection,
    validate: Callable[[Accelerator, torch.dtype | None], dict[str, float]],
    groups: Sequence[np.ndarray] | None = None,
) -> Trained:
    """Train a model and restore the weights that were best on validation, by the task's metric.

    All ranks call it together. An interrupted run continues from its checkpoint.

    Args:
        training_set: Reads and augments the training images with their labels or masks.
        strata: Rows of the training images, or numbers of the groups; several strata alternate, image by image (or by group).
        optimizer: Name and all options of the optimiser.
        section: Training settings, for clipping, patience and workers.
        validate: Measures the model on validation images, on all ranks.
        groups: Rows of the images of each training group, for tasks with `target_of`.

    Raises:
        RunError: If the loss is NaN or infinite, or the launch shards the weights (FSDP).
        TaskError: If the task's metric is undefined on validation.
    """
    schedule, seed = model.schedule, context.draw
    best = Best(context.task.card.metric, section.patience)
    smallest_view = training_set.parts[0].maker.presets[0].size
    machine = Machine.chosen(context.recipe.precision, "auto", smallest_view, section.deterministic)
    options = {"longest_wait_minutes": section.longest_wait_minutes, "keep": {"best": best}}
    session = Session(context.folder, context.identity, machine, schedule, seed, **options)
    accelerator, lower = session.accelerator, LOWER.get(session.machine.precision)
    if accelerator.is_fsdp2:
        raise RunError(
            "fine-tuning needs whole weights on every process. Launch it without FSDP: launch/accelerate/gpu8.yaml."
        )
    training = session.prepare(
        model,
        partial(OPTIMIZERS[optimizer.name], **optimizer.options),
        clip_gradient=section.clip_gradient,
        label="training",
    )
    drawn = schedule.batch_size // (1 if groups is None else section.bag_size)  # images, or groups
    stream = StreamSampler(strata, seed, drawn, schedule.total_steps, **session.position)
    sampler = stream if groups is None else BagSampler(stream, groups, section.bag_size)
    model.batch = lambda step: batch_at(training_set, sampler, step, accelerator.device)

    def watch() -> dict[str, float]:
        metrics = validate(accelerator, lower)
        best.judge(training.step, metrics, model)
        return {f"val_{name}": value for name, value in metrics.items()}

    alarms = Alarms("stop", "warn", schedule.total_steps)
    session.run(training_set, sampler, alarms, watch, workers=section.workers, enough=best.enough)
    spend(training.cost.lasting(training.spent.earlier, 0))  # the rest of the time is that of this evaluation
    if best.undefined:
        raise TaskError(
            f"task {context.task.name}: {best.metric} is undefined on the validation images (a single class or value?), so "
            "nothing can be selected by it. Take another metric, or ingest again with other splits."
        )
    model.load_state_dict(best.weights, strict=False)
    return Trained(best, accelerator, session.machine.precision)
