"""`ssl-transfer ingest`: read files and write an image store. Its flags are the options of `ingest`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.decisions_text import decisions_text, store_text
from ssl_transfer.cli.flags import add_flags, options_of
from ssl_transfer.cli.text import as_lines
from ssl_transfer.cli.verb import Verb
from ssl_transfer.errors import UsageError

MOST_REFUSED = 20  # files that are listed


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a source, a folder, and a flag for each option."""
    from ssl_transfer.data.ingest.stage import ingest

    parser.add_argument("source", help="a file, a folder, or phantom:ct, phantom:cells, phantom:photographs")
    parser.add_argument("--out", type=Path, metavar="STORE", help="folder of the store; not with --check")
    parser.add_argument(
        "--check", action="store_true", help="write nothing: read headers and print what would be decided"
    )
    parser.add_argument(
        "--part",
        metavar="K/N",
        help="read one of N parts of the archive on a cluster, such as 3/64; --merge joins them",
    )
    parser.add_argument("--merge", action="store_true", help="join the parts, with the same options, to the store")
    add_flags(parser, ingest)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Write the store, and summarise it; with `--check`, only decide; with `--part`, write a part."""
    from ssl_transfer.data.ingest.check import check
    from ssl_transfer.data.ingest.parts import ingest_part, merge_parts
    from ssl_transfer.data.ingest.stage import ingest
    from ssl_transfer.data.inspect import store_summary

    settings = {name: getattr(options, name) for name in options_of(ingest)}
    if options.check:
        if options.out:
            raise UsageError(f"--out {options.out}: with --check nothing is written. Leave one of them out.")
        return check(options.source, settings)
    if options.out is None:
        raise UsageError("ingest: expected --out STORE, the folder to write, or --check, which writes nothing.")
    if options.part and options.merge:
        raise UsageError(f"--part {options.part}: not together with --merge, which joins parts that are done.")
    if options.part:
        return {"kind": "part", **ingest_part(options.source, options.out, options.part, **settings)}
    write = merge_parts if options.merge else ingest
    return store_summary(write(options.source, options.out, **settings))


def as_text(answer: dict[str, Any]) -> str:
    """The decisions as a table; of a store, below what it contains."""
    if answer["kind"] == "store":
        return store_text(answer)
    if answer["kind"] == "part":
        return as_lines(answer)
    head = {name: answer[name] for name in ("source", "format", "domain")}
    refused = [f"  {refusal['file']}: {refusal['reason']}" for refusal in answer["refused"][:MOST_REFUSED]]
    if more := len(answer["refused"]) - len(refused):
        refused.append(f"  and {more:,} more (--json has all)")
    warnings = [f"  {warning}" for warning in answer["warnings"]]
    lines = [as_lines(head), "", decisions_text(answer["decisions"])]
    lines += ["", "refused", *refused] if refused else []
    lines += ["", "warnings", *warnings] if warnings else []
    return "\n".join([*lines, "", "nothing was written"])


VERB = Verb("read image files and write an image store", arguments, run, as_text)
