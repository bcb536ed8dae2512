"""Overrides of a recipe: `train.epochs=10` on the command line, `{"train.epochs": 10}` in Python."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ssl_transfer.errors import RecipeError
from ssl_transfer.recipe.bounded_yaml import load_text, load_typed

Overrides = Mapping[str, Any] | Iterable[str]  # settings by dotted key, or `section.key=value` words


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Parse `section.key=value` words. Values are YAML (`[1, 2]`, `null`) with scalars as text, whose type is declared elsewhere.

    Raises:
        RecipeError: If a word is not of this form.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator or not all(key.split(".")):
            raise RecipeError(f"override '{word}': expected key=value, for example train.epochs=10.")
        settings.pop(key, None)  # of repeated keys, the last one counts
        try:
            settings[key] = with_nulls(load_text(text)) if text else None
        except yaml.YAMLError as error:
            raise RecipeError(f"override '{word}': the value is no YAML ({' '.join(str(error).split())}).") from None
    return settings


def merge(recipe: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Apply overrides to a recipe; the recipe itself is not changed.

    Args:
        recipe: Sections of plain values.
        overrides: `section.key=value` words, or a mapping of dotted keys (`{"train.epochs": 10}`) to Python values.

    Raises:
        RecipeError: If a word is no setting, or a key leads through something else than a section.
    """
    settings = _json_copy(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    merged: dict[str, Any] = _json_copy(recipe)
    for key, value in settings.items():
        *sections, last = key.split(".")
        target: dict[str, Any] = merged
        for section in sections:
            below = target.get(section)
            if below is None:
                below = {}
            elif isinstance(below, str):
                below = {"name": below}  # `views: ct` with views.min_scale=0.3
            elif not isinstance(below, dict):
                raise RecipeError(f"override '{key}={value}': '{section}' is no section.")
            target[section] = below
            target = below
        target[last] = value
    return merged


def _json_copy(value: Any) -> Any:
    """A copy in which NumPy's numbers are Python's, tuples are lists, and paths are text."""
    return json.loads(json.dumps(value, default=lambda other: other.item() if hasattr(other, "item") else str(other)))


def with_nulls(value: Any) -> Any:
    """A YAML value read as text, with `null` as None."""
    if isinstance(value, dict):
        return {key: with_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nulls(item) for item in value]
    return None if value in ("null", "~", "") else value


def as_yaml(value: Any) -> Any:
    """Convert text to the types that YAML would give it.

    Raises:
        ValueError: If a text is no YAML.
    """
    if isinstance(value, dict):
        return {key: as_yaml(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_yaml(item) for item in value]
    if not isinstance(value, str) or not value:
        return value
    try:
        return load_typed(value)
    except yaml.YAMLError as error:
        raise ValueError(f"Found {value[:60]!r}, which is no YAML ({' '.join(str(error).split())})") from None
