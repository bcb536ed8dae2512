"""`ssl-transfer tune`: try settings of a protocol on validation."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssl_transfer.cli.verb import Verb
from ssl_transfer.errors import UsageError
from ssl_transfer.protocols import FROZEN, PROTOCOLS

GRID = "grid."  # prefix of the settings that are lists of candidates


def arguments(parser: argparse.ArgumentParser) -> None:
    """A protocol, a backbone, a task, a grid and settings."""
    parser.add_argument("protocol", choices=[name for name in PROTOCOLS if name not in FROZEN])
    parser.add_argument(
        "words",
        nargs="+",
        metavar="BACKBONE TASK grid.KEY=[…] [key=value …]",
        help="backbone: a folder, scratch:NAME, imagenet:NAME or timm:NAME[.TAG]; task: a card in recipes/tasks/ by name, or the "
        "path of one; grid: for example grid.optimizer.lr=[0.0001,0.001], of several every combination; settings: as for "
        "evaluate",
    )
    parser.add_argument("--out", type=Path, help="folder (default runs/tune/ID), for evaluate --tuning")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Try every combination of the grid."""
    if len(options.words) != 2:
        raise UsageError(
            f"tune {options.protocol}: found {' '.join(options.words) or 'nothing'}, expected BACKBONE TASK."
        )
    backbone, task = options.words

    from ssl_transfer.evaluation.tuning import tune

    grid, settings = _split(options.overrides)
    tuning = tune(options.protocol, backbone, task, grid, options.out, **settings)
    return {**tuning.to_json(), "tuning": str(tuning.path)}


def check(options: argparse.Namespace) -> None:
    """Read the settings of every trial."""
    from ssl_transfer.evaluation.tuning import trial_settings

    list(trial_settings(options.protocol, *_split(options.overrides)))


def _split(words: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The grid and the other settings."""
    from ssl_transfer.recipe import parse_overrides

    settings = parse_overrides(words)
    grid = {key.removeprefix(GRID): settings.pop(key) for key in list(settings) if key.startswith(GRID)}
    return grid, settings


def as_text(answer: dict[str, Any]) -> str:
    """Every trial with its value on validation, and which was selected."""
    lines = [
        f"{answer['protocol']} on {answer['task']}: {len(answer['trials'])} trials on validation ({answer['metric']})"
    ]
    for trial in answer["trials"]:
        value = trial["validation"][answer["metric"]]
        settings = ", ".join(f"{name} {value}" for name, value in trial["settings"].items())
        mark = "  selected" if trial["settings"] == answer["selected"] else ""
        lines.append(f"  {settings}: {'–' if value is None else f'{value:.4f}'}{mark}")
    return "\n".join([*lines, f"  {answer['tuning']}"])


VERB = Verb("try settings on validation, for evaluate --tuning", arguments, run, as_text, check=check)
