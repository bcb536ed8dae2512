"""`ssl-transfer quickstart`: a whole study on generated images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.flags import at_least_one
from ssl_transfer.cli.stages import perform
from ssl_transfer.cli.verb import Verb


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: folder, scale and number of jobs at once."""
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder (default runs/quickstart)")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full", help="tiny takes less than a minute")
    parser.add_argument("--jobs", type=at_least_one, metavar="N", help="jobs at once (default: by cores and memory)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the study of the quickstart, and write its report."""
    from ssl_transfer.quickstart import quickstart

    return quickstart(perform, options.out, options.scale, options.jobs)


VERB = Verb("a whole study on generated images: pretraining, evaluation and report", arguments, run)
