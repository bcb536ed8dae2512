"""The backbone of a fitted probe: beside it, where it was when the probe was fitted, or where the user says."""

from __future__ import annotations

from pathlib import Path

from ssl_transfer.errors import BackboneError, UsageError
from ssl_transfer.models.backbone import Backbone, load_backbone
from ssl_transfer.models.fitted_probe import ProbeCard

BESIDE = "backbone"  # folder of an exported predictor


def probe_backbone(folder: Path, card: ProbeCard, given: str | Path | None = None) -> Backbone:
    """Open the backbone that a probe was fitted on.

    Args:
        folder: Folder of the probe.
        card: Card of the probe.
        given: Path or name of the backbone; None: `backbone/` beside the probe, or else the path of its evaluation.

    Raises:
        UsageError: If it is not there, or another one is.
        BackboneError: If it is damaged.
    """
    beside = folder / BESIDE
    spec = given or (beside if (beside / "card.json").exists() else card.backbone_spec)
    if spec is None:
        raise UsageError(
            f"{folder}: the evaluation does not say where its backbone {card.backbone_name} ({card.backbone}) is. "
            "Add --backbone PATH."
        )
    try:
        backbone = load_backbone(spec, in_channels=card.form.channels, size=max(card.form.size))
    except BackboneError as error:
        if given or spec == beside:
            raise
        raise UsageError(
            f"{folder}: the backbone of this probe was {spec}, and cannot be opened from here ({error}). Run the command "
            "where it can, or add --backbone PATH."
        ) from None
    if backbone.id != card.backbone:
        raise UsageError(
            f"{spec}: is the backbone {backbone.card.name} ({backbone.id}), and the probe in {folder} was fitted on "
            f"{card.backbone_name} ({card.backbone}). Add --backbone PATH of that one."
        )
    return backbone
