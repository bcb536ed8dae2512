"""`ssl-transfer rank`: choose a backbone for a task by probes and transferability scores, without fine-tuning."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.verb import Verb
from ssl_transfer.console import warn
from ssl_transfer.errors import UnreachableError, UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a task, backbones, and settings."""
    parser.add_argument("task", help="the name of a card in recipes/tasks/, or its path")
    parser.add_argument(
        "words",
        nargs="+",
        metavar="BACKBONE … [key=value …]",
        help="backbones: folders, RUN@EPOCH or RUN@all, scratch:NAME, imagenet:NAME or timm:NAME[.TAG]; settings: by=logme, "
        "resamples=0, folds, fraction, seed, size, precision, group_pool",
    )
    parser.add_argument(
        "--candidates",
        metavar="timm:NAME,…",
        help="public weights, which are left out if they cannot be downloaded or are not installed",
    )
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="STORE[:COLUMN]",
        help="a labelled store that backbones were pretrained on; LEEP and NCE then use a head that is trained on its labels "
        "(may be repeated)",
    )
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="folder with features that were computed before (may be repeated)",
    )
    parser.add_argument("--out", type=Path, help="folder (default runs/rank/ID)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Rank the backbones, and those candidates that can be downloaded."""
    specs = options.words
    if not specs:
        raise UsageError("rank: found no backbone, expected TASK BACKBONE …")
    from ssl_transfer.data.tasks import Task
    from ssl_transfer.recipe import merge, resolve_options

    task = Task.load(options.task)
    from ssl_transfer.kept import expanded
    from ssl_transfer.models.opening import by_name, open_backbone
    from ssl_transfer.models.packaged import PREFIX
    from ssl_transfer.ranking.stage import rank

    settings = resolve_options(rank, merge({}, options.overrides), "rank")
    loaded, left_out = [(spec, open_backbone(spec, task.store)) for spec in expanded(specs)], []
    for spec in filter(None, (options.candidates or "").split(",")):
        if not spec.startswith(("timm:", PREFIX)):
            raise UsageError(
                f"--candidates {spec}: expected timm:NAME[.TAG] or {PREFIX}NAME. Give other backbones after the task."
            )
        try:
            loaded.append((spec, open_backbone(spec, task.store)))
        except UnreachableError as error:
            warn(f"left out: {error}")
            left_out.append(f"Left out: {error}")
    ranking = rank(task, by_name(loaded), options.out, options.features, options.source, **settings)
    return {**ranking.to_json(), "caveats": [*ranking.caveats, *left_out], "ranking": f"{ranking.path}/rank.json"}


def check(options: argparse.Namespace) -> None:
    """Check the settings."""
    from ssl_transfer.ranking.stage import rank
    from ssl_transfer.recipe import merge, resolve_options

    resolve_options(rank, merge({}, options.overrides), "rank")


def as_text(answer: dict[str, Any]) -> str:
    """A table of scores, and the recommendation."""
    from ssl_transfer.ranking.text import as_text
    from ssl_transfer.result import Ranking

    return as_text(Ranking.of_json(answer), answer["ranking"])


VERB = Verb("choose a backbone for a task by frozen features; test images are not read", arguments, run, as_text, check)
