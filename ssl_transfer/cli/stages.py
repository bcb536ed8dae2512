"""The verbs that compute one artifact. They are the jobs of a study, which runs them in its own process."""

from __future__ import annotations

from typing import Any

from ssl_transfer.cli import analyze, evaluate, features, ingest, pretrain, rank
from ssl_transfer.cli.parser import parse
from ssl_transfer.cli.verb import Verb

STAGES: dict[str, Verb] = {
    "ingest": ingest.VERB,
    "pretrain": pretrain.VERB,
    "features": features.VERB,
    "evaluate": evaluate.VERB,
    "rank": rank.VERB,
    "analyze": analyze.VERB,
}


def perform(words: list[str]) -> dict[str, Any]:
    """Run a command of a stage in this process.

    Args:
        words: All behind `ssl-transfer`.

    Returns:
        What the command prints with `--json`.
    """
    options = parse(words, STAGES)
    return STAGES[options.verb].run(options)


def check(words: list[str]) -> None:
    """Raise the error of a command whose recipe or settings are wrong, before anything is computed."""
    options = parse(words, STAGES)
    STAGES[options.verb].check(options)
