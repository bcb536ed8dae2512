"""`ssl-transfer features`: compute the features of a store by a backbone, once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.verb import Verb


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a backbone, a store, and settings."""
    parser.add_argument("backbone", help="a folder, scratch:NAME, imagenet:NAME, timm:NAME[.TAG] or trivial")
    parser.add_argument("store", type=Path)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="size: height and width of the backbone's input (default: as pretrained); precision=fp32|bf16; air=clear: for tasks "
        "whose card has it; pool=all: every pooling of a ViT, for pool=[…] of a probe",
    )
    parser.add_argument("--out", type=Path, help="folder (default runs/features/ID)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compute features, or read them if they exist already."""
    from ssl_transfer.data.store import ImageStore

    store = ImageStore(options.store)
    from ssl_transfer.features import extract_features
    from ssl_transfer.models.opening import open_backbone
    from ssl_transfer.recipe import merge, resolve_options

    settings = resolve_options(extract_features, merge({}, options.overrides), "features")
    features = extract_features(open_backbone(options.backbone, store), store, options.out, **settings)
    return {**features.card.to_json(), "features": str(features.path)}


VERB = Verb("compute and save the features of a store by a backbone", arguments, run)
