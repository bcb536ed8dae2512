"""YAML from others: a text is refused if its aliases or its nesting would make it larger than what a person writes."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import Composer

LARGEST_TEXT = 8 * 2**20  # characters
LARGEST_TREE = 200_000  # values, with every alias counted in full
DEEPEST = 40  # levels of nesting


class _Bounded(Composer):
    """Composes nodes as PyYAML does, and counts them."""

    _depth = 0
    _sizes: dict[int, int]  # id of a composed node -> values in it

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node within the bounds."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep")
        parser: Any = self
        alias = parser.check_event(yaml.AliasEvent)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if alias and id(node) not in self._sizes:
            raise yaml.YAMLError("a value contains itself")
        self._sizes[id(node)] = size = 1 + sum(self._sizes[id(child)] for child in _children(node))
        if size > LARGEST_TREE:
            raise yaml.YAMLError(f"its aliases (*name) multiply it to more than {LARGEST_TREE:,} values")
        return node


class _TextLoader(_Bounded, yaml.BaseLoader):
    """Reads every scalar as text."""

    def __init__(self, stream: str):
        yaml.BaseLoader.__init__(self, stream)
        self._sizes = {}


class _TypedLoader(_Bounded, yaml.SafeLoader):
    """Reads scalars as YAML types them."""

    def __init__(self, stream: str):
        yaml.SafeLoader.__init__(self, stream)
        self._sizes = {}


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def load_text(text: str) -> Any:
    """Read YAML with every scalar as text.

    Raises:
        yaml.YAMLError: If it is no YAML, or exceeds the bounds.
    """
    return _load(text, _TextLoader)


def load_typed(text: str) -> Any:
    """Read YAML with the types that YAML gives its scalars.

    Raises:
        yaml.YAMLError: If it is no YAML, or exceeds the bounds.
    """
    return _load(text, _TypedLoader)


def _load(text: str, loader: Any) -> Any:
    if len(text) > LARGEST_TEXT:
        raise yaml.YAMLError(f"it has {len(text):,} characters, more than {LARGEST_TEXT:,}")
    try:
        return yaml.load(text, Loader=loader)
    except (RecursionError, ValueError, OverflowError, TypeError) as error:  # unhashable keys, dates that do not exist
        raise yaml.YAMLError(str(error)) from None
