"""The recipe of a pretraining."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ssl_transfer.channels import InputChannels, Window, named_window
from ssl_transfer.poolings import Pooling
from ssl_transfer.recipe.bounds import (
    LARGEST_BATCH,
    LARGEST_COUNT,
    LARGEST_EPOCHS,
    LARGEST_SEED,
    LARGEST_SIDE,
    LARGEST_WAIT_MINUTES,
    LARGEST_WORKERS,
)
from ssl_transfer.recipe.options import Component, PathText, Section
from ssl_transfer.recipe.overrides import as_yaml
from ssl_transfer.schedule import Schedule


class MixPart(Section):
    """One of several stores, its share of the images of an epoch, and its views (null: those of `data.views`).

    Attributes:
        store: Folder of the store.
        share: Share of the images of an epoch, in (0, 1); shares add up to 1.
        views: View preset of this store's images; null: that of `data.views`.
    """

    store: PathText
    share: float = Field(gt=0, lt=1)
    views: Component | None = None


class DataSection(Section):
    """Which images, at which size, seen through which views: one `store`, or a `mix` of several.

    Attributes:
        store: Folder of the store; alternatively `mix`.
        mix: Several stores, each with its share.
        views: View preset, a name or `{name, options}`.
        size: Height and width of the backbone's images in pixels.
        label: Column of `rows.parquet` that a supervised method learns from.
        limit: Number of training images, a seeded subset, for trials; null: all.
        air: `clear`: CT images are read without the grey level of their air, as for tasks whose card says so; stores of other
            modalities are read as they are. Null: all are.
        context: Number of neighbouring slices of a volume that are the channels of an image, itself in the middle; odd. 1: the
            image alone.
        windows: Windows of CT in HU, each of which is a channel: names (`soft_tissue`, `lung`, `bone`, `mediastinum`, `liver`,
            `brain`) or [lower, upper]. Null: the one of the views.
    """

    store: PathText | None = None
    mix: list[MixPart] = Field(default_factory=list)
    views: Component
    size: int = Field(gt=0, le=LARGEST_SIDE)
    label: str = "label"
    limit: int | None = Field(default=None, gt=0, le=LARGEST_COUNT)
    air: Literal["clear"] | None = None
    context: int = 1
    windows: list[Window] | None = None

    @field_validator("windows", mode="before")
    @classmethod
    def _ends(cls, value: Any) -> Any:
        """Names as the ends of their windows, which the run's id depends on."""
        if not isinstance(value, list):
            return value
        return [named_window(window) if isinstance(window, str) else window for window in value]

    @model_validator(mode="after")
    def _channels_fit(self) -> DataSection:
        if self.channels.problem:
            raise ValueError(self.channels.problem)
        return self

    @property
    def channels(self) -> InputChannels:
        """What the channels of an image are."""
        return InputChannels(self.context, tuple(self.windows or ()))

    @model_validator(mode="after")
    def _one_or_several(self) -> DataSection:
        if (self.store is None) == (not self.mix):
            raise ValueError("Expected either `store: PATH` or `mix: [{store: PATH, share: 0.5}, …]`")
        total = sum(part.share for part in self.mix)
        if self.mix and abs(total - 1) > 1e-6:
            raise ValueError(f"Expected shares of `mix` that add up to 1, not to {total:g}")
        return self

    def sources(self) -> list[MixPart]:
        """Stores with their shares and views; a single store has all."""
        if not self.mix:
            return [MixPart.model_construct(store=self.store, share=1.0, views=self.views)]
        return [part.model_copy(update={"views": part.views or self.views}) for part in self.mix]


class BackboneSection(Section):
    """A timm architecture and where its weights start.

    Attributes:
        name: Architecture, as timm calls it.
        in_channels: Channels of its images; null: those of the store.
        stem: `standard`, or `small`: a ResNet or DenseNet starts with a 3×3 convolution of stride 1 and no pooling, for
            small images (SimCLR, 2002.05709, appendix B.9).
        init: `scratch`: random initialisation; `timm:NAME` or `imagenet:NAME`: public weights; or the folder of
            another backbone.
        pooling: How the tokens of a ViT become its features: `cls`, `mean`, `cls+mean` or `last4` (see `models.pooling`);
            null: the class token, or the mean of the patch tokens where there is none. A CNN has `mean`.
        options: Further arguments of the timm architecture.
    """

    name: str
    in_channels: int | None = Field(default=None, gt=0, le=4096)
    stem: Literal["standard", "small"] = "standard"
    init: PathText = "scratch"
    pooling: Pooling | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("options", mode="before")
    @classmethod
    def _typed(cls, value: Any) -> Any:
        """timm declares no types, so YAML's own apply here: 16 is a number, true a boolean."""
        return as_yaml(value)


