"""`ssl-transfer verify`: check an artifact."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.verb import Verb


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument: a path."""
    parser.add_argument(
        "path", type=Path, help="a store, backbone, features, run, result, export or study, or a folder of such"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Check checksums, and whether files agree with each other."""
    from ssl_transfer.verification.stage import verify

    return verify(options.path)


def as_text(answer: dict[str, Any]) -> str:
    """A line per finding, problems last, and a summary."""
    lines = [f"ok     {entry['path']}: {entry['text']}" for entry in answer["checked"]]
    lines += [f"WRONG  {entry['path']}: {entry['text']}" for entry in answer["problems"]]
    problems = len(answer["problems"])
    return "\n".join([*lines, f"{answer['path']}: {problems or 'no'} problem{'s' * (problems != 1)}"])


def status(answer: dict[str, Any]) -> int:
    """2 if something is wrong."""
    return 0 if answer["ok"] else 2


VERB = Verb(
    "check checksums and consistency of a store, backbone, features, run, result, export or study; exit status 2 if one is wrong",
    arguments,
    run,
    as_text,
    status=status,
)
