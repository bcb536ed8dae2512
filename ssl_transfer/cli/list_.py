"""`ssl-transfer list`: names that recipes and commands take, and what a folder holds."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path
from typing import Any

from ssl_transfer.cli import catalogue
from ssl_transfer.cli.verb import Verb
from ssl_transfer.errors import UsageError, nearest

RUNS = "runs"
WHAT = (*catalogue.COMPONENTS, RUNS)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: what to list, and a folder."""
    parser.add_argument(
        "what", nargs="?", metavar="WHAT", help=f"one of {', '.join(WHAT)}; by default how many of each"
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, help="of runs: the folder whose artifacts are listed; by default this one"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """List the names of a kind, or the artifacts below a folder.

    Raises:
        UsageError: If the kind or the folder does not exist, or the kind has no folder.
    """
    what, folder = options.what, options.folder
    if what is None:
        entries = [_counted(name) for name in catalogue.COMPONENTS]
        return {
            "kind": "list",
            "what": "what can be listed",
            "entries": [*entries, {"name": RUNS, "summary": "artifacts below a folder"}],
        }
    if what not in WHAT:
        raise UsageError(f"list {what}: expected one of {', '.join(WHAT)}.{nearest(what, WHAT)}")
    if folder and what != RUNS:
        raise UsageError(f"list {what} {folder}: only `list runs` takes a folder.")
    folder = folder or Path()
    if not folder.is_dir():
        raise UsageError(f"list runs {folder}: no such folder.")
    entries = catalogue.artifacts(folder) if what == RUNS else catalogue.COMPONENTS[what]()
    return {"kind": "list", "what": what, "entries": entries}


def _counted(name: str) -> dict[str, Any]:
    list_entries = catalogue.COMPONENTS[name]
    return {"name": name, "summary": f"{len(list_entries())} {str(list_entries.__doc__).rstrip('.').lower()}"}


def as_text(answer: dict[str, Any]) -> str:
    """Names with their summaries, wrapped to the terminal."""
    entries = answer["entries"]
    if not entries:
        return "found no artifact"
    columns = [name for name in ("name", "kind") if name in entries[0]]
    widths = [max(len(entry[name]) for entry in entries) + 2 for name in columns]
    lines = []
    for entry in entries:
        head = "".join(entry[name].ljust(width) for name, width in zip(columns, widths, strict=True))
        room = max(40, shutil.get_terminal_size((120, 24)).columns - len(head))
        lines.append(head + f"\n{' ' * len(head)}".join(textwrap.wrap(entry["summary"], room) or [""]))
    return "\n".join(lines)


VERB = Verb(f"list {', '.join(catalogue.COMPONENTS)} by name, or the runs of a folder", arguments, run, as_text)
