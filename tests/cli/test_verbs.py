"""The parts of the command line: verbs, settings, and flags that come from a signature."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Literal

import pytest

from ssl_transfer.cli import main
from ssl_transfer.cli.flags import add_flags, described_arguments
from ssl_transfer.cli.parser import parse
from ssl_transfer.cli.verb import Verb
from ssl_transfer.cli.verbs import VERBS
from ssl_transfer.data.ingest.stage import DEFAULTS
from ssl_transfer.errors import UsageError


def grow(
    seeds,
    *,
    depth: int = 3,
    soil: Literal["clay", "sand"] | None = None,
    wet: bool = False,
    at: Sequence[float] = (0.5,),
):
    """Grow seeds.

    Args:
        seeds: Given by the caller.
        depth: In cm; up
            to 100 % of a pot.
        soil, wet: Of the pot.
        at: Where they stand.
    """


@pytest.fixture
def grow_parser():
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser, grow)
    return parser


def test_flags_have_the_types_and_defaults_of_the_signature(grow_parser):
    assert vars(grow_parser.parse_args([])) == {"depth": 3, "soil": None, "wet": False, "at": (0.5,)}
    words = ["--depth", "4", "--soil", "clay", "--wet", "--at", "0.1,0.2"]
    assert vars(grow_parser.parse_args(words)) == {"depth": 4, "soil": "clay", "wet": True, "at": (0.1, 0.2)}


@pytest.mark.parametrize("words", [["--depth", "x"], ["--soil", "mud"], ["--at", "a,b"]])
def test_flags_refuse_what_the_signature_does_not_allow(grow_parser, words):
    with pytest.raises(argparse.ArgumentError):
        grow_parser.parse_args(words)


def test_the_help_of_a_flag_is_its_line_of_the_docstring(grow_parser):
    assert described_arguments(grow)["depth"] == "In cm; up to 100 % of a pot."
    assert described_arguments(grow)["soil"] == described_arguments(grow)["wet"] == "Of the pot."
    assert "up to 100 % of a pot." in " ".join(grow_parser.format_help().split())


def test_every_option_of_ingest_has_a_flag_with_its_default_and_a_help():
    options = vars(parse(["ingest", "archive", "--out", "store"], VERBS))
    assert {name: options[name] for name in DEFAULTS} == DEFAULTS
    assert set(options) == {*DEFAULTS, "source", "out", "json", "verb", "check", "part", "merge"}


def test_words_and_settings_may_be_mixed():
    options = parse(["evaluate", "knn", "seed=[0,1]", "scratch:a,size=64", "task", "--json", "fraction=0.1"], VERBS)
    assert (options.words, options.overrides) == (["scratch:a,size=64", "task"], ["seed=[0,1]", "fraction=0.1"])


def test_a_verb_without_settings_takes_none():
    with pytest.raises(UsageError, match="unrecognized arguments: a=1"):
        parse(["inspect", "store", "a=1"], VERBS)


def test_a_new_verb_is_a_declaration_and_an_entry(monkeypatch, capsys):
    def arguments(parser):
        parser.add_argument("name")

    monkeypatch.setitem(VERBS, "greet", Verb("say hello", arguments, lambda options: {"hello": options.name}))
    assert main(["greet", "you"]) == 0 and capsys.readouterr().out == "hello: you\n"
    assert main(["greet", "you", "--json"]) == 0 and json.loads(capsys.readouterr().out) == {"hello": "you"}
    assert main(["greet"]) == 2 and "ssl-transfer greet --help" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "say hello" in capsys.readouterr().out


def test_the_answer_of_a_report_is_printed_with_its_number_of_contrasts():
    text = VERBS["study"].as_text({"report": "studies/a/report.html", "contrasts": 414, "answers": ["Take CT."]})
    assert "contrasts: 414" in text and "Take CT." in text
