"""`ssl-transfer features`: one cached pass of a backbone over a store."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.verb import Verb


def arguments(parser: argparse.ArgumentParser) -> None:
    """A backbone and a store."""
    parser.add_argument("backbone", help="a folder, scratch:NAME or timm:NAME[.TAG]")
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path, help="folder (default runs/features/ID)")
    parser.add_argument("--size", type=int, help="height and width that the backbone sees (default: its own)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compute features, or read those that are there."""
    from ssl_transfer.data.store import ImageStore

    store = ImageStore(options.store)
    from ssl_transfer.features import extract_features
    from ssl_transfer.models.opening import open_backbone

    backbone = open_backbone(options.backbone, store)
    features = extract_features(backbone, store, options.out, options.size, options.precision)
    return {**features.card.to_json(), "features": str(features.path)}


VERB = Verb("compute and keep a backbone's features of a store", arguments, run)
