"""`ssl-transfer analyze`: neighbours, maps, layers and property probes of backbones, and an explorer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.verb import Verb
from ssl_transfer.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Backbones, settings, and the stores and results that they are compared on."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="BACKBONE … [key=value …]",
        help="folders (also backbone/ in the result of a fine-tune with train.keep_backbone=true), scratch:NAME or timm:NAME; "
        "settings: neighbors, index=exact|ivf|hnsw, sample, columns=[…], domain=COLUMN, duplicate, seed",
    )
    parser.add_argument("--store", type=Path, required=True, help="whose images are analysed")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        type=Path,
        metavar="STORE",
        help="another store: its distance, and where its images lie on the maps (may be repeated)",
    )
    parser.add_argument(
        "--results",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="a multiclass result of `evaluate`: which backbones fail on the same cases (repeat it: two at least)",
    )
    parser.add_argument("--size", type=int, help="height and width that backbones see (default: their own)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--out", type=Path, help="folder (default runs/analyze/ID)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Analyse the backbones."""
    if not options.words:
        raise UsageError("analyze: found no backbone, expected BACKBONE … --store STORE.")
    from ssl_transfer.data.store import ImageStore

    store = ImageStore(options.store)
    against = {path.name: ImageStore(path) for path in options.against}
    if len({options.store.name, *against}) <= len(options.against):
        raise UsageError(
            "--against: stores are called by the names of their folders, and two have the same. Rename one."
        )
    from ssl_transfer.analysis.failures import Predictions
    from ssl_transfer.analysis.stage import analyze
    from ssl_transfer.models.opening import by_name, open_backbone
    from ssl_transfer.recipe import merge, resolve_options

    settings = resolve_options(analyze, merge({}, options.overrides), "analyze")
    results = Predictions.open(options.results)
    if len(results) == 1:
        raise UsageError("--results: found one result, expected two or more: failures are compared between them.")
    named = by_name([(spec, open_backbone(spec, store)) for spec in options.words])
    subjects = [_subject(name, backbone, store, options) for name, backbone in named.items()]
    answer, folder = analyze(subjects, store, options.out, against, results, **settings)
    return {**answer, "analysis": str(folder), "explorer": str(folder / "explorer.html")}


def _subject(name: str, backbone: Any, store: Any, options: argparse.Namespace) -> Any:
    """A backbone as an analysis sees it."""
    from functools import cache

    from ssl_transfer.analysis.analyzed_backbone import AnalyzedBackbone
    from ssl_transfer.features import extract_features, features_id, layer_features, paired_features

    size, precision = options.size, options.precision
    return AnalyzedBackbone(
        features_id(backbone, store, size, precision),
        name,
        backbone.card,
        cache(lambda of: extract_features(backbone, of, None, size, precision).values),
        lambda of, rows: layer_features(backbone, of, rows, size, precision),
        lambda of, rows: paired_features(backbone, of, rows, size=size),
    )


def as_text(answer: dict[str, Any]) -> str:
    """The findings, in sentences."""
    from ssl_transfer.analysis.summary_text import listing

    return listing(answer)


VERB = Verb(
    "neighbours, maps, layers and linearly decodable properties of feature spaces; explorer.html",
    arguments,
    run,
    as_text,
)
