"""Results of the finished runs of a study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ssl_transfer.console import warn
from ssl_transfer.errors import UsageError
from ssl_transfer.result import EvalResult
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.table import study_table


def finished(plan: Plan, control: str | None = None) -> Iterator[tuple[Path, EvalResult]]:
    """Yield folder and result of every finished run, with the arm's name as the name of the backbone.

    Results that are damaged are left out with a warning; their jobs are not done (see `job_state`).

    Args:
        plan: The plan of the study.
        control: Kind of control run; None: all runs but these.
    """
    for run in plan.runs:
        path = Path(run["result"])
        if run.get("control") == control and path.exists():
            try:
                result = EvalResult.load(path)
            except UsageError as error:
                warn(f"left out: {error}")
                continue
            yield path.parent, replace(result, backbone={**result.backbone, "pretraining": run["pretraining"]})


def finished_table(plan: Plan) -> pd.DataFrame:
    """The tidy table of the finished runs of a study."""
    return study_table(result for _, result in finished(plan))