class TrainSection(Section):
    """How long, how many at once, how exact.

    Attributes:
        epochs: Passes over the training images; fractions are allowed.
        batch_size: Images per optimiser step, summed over all processes.
        warmup_epochs: Epochs of linear warm-up before the cosine to 0 (Goyal et al. 2017, 1706.02677, section 2.2;
            Loshchilov & Hutter 2017, 1608.03983).
        freeze_epochs: First epochs in which the backbone keeps the weights of `backbone.init` and the statistics of its batch
            norms, and only the heads are trained; then its rate rises to that of the heads over `warmup_epochs`.
        accumulate_steps: Smaller batches that make up one; refused where the loss compares the images of a batch.
        precision: Floating-point format of the computation: `fp32`, `bf16`, `fp16`, or `auto`: bf16 where the device
            computes it natively, else fp16 on a GPU and fp32 on a CPU.
        memory_format: Layout of images and activations; `auto`: what is faster on the device.
        compile: Whether the backbone goes through `torch.compile`.
        deterministic: Whether a GPU takes the same kernels in every run, and those that add in a fixed order, so that a resumed
            run ends with the same bits as an unbroken one; it is slower. A CPU always does.
        seed: Seed of initial weights, order of images, views and the method's own draws.
        clip_gradient: Largest norm of the gradient; a longer one is scaled down. null: no clipping.
        checkpoint_every_steps: Steps between checkpoints.
        log_every_steps: Steps between lines of `log.jsonl`.
        workers: Processes that read batches ahead; null: chosen by the machine.
        longest_wait_minutes: Minutes that a process waits for the others before it gives up; some work is done by one alone.
    """

    epochs: float = Field(gt=0, le=LARGEST_EPOCHS)
    batch_size: int = Field(gt=0, le=LARGEST_BATCH)
    warmup_epochs: float = Field(default=0.0, ge=0, le=LARGEST_EPOCHS)
    freeze_epochs: float = Field(default=0.0, ge=0, le=LARGEST_EPOCHS)
    accumulate_steps: int = Field(default=1, gt=0, le=LARGEST_BATCH)
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "auto"
    memory_format: Literal["channels_last", "contiguous", "auto"] = "auto"
    compile: bool = False
    deterministic: bool = False
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    clip_gradient: float | None = Field(default=None, gt=0)
    checkpoint_every_steps: int = Field(default=500, gt=0)
    log_every_steps: int = Field(default=10, gt=0)
    workers: int | None = Field(default=None, ge=0, le=LARGEST_WORKERS)
    longest_wait_minutes: float = Field(default=60.0, gt=0, le=LARGEST_WAIT_MINUTES)


class MonitorSection(Section):
    """Measurements during training.

    Attributes:
        store: Labelled store of the online kNN and probe; null: the pretraining store, if it has labels.
        label: Column of that store with the labels.
        every_epochs: Epochs between two evaluations.
        images: Largest number of images of an evaluation.
        on_collapse: `stop` or `warn` when the projections collapse to a point.
        on_nonfinite: `stop` or `warn` when the loss is NaN or infinite.
    """

    store: PathText | None = None
    label: str = "label"
    every_epochs: float = Field(default=5.0, gt=0, le=LARGEST_EPOCHS)
    images: int = Field(default=2000, gt=0, le=LARGEST_COUNT)
    on_collapse: Literal["stop", "warn"] = "stop"
    on_nonfinite: Literal["stop", "warn"] = "stop"


class KeepSection(Section):
    """Backbones that the run keeps beside its last one; `keep: [5, 10]` is `keep: {epochs: [5, 10]}`.

    They can be evaluated as `RUN@5`, `RUN@best` and `RUN@all`. Each takes the disk space of a backbone.

    Attributes:
        epochs: Epochs whose backbones are kept; fractions are allowed.
        every_epochs: Also those of every so many epochs.
        best: Whether the backbone with the highest online kNN is kept, too; null: if the run starts from another backbone.
            It is chosen by the labels of `monitor.store`, so arms of a study are compared by their last backbones.
    """

    epochs: list[Annotated[float, Field(gt=0, le=LARGEST_EPOCHS)]] = Field(default_factory=list, max_length=10_000)
    every_epochs: float | None = Field(default=None, gt=0, le=LARGEST_EPOCHS)
    best: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"epochs": value} if isinstance(value, list) else value


