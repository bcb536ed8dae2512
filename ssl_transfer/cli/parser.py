"""Parser of the command line: a verb, its arguments, and `key=value` settings."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import NoReturn

from ssl_transfer import __version__
from ssl_transfer.cli.verb import Verb
from ssl_transfer.errors import UsageError

SETTING = re.compile(r"[\w.]+=")  # key=value, unlike the backbone scratch:resnet18,size=64


class _Parser(argparse.ArgumentParser):
    """argparse, with its error messages in the form of all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}. See {self.prog} --help.")


def parse(words: list[str], verbs: Mapping[str, Verb]) -> argparse.Namespace:
    """Parse the words of a command.

    Args:
        words: All words after `ssl-transfer`.
        verbs: The verbs, by name.

    Returns:
        `verb` (its name), `json`, and the arguments of the verb. If the verb has an argument `words`, settings among these words
        are in `overrides`.

    Raises:
        UsageError: If the words are not a valid command.
    """
    parser = _parser(words, verbs)
    options, rest = parser.parse_known_args(words)
    # `key=value` words after an option are not parsed by argparse.
    settings = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(settings) < len(rest) or (settings and not {"overrides", "words"} & set(vars(options))):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if hasattr(options, "words"):
        settings = [*filter(SETTING.match, options.words), *settings]
        options.words = [word for word in options.words if not SETTING.match(word)]
    if settings or hasattr(options, "words"):
        options.overrides = [*getattr(options, "overrides", []), *settings]
    return options


def _parser(words: list[str], verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """The parser of a command. Only verbs that are among its words get their arguments."""
    parser = _Parser(
        prog="ssl-transfer",
        description="Pretrain without labels on one domain, transfer to another, and test whether in-domain pretraining "
        "pays off.",
    )
    parser.add_argument("--version", action="version", version=f"ssl-transfer {__version__}")
    group = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, verb in verbs.items():
        added = group.add_parser(name, help=verb.help, description=verb.help, epilog=verb.epilog)
        added.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        added.set_defaults(verb=name)
        if name in words:
            verb.arguments(added)
    return parser
