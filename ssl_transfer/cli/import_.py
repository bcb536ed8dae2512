"""`ssl-transfer import`: other people's weights become a backbone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.flags import add_flags, options_of
from ssl_transfer.cli.text import as_lines
from ssl_transfer.cli.verb import Verb
from ssl_transfer.models.importing.options import ImportOptions


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a checkpoint, a folder, and a flag for each option."""
    parser.add_argument("source", help="a checkpoint, its folder, or hf-hub:OWNER/NAME[@REVISION][/FILE]")
    parser.add_argument("--out", type=Path, help="folder of the backbone (default runs/NAME-ID)")
    add_flags(parser, ImportOptions)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Import, or answer that the backbone is there already."""
    settings = {name: getattr(options, name) for name in options_of(ImportOptions)}
    ImportOptions(**settings)  # a wrong option is reported before torch loads
    from ssl_transfer.models.importing.stage import import_backbone

    return import_backbone(options.source, options.out, **settings)


def as_text(answer: dict[str, Any]) -> str:
    """The card in lines, and the counts of tensors in a sentence."""
    origin, ignored = answer["origin"], answer.get("ignored", {})
    reasons = ", ".join(f"{count} {what}" for what, count in ignored.items())
    counts = f"{origin['matched']} matched, {origin['ignored']} ignored{f' ({reasons})' if reasons else ''}"
    shown = {key: value for key, value in answer.items() if key not in ("origin", "ignored", "options", "intensity")}
    intensity = answer["intensity"]
    input = f"mean {_values(intensity['mean'])}, std {_values(intensity['std'])} ({origin['preprocessing']})"
    lines = {
        **shown,
        "options": ", ".join(f"{key}={value}" for key, value in answer["options"].items()),
        "layout": origin["layout"] + (f" ({origin['state_dict']})" if origin["state_dict"] else ""),
        "tensors": f"{counts}, {origin['missing']} missing",
        "input": f"{input}; CT window {_values(intensity['window_hu'])} HU",
        "sha256": origin["sha256"],
    }
    return as_lines({key: value for key, value in lines.items() if value not in ("", [], None)})


def _values(values: list[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


VERB = Verb("make a backbone of other people's weights", arguments, run, as_text)
