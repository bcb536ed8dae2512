"""Distillation of a frozen teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
import torch.nn.functional as functional
from lightly.models.modules.memory_bank import MemoryBankModule
from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ssl_transfer.data.intensity import match_channels
from ssl_transfer.data.transfer import constant
from ssl_transfer.data.views import ViewBatch, Views
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.architecture import has_fixed_size
from ssl_transfer.models.backbone import Backbone, load_backbone
from ssl_transfer.models.feature_maps import FeatureMaps
from ssl_transfer.numerics import without_autocast
from ssl_transfer.paths import portable


class Distill(Objective):
    """Learn the features of a frozen teacher, which sees the same view of an image: pooled features and local ones.

    Pooled features: the student, through a linear layer, learns how similar the teacher finds an image to a queue of images, as
    a softmax over cosine similarities (SEED). Local features: the student's map, through a 1 × 1 convolution, learns the
    teacher's, standardised at each position, by mean squared error; the teacher's map is resampled to the student's grid. The
    loss is `pooled_weight` · cross-entropy + `patch_weight` · squared error.

    The teacher is any backbone of any architecture, channels and input size. It has no part in the student's weights and
    checkpoints; the student's card has its id and its stages, and the student's passport its training images.

    Args:
        teacher: The teacher: a folder, `timm:NAME`, or another name of a backbone.
        teacher_size: Height and width of the teacher's input in pixels, to which views are resized; null: that of its card.
        queue: Number of teacher features that an image is compared with, a multiple of the batch size. SEED: 65536
            (section 4.1).
        temperature: Softmax temperature of the student's similarities, dimensionless. SEED: 0.2 (section 4.1).
        teacher_temperature: Softmax temperature of the teacher's similarities, dimensionless. SEED: 0.01 (section 4.1).
        pooled_weight: Weight of the loss of pooled features.
        patch_weight: Weight of the loss of local features; 0: none, and backbones without a map are accepted.

    References:
        Fang et al. 2021 (SEED), https://arxiv.org/abs/2101.04731, section 3; standardised targets as in Wei et al. 2022,
        https://arxiv.org/abs/2205.14141, section 3.1; one strong view for both as in Beyer et al. 2022,
        https://arxiv.org/abs/2106.05237, section 3.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Annotated[str, AfterValidator(portable)],
        teacher_size: PositiveInt | None = None,
        queue: PositiveInt = 65536,
        temperature: PositiveFloat = 0.2,
        teacher_temperature: PositiveFloat = 0.01,
        pooled_weight: NonNegativeFloat = 1.0,
        patch_weight: NonNegativeFloat = 1.0,
    ):
        super().__init__()
        if pooled_weight == patch_weight == 0:
            raise RecipeError("method.pooled_weight: found 0, and patch_weight is 0 too: nothing would be learned.")
        self.backbone = backbone
        loaded = load_backbone(teacher, backbone.card.in_channels, backbone.card.image_size)
        loaded.requires_grad_(False)
        self.student = FeatureMaps(backbone) if patch_weight else None
        of_teacher = FeatureMaps(loaded) if patch_weight else None
        self.teacher_size = _resized(loaded, teacher, teacher_size)
        self.pooled_head = nn.Linear(backbone.feature_dim, loaded.feature_dim)
        self.patch_head = (
            nn.Conv2d(self.student.channels, of_teacher.channels, 1) if self.student and of_teacher else None
        )
        self._teacher = (
            loaded,
            of_teacher,
        )  # in a tuple: no part of the parameters, the state and the modes of this module
        self.memory = MemoryBankModule((queue, loaded.feature_dim), gather_distributed=True, feature_dim_first=False)
        for name in ("bank", "bank_ptr"):  # lightly leaves them out of the state; a resumed run needs them
            self.memory.register_buffer(name, getattr(self.memory, name), persistent=True)
        self.queue, self.temperatures = queue, (temperature, teacher_temperature)
        self.pooled_weight, self.patch_weight = pooled_weight, patch_weight

    @property
    def teacher(self) -> Backbone:
        """The frozen teacher."""
        return self._teacher[0]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Distill:
        """Move the teacher to devices and number formats together with the student."""
        self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def view_presets(self, preset: Views) -> list[Views]:
        """One view, for teacher and student alike."""
        return [preset]

    def compiled_parts(self) -> list[nn.Module]:
        """The student, as it is called."""
        return [self.student or self.backbone.model]

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Cross-entropy of similarities to the queue, and squared error of local features."""
        view = batch.views[0]
        features, local = self.student(view) if self.student else (self.backbone(view), None)
        predicted = self.pooled_head(features)
        predicted_local = self.patch_head(local) if self.patch_head else None
        with torch.no_grad():
            images, (teacher, of_teacher) = self.teacher_input(view), self._teacher
            targets, target_local = of_teacher(images) if of_teacher else (teacher(images), None)
        with without_autocast(view.device):
            loss = self.pooled_weight * self._similarity_loss(predicted.float(), targets.float())
            if predicted_local is not None and target_local is not None:
                loss = loss + self.patch_weight * _local_loss(predicted_local.float(), target_local.float())
        return {"loss": loss, "projections": [features.detach().float()]}

    def teacher_input(self, view: Tensor) -> Tensor:
        """A view (B, C, H, W) of the student, in channels, size and intensity of the teacher."""
        intensity, size = self.backbone.intensity, self.teacher_size
        mean, std = (
            constant(tuple(v), view.device, view.dtype, channels=True) for v in (intensity.mean, intensity.std)
        )
        unit = view * std + mean
        if unit.shape[-1] != size:
            unit = functional.interpolate(unit, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return self.teacher.intensity.normalise(match_channels(unit, self.teacher.card.in_channels))

    def _similarity_loss(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy between softmax similarities to the image's own teacher feature and those of the queue."""
        predicted, targets = functional.normalize(predicted, dim=1), functional.normalize(targets, dim=1)
        _, bank = self.memory(targets, update=True)

        def similarities(values: Tensor) -> Tensor:  # (B, 1 + queue)
            return torch.cat([(values * targets).sum(1, keepdim=True), values @ bank.to(values.dtype).T], 1)

        temperature, teacher_temperature = self.temperatures
        shares = (similarities(targets) / teacher_temperature).softmax(1)
        return functional.cross_entropy(similarities(predicted) / temperature, shares)

    def check_batch(self, batch_size: int) -> None:
        """Check that the queue is a multiple of the global batch.

        Raises:
            RecipeError: If not.
        """
        if self.queue % batch_size:
            raise RecipeError(
                f"method.queue: {self.queue} features are not a multiple of train.batch_size {batch_size}, so batches would be "
                f"cut at the queue's end. Set method.queue={max(1, self.queue // batch_size) * batch_size}."
            )


def _local_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of maps (B, C, h, w) to targets (B, C, H, W), standardised at each position and resampled to (h, w)."""
    targets = functional.layer_norm(targets.permute(0, 2, 3, 1), targets.shape[1:2]).permute(0, 3, 1, 2)
    if targets.shape != predicted.shape:
        grid = predicted.shape[2:]
        targets = functional.interpolate(targets, grid, mode="bilinear", antialias=True, align_corners=False)
    return functional.mse_loss(predicted, targets)


def _resized(teacher: Backbone, spec: str, size: int | None) -> int:
    """Size of the teacher's input, after a model with a fixed size has been changed to another one.

    Raises:
        RecipeError: If it cannot be changed.
    """
    card, model = teacher.card, teacher.model
    if size is None or size == card.image_size or not has_fixed_size(card.architecture):
        return size or card.image_size
    if card.options.get("dynamic_img_size"):
        return size
    patch_size = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    if not hasattr(model, "set_input_size") or size % patch_size[0]:
        raise RecipeError(
            f"method.teacher_size: {spec} reads images of {card.image_size} px and cannot be changed to {size} px. Choose a "
            f"multiple of {patch_size[0]}, its patch size, or leave the option out."
        )
    model.set_input_size(img_size=(size, size))
    return size
