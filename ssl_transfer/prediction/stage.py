"""The stage `predict`: predictions for new images and their patients, or for groups of images, by a fitted probe.

Images are read as they were ingested when the probe was fitted; see `ssl_transfer.data.ingest.like`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from ssl_transfer import __version__
from ssl_transfer.console import Progress, say, warn
from ssl_transfer.csv_files import write_csv
from ssl_transfer.data.altered import ClearedAir
from ssl_transfer.data.form import StoreForm
from ssl_transfer.data.groups import Bags, group_names, knows_groups
from ssl_transfer.data.images import Images
from ssl_transfer.data.ingest.like import ingest_like, inputs_like
from ssl_transfer.data.neighbours import lacking
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import Interrupted, StoreError, UsageError
from ssl_transfer.models.adoption import with_channels
from ssl_transfer.models.backbone import Backbone, with_pooling
from ssl_transfer.models.device import on_fastest_device
from ssl_transfer.models.embedding import embed
from ssl_transfer.models.fitted_probe import FittedProbe
from ssl_transfer.models.group_probe import BagFeatures
from ssl_transfer.models.probe_backbone import probe_backbone
from ssl_transfer.prediction.tables import group_table, image_table, patient_table
from ssl_transfer.run import read_json, run_id, write_json
from ssl_transfer.writing import writes

SUFFIXES = (".parquet", ".csv")
BY_TABLE = "ingest the files with the table that knows them (`ingest --labels`) and predict the store"
KNOWN_BY = {  # what to type where no group is known
    "patient": f"Say which part of a name is the patient (--patient-from '{{patient}}_*'), or {BY_TABLE}.",
    "study": f"To have them, {BY_TABLE}.",
    "series": f"To have them, {BY_TABLE}.",
}


@dataclass(frozen=True)
class Outputs:
    """Files of a prediction: the table of the images or groups, which the user names, and those beside it."""

    table: Path

    @classmethod
    def of(cls, out: str | Path) -> Outputs:
        """The files for `--out`.

        Raises:
            UsageError: If it has another suffix, or is a folder.
        """
        path = Path(out)
        if path.suffix not in SUFFIXES or path.is_dir():
            raise UsageError(f"--out {path}: expected a file that ends with {' or '.join(SUFFIXES)}.")
        return cls(path)

    @property
    def patients(self) -> Path:
        """The table of the patients."""
        return self.table.with_name(f"{self.table.stem}_patients{self.table.suffix}")

    @property
    def refused(self) -> Path:
        """The list of the files that were not read."""
        return self.table.with_name(f"{self.table.stem}_refused.csv")

    @property
    def record(self) -> Path:
        """What was predicted by what; written last."""
        return self.table.with_name(f"{self.table.stem}.json")


def predict(
    probe: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    backbone: str | Path | None = None,
    format: str | None = None,
    modality: str | None = None,
    patient_from: str | None = None,
    keep_paths: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """Apply a fitted probe to new images.

    Args:
        probe: Folder of an evaluation by `linear_probe`, or of an exported predictor.
        images: A folder or file of DICOM, NIfTI or picture files, or a store.
        out: Table that is written, one row per image: `.parquet` or `.csv`. Beside it are written the table of the patients, the
            list of refused files, and a record. A probe of a task with `target_of` predicts groups: the table has a row per
            group, and there is none of the patients.
        backbone: Path or name of the backbone, if it is neither beside the probe nor where it was; default: found by the probe.
        format: Name of a reader: dicom, nifti, images or npz; default: the reader of most of the files.
        modality: DICOM modality to keep, for example CT; default: as for the probe's store.
        patient_from: Part of the path that names the patient, as in {patient}_* or */{patient}/**; default: header, known names.
        keep_paths: Write the paths of files as they are. Otherwise their hashes are written.
        workers: Number of worker processes that decode; default: one per core, at most 16.

    Returns:
        `kind` (`predictions`), `predictions`, `patients`, `refused_files` (paths, or None), `task`, `classes`, `n_images`,
        `n_patients` (with known ids), `n_groups` (None: a prediction is of each image), `n_refused`, `refused` (file, kind,
        reason), `predicted` (images or groups by class; empty without classes), `backbone`, `run_id`.

    Raises:
        UsageError: If the probe or its backbone is not there, or `out` has other predictions.
        SourceError, StoreError: If there is no image, or images are of another kind than those of the probe.
        OutputError: If `out` cannot be written.
    """
    outputs, folder = Outputs.of(out), Path(probe)
    fitted = FittedProbe.load(folder)
    reading = {"format": format, "modality": modality, "patient_from": patient_from, "keep_paths": keep_paths or None}
    inputs = ImageStore(images).id if _is_store(images) else inputs_like(images, fitted.card.form, reading)
    identity = run_id("predict", {"format": outputs.table.suffix}, [fitted.card.digest, fitted.card.backbone, inputs])
    if answer := _finished(outputs, identity):
        return answer
    network = probe_backbone(folder, fitted.card, backbone)
    with _opened(images, outputs, fitted.card.form, {**reading, "workers": workers}) as store:
        features = _features(network, store, fitted)
        tables = (_of_groups if fitted.card.target_of else _of_images)(outputs, store, features, fitted)
        return _write(outputs, store, tables, fitted, identity)


def _is_store(images: str | Path) -> bool:
    """Whether images are given as a store, and not as files."""
    return (Path(images) / "card.json").is_file()


def _finished(outputs: Outputs, identity: str) -> dict[str, Any] | None:
    """The answer of an earlier call with the same inputs; None if there are no files.

    Raises:
        UsageError: If there are files of other inputs.
    """
    record = read_json(outputs.record)
    if record and record.get("run_id") == identity and outputs.table.exists():
        say(f"{outputs.table}: already there.")
        return record
    for path in (outputs.table, outputs.patients, outputs.refused, outputs.record):
        if path.exists():
            raise UsageError(f"{path}: already there, of other inputs. Give another --out.")
    return None


@contextmanager
def _opened(images: str | Path, outputs: Outputs, form: StoreForm, reading: dict[str, Any]) -> Iterator[Images]:
    """Yield the images in the form of the probe's store; those of files are in a temporary store beside the output.

    Raises:
        StoreError: If a store has values of another kind.
    """
    if _is_store(images):
        store = ImageStore(images)
        if store.units != form.units or store.card.channels != form.channels:
            raise StoreError(
                f"{images}: its images are '{store.units}' with {store.card.channels} channel(s), and the probe was fitted on "
                f"'{form.units}' with {form.channels}. Give the files that it was ingested from."
            )
        yield ClearedAir(store) if form.air else store
        return
    with writes(outputs.table, "Nothing was computed."):
        outputs.table.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=f".{outputs.table.name}.", dir=outputs.table.absolute().parent)
    with temporary as place:
        try:
            store = ingest_like(images, Path(place) / "store", form, **reading)
        except Interrupted as interruption:
            raise Interrupted(f"{outputs.table}: stopped. Nothing was kept.", interruption.status) from None
        yield ClearedAir(store) if form.air else store


def _features(backbone: Backbone, store: Images, fitted: FittedProbe) -> np.ndarray:
    """Features of all images, as the evaluation computed them."""
    card = fitted.card
    if card.pool is not None:
        backbone = with_pooling(backbone, card.pool)
    if card.channels == "adapt":
        backbone = with_channels(backbone, store.shape[0])
    for lacks in lacking(store, backbone.card.channels):
        warn(f"the channels of {backbone.card.name} are {backbone.card.channels}, and {lacks}: they are repeated")
    with on_fastest_device(backbone) as device, Progress("predicting", len(store)) as progress:
        return embed(
            backbone,
            store,
            np.arange(len(store)),
            card.size,
            device=device,
            bf16=card.precision == "bf16",
            on_batch=lambda count: progress.update(steps=count),
        )


def _of_images(
    outputs: Outputs, store: Images, features: np.ndarray, fitted: FittedProbe
) -> dict[Path, pandas.DataFrame]:
    """The tables of the images and of the patients."""
    card = fitted.card
    images = image_table(store, fitted.predictions(features), card.classes, card.predicts)
    patients = patient_table(images, card.classes, card.predicts)
    _warn_of_unknown("patient", len(images) - int(patients["images"].sum()), len(images), outputs.patients)
    return {outputs.table: images, outputs.patients: patients}


def _of_groups(
    outputs: Outputs, store: Images, features: np.ndarray, fitted: FittedProbe
) -> dict[Path, pandas.DataFrame]:
    """The table of the groups of a probe with `target_of`; every image is one if the store knows none."""
    card, unit = fitted.card, fitted.card.target_of
    assert unit is not None
    if knows_groups(store, unit):
        names = group_names(store, unit, f"task {card.task}")
    else:
        warn(f"no {unit} is known: every image is a case of its own. {KNOWN_BY[unit]}")
        names = np.array([f"image {number}" for number in range(len(store))], object)
    rows = np.flatnonzero([name is not None for name in names])
    bags = Bags.of(names[rows])
    _warn_of_unknown(unit, len(store) - len(rows), len(store), outputs.table)
    predictions = fitted.predictions(BagFeatures.of(features[rows], bags))
    return {outputs.table: group_table(store, bags, rows, predictions, card.classes, card.predicts)}


def _warn_of_unknown(unit: str, unknown: int, images: int, table: Path) -> None:
    if unknown:
        warn(f"the {unit} of {unknown} of {images} images is unknown; they are in no row of {table.name}")


def _write(
    outputs: Outputs, store: Images, tables: dict[Path, pandas.DataFrame], fitted: FittedProbe, identity: str
) -> dict[str, Any]:
    """Write the tables, the refused files, and the record, which is last; returns the answer."""
    card, predicted, refused = fitted.card, tables[outputs.table], list(getattr(store, "refused", store.card.refused))
    with writes(outputs.table):
        outputs.table.absolute().parent.mkdir(parents=True, exist_ok=True)
        for path, table in tables.items():
            _save(table, path)
        if store.card.refused:
            write_csv(pandas.DataFrame(list(store.card.refused)), outputs.refused)
        record = {
            "kind": "predictions",
            "predictions": str(outputs.table),
            "patients": str(outputs.patients) if outputs.patients in tables else None,
            "refused_files": str(outputs.refused) if store.card.refused else None,
            "task": card.task,
            "classes": list(card.classes),
            "n_images": len(store),
            "n_patients": predicted["patient"].nunique() if "patient" in predicted else 0,
            "n_groups": len(predicted) if card.target_of else None,
            "n_refused": len(store.card.refused),
            "predicted": _counted(predicted) if card.classes else {},
            "backbone": {"id": card.backbone, "name": card.backbone_name},
            "probe": card.run_id,
            "run_id": identity,
            "version": __version__,
        }
        write_json(outputs.record, {**record, "refused": list(store.card.refused)})
    return {**record, "refused": refused}


def _counted(table: pandas.DataFrame) -> dict[str, int]:
    """Number of images or groups by predicted class."""
    return {str(name): int(count) for name, count in table["predicted"].value_counts().items()}


def _save(table: pandas.DataFrame, path: Path) -> None:
    """Write a table as its suffix says."""
    if path.suffix == ".csv":
        write_csv(table, path)
    else:
        table.to_parquet(path, index=False)
