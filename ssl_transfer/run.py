"""Runs: id, folder, and the rule that an artifact is complete or absent.

A run's id is the hash of its resolved recipe and of its inputs' ids. Its result is a file or folder that is
written under a temporary name and renamed last; a run is finished if and only if the result exists.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from ssl_transfer.console import say, warn
from ssl_transfer.errors import UsageError
from ssl_transfer.recipe import digest
from ssl_transfer.records import damage
from ssl_transfer.writing import locked, writes

Record = TypeVar("Record")


def run_id(stage: str, recipe: dict, upstream: list[str]) -> str:
    """The id of a run, from its stage, recipe and inputs: 16 hex digits."""
    return digest({"stage": stage, "recipe": recipe, "upstream": upstream})


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: a reader sees the old file or the new one.

    Raises:
        OutputError: If the disk is full, or the path cannot be written; the old file stays.
    """
    text = json.dumps(content, indent=1, default=str, allow_nan=False)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with writes(path):
            temporary.write_text(text)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def file_digest(path: Path) -> str:
    """Hash of the bytes of a file, BLAKE2b of 16 bytes: 32 hex digits."""
    return _hashed(path, hashlib.blake2b(digest_size=16))


def file_sha256(path: Path) -> str:
    """SHA-256 of the bytes of a file, as `sha256sum` prints it: 64 hex digits."""
    return _hashed(path, hashlib.sha256())


def _hashed(path: Path, digest: Any) -> str:
    with open(path, "rb") as file:
        while chunk := file.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def claimed(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file while the block runs; yield whether the lock was acquired.

    The operating system releases the lock when the process ends in any way, so locks are never stale. The file remains.

    Args:
        path: The lock file.
        wait: Wait until the lock is free; otherwise the block runs without the lock if another process holds it.

    Raises:
        OutputError: If there cannot be such a file.
    """
    with writes(path, "Nothing was computed."):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")  # noqa: SIM115
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True  # closing the file releases the lock


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `path` when the block ends, and deleted if it fails.

    Raises:
        OutputError: If the disk is full, or the folder cannot be written.
    """
    temporary = path.parent / f".{path.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with writes(path):
            temporary.mkdir(parents=True)
            yield temporary
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class Artifact:
    """The output of a stage: a folder with an id, which is finished as soon as its record exists.

    Attributes:
        id: Hash of the settings and inputs; see `run_id`.
        folder: Path of the folder.
        record: File with the id that is written last. The artifact is finished if and only if this file exists.
        started: File with the id that is written first, so that unfinished runs can be recognised; None: there is no such file.
        partial: Names of files that an interrupted run leaves behind and continues from.
        id_key: Key of the id in these files.
        noun: Word for the artifact in messages, such as "run".
        option: Command-line option that names the folder, for messages.
    """

    id: str
    folder: Path
    record: str
    started: str | None = None
    partial: tuple[str, ...] = ()
    id_key: str = "run_id"
    noun: str = "run"
    option: str = "--out"

    @classmethod
    def of(
        cls,
        stage: str,
        settings: dict[str, Any],
        inputs: list[str],
        out: str | Path | None,
        *,
        record: str,
        name: str | None = None,
        started: str | None = None,
        partial: tuple[str, ...] = (),
    ) -> Artifact:
        """The artifact of a stage with given settings and inputs.

        Args:
            stage: Name of the stage: part of the id, and of the path below `runs/`.
            settings: All settings that the content depends on.
            inputs: Ids of the input artifacts.
            out: Folder of the artifact; None: `runs/STAGE/ID`, or `runs/NAME-ID` with eight digits of the id.
            record, started, partial: See the attributes.
            name: Readable part of the folder name.
        """
        identity = run_id(stage, settings, inputs)
        name = name and re.sub(r"[/\\\x00-\x1f]+", "-", name).lstrip(".")  # part of a path
        default = Path("runs") / (f"{name}-{identity[:8]}" if name else f"{stage}/{identity}")
        return cls(identity, Path(out) if out else default, record, started, partial)

    def is_finished(self, *, quiet: bool = False) -> bool:
        """Whether the artifact exists already. If so, this is printed unless `quiet`.

        Raises:
            UsageError: If its folder contains another artifact, or other files.
        """
        record = read_json(self.folder / self.record)
        begun = read_json(self.folder / self.started) if self.started else None
        damaged = damage(self.folder / self.record) if record is None and (self.folder / self.record).exists() else ""
        owner = (record or begun or {}).get(self.id_key)
        if owner == self.id:
            if record and not quiet:
                say(f"{self.folder}: already there.")
            if damaged:
                warn(f"{self.folder / self.record}: {damaged}; it is made again.")
            return record is not None
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder}: this is a file, expected a folder. Give another {self.option}.")
        if owner is not None:
            raise self._taken(f"{self.noun} {owner}")
        resumable = self.started or self.partial
        left = (*self.partial, self.record) if damaged and resumable else self.partial
        others = sorted(path.name for path in self.folder.glob("[!.]*" if resumable else "*") if path.name not in left)
        if others:
            raise self._taken(f"other files ({', '.join(others[:1])}{' …' * (len(others) > 1)})")
        if damaged:
            warn(f"{self.folder / self.record}: {damaged}; it is made again.")
        return False

    @contextmanager
    def writing(self, *, quiet: bool = False) -> Iterator[bool]:
        """Hold the lock of the folder for the block; yield whether the artifact exists already.

        Raises:
            OutputError: If another process writes the folder, or it cannot be written.
            UsageError: If it contains another artifact, or other files.
        """
        if self.is_finished(quiet=quiet):
            yield True
            return
        with locked(self.folder, inside=bool(self.started or self.partial), option=self.option):
            yield self.is_finished(quiet=quiet)

    def _taken(self, content: str) -> UsageError:
        return UsageError(
            f"{self.folder}: already holds {content}; this is {self.noun} {self.id}. Give another {self.option}."
        )


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a `log.jsonl`, in order; empty without one. Torn and damaged lines, of runs that were killed, are left out."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    lines = []
    for text_line in text.splitlines():
        try:
            line = json.loads(text_line)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and type(line.get("step")) is int:
            lines.append(line)
    return lines


