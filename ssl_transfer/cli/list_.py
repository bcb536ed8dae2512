"""`ssl-transfer list`: names that recipes and commands take, and what a folder holds."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path
from typing import Any

from ssl_transfer.cli.catalogue import COMPONENTS, WITH_OPTIONS, artifacts, entries, title
from ssl_transfer.cli.catalogue import options as component_options
from ssl_transfer.cli.verb import Verb
from ssl_transfer.errors import UsageError, nearest

RUNS = "runs"
WHAT = (*COMPONENTS, RUNS)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: what to list, and a name or folder."""
    parser.add_argument(
        "what", nargs="?", metavar="WHAT", help=f"one of {', '.join(WHAT)}; by default how many of each"
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME|FOLDER",
        help="one of the names, whose options are listed (list protocols finetune); of runs: the folder whose artifacts are "
        "listed, by default this one",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """List the names of a kind, the options of one of them, or the artifacts below a folder.

    Raises:
        UsageError: If the kind, name or folder does not exist, or names of the kind have no options.
    """
    what, name = options.what, options.name
    if what is None:
        counted = [{"name": kind, "summary": f"{len(entries(kind))} {title(kind)}"} for kind in COMPONENTS]
        runs = {"name": RUNS, "summary": "artifacts below a folder"}
        return {"kind": "list", "what": "what can be listed", "entries": [*counted, runs]}
    if what not in WHAT:
        raise UsageError(f"list {what}: expected one of {', '.join(WHAT)}.{nearest(what, WHAT)}")
    if what == RUNS:
        folder = Path(name or ".")
        if not folder.is_dir():
            raise UsageError(f"list runs {folder}: no such folder.")
        return {"kind": "list", "what": what, "entries": artifacts(folder)}
    if name is None:
        return {"kind": "list", "what": what, "entries": entries(what)}
    if what not in WITH_OPTIONS:
        raise UsageError(
            f"list {what} {name}: only {', '.join(WITH_OPTIONS)} have options, and `list runs` takes a folder."
        )
    return {"kind": "list", "what": f"options of {name}", "entries": component_options(what, name)}


def as_text(answer: dict[str, Any]) -> str:
    """Names with their summaries, wrapped to the terminal."""
    found = answer["entries"]
    if not found:
        return "it has no options" if answer["what"] != RUNS else "found no artifact"
    columns = [name for name in ("name", "kind") if name in found[0]]
    widths = [max(len(entry[name]) for entry in found) + 2 for name in columns]
    lines = []
    for entry in found:
        head = "".join(entry[name].ljust(width) for name, width in zip(columns, widths, strict=True))
        room = max(40, shutil.get_terminal_size((120, 24)).columns - len(head))
        lines.append(head + f"\n{' ' * len(head)}".join(textwrap.wrap(entry["summary"], room) or [""]))
    return "\n".join(lines)


VERB = Verb(
    f"list {', '.join(COMPONENTS)} by name, the options of one, or the runs of a folder", arguments, run, as_text
)
