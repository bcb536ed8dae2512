"""Text form of answers: nested `key: value` lines."""

from __future__ import annotations

from typing import Any


def as_lines(answer: Any, indent: int = 0) -> str:
    """A nested answer as indented `key: value` lines."""
    pad = " " * indent
    if isinstance(answer, dict):
        lines = []
        for key, value in answer.items():
            nested = isinstance(value, (dict, list)) and value and not _is_flat(value)
            lines.append(f"{pad}{key}:\n{as_lines(value, indent + 2)}" if nested else f"{pad}{key}: {_word(value)}")
        return "\n".join(lines)
    if isinstance(answer, list):
        return "\n".join(f"{pad}- {_word(item)}" for item in answer)
    return f"{pad}{_word(answer)}"


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)


def _word(value: Any) -> str:
    if value is None or value in ([], {}):
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_word(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
