"""A fitted probe in the folder of its result: `probe.safetensors`, and `probe.json` with all that is needed to apply it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load_file, save_file

from ssl_transfer import __version__
from ssl_transfer.data.form import StoreForm
from ssl_transfer.data.groups import TargetOf
from ssl_transfer.errors import UsageError
from ssl_transfer.models.architecture import brief
from ssl_transfer.models.group_probe import Classifier, classifier_of, fitted_tensors
from ssl_transfer.poolings import LEARNED, GroupPooling
from ssl_transfer.records import PathPart, Pixels, damage, validated
from ssl_transfer.run import file_digest, read_json, to_json, write_json
from ssl_transfer.target_kinds import KINDS

PROBE_SCHEMA = 1
CARD, TENSORS = "probe.json", "probe.safetensors"
AGAIN = "Evaluate again into another folder."


@dataclass(frozen=True, kw_only=True)
class ProbeCard:
    """What a fitted probe is of, and how its input is made; the fields are the keys of `probe.json`.

    Attributes:
        schema: Schema version of this card.
        kind: `probe`.
        run_id: Id of the evaluation that fitted it.
        backbone: Id of the backbone.
        backbone_name: Name of the backbone.
        backbone_spec: Path or name under which the backbone was opened; None: unknown.
        task: Name of the task.
        classes: Names of the classes or labels, in the order of the probabilities.
        multilabel: Whether each probability is that of a label by itself.
        task_kind: Kind of the task, such as `ordinal`; empty in probes of earlier versions, which are multiclass or multilabel.
        size: Height and width of the input of the backbone, in pixels.
        precision: `fp32` or `bf16`, of the features.
        channels: `repeat` or `adapt`: how the backbone reads images with another number of channels.
        pool: How the features are pooled, where the evaluation chose it; None: as the backbone states.
        target_of: What one prediction is of: the images of a `patient`, `study` or `series`; None: of each image.
        group_pool: How the images of a group are pooled; None: a prediction is of each image.
        form: Form of the images of the task's store.
        metrics: Test metrics of the evaluation.
        intervals: Their 95 % intervals.
        notes: Caveats of the evaluation.
        digest: Hash of `probe.safetensors`.
        version: Version of ssl_transfer.
    """

    schema: int = PROBE_SCHEMA
    kind: str = "probe"
    run_id: PathPart
    backbone: PathPart
    backbone_name: str
    backbone_spec: str | None = None
    task: str
    classes: tuple[str, ...]
    multilabel: bool
    size: Pixels
    precision: Literal["fp32", "bf16"]
    task_kind: str = ""
    channels: Literal["repeat", "adapt"] = "repeat"
    pool: str | None = None
    target_of: TargetOf | None = None
    group_pool: GroupPooling | None = None
    form: StoreForm
    metrics: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    digest: str = ""
    version: str = __version__

    @property
    def predicts(self) -> str:
        """Kind of the task."""
        return self.task_kind or ("multilabel" if self.multilabel else "multiclass")

    @property
    def outputs(self) -> tuple[int, ...]:
        """Numbers of outputs that the model may have."""
        count = len(self.classes)
        if KINDS[self.predicts].number is not None:
            return (1,)
        if self.group_pool in LEARNED:
            return (count,)
        return {"ordinal": (count - 1,), "multilabel": (count,)}.get(self.predicts, (1, 2) if count == 2 else (count,))


@dataclass(frozen=True)
class FittedProbe:
    """A classifier of features with its card."""

    card: ProbeCard
    classifier: Classifier

    def predictions(self, features: Any) -> np.ndarray:
        """Predictions from features of images (N, D), or with `target_of` from `BagFeatures`; see `LinearModel`."""
        return self.classifier(features)

    def save(self, folder: Path) -> FittedProbe:
        """Write both files; returns the probe with the digest of its tensors."""
        save_file(fitted_tensors(self.classifier), folder / TENSORS)
        probe = replace(self, card=replace(self.card, digest=file_digest(folder / TENSORS)))
        write_json(folder / CARD, to_json(probe.card, optional=("backbone_spec", "pool", "target_of", "group_pool")))
        return probe

    @classmethod
    def load(cls, folder: Path) -> FittedProbe:
        """Read a probe.

        Raises:
            UsageError: If the folder has none, or a damaged one, or one of another schema version.
        """
        path = folder / CARD
        if not path.exists():
            raise UsageError(
                f"{folder}: has no fitted probe. linear_probe keeps one. Evaluate by it into another folder."
            )
        content: dict[str, Any] | None = read_json(path)
        if content is None:
            raise UsageError(f"{path}: {damage(path)}. {AGAIN}")
        if content.get("kind") != "probe" or content.get("schema") != PROBE_SCHEMA:
            raise UsageError(f"{path}: this is no probe of schema {PROBE_SCHEMA}. {AGAIN}")
        card = validated(ProbeCard, content, path, UsageError, AGAIN)
        tensors = folder / TENSORS
        try:
            if file_digest(tensors) != card.digest:
                raise ValueError("its digest is not that of probe.json")
            classifier, outputs = classifier_of(load_file(tensors), card.predicts, card.group_pool)
            if outputs not in card.outputs:
                raise ValueError(f"it has {outputs} outputs for {card.predicts} of {len(card.classes)} classes")
        except Exception as error:  # of safetensors, and OSError
            raise UsageError(f"{tensors}: is damaged: {brief(error)}. {AGAIN}") from None
        return cls(card, classifier)
