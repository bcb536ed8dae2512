"""Evaluation results: how well one backbone performs on one task, with everything needed to trace it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssl_transfer.errors import UsageError
from ssl_transfer.run import read_json, write_json

SCHEMA = 1


@dataclass(frozen=True)
class EvalResult:
    """Metrics of one run. Fields are those of `result.json` (DESIGN, machine-readable answers).

    Attributes:
        n: Per split: images and patients (null when patients are unknown).
        selected: Hyper-parameters that were chosen on validation.
        settings: Those that were not: every option of the protocol with its value.
        metrics: `val` and `test`: name -> value. Test was computed once, for the selected setting.
        intervals: Test metric -> [low, high] at 95 %, patients resampled.
        seen_in_pretraining: The backbone saw training images of this very store.
    """

    run_id: str
    protocol: str
    strategy: str | None
    backbone: dict[str, Any]
    task: dict[str, Any]
    boundary: str
    fraction: float
    seed: int
    pretraining_seed: int | None
    n: dict[str, dict[str, int | None]]
    selected: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    intervals: dict[str, list[float]]
    seen_in_pretraining: bool
    cost: dict[str, Any]
    environment: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA
    kind: str = "result"

    def save(self, folder: Path) -> Path:
        """Write `result.json`: the file whose presence says that the run is done."""
        path = folder / "result.json"
        write_json(path, asdict(self))
        return path

    @classmethod
    def load(cls, path: str | Path) -> EvalResult:
        """Read `result.json`, or the folder that holds it.

        Raises:
            UsageError: If it is missing, incomplete, something else, or of another schema.
        """
        path = Path(path)
        path = path / "result.json" if path.is_dir() else path
        content = read_json(path)
        if content is None:
            raise UsageError(f"{path}: no readable result. Evaluate first, or name the folder that holds result.json.")
        if content.get("kind") != "result" or content.get("schema") != SCHEMA:
            raise UsageError(f"{path}: expected a result of schema {SCHEMA}. Evaluate again with this version.")
        try:
            return cls(**content)
        except TypeError as error:
            raise UsageError(f"{path}: not all keys of a result are there ({error}). Evaluate again.") from None
