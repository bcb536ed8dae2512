"""Runs: identity, folder, and the rule that what is not whole does not exist.

A run's id is the hash of its resolved recipe and of its inputs' ids. Its result is a file or folder
that is written beside its place and moved there last; a run is done if and only if that result is there.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from ssl_transfer import __version__
from ssl_transfer.recipe import digest

PACKAGES = ("torch", "torchvision", "lightly", "timm", "accelerate", "faiss", "scikit-learn", "umap-learn", "numpy")

Record = TypeVar("Record")


def run_id(stage: str, recipe: dict, upstream: list[str]) -> str:
    """Name a run by what it does and from what: 16 hex digits."""
    return digest({"stage": stage, "recipe": recipe, "upstream": upstream})


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(content, indent=1, default=str, allow_nan=False))
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none (or half of one)."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@contextmanager
def claimed(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file while the block runs, against every other process; yield whether it was got.

    The system lets go of the lock when its process ends, however it ends: there are no stale ones. The file stays.

    Args:
        path: The lock file.
        wait: Until whoever holds it lets go; otherwise the block runs without it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True  # closing the file lets go


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends, and vanishes if it fails."""
    temporary = path.parent / f".{path.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@cache
def _fixed_environment() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        for name in (package, f"{package}-gpu", f"{package}-cpu"):
            try:
                versions[package] = metadata.version(name)
                break
            except metadata.PackageNotFoundError:
                continue
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = ""
    return {
        "ssl_transfer": __version__,
        "git_commit": commit or None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
    }


def environment(device: str) -> dict[str, Any]:
    """Versions, git commit, device and time: what a result needs to be traced."""
    torch = sys.modules.get("torch")
    return {
        **_fixed_environment(),
        "device": device,
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


class Log:
    """`log.jsonl`: one object per logged step. A resumed run drops what lies behind its checkpoint.

    Attributes:
        last: The newest object.
    """

    def __init__(self, path: Path, last_step: int = 0):
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= last_step:
                        kept.append(line)
                except ValueError:
                    continue  # the line that a killed run did not finish
        whole = path.with_name(f".{path.name}.partial")
        whole.write_text("".join(f"{line}\n" for line in kept))
        os.replace(whole, path)
        self.last: dict[str, Any] = json.loads(kept[-1]) if kept else {}
        self._file = open(path, "a", buffering=1)  # noqa: SIM115

    def write(self, **values: Any) -> None:
        """Append one object; NaN and infinity become null."""
        self.last = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        self._file.write(json.dumps(self.last) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def to_json(record: Any, optional: Collection[str] = ()) -> dict[str, Any]:
    """A dataclass as a JSON object: its fields in their order, tuples as lists; `optional` fields only if they are not None."""

    def plain(value: Any) -> Any:
        if is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return {name: value for name, value in plain(record).items() if value is not None or name not in optional}


def from_json(kind: type[Record], content: dict[str, Any]) -> Record:
    """A dataclass from its JSON object: lists become tuples, and keys that are not its fields are left out.

    Raises:
        TypeError: If a field without a default is missing.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in content.items() if name in names})
