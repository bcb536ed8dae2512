"""`ssl-transfer preview`: draw the views that a recipe makes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.pretrain import recipe_arguments
from ssl_transfer.cli.verb import Verb


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a recipe, settings that override it, the figure, and the number of images."""
    recipe_arguments(parser)
    parser.add_argument("--figure", type=Path, default=Path("views.png"), metavar="FILE.png", help="default views.png")
    parser.add_argument("--images", type=int, default=6, metavar="N", help="images of each store (default 6)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Draw the views."""
    from ssl_transfer.errors import UsageError
    from ssl_transfer.recipe import parse_overrides

    if options.images < 1:
        raise UsageError(f"--images {options.images}: expected a number of images of at least 1.")
    from ssl_transfer.pretraining.preview import preview

    return preview(options.recipe, options.figure, options.images, **parse_overrides(options.overrides))


VERB = Verb("draw the views that a recipe makes of its training images, before anything is trained", arguments, run)
