"""`ssl-transfer quickstart`: the main job on generated images, end to end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.stages import perform
from ssl_transfer.cli.verb import Verb


def arguments(parser: argparse.ArgumentParser) -> None:
    """Folder and scale."""
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--scale", choices=("full", "tiny"), default="full", help="tiny ends within a minute")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the study of the quickstart and report it."""
    from ssl_transfer.quickstart import quickstart

    return quickstart(perform, options.out, options.scale)


VERB = Verb("the main job on the embedded default, end to end", arguments, run)
