"""The tidy table: one row per run and test metric. All statistics and figures of a study start from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.csv_files import write_csv
from ssl_transfer.errors import RunError
from ssl_transfer.measures.metrics import METRICS
from ssl_transfer.result import EvalResult
from ssl_transfer.study.declared import CELL

SCRATCH = "scratch"  # name of an arm, and boundary: random initialisation
CLEAN = "none"  # the noise of a run without any
NOISED_SPLITS = {
    "both": "train+test",
    "train": "train",
    "test": "test",
}  # `noise.at` of a recipe -> which images have it

# Column -> dtype. Nullable: a linear probe has no strategy, public weights have no pretraining seed, and results from elsewhere
# no draw. Two runs of a cell with one draw learnt from the same label subset.
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
    "noise": "string",  # `none`, or kind and splits: `gaussian train+test`, `rician test`
    "noise_sigma": "float64",  # share of the intensity range; 0 without noise
    "draw": "Int64",  # the seed of everything random in the evaluation
    "test_cases": "Int64",
    "seen_cases": "Int64",  # test cases that are known to be seen in pretraining; null where nothing is known
    "value_clean": "float64",  # the metric of the test cases that are not known to be seen
}


def study_table(results: Iterable[EvalResult]) -> pd.DataFrame:
    """Tidy table of evaluation results, a row per run and test metric.

    Only test metrics enter, since hyper-parameters were selected on validation. A metric that is null in the result
    becomes NaN and stays a row, so that a contrast over it reads "not decided" instead of losing a seed silently.

    Args:
        results: Evaluation results.

    Returns:
        Columns and dtypes of `COLUMNS`; the order of rows is that of the results.

    Raises:
        RunError: If a run_id appears twice, or a result has no test metric.
    """
    rows, seen = [], set()
    for result in results:
        if result.run_id in seen:
            raise RunError(
                f"run {result.run_id}: appears twice among the results, expected once. Remove the copy of its folder."
            )
        seen.add(result.run_id)
        rows.extend(_rows(result))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _rows(result: EvalResult) -> list[dict]:
    shared = {**coordinates(result), "boundary": result.boundary, "run_id": result.run_id, "draw": result.draw}
    metrics = result.metrics["test"]
    if not metrics:
        raise RunError(f"run {result.run_id}: its result has no test metric. Evaluate it again.")
    counts, clean = _seen(result)
    return [
        {**shared, **counts, "metric": name, "value": value, "value_clean": clean.get(name)}
        for name, value in metrics.items()
    ]


def external_table(results: Iterable[EvalResult]) -> pd.DataFrame | None:
    """Tidy table of external tests, a row per run, external store and metric; None if no result has one.

    Args:
        results: Evaluation results.

    Returns:
        Columns of `COLUMNS`, of which `value` is the metric on the external store, and `boundary` that of the pretraining to
        the target; `store`, the name of the external store; and `own`, the metric of the own test on the same classes.
    """
    rows = [
        {
            **coordinates(result),
            "boundary": result.boundary,
            "run_id": result.run_id,
            "draw": result.draw,
            "store": store,
            "metric": metric,
            "value": value,
            "own": test["own"].get(metric),
        }
        for result in results
        for store, test in result.external.items()
        for metric, value in test["metrics"].items()
    ]
    types: dict[str, Any] = {**COLUMNS, "store": "string", "own": "float64"}
    return pd.DataFrame(rows, columns=list(types)).astype(types) if rows else None


def _seen(result: EvalResult) -> tuple[dict[str, int | None], dict[str, float | None]]:
    """The columns test_cases and seen_cases of a result, and its metrics on the cases that are not known to be seen."""
    known = result.contamination
    if known is None:
        return {"test_cases": None, "seen_cases": None}, {}
    nothing_known = known["unknown"] == known["cases"]
    return (
        {"test_cases": known["cases"], "seen_cases": None if nothing_known else known["seen"]},
        known["metrics_clean"] or {},
    )


def coordinates(result: EvalResult) -> dict[str, Any]:
    """The columns of the tidy table that identify a result, without the metric."""
    return {
        "pretraining": result.backbone.get("pretraining") or result.backbone["name"],
        "task": result.task["name"],
        "protocol": result.protocol,
        "strategy": result.strategy,
        "fraction": result.fraction,
        "pretraining_seed": result.pretraining_seed,
        "seed": result.seed,
        **noise_setting(result.settings.get("noise")),
    }


def noise_setting(noise: Mapping[str, Any] | None) -> dict[str, Any]:
    """The columns `noise` and `noise_sigma` of a run.

    Args:
        noise: `settings.noise` of a result: kind, sigma and at; None is no noise.

    Example:
        >>> noise_setting({"kind": "gaussian", "sigma": 0.01, "at": "test"})
        {'noise': 'gaussian test', 'noise_sigma': 0.01}
    """
    if noise is None or noise["kind"] == CLEAN:
        return {"noise": CLEAN, "noise_sigma": 0.0}
    return {"noise": f"{noise['kind']} {NOISED_SPLITS[noise['at']]}", "noise_sigma": noise["sigma"]}


def with_noise(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the columns noise and noise_sigma; missing columns and blanks mean no noise.

    Raises:
        RunError: If only one of the two columns exists, or a row has a kind of noise without a sigma above 0, or the
            reverse.
    """
    present = [name for name in ("noise", "noise_sigma") if name in frame]
    if len(present) == 1:
        raise RunError(f"tidy table: found a column {present[0]} alone, expected noise and noise_sigma, or neither.")
    blank = pd.Series(None, index=frame.index, dtype="object")
    noise = frame.get("noise", blank).astype("object").fillna(CLEAN)
    sigma = frame.get("noise_sigma", blank).astype("float64").fillna(0.0)
    if (wrong := (noise == CLEAN) != (sigma == 0)).any():
        raise RunError(
            f"tidy table: found noise '{noise[wrong].iloc[0]}' with noise_sigma {sigma[wrong].iloc[0]:g}; expected a kind "
            f"with a sigma above 0, such as 'gaussian test' with 0.01, or '{CLEAN}' with 0."
        )
    return frame.assign(noise=noise, noise_sigma=sigma)


