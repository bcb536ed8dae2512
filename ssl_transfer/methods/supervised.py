"""Supervised pretraining."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as functional
from pydantic import Field
from torch import nn

from ssl_transfer.data.views import ViewBatch, Views
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.models.backbone import Backbone


class Supervised(Objective):
    """Cross-entropy with the labels of the training images: the first stage of multistage transfer.

    Args:
        classes: Number of classes in the stores.
        label_smoothing: Share of the target that goes to all classes alike, in [0, 1). Szegedy et al. 2016, 1512.00567,
            section 7: 0.1; 0 here.
    """

    needs_labels = True

    def __init__(self, backbone: Backbone, classes: int, *, label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0):
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.feature_dim, classes)
        self.label_smoothing = label_smoothing

    def view_presets(self, preset: Views) -> list[Views]:
        """One view is enough."""
        return [preset]

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Mean cross-entropy."""
        features = self.backbone(batch.views[0])
        logits = self.classifier(features).float()
        if batch.labels is None:
            raise ValueError("supervised: the batch has no labels")
        loss = functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return {"loss": loss, "projections": [features.detach().float()]}
