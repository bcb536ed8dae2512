"""What DINO and DINOv2 share: large and small crops, and a momentum network whose targets sharpen over the first epochs."""

from __future__ import annotations

from torch import nn

from ssl_transfer.data.views import Views
from ssl_transfer.methods.crops import Crops
from ssl_transfer.methods.momentum import MomentumNetwork, linear_warmup, rising_momentum
from ssl_transfer.methods.objective import Objective


class SelfDistillation(Objective):
    """An objective whose targets are the outputs of a momentum network.

    Attributes:
        crops: Large and small views.
        momentum_network: Moving average of the backbone and of `heads`.
        momentum: Its momentum at the first step.
        warmup: First and last softmax temperature of the targets, and the epochs between.
        frozen_output_epochs: Epochs in which the last layers of the heads do not learn.
    """

    crops: Crops
    momentum_network: MomentumNetwork
    momentum: float
    warmup: tuple[float, float, float]
    frozen_output_epochs: float

    def trained_heads(self) -> nn.Module:
        """The heads that the momentum network is an average of."""
        raise NotImplementedError

    def view_presets(self, preset: Views) -> list[Views]:
        """Two global views, then the local ones."""
        return self.crops.presets(preset)

    def target_temperature(self, step: int) -> float:
        """Softmax temperature of the momentum network at a step: linear from its warm-up value, then constant."""
        first, last, epochs = self.warmup
        return linear_warmup(first, last, epochs * self.schedule.steps_per_epoch, step)

    def after_backward(self, step: int) -> None:
        """Drop the gradients of the output layers during the first epochs."""
        if step < self.frozen_output_epochs * self.schedule.steps_per_epoch:
            for name, layer in self.trained_heads().named_modules():
                if name.rpartition(".")[2] == "last_layer":
                    for parameter in layer.parameters():
                        parameter.grad = None

    def after_step(self, step: int) -> None:
        """Update the momentum network; its momentum rises to 1 along a cosine."""
        momentum = rising_momentum(self.momentum, step, self.schedule.total_steps)
        self.momentum_network.update(self.backbone, self.trained_heads(), momentum)
