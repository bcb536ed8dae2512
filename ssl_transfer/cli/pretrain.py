"""`ssl-transfer pretrain`: train a backbone as a recipe says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.verb import Verb


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a recipe, settings that override it, and the treatment of an existing run."""
    recipe_arguments(parser)
    parser.add_argument("--out", type=Path, help="folder of the run (default runs/NAME-ID)")
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: continue an interrupted run; never: delete its checkpoints and start again",
    )
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="write the backbone with its random initialisation, without training, as a control",
    )


def recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a recipe and the settings that override it."""
    parser.add_argument("recipe", type=Path, help="a YAML file, or the name of one in recipes/")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that override the recipe, for example train.epochs=10",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Pretrain, or continue an interrupted run."""
    from ssl_transfer.data.store import ImageStore
    from ssl_transfer.recipe import PretrainRecipe, load_recipe, parse_overrides

    overrides = parse_overrides(options.overrides)
    for source in load_recipe(PretrainRecipe, options.recipe, overrides).data.sources():
        ImageStore(source.store)  # a wrong store is reported before torch loads
    from ssl_transfer.pretraining.stage import pretrain

    return pretrain(options.recipe, options.out, resume=options.resume, untrained=options.untrained, **overrides)


def check(options: argparse.Namespace) -> None:
    """Check the recipe with its settings."""
    from ssl_transfer.pretraining.setup import resolve
    from ssl_transfer.recipe import PretrainRecipe, load_recipe

    resolve(load_recipe(PretrainRecipe, options.recipe, options.overrides), str(options.recipe))


VERB = Verb(
    "pretrain a backbone on the images of a store",
    arguments,
    run,
    check=check,
    epilog="the same recipe continues its own run; options of a method: ssl-transfer list methods simclr",
)
