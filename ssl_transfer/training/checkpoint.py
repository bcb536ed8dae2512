"""Checkpoints: they are written atomically and checked by digest, and the last two are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ssl_transfer.console import warn
from ssl_transfer.errors import RunError
from ssl_transfer.run import file_sha256
from ssl_transfer.writing import writes

KEPT = 2


class Checkpoints:
    """The checkpoints of one run: `checkpoint-00000500.pt` and its `.sha256`.

    Args:
        folder: Folder of the checkpoints.
        run_id: Id of the run; checkpoints of other runs are refused.

    Attributes:
        extra: Called at every save; returns state that a checkpoint contains in addition to that of the training.
    """

    def __init__(self, folder: Path, run_id: str):
        self.folder, self.run_id = folder, run_id
        self.extra: Callable[[], dict[str, Any]] = dict
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` steps; an interrupted write does not change earlier checkpoints.

        If any of it is on a GPU, it is copied, and written while the training continues.

        Raises:
            OutputError: If the disk is full, or the folder cannot be written, in this call or in the background of the last one.
        """
        self.finish()
        content = {"run_id": self.run_id, "step": step, **state, **self.extra()}
        if _is_on_gpu(content):
            self._writing = self._writer.submit(self._write, step, _cpu_copy(content))
        else:
            self._write(step, content)

    def finish(self) -> None:
        """Wait for a checkpoint that is being written.

        Raises:
            OutputError: As `save`.
        """
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def _write(self, step: int, content: dict[str, Any]) -> None:
        path = self.folder / f"checkpoint-{step:08d}.pt"
        temporary, kept = path.with_suffix(".partial"), self._paths()
        latest = f"Kept: {kept[-1].name}" if kept else "There is no checkpoint yet"
        try:
            with writes(path, f"{latest}; the same command continues from there once there is room."):
                self.folder.mkdir(parents=True, exist_ok=True)
                with open(temporary, "wb") as file:  # Python's own file states why a write fails
                    torch.save(content, file)
                path.with_suffix(".sha256").write_text(file_sha256(temporary))
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        for old in self._paths()[:-KEPT]:
            old.unlink()
            old.with_suffix(".sha256").unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The latest undamaged checkpoint, or None before the first one.

        Raises:
            RunError: If all checkpoints are damaged, or belong to another run.
        """
        paths = self._paths()
        for path in reversed(paths):
            state = self._read(path)
            if state is None:
                warn(f"{path}: this checkpoint is damaged; trying the previous one.")
            elif state.get("run_id") != self.run_id:
                raise RunError(
                    f"{path}: belongs to run {state.get('run_id')}, this is run {self.run_id}: another recipe or other inputs. "
                    "Give this run its own --out."
                )
            else:
                return state
        if paths:
            raise RunError(
                f"{self.folder}: all {len(paths)} checkpoint(s) are damaged, so the run cannot continue. Start a pretraining "
                "again with --resume never; for an evaluation, delete its folder."
            )
        return None

    def clear(self) -> None:
        """Delete all checkpoints, incomplete ones too. Several ranks may call it at the same time."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.pt"))

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            if path.with_suffix(".sha256").read_text() != file_sha256(path):
                return None
            state = torch.load(path, map_location="cpu", weights_only=True)
            return state if isinstance(state, dict) else None
        except Exception:  # a damaged file can raise any error of zip and pickle
            return None


def _is_on_gpu(value: Any) -> bool:
    """Whether any tensor in nested dictionaries, lists and tuples is on a GPU."""
    if isinstance(value, torch.Tensor):
        return value.is_cuda
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return any(map(_is_on_gpu, values))


def _cpu_copy(value: Any) -> Any:
    """A copy on the CPU of all tensors in nested dictionaries, lists and tuples."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu() if value.is_cuda else value.detach().clone()
    if isinstance(value, dict):
        return {key: _cpu_copy(each) for key, each in value.items()}
    return type(value)(map(_cpu_copy, value)) if isinstance(value, (list, tuple)) else value
