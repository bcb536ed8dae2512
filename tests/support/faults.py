"""Faults that are really provoked: a kernel that refuses to write, flipped bytes, records with any other value."""

from __future__ import annotations

import copy
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies

Keys = tuple[str | int, ...]  # from the top of a JSON value to a value in it

# What may stand in a record instead of the right value.
ANYTHING = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(-(10**25), 10**25),
    strategies.floats(allow_nan=False, allow_infinity=False),
    strategies.sampled_from(["", "x", "../../etc", "/", ".", "\x1b[2J", "=1+1", "nan", "1e400", "a" * 3000]),
    strategies.lists(strategies.integers(-1, 9), max_size=3),
    strategies.dictionaries(strategies.sampled_from(["name", "kind", "x"]), strategies.integers(), max_size=2),
)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Within the block, the kernel refuses to write beyond `size` bytes of any file of this process (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def flip(path: Path, position: int) -> None:
    """Flip the lowest bit of a byte of a file; a negative position counts from its end."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def keys_in(content: Any, above: Keys = ()) -> Iterator[Keys]:
    """The keys of every value in a JSON value."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*above, key)
        yield from keys_in(value, (*above, key))


def replaced(content: Any, keys: Keys, value: Any) -> Any:
    """A copy of a JSON value with another value at some keys."""
    changed = copy.deepcopy(content)
    target = changed
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    return changed


def without(content: Any, keys: Keys) -> Any:
    """A copy of a JSON value without the value at some keys."""
    changed = copy.deepcopy(content)
    target = changed
    for key in keys[:-1]:
        target = target[key]
    del target[keys[-1]]
    return changed


def rewrite(path: Path, **values: Any) -> None:
    """Replace keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
