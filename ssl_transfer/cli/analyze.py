"""`ssl-transfer analyze`: neighbours, UMAP, layers and property probes of backbones, and an explorer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.verb import Verb
from ssl_transfer.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: backbones, settings, stores and results."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="BACKBONE … [key=value …]",
        help="backbones: folders (also backbone/ in the result of a fine-tuning with train.keep_backbone=true), scratch:NAME, "
        "imagenet:NAME or timm:NAME; settings: neighbors, index=exact|ivf|hnsw, sample, columns=[…], domain=COLUMN, "
        "target=COLUMN, nuisances=[…], duplicate, seed, size, precision",
    )
    parser.add_argument("--store", type=Path, required=True, help="the store whose images are analysed")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        type=Path,
        metavar="STORE",
        help="another store: its distance is measured, and its images are added to the UMAP (may be repeated)",
    )
    parser.add_argument(
        "--results",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="a multiclass result of `evaluate`, whose errors are compared with those of other results (at least two)",
    )
    parser.add_argument("--out", type=Path, help="folder (default runs/analyze/ID)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Analyse the backbones."""
    if not options.words:
        raise UsageError("analyze: found no backbone, expected BACKBONE … --store STORE.")
    from ssl_transfer.data.store import ImageStore

    store = ImageStore(options.store)  # a wrong store is reported before torch loads
    from ssl_transfer.analysis.stage import analyze
    from ssl_transfer.recipe import merge, resolve_options

    settings = resolve_options(analyze, merge({}, options.overrides), "analyze")
    analysis = analyze(options.words, store, options.out, options.against, options.results, **settings)
    return {**analysis.to_json(), "analysis": str(analysis.path), "explorer": f"{analysis.path}/explorer.html"}


def as_text(answer: dict[str, Any]) -> str:
    """The findings as sentences."""
    from ssl_transfer.analysis.summary_text import as_text
    from ssl_transfer.result import Analysis
    from ssl_transfer.run import from_json

    return as_text(from_json(Analysis, answer), answer["analysis"])


VERB = Verb(
    "compare feature spaces: neighbours, UMAP, layers, linearly decodable properties; writes explorer.html",
    arguments,
    run,
    as_text,
)
