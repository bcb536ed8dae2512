"""The tidy table: one row per run and test metric. All statistics and figures of a study start from it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ssl_transfer.errors import RunError

SCHEMA = 1
SCRATCH = "scratch"  # the pretraining arm that is none: random initialisation

# Column -> dtype. Nullable: a linear probe has no strategy, public weights have no pretraining seed.
COLUMNS = {
    "protocol": "string",
    "pretraining": "string",
    "task": "string",
    "strategy": "string",
    "fraction": "float64",
    "pretraining_seed": "Int64",
    "seed": "Int64",
    "metric": "string",
    "value": "float64",
    "boundary": "string",
    "run_id": "string",
}


def read_results(folder: str | Path) -> list[dict]:
    """Read every `result.json` below a folder, in the order of their paths.

    Raises:
        RunError: If there is none, or one is damaged, is no evaluation result, or has an unknown schema.
    """
    paths = sorted(Path(folder).rglob("result.json"))
    if not paths:
        raise RunError(f"{folder}: no result.json at any depth. `ssl-transfer evaluate` writes them; name its folder.")
    return [_read(path) for path in paths]


def _read(path: Path) -> dict:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: not readable as JSON ({error}). Delete it and evaluate again.") from None
    if not isinstance(result, dict) or result.get("kind") != "result":
        raise RunError(f"{path}: not an evaluation result (its 'kind' is not 'result'). Move it out of this folder.")
    if result.get("schema") != SCHEMA:
        raise RunError(
            f"{path}: schema {result.get('schema')!r}, but this version reads schema {SCHEMA}. "
            "Evaluate again, or use the version of ssl-transfer that wrote it."
        )
    return result


def study_table(results: Iterable[dict]) -> pd.DataFrame:
    """Lay evaluation results out as a tidy frame, one row per run and test metric.

    Only test metrics enter: what was selected on validation is no evidence. A metric that is null in the result
    becomes NaN and stays a row, so that a contrast over it reads "not decided" instead of losing a seed silently.

    Args:
        results: As `read_results` returns them.

    Returns:
        Columns and dtypes of `COLUMNS`; the order of rows is that of the results.

    Raises:
        RunError: If a run_id appears twice, or a result lacks a field or has no test metric.
    """
    rows, seen = [], set()
    for result in results:
        run_id = result.get("run_id")
        if run_id in seen:
            raise RunError(
                f"run {run_id}: found twice among the results, expected once. Remove the copy of its folder."
            )
        seen.add(run_id)
        rows.extend(_rows(result))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _rows(result: dict) -> list[dict]:
    try:
        shared = {
            "protocol": result["protocol"],
            "pretraining": result["backbone"].get("pretraining") or result["backbone"]["name"],
            "task": result["task"]["name"],
            "strategy": result.get("strategy"),
            "fraction": result["fraction"],
            "pretraining_seed": result.get("pretraining_seed"),
            "seed": result["seed"],
            "boundary": result["boundary"],
            "run_id": result["run_id"],
        }
        metrics = result["metrics"]["test"]
    except KeyError as error:
        raise RunError(f"run {result.get('run_id')}: its result has no field {error}. Evaluate it again.") from None
    if not metrics:
        raise RunError(f"run {result['run_id']}: its result has no test metric. Evaluate it again.")
    return [{**shared, "metric": name, "value": value} for name, value in metrics.items()]


def write_table(frame: pd.DataFrame, folder: str | Path) -> None:
    """Write a tidy frame as `table.parquet` and `table.csv` into a folder, which is made if it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "table.parquet", index=False)
    frame.to_csv(folder / "table.csv", index=False)
