"""`ssl-transfer predict`: apply a fitted probe to new images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.flags import at_least_one
from ssl_transfer.cli.verb import Verb

MOST_REFUSED = 20  # files that are listed


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a probe, images, a table, and how files are read."""
    add = parser.add_argument
    add("probe", metavar="PROBE", help="folder of an evaluation by linear_probe, or of an exported predictor")
    add("images", metavar="IMAGES", help="a folder or file of DICOM, NIfTI or picture files, or a store")
    add(
        "--out",
        dest="table",
        type=Path,
        required=True,
        metavar="FILE",
        help="table with a row per image, .parquet or .csv; beside it FILE_patients has a row per patient; of a task with "
        "target_of, a row per patient, study or series",
    )
    add("--backbone", metavar="PATH", help="the backbone, if it is neither beside the probe nor where it was")
    add("--format", help="name of a reader: dicom, nifti, images or npz (default: that of most files)")
    add("--modality", help="DICOM modality to keep, for example CT (default: as when the probe was fitted)")
    add("--patient-from", metavar="PATTERN", help="part of the path that names the patient, as in {patient}_*")
    add("--keep-paths", action="store_true", help="write paths of files as they are, not their hashes")
    add("--workers", type=at_least_one, metavar="N", help="number of processes that decode (default: one per core)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Predict, or read the predictions if they exist already."""
    from ssl_transfer.prediction.stage import predict

    return predict(
        options.probe,
        options.images,
        options.table,
        backbone=options.backbone,
        format=options.format,
        modality=options.modality,
        patient_from=options.patient_from,
        keep_paths=options.keep_paths,
        workers=options.workers,
    )


def as_text(answer: dict[str, Any]) -> str:
    """Where the tables are, what was predicted how often, and what was refused."""
    counts = ", ".join(f"{name} {count}" for name, count in answer["predicted"].items())
    groups = answer.get("n_groups")  # answers of earlier versions have none
    unit, of_groups = ("image", "") if groups is None else ("group", f" in {groups} groups")
    lines = [
        f"{answer['task']}: {answer['n_images']} images of {answer['n_patients']} known patients{of_groups}",
        f"  predicted: {counts or f'a number per {unit}'}",
        f"  {unit}s: {answer['predictions']}",
        *([f"  patients: {answer['patients']}"] if answer["patients"] else []),
        "  research use only: not a medical device",
    ]
    refused = [f"  {refusal['file']}: {refusal['reason']}" for refusal in answer["refused"][:MOST_REFUSED]]
    if more := len(answer["refused"]) - len(refused):
        refused.append(f"  and {more:,} more, see {answer['refused_files']}")
    return "\n".join([*lines, *(["refused", *refused] if refused else [])])


VERB = Verb("apply a fitted probe to new images", arguments, run, as_text)
