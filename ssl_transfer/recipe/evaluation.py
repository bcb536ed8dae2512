"""The settings of an evaluation: those of every protocol, and those of protocols that train."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ssl_transfer.poolings import GroupPooling, Pooling
from ssl_transfer.recipe.bounds import (
    LARGEST_BATCH,
    LARGEST_COUNT,
    LARGEST_RESAMPLES,
    LARGEST_SEED,
    LARGEST_SIDE,
    LARGEST_WAIT_MINUTES,
    LARGEST_WORKERS,
)
from ssl_transfer.recipe.options import Section
from ssl_transfer.schedule import Schedule


class NoiseSection(Section):
    """Noise on the images of a task: which kind, how strong (as a share of the intensity range), and where.

    Attributes:
        kind: `none`; `gaussian`, as in CT; `rician`: the magnitude of a complex signal with Gaussian noise in both
            parts, as in MR (Gudbjartsson & Patz 1995, doi 10.1002/mrm.1910340618).
        sigma: Standard deviation as a share of the intensity range, in [0, 1].
        at: `train`: the images that are learnt and selected from; `test`: those that are scored; or `both`.
    """

    kind: Literal["none", "gaussian", "rician"] = "none"
    sigma: float = Field(default=0.0, ge=0, le=1)
    at: Literal["both", "train", "test"] = "both"

    @model_validator(mode="after")
    def _kind_and_strength(self) -> NoiseSection:
        if (self.kind == "none") != (self.sigma == 0):
            raise ValueError(
                f"Expected a kind with a sigma above 0, such as noise.kind=gaussian noise.sigma=0.01; found {self.kind} with "
                f"{self.sigma:g}"
            )
        return self


class EvaluateRecipe(Section):
    """What every protocol shares; a protocol's own options stand in its function's signature.

    Attributes:
        fraction: Share of the training patients, in (0, 1]; stratified, and smaller fractions are subsets of larger
            ones of the same seed and backbone.
        seed: Evaluation seed. With the pretraining seed of the backbone it fixes all that is random: the draw of these
            patients, heads, order of images, views, noise, and resampling. So the draws of one seed differ between
            pretraining seeds, and are the same for all pretrainings.
        size: Height and width that the backbone sees, in pixels; null: the size that it was pretrained at.
        channels: `repeat`: images get the backbone's number of channels (repeated, or luminance); `adapt`: its first
            convolution gets theirs, as timm does.
        pool: Candidate poolings of a ViT's tokens, selected on validation by a probe (`cls`, `mean`, `cls+mean`, `last4`; see
            `models.pooling`), from one forward pass; null: that of the backbone. A CNN has `mean` alone.
        group_pool: Of tasks with `target_of`: candidate poolings of the images of a group, selected on validation (`mean`,
            `max`, `topk`, `attention`; see `evaluation.bag_heads`); null: all that the protocol has.
        precision: Floating-point format of the computation: `fp32`, `bf16`, `fp16` (training only), or `auto`.
        noise: Noise on the images.
        permute_labels: A control: labels of the training and validation images are exchanged between patients, separately in
            each split. On test, whose labels stay, nothing above chance is then left; else there is a leak.
        resamples: Bootstrap samples of the test patients for the 95 % intervals; 0: no intervals.
        external: External test stores, folders, in place of those of the task's card; null: those of the card.
    """

    fraction: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    size: int | None = Field(default=None, gt=0, le=LARGEST_SIDE)
    channels: Literal["repeat", "adapt"] = "repeat"
    pool: list[Pooling] | None = Field(default=None, min_length=1)
    group_pool: list[GroupPooling] | None = Field(default=None, min_length=1)
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    noise: NoiseSection = NoiseSection()
    permute_labels: bool = False
    resamples: int = Field(default=1000, ge=0, le=LARGEST_RESAMPLES)
    external: list[str] | None = None

    @field_validator("external", mode="before")
    @classmethod
    def _single_store(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def identity(self) -> dict[str, Any]:
        """What a run's id depends on, besides the stores, which have ids of their own."""
        later = {
            name for name in ("pool", "group_pool") if not getattr(self, name)
        }  # options that older ids do not have
        return self.model_dump(exclude={"external", *later})


class FinetuneSection(Section):
    """How long and how a fine-tune learns; the same for every label fraction.

    Attributes:
        steps: Optimiser steps.
        batch_size: Images per step, summed over all processes.
        bag_size: Of tasks with `target_of`: images of a group per step, so that a batch has batch_size / bag_size groups.
        warmup_steps: Steps of linear warm-up before the cosine to 0.
        clip_gradient: Largest norm of the gradient; null: no clipping.
        balance: For rare classes: `weights` in the loss, or `sampling` of as many images of every class; `none`:
            neither.
        check_every_steps: Steps between evaluations on validation; the weights of the best one are kept.
        patience: Evaluations without improvement after which training stops; null: it never does.
        deterministic: Whether a GPU takes the same kernels in every run; see that of `pretrain`.
        checkpoint_every_steps: Steps between checkpoints.
        log_every_steps: Steps between lines of `log.jsonl`.
        workers: Processes that read batches ahead; null: chosen by the machine.
        longest_wait_minutes: Minutes that a process waits for the others before it gives up; some work is done by one alone.
        keep_backbone: Whether the fine-tuned backbone, adapters merged, is saved in the result's folder.
    """

    steps: int = Field(default=500, gt=0, le=LARGEST_COUNT)
    batch_size: int = Field(default=32, gt=0, le=LARGEST_BATCH)
    bag_size: int = Field(default=8, gt=0, le=LARGEST_BATCH)
    warmup_steps: int = Field(default=0, ge=0, le=LARGEST_COUNT)
    clip_gradient: float | None = Field(default=None, gt=0)
    balance: Literal["none", "weights", "sampling"] = "none"
    check_every_steps: int = Field(default=50, gt=0)
    patience: int | None = Field(default=None, gt=0)
    deterministic: bool = False
    checkpoint_every_steps: int = Field(default=500, gt=0)
    log_every_steps: int = Field(default=10, gt=0)
    workers: int | None = Field(default=None, ge=0, le=LARGEST_WORKERS)
    longest_wait_minutes: float = Field(default=60.0, gt=0, le=LARGEST_WAIT_MINUTES)
    keep_backbone: bool = False

    def schedule(self, images: int) -> Schedule:
        """Length, warm-up and cadence of a fine-tune on so many training images."""
        return Schedule(
            total_steps=self.steps,
            steps_per_epoch=max(1, images // self.batch_size),
            warmup_steps=self.warmup_steps,
            batch_size=self.batch_size,
            log_every=self.log_every_steps,
            checkpoint_every=self.checkpoint_every_steps,
            watch_every=self.check_every_steps,
        )

    def identity(self) -> dict[str, Any]:
        """What a run's id depends on."""
        left_out = {"checkpoint_every_steps", "log_every_steps", "workers", "longest_wait_minutes"}
        defaults = {name: type(self).model_fields[name].default for name in ("bag_size", "deterministic")}
        left_out |= {
            name for name, value in defaults.items() if getattr(self, name) == value
        }  # ids of earlier versions
        return self.model_dump(exclude=left_out if self.keep_backbone else {*left_out, "keep_backbone"})
