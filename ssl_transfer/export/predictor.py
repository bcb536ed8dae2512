"""A predictor: a fitted probe and its backbone in one folder, which `ssl-transfer predict` applies anywhere."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_transfer.cards import TRIVIAL
from ssl_transfer.console import warn
from ssl_transfer.errors import BackboneError, UsageError
from ssl_transfer.evaluation.permutation import NOTE
from ssl_transfer.export.licences import is_non_commercial
from ssl_transfer.export.model_card import model_card
from ssl_transfer.export.preprocessing import Preprocessing
from ssl_transfer.export.stage import README, RECORD, answer, pooling_of, write_record
from ssl_transfer.models.backbone import Backbone, save_backbone, with_pooling
from ssl_transfer.models.fitted_probe import CARD, TENSORS, FittedProbe
from ssl_transfer.models.probe_backbone import BESIDE, probe_backbone
from ssl_transfer.result import EvalResult
from ssl_transfer.run import Artifact, to_json, whole_folder, write_json

FORM = "predictor"
USAGE = """```
ssl-transfer predict FOLDER IMAGES --out predictions.parquet
```

IMAGES is a folder or file of DICOM, NIfTI or picture files. TABLES Files that are refused are listed with the reason.
"""
OF_IMAGES = "`predictions.parquet` has a row per image, `predictions_patients.parquet` the means of each patient."
OF_GROUPS = "`predictions.parquet` has a row per {target_of}: one prediction per {target_of}, {group_pool} pooling of its images."

PREDICTED = {  # kind of task -> what the probe predicts, for the model card
    "multiclass": "classes that exclude each other",
    "multilabel": "labels, each by itself",
    "ordinal": "grades in ascending order",
    "regression": "in the unit of the target",
    "survival": "a log hazard: the higher, the earlier the event is expected",
}


def export_predictor(result: str | Path, out: str | Path, backbone: str | Path | None = None) -> dict[str, Any]:
    """Write the fitted probe of an evaluation, with its backbone, as a folder that needs nothing else.

    Args:
        result: Folder of an evaluation by `linear_probe`.
        out: Folder that is written.
        backbone: Path or name of the backbone, if it is not where it was.

    Returns:
        As `export_backbone`, without `largest_difference`.

    Raises:
        UsageError: If the result has no fitted probe, or is a control, or `out` contains something else.
    """
    folder = Path(result)
    evaluation = EvalResult.load(folder)
    fitted = FittedProbe.load(folder)
    if NOTE in evaluation.notes:
        raise UsageError(f"{result}: is a control with permuted labels, which predicts nothing.")
    network = probe_backbone(folder, fitted.card, backbone)
    if network.card.method == TRIVIAL:
        raise BackboneError(f"{result}: is a probe of trivial features, a control without weights.")
    artifact = Artifact.of("export", {"to": FORM}, [fitted.card.digest, network.id], out, record=RECORD)
    with artifact.writing() as finished:
        if not finished:
            _write(artifact, folder, fitted, evaluation, network)
    licence = network.card.licence
    if is_non_commercial(licence):
        warn(
            f"{out}: the weights are under the licence '{licence}', which excludes commercial use. So does this predictor."
        )
    return answer(artifact)


def _write(artifact: Artifact, source: Path, fitted: FittedProbe, evaluation: EvalResult, network: Backbone) -> None:
    card, probe = network.card, fitted.card
    pooled = with_pooling(network, probe.pool) if probe.pool else network
    plan = Preprocessing.of(pooled.card, pooling_of(pooled), probe.size)
    plan = replace(plan, store=to_json(probe.form))
    note = f"With a linear probe for **{probe.task}**: {', '.join(probe.classes) or 'one number'} ({PREDICTED[probe.predicts]})."
    with whole_folder(artifact.folder) as folder:
        for name in (TENSORS, CARD):
            shutil.copyfile(source / name, folder / name)
        save_backbone(Backbone(network.model, replace(card, passport=None)), folder / BESIDE)
        write_json(folder / "preprocessing.json", plan.to_json())
        tables = OF_GROUPS.format(**vars(probe)) if probe.target_of else OF_IMAGES
        usage = USAGE.replace("FOLDER", str(artifact.folder)).replace("TABLES", tables)
        (folder / README).write_text(model_card(card, plan, usage, [evaluation], note))
        write_record(folder, artifact.id, FORM, card)
