"""The predictions of the finished runs of a study, found by the cell and the arm that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_transfer.errors import UsageError
from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.measures.classification import OPERATING_POINT
from ssl_transfer.measures.scoring import Scoring
from ssl_transfer.records import parquet_rows
from ssl_transfer.result import EvalResult
from ssl_transfer.study.statistics import PredictedRun
from ssl_transfer.study.table import CELL, coordinates

SEEDS = ("pretraining_seed", "seed")


class StoredPredictions:
    """`predictions.parquet` of every run that has one; see `statistics.patients.RunsWithPredictions`.

    Args:
        results: Folder of a run -> its result.
        averaging: Task -> averaging of AUROC and F1 over classes.
    """

    def __init__(self, results: Mapping[Path, EvalResult], averaging: Mapping[str, str]):
        self._averaging = averaging
        self._runs: dict[tuple, list[tuple[Path, EvalResult]]] = {}
        for folder, result in results.items():
            self._runs.setdefault(_key(coordinates(result)), []).append((folder / "predictions.parquet", result))

    def __call__(self, cell: Mapping[str, Any]) -> Iterator[PredictedRun]:
        """Yield the runs of an arm in a cell: the columns of `CELL` but the metric, and `pretraining`."""
        averaging = self._averaging.get(cell["task"], "macro")
        for path, result in self._runs.get(_key(cell), []):
            if path.exists():
                scoring = Scoring(
                    averaging=averaging,
                    operating_point=result.settings.get("operating_point", OPERATING_POINT),
                    temperature=result.temperature,
                    levels=result.settings.get("grades", {}),
                )
                yield PredictedRun(*(getattr(result, name) for name in SEEDS), read=partial(_read, path, scoring))


def _read(path: Path, scoring: Scoring) -> CasePredictions:
    return CasePredictions(parquet_rows(path, UsageError, "Evaluate again."), scoring)


def _key(columns: Mapping[str, Any]) -> tuple:
    """The cell and the arm; no strategy and no fraction are None."""
    values = (columns[name] for name in [*CELL, "pretraining"] if name != "metric")
    return tuple(None if value == "" or pd.isna(value) else value for value in values)
