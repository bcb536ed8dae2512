"""`ssl-transfer study plan --flops`: floating-point operations of the jobs of a study, before any of them has run."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_transfer.errors import SslTransferError, UsageError
from ssl_transfer.protocols import PROTOCOLS

if TYPE_CHECKING:
    from ssl_transfer.recipe import PretrainRecipe
    from ssl_transfer.study.plan import Job, Plan


def expected_flops(plan: Plan) -> dict[str, Any]:
    """Operations of a study by stage or protocol; those that cost the same are counted once.

    Returns:
        Stage or protocol -> operations of its jobs that could be counted, null if there are none; and `not_counted`: reason ->
        number of jobs. Ingests, untrained backbones, and probes of features that other jobs compute have no operations.
    """
    recipes = _recipes(plan)
    alike: dict[tuple[str, ...], list[Job]] = defaultdict(list)
    for job in plan.jobs:
        probes = job.stage == "evaluate" and "--features" in job.words
        if not (job.stage == "ingest" or probes or "--untrained" in job.words):
            alike[_essence(job, recipes)].append(job)
    found: dict[str, int | None] = {}
    reasons: Counter[str] = Counter()
    for (name, *_), jobs in alike.items():
        found.setdefault(name, None)
        try:
            repeats = sum(len(job.runs) or 1 for job in jobs)
            found[name] = (found[name] or 0) + repeats * _flops(jobs[0], recipes)
        except SslTransferError as error:
            reasons[f"{name}: {error}"] += len(jobs)
    return {**found, "not_counted": dict(reasons)}


def _recipes(plan: Plan) -> dict[str, PretrainRecipe]:
    """Path of each backbone that the study makes -> its recipe."""
    from ssl_transfer.recipe import PretrainRecipe, load_recipe

    made = [job for job in plan.jobs if job.stage == "pretrain"]
    return {_backbone(job): load_recipe(PretrainRecipe, job.words[1]) for job in made}


def _backbone(job: Job) -> str:
    """The backbone that a job makes or uses."""
    if job.stage == "pretrain":
        return str(Path(job.output) / "backbone")
    return job.words[1 if job.stage == "features" else 2]


def _settings(job: Job) -> list[str]:
    """The settings in its command that the operations of a run depend on."""
    return [word for word in job.words[3:] if "=" in word and not word.startswith(("fraction=", "seed="))]


def _essence(job: Job, recipes: dict[str, PretrainRecipe]) -> tuple[str, ...]:
    """The stage or protocol of a job, and all that the operations of a run depend on."""
    name = job.words[1] if job.stage == "evaluate" else job.stage
    recipe = recipes.get(_backbone(job))
    if recipe is None:
        return name, _backbone(job)
    if job.stage == "pretrain":
        left_out = {"name": True, "optimizer": True, "train": {"seed"}, "backbone": {"init"}}
        return name, recipe.model_dump_json(exclude=left_out)
    of_images = {"size", "context", "windows"}
    of_images |= set() if recipe.backbone.in_channels else {"store", "mix"}  # whose channels are those of the backbone
    network = recipe.model_dump_json(include={"backbone": True, "data": of_images}, exclude={"backbone": {"init"}})
    return name, network, *_settings(job), *(job.words[2:3] if job.stage == "features" else ())


def _flops(job: Job, recipes: dict[str, PretrainRecipe]) -> int:
    """Operations of a job, or of each of its runs.

    Raises:
        SslTransferError: If they cannot be known before it runs; the message says why.
    """
    from ssl_transfer.evaluation.expected_flops import feature_flops, training_flops
    from ssl_transfer.pretraining.expected_flops import pretraining_flops, untrained_backbone

    stage, name, *words = job.words
    recipe = recipes.get(_backbone(job))
    if stage not in ("pretrain", "features", "evaluate") or (stage == "evaluate" and PROTOCOLS[name].frozen):
        raise UsageError("a run counts them")
    if recipe is None:
        raise UsageError("the study does not pretrain the backbone, which is opened when the job runs")
    if stage == "pretrain":
        return pretraining_flops(recipe, job.title)
    if stage == "evaluate":
        return training_flops(name, untrained_backbone(recipe), _settings(job))
    if not Path(words[0]).is_dir():
        raise UsageError(f"{job.about['store']} is not ingested, so its number of images is not known")
    return feature_flops(untrained_backbone(recipe), words[0], _settings(job))