class PretrainRecipe(Section):
    """Everything that a pretraining needs.

    Attributes:
        name: Name of the backbone in cards and tables.
        data: Training images and their views.
        backbone: Architecture and initial weights.
        method: Pretraining method, a name or `{name, options}`; see the page of each method.
        optimizer: Optimiser, `{name, options}`; see the page of each optimiser.
        train: Length, batch size, precision and other settings of the training.
        monitor: Measurements during training.
        keep: Backbones of the way that are kept beside the last one.
        tracker: Tracker that receives the curves in addition to `log.jsonl`: `tensorboard`, `wandb`, `mlflow` or `none`.
    """

    name: str = "pretraining"
    data: DataSection
    backbone: BackboneSection
    method: Component
    optimizer: Component
    train: TrainSection
    monitor: MonitorSection = MonitorSection()
    keep: KeepSection = KeepSection()
    tracker: Literal["tensorboard", "wandb", "mlflow", "none"] = "tensorboard"

    @model_validator(mode="after")
    def _channels_agree(self) -> PretrainRecipe:
        stated, channels = self.backbone.in_channels, self.data.channels
        if channels.are_stated and stated not in (None, channels.count):
            raise ValueError(
                f"backbone.in_channels: found {stated}, and the channels are {channels}, which are {channels.count}. Set "
                "backbone.in_channels=null"
            )
        return self

    def schedule(self, images: int) -> Schedule:
        """Length, warm-up and cadence of a pretraining on so many training images, at least one batch."""
        train, steps_per_epoch = self.train, images // self.train.batch_size
        return Schedule(
            total_steps=max(1, round(train.epochs * steps_per_epoch)),
            steps_per_epoch=steps_per_epoch,
            warmup_steps=round(train.warmup_epochs * steps_per_epoch),
            freeze_steps=round(train.freeze_epochs * steps_per_epoch),
            batch_size=train.batch_size,
            accumulate=train.accumulate_steps,
            log_every=train.log_every_steps,
            checkpoint_every=train.checkpoint_every_steps,
            watch_every=max(1, round(self.monitor.every_epochs * steps_per_epoch)),
        )

    def kept_steps(self, schedule: Schedule) -> dict[int, float]:
        """Steps, counted from 1, whose backbones are kept beside the last one -> their epochs; ascending."""
        epochs, every = set(self.keep.epochs), self.keep.every_epochs
        if every:
            epochs |= {every * number for number in range(1, 1 + math.floor(self.train.epochs / every))}
        steps = {max(1, round(epoch * schedule.steps_per_epoch)): epoch for epoch in sorted(epochs)}
        return {step: epoch for step, epoch in steps.items() if step < schedule.total_steps}

    def identity(self) -> dict[str, Any]:
        """The settings that the run's id depends on: without names, logging, cadence, kept backbones, trackers,
        workers, and paths of inputs.
        """
        recipe = self.model_dump(exclude={"name", "monitor", "keep", "tracker"})
        for key in ("checkpoint_every_steps", "log_every_steps", "workers", "longest_wait_minutes"):
            recipe["train"].pop(key)
        for source in (recipe["data"], *recipe["data"]["mix"]):
            source.pop("store")
            for key, default in (("positive", "same"), ("positive_mm", None)):
                if source["views"] and source["views"].get(key) == default:
                    source["views"].pop(key, None)
        # ids of recipes without these settings are those of earlier versions
        added = (
            ("data", "air", None),
            ("data", "context", 1),
            ("data", "windows", None),
            ("backbone", "pooling", None),
            ("train", "freeze_epochs", 0),
            ("train", "deterministic", False),
            ("optimizer", "layer_decay", 1),
        )
        for section, key, default in added:
            if recipe[section].get(key) == default:
                recipe[section].pop(key, None)
        if recipe["backbone"]["init"] != "scratch":
            recipe["backbone"].pop("init")
        recipe["method"].pop("teacher", None)  # an input, as `init` is
        return recipe
