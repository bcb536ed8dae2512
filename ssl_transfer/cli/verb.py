"""What a verb of the command line consists of."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssl_transfer.cli.text import as_lines


@dataclass(frozen=True)
class Verb:
    """A verb. Its file imports the stage that it calls when the verb runs, so that `--help` answers at once.

    Attributes:
        help: One line, for `--help`.
        arguments: Adds its arguments to a parser. One called `words` may mix names with `key=value` settings.
        run: Calls the stage and returns the answer, which `--json` prints.
        as_text: The answer as it is printed without `--json`.
        check: Raises what `run` would raise about recipes and settings, before anything is computed.
        epilog: Last line of the verb's `--help`.
    """

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], dict[str, Any]]
    as_text: Callable[[dict[str, Any]], str] = as_lines
    check: Callable[[argparse.Namespace], None] = lambda options: None
    epilog: str | None = None