class Log:
    """`log.jsonl`: one object per logged step. A resumed run drops the lines after its checkpoint.

    Attributes:
        last: The latest object.
    """

    def __init__(self, path: Path, last_step: int = 0):
        kept = [line for line in read_log(path) if line["step"] <= last_step] if last_step else []
        whole = path.with_name(f".{path.name}.partial")
        with writes(path):
            whole.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
            os.replace(whole, path)
            self._file = open(path, "a", buffering=1)  # noqa: SIM115
        self.path = path
        self.last: dict[str, Any] = kept[-1] if kept else {}

    def write(self, **values: Any) -> None:
        """Append one object; NaN and infinity become null."""
        self.last = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        with writes(self.path):
            self._file.write(json.dumps(self.last) + "\n")

    def close(self) -> None:
        """Close the file."""
        with writes(self.path):
            self._file.close()


def plain(value: Any) -> Any:
    """Convert a value for JSON and YAML: dataclasses and pydantic models as dicts, tuples as lists, no NumPy scalars."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    elif hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if hasattr(value, "dtype") and not value.shape else value


def to_json(record: Any, optional: Collection[str] = ()) -> dict[str, Any]:
    """Convert a dataclass to a JSON object: its fields in order; `optional` fields only if they are not None."""
    return {name: value for name, value in plain(record).items() if value is not None or name not in optional}


def from_json(kind: type[Record], content: dict[str, Any]) -> Record:
    """Make a dataclass from its JSON object: lists become tuples, and keys that are not fields are ignored.

    Raises:
        TypeError: If a field without a default is missing.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in content.items() if name in names})
