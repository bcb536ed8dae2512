"""`ssl-transfer ingest`: read files and write an image store. Its flags are the options of `ingest`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.flags import add_flags, options_of
from ssl_transfer.cli.verb import Verb


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a source, a folder, and a flag for each option."""
    from ssl_transfer.data.ingest.stage import ingest

    parser.add_argument("source", help="a file, a folder, or phantom:ct, phantom:cells, phantom:photographs")
    parser.add_argument("--out", type=Path, required=True, metavar="STORE")
    add_flags(parser, ingest)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Write the store, and summarise it."""
    from ssl_transfer.data.ingest.stage import ingest
    from ssl_transfer.data.inspect import store_summary

    settings = {name: getattr(options, name) for name in options_of(ingest)}
    return store_summary(ingest(options.source, options.out, **settings))


VERB = Verb("read image files and write an image store", arguments, run)