def complete(frame: pd.DataFrame, within: Sequence[str] = ()) -> pd.DataFrame:
    """Fill in a missing strategy, boundary or noise, and check for duplicates.

    Args:
        frame: A tidy table.
        within: Further columns that tell runs apart, such as the number of a simulated study.

    Raises:
        RunError: If a column is missing, or a seed of an arm occurs twice in a cell.
    """
    needed = [*CELL, "pretraining", "pretraining_seed", "seed", "value"]
    frame = with_noise(frame)
    if missing := [name for name in needed if name not in frame]:
        raise RunError(f"tidy table: no column {', '.join(missing)}; expected at least {', '.join(needed)}.")
    frame = frame.assign(boundary=frame.get("boundary", ""))
    texts = ["protocol", "task", "strategy", "metric", "pretraining", "boundary"]
    frame[texts] = frame[texts].astype("object").fillna("")
    run = [*within, *CELL, "pretraining", "pretraining_seed", "seed"]
    if (twice := frame.duplicated(run)).any():
        first = frame.loc[twice, run].iloc[0].to_dict()
        raise RunError(
            f"tidy table: two values for {first}; expected one per seed. "
            "Runs of different recipes need different names of their pretraining."
        )
    return frame


def matches(table: pd.DataFrame, cell: Mapping) -> np.ndarray:
    """Which rows of a table lie in a cell; columns that the cell leaves out, or has as None, match any value.

    Args:
        table: With the columns that the cell names.
        cell: Columns of `CELL` and their values; others are ignored. A list means any of its values.
    """
    keep = np.ones(len(table), bool)
    for name, value in cell.items():
        if name in CELL and value is not None:
            values = value if isinstance(value, (list, tuple, set)) else [value]
            keep &= np.any([_equal(table[name], wanted, name) for wanted in values], axis=0) if values else False
    return keep


def _equal(column: pd.Series, value, name: str) -> np.ndarray:
    if name in ("fraction", "noise_sigma"):
        return np.isclose(column.astype(float), value, equal_nan=True)
    return (column == value).to_numpy(bool)


def known_boundaries(frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(pretraining, task) -> boundary between their domains, of a tidy table."""
    known = frame.dropna(subset=["boundary"]).groupby(["pretraining", "task"])["boundary"].first()
    return {(str(arm), str(task)): str(boundary) for (arm, task), boundary in known.items()}


def class_metrics(metrics: Iterable[str]) -> set[str]:
    """Names of metrics that are another metric for a single class: `auroc_Mass` beside `auroc`, `dice_present_liver`.

    Tables and figures show the others first, so that a task with many classes stays readable.
    """
    names = set(metrics)
    return {name for name in names - set(METRICS) if any(name.startswith(f"{metric}_") for metric in names)}


def random_init_arms(table: pd.DataFrame, arms: Iterable[Mapping] = ()) -> set[str]:
    """Names of the arms that are random initialisation: called `scratch`, or of boundary `scratch`.

    Args:
        table: A tidy table, or contrasts.
        arms: As for `report.evidence.Evidence`.
    """
    names = {SCRATCH} | {arm["name"] for arm in arms if arm.get("boundary") == SCRATCH}
    for arm, boundary in (("pretraining", "boundary"), ("a", "boundary_a"), ("b", "boundary_b")):
        if arm in table and boundary in table:
            names |= set(table.loc[(table[boundary] == SCRATCH).fillna(False).astype(bool), arm])
    return names


def write_table(frame: pd.DataFrame, folder: str | Path) -> None:
    """Write a tidy frame as `table.parquet` and `table.csv` into a folder, which is made if it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "table.parquet", index=False)
    write_csv(frame, folder / "table.csv")
