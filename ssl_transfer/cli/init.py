"""`ssl-transfer init`: write a recipe, a task card and a study for a store."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.text import as_lines
from ssl_transfer.cli.verb import Verb


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a store, the folder of the files, and the target."""
    parser.add_argument("store", help="a store that ingest wrote")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the files (default projects/NAME, with the name of the store)",
    )
    parser.add_argument(
        "--target",
        metavar="COLUMN",
        help="column of the store to predict, several columns of yes and no with commas, or mask (default: the labels, else "
        "the masks)",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Write the files."""
    from ssl_transfer.templates.stage import init

    return init(options.store, options.out, options.target)


def as_text(answer: dict[str, Any]) -> str:
    """The files, and what to type next."""
    head = {key: value for key, value in answer.items() if key not in ("kind", "next")}
    return "\n".join([as_lines(head), "next:", *(f"  {command}" for command in answer["next"])])


VERB = Verb(
    "write a recipe, a task card and a study for a store, each line explained",
    arguments,
    run,
    as_text,
    epilog="files that exist are not overwritten",
)
