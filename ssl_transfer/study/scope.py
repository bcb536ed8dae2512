"""The scope of a study's results: the architectures, images and test patients that they were obtained with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pandas import read_csv

from ssl_transfer.recipe import read_yaml
from ssl_transfer.result import EvalResult
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.report.evidence import Scope

T = TypeVar("T")
GENERATED = "phantom:"  # sources of images that the package generates


def study_scope(plan: Plan, results: Sequence[EvalResult]) -> Scope:
    """The scope of the results of a study.

    Args:
        plan: The plan of the study.
        results: Its results.
    """
    recipes = list(_pretrained(plan))
    counts = {(result.task["name"], result.protocol): result.n["test"] for result in results}
    return Scope(
        architectures=_distinct(architecture for architecture, _, _ in recipes),
        methods=_distinct(method for _, method, _ in recipes),
        sizes=_distinct(size for _, _, size in recipes),
        public={arm["name"]: arm["backbone"] for arm in plan.arms if arm["backbone"]},
        generated=tuple(
            name for name, store in plan.recipe["stores"].items() if str(store.get("source")).startswith(GENERATED)
        ),
        test={task: (n["images"] or 0, n["patients"]) for (task, _), n in counts.items()},
        classes=_classes(plan),
    )


def _classes(plan: Plan) -> dict[str, int]:
    """Number of classes of each target that has confusion matrices."""
    found: dict[str, int] = {}
    for run in plan.runs:
        matrix = Path(run["result"]).with_name("confusion.csv")
        if run["task"] not in found and matrix.is_file():
            found[run["task"]] = len(read_csv(matrix))
    return found


def _distinct(values: Iterable[T]) -> tuple[T, ...]:
    """The values, each once, in their order."""
    return tuple(dict.fromkeys(values))


def _pretrained(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """Architecture, method and size of every pretraining of the plan."""
    for job in plan.jobs:
        path = Path(job.words[1]) if job.stage == "pretrain" and "--untrained" not in job.words else None
        if path is not None and path.is_file():
            recipe = read_yaml(path)
            yield recipe["backbone"]["name"], recipe["method"]["name"], recipe["data"]["size"]
