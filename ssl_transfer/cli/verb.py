"""The type of the verbs of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssl_transfer.cli.text import as_lines


@dataclass(frozen=True)
class Verb:
    """A verb. Its file imports the stage only when the verb runs, so that `--help` answers at once.

    Attributes:
        help: A line for `--help`.
        arguments: Adds the arguments of the verb to a parser. An argument called `words` may contain names and `key=value`
            settings.
        run: Calls the stage and returns the answer, which `--json` prints.
        as_text: Returns the answer as text, which is printed without `--json`.
        check: Raises the errors that `run` would raise about recipes and settings, before anything is computed.
        epilog: Last line of the verb's `--help`.
        status: Exit status of an answer.
    """

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], dict[str, Any]]
    as_text: Callable[[dict[str, Any]], str] = as_lines
    check: Callable[[argparse.Namespace], None] = lambda options: None
    epilog: str | None = None
    status: Callable[[dict[str, Any]], int] = lambda answer: 0
