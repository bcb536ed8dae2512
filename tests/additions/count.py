"""A new verb: how many images a store holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.verb import Verb


def arguments(parser: argparse.ArgumentParser) -> None:
    """A store."""
    parser.add_argument("store", type=Path)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Count its images."""
    from ssl_transfer.data.store import ImageStore

    return {"images": len(ImageStore(options.store))}


VERB = Verb("count the images of a store", arguments, run)
