"""The scope of a study's results: the architectures, images and test patients that they were obtained with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_transfer.recipe import read_yaml
from ssl_transfer.result import EvalResult
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.report.evidence import Scope

GENERATED = "phantom:"  # sources of images that the package generates


def study_scope(plan: Plan, results: Sequence[EvalResult]) -> Scope:
    """The scope of the results of a study.

    Args:
        plan: The plan of the study.
        results: Its results.
    """
    recipes = list(_pretrained(plan))
    architectures, methods, sizes = (tuple(dict.fromkeys(recipe[i] for recipe in recipes)) for i in range(3))
    counts = {(result.task["name"], result.protocol): result.n["test"] for result in results}
    return Scope(
        architectures=architectures,
        methods=methods,
        sizes=sizes,
        generated=tuple(
            name for name, store in plan.recipe["stores"].items() if str(store.get("source")).startswith(GENERATED)
        ),
        test={task: (n["images"], n["patients"]) for (task, _), n in counts.items()},
    )


def _pretrained(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """Architecture, method and size of every pretraining of the plan."""
    for job in plan.jobs:
        path = Path(job.words[1]) if job.stage == "pretrain" and "--untrained" not in job.words else None
        if path is not None and path.is_file():
            recipe = read_yaml(path)
            yield recipe["backbone"]["name"], recipe["method"]["name"], recipe["data"]["size"]
