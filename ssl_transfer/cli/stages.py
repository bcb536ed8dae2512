"""The verbs that compute one artifact. They are the jobs of a study, which runs them in its process."""

from __future__ import annotations

from typing import Any

from ssl_transfer.cli import analyze, evaluate, features, ingest, pretrain, rank, tune
from ssl_transfer.cli.parser import parse
from ssl_transfer.cli.verb import Verb

STAGES: dict[str, Verb] = {
    "ingest": ingest.VERB,
    "pretrain": pretrain.VERB,
    "features": features.VERB,
    "tune": tune.VERB,
    "evaluate": evaluate.VERB,
    "rank": rank.VERB,
    "analyze": analyze.VERB,
}


def perform(words: list[str]) -> dict[str, Any]:
    """Run a command of a stage in this process.

    Args:
        words: All words after `ssl-transfer`.

    Returns:
        The JSON object that the command prints with `--json`.
    """
    options = parse(words, STAGES)
    return STAGES[options.verb].run(options)


def check(words: list[str]) -> None:
    """Check the recipe or settings of a command before anything is computed; raise its error if they are wrong."""
    options = parse(words, STAGES)
    STAGES[options.verb].check(options)
