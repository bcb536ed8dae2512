"""`ssl-transfer export`: write a backbone, or a fitted probe with its backbone, for other programs and places."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.text import as_lines
from ssl_transfer.cli.verb import Verb
from ssl_transfer.errors import UsageError

PREDICTOR = "predictor"
FORMS = ("timm", "torchvision", "onnx", "monai", "hf", PREDICTOR)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a backbone or an evaluation, the form, a folder, results."""
    add = parser.add_argument
    add(
        "exported",
        metavar="BACKBONE",
        help="a folder, RUN@EPOCH, imagenet:NAME, timm:NAME[.TAG] or scratch:NAME; --to predictor: the folder of an evaluation "
        "by linear_probe",
    )
    add(
        "--to",
        required=True,
        choices=FORMS,
        help="timm, torchvision, monai: weights that the library loads strictly; onnx: a graph; hf: a folder for the Hugging "
        "Face hub, with a model card; predictor: a fitted probe with its backbone, for `predict`",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder that is written")
    results = "evaluations of this backbone, for the model card"
    add("--results", type=Path, nargs="+", default=[], metavar="DIR", help=results)
    add("--backbone", metavar="PATH", help="with --to predictor: the backbone, if it is not where it was")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Write the export."""
    if options.to == PREDICTOR:
        if options.results:
            raise UsageError("--results: a predictor has the result of its own evaluation. Leave it out.")
        from ssl_transfer.export.predictor import export_predictor

        return export_predictor(options.exported, options.out, options.backbone)
    if options.backbone:
        raise UsageError(f"--backbone {options.backbone}: is for --to predictor. Leave it out.")
    from ssl_transfer.export.stage import export_backbone

    return export_backbone(options.exported, options.to, options.out, options.results)


def as_text(answer: dict[str, Any]) -> str:
    """What was written."""
    return as_lines({key: value for key, value in answer.items() if key != "kind" and value is not None})


VERB = Verb(
    "write a backbone for timm, torchvision, ONNX, MONAI or the Hugging Face hub, or a probe to predict with",
    arguments,
    run,
    as_text,
)
