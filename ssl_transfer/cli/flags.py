"""Flags from a signature: name, type, choices, default and help of every option come from the function."""

from __future__ import annotations

import argparse
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal


def add_flags(parser: argparse.ArgumentParser, function: Callable) -> None:
    """Add a flag `--like-this` for every keyword-only parameter `like_this`, with its line of the docstring's Args as help.

    A parameter that would be a word of Python has an underscore behind it, and its flag has none.
    """
    hints, help = typing.get_type_hints(function), described_arguments(function)
    for name in options_of(function):
        default = inspect.signature(function).parameters[name].default
        flag = f"--{name.rstrip('_').replace('_', '-')}"
        text = help[name].replace("%", "%%")
        shown = {"metavar": name[:-1].upper()} if name.endswith("_") else {}
        parser.add_argument(flag, dest=name, default=default, help=text, **shown, **_conversion(hints[name]))


def options_of(function: Callable) -> list[str]:
    """Names of the keyword-only parameters of a function."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def described_arguments(function: Callable, heading: str = "Args") -> dict[str, str]:
    """The texts of the Args (of a class of settings: Attributes) of a docstring, by name."""
    section = (inspect.getdoc(function) or "").partition(f"{heading}:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


def _conversion(hint: Any) -> dict[str, Any]:
    """Arguments of `add_argument` for a type such as `int | None` or `Literal["a", "b"]`."""
    alternatives = [hint]
    if typing.get_origin(hint) is not Literal:
        alternatives = [kind for kind in typing.get_args(hint) if kind is not type(None)] or [hint]
    kind = alternatives[0]
    if hint is bool:
        return {"action": "store_true"}
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        return {"choices": choices, "type": type(choices[0])}
    if Sequence in (typing.get_origin(hint), typing.get_origin(kind)):
        return {"type": numbers, "metavar": "X,Y,…"}
    return {"type": kind} if kind in (int, float) else {}


def numbers(text: str) -> tuple[float, ...]:
    """Parse numbers such as `0.7,0.15,0.15`."""
    return tuple(float(part) for part in text.split(","))


def at_least_one(text: str) -> int:
    """A whole number above 0, of a text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least 1")
    return int(text)
