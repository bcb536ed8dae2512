"""A frozen backbone: in the first steps of a training that starts from another backbone, only the heads are trained."""

from __future__ import annotations

from torch import nn

from ssl_transfer.methods.objective import Objective
from ssl_transfer.models.backbone import Backbone


class FrozenBackbone:
    """Freezes the backbone of an objective for the first `freeze_steps` of its schedule, and then releases it.

    A frozen backbone has no gradients, and every copy of it (that of a momentum network, too) is in `eval` mode: batch norms use
    and keep their statistics, and there is no dropout.

    Args:
        objective: Backbone, heads and loss.
    """

    def __init__(self, objective: Objective):
        self.objective = objective
        self._frozen: list[nn.Parameter] = []

    def settle(self, step: int) -> None:
        """Freeze or release the backbone for a step, counted from 0; called before every step, on all ranks."""
        if self.objective.schedule.freezes_at(step) and not self._frozen:
            self._frozen = [each for each in self.objective.backbone.parameters() if each.requires_grad]
            self._require_gradients(False)
            for part in self.objective.modules():
                if isinstance(part, Backbone):
                    part.eval()
        elif self._frozen and not self.objective.schedule.freezes_at(step):
            self._require_gradients(True)
            self.objective.train()
            self._frozen = []

    def _require_gradients(self, required: bool) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(required)
