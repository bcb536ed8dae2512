"""The stage `rank`: choose one of several backbones for a task without fine-tuning them. Test images are not read.

Frozen features of training and validation images are scored by all transferability scores, and by kNN and a linear probe that are
cross-validated over patients. By default the probe determines the order. Patients are resampled to measure its uncertainty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from ssl_transfer.console import say
from ssl_transfer.cost import metered
from ssl_transfer.csv_files import write_csv
from ssl_transfer.data.altered import SelectedRows, sampled
from ssl_transfer.data.images import Images
from ssl_transfer.data.tasks import Task
from ssl_transfer.environment import device_name, environment
from ssl_transfer.errors import RecipeError, TaskError, UsageError
from ssl_transfer.features import Features, Precision, extract_features, features_id
from ssl_transfer.measures.transferability import SCORES
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.device import fastest_device
from ssl_transfer.models.opening import open_backbones
from ssl_transfer.models.ranks import gpu_count
from ssl_transfer.numerics import numerics
from ssl_transfer.poolings import FIXED, FixedGroupPooling
from ssl_transfer.protocols import RANKED_KINDS
from ssl_transfer.ranking.candidate import Candidate, candidate, criteria, known_criterion
from ssl_transfer.ranking.contamination import contamination_caveats
from ssl_transfer.ranking.sample import Sample
from ssl_transfer.ranking.source_classifier import SourceLabels, SourcePosteriors, source_posteriors
from ssl_transfer.ranking.verdict import verdict
from ssl_transfer.result import RankedBackbone, Ranking
from ssl_transfer.run import Artifact, whole_folder


def rank(
    task: Task | str | Path,
    backbones: Mapping[str, Backbone] | Sequence[Backbone | str | Path],
    out: str | Path | None = None,
    features: Sequence[str | Path] = (),
    sources: Sequence[SourceLabels | str] = (),
    *,
    by: Annotated[str, AfterValidator(known_criterion)] = "linear_probe",
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0,
    seed: NonNegativeInt = 0,
    folds: PositiveInt = 5,
    resamples: NonNegativeInt = 100,
    size: PositiveInt | None = None,
    precision: Precision = "fp32",
    group_pool: Annotated[tuple[FixedGroupPooling, ...], Field(min_length=1)] | None = None,
) -> Ranking:
    """Score backbones on a task's training and validation images, or groups of them, and put them in order.

    If these are more than 200,000, a sample of their patients is scored, and a caveat says so.

    Args:
        task: A multiclass, ordinal or multilabel task, its card by name, or the path of one. For multi-label tasks, only LogME
            and the probes are defined.
        backbones: Backbones, or their paths or names (see `load_backbone`); the keys of a mapping are their names.
        out: Folder of the ranking; None: `runs/rank/ID`. It contains `rank.json` and `scores.csv`.
        features: Folders with features of these backbones and stores, which are then not computed again.
        sources: Labelled stores, `STORE` or `STORE:COLUMN`. For backbones that were pretrained on one of them, LEEP and NCE use a
            head that is trained on its labels.
        by: Criterion that determines the order: `linear_probe`, `knn`, or the name of a transferability score.
        fraction: Share of the training patients, as for `evaluate`.
        seed: Seed of the fraction, the folds, the bootstrap, and the mixture of N-LEEP.
        folds: Number of folds of patients for the probes, at least three.
        resamples: Number of bootstrap samples of patients, for intervals, shares of first ranks, and comparisons with the best;
            0: none of these.
        size, precision: Image size and precision of the features; see `extract_features`.
        group_pool: Of tasks with `target_of`: candidate poolings of the features of the images of a group. Probes select one on
            validation folds; transferability scores are of the features by that of the linear probe. None: `mean` and `max`.

    Returns:
        The ranking; its `path` is the folder.

    Raises:
        RecipeError: If `group_pool` is given for a task with a label per image.
        TaskError: If its target is of another kind.
        UsageError: If there are fewer than three folds, `by` applies to no backbone, `features` belong to none of the backbones
            and stores, or `out` contains something else.
        SplitError: If there are fewer than three patients.
        BackboneError: If features are NaN or infinite.
    """
    task = task if isinstance(task, Task) else Task.load(task)
    backbones = open_backbones(backbones, task.store)
    if task.kind not in RANKED_KINDS:
        raise TaskError(f"task {task.name}: it is a {task.kind} task; rank is for {', '.join(RANKED_KINDS)} tasks.")
    if group_pool and not task.card.target_of:
        raise RecipeError(
            f"group_pool: it is for tasks with target_of, and task {task.name} has a label per image. Leave it out."
        )
    poolings = (group_pool or FIXED) if task.card.target_of else ()
    given, (task, fraction_left) = task, _sampled(task, fraction, seed)
    sources = [source if isinstance(source, SourceLabels) else SourceLabels.open(source) for source in sources]
    settings: dict[str, Any] = dict(
        by=by, fraction=fraction, seed=seed, folds=folds, resamples=resamples, size=size, precision=precision
    )
    settings |= {"group_pool": list(poolings)} if poolings else {}  # which older rankings do not have
    content = {**settings, "names": list(backbones), "task": task.card.identity()}
    upstream = [*(backbone.id for backbone in backbones.values()), given.store.id, *(source.id for source in sources)]
    artifact = Artifact.of("rank", content, upstream, out, record="rank.json")
    with artifact.writing() as finished:
        if finished:
            return Ranking.load(artifact.folder)
        _check_source(by, backbones, sources)
        sample = Sample.of(task, fraction_left, seed, folds, resamples, poolings)
        opened = {folder.card.run_id: folder for folder in map(Features.load, features)}
        with metered() as meter:
            ranking = _ranking(artifact.id, sample, backbones, sources, _Extraction(opened, size, precision), settings)
            ranking = replace(ranking, cost=meter.total(gpu_count(fastest_device())).to_json())
        with whole_folder(artifact.folder) as temporary:
            write_csv(_table(ranking), temporary / "scores.csv")
            ranking.save(temporary)
    return replace(ranking, path=artifact.folder)


@numerics()
def _ranking(
    identity: str,
    sample: Sample,
    backbones: Mapping[str, Backbone],
    sources: Sequence[SourceLabels],
    extraction: _Extraction,
    settings: dict[str, Any],
) -> Ranking:
    """Score all backbones on a sample and put them in order."""
    task, by = sample.task, settings["by"]
    extraction.check(backbones.values(), [task.store, *(source.store for source in sources)])
    candidates = _candidates(sample, backbones, sources, extraction, settings["seed"])
    if all(scored.values[by] is None for scored in candidates):
        raise UsageError(
            f"by={by}: this score does not apply to any of the backbones, or not to this task. Use by=linear_probe."
        )
    return Ranking(
        run_id=identity,
        task=task.name,
        metric=task.card.metric,
        by=by,
        backbones=tuple(map(_ranked, candidates)),
        **verdict(
            candidates,
            sample,
            by,
            [*contamination_caveats(backbones, sample), *_stated(task.store), *_unused(sources, backbones)],
        ),
        n=task.count(sample.rows),
        settings=settings,
        environment=environment(device_name()),
    )


def _sampled(task: Task, fraction: float, seed: int) -> tuple[Task, float]:
    """The task, and the fraction of its training patients to take; of too many images, a sample of patients, and all of them."""
    rows = np.sort(np.concatenate([task.rows("train", fraction, seed), task.rows("val")]))
    store = sampled(task.store, seed, rows)
    if store is task.store:
        return task, fraction
    say(next(_stated(store)))
    return replace(task, store=store), 1.0


def _stated(store: Images) -> Iterator[str]:
    """A caveat, if the store is a sample."""
    if isinstance(store, SelectedRows):
        yield f"{store.sentence}."


def _check_source(by: str, backbones: Mapping[str, Backbone], sources: Sequence[SourceLabels]) -> None:
    """Refuse to order by a score of source classes if no backbone has a source classifier."""
    needs_source = by in SCORES and SCORES[by].needs_source
    if needs_source and not any(_has_source(backbone, sources) for backbone in backbones.values()):
        raise UsageError(
            f"by={by}: none of the backbones has a source classifier. Use by=linear_probe, or add --source STORE."
        )


@dataclass(frozen=True)
class _Extraction:
    """Features of backbones and stores, read from the given folders (by run id) or computed."""

    given: dict[str, Features]
    size: int | None
    precision: Precision

    def check(self, backbones: Iterable[Backbone], stores: Sequence[Images]) -> None:
        """Refuse a given folder whose features belong to none of these backbones and stores."""
        whole = [store.store for store in stores if isinstance(store, SelectedRows)]
        expected = {
            features_id(backbone, store, self.size, self.precision)
            for backbone in backbones
            for store in (*stores, *whole)
        }
        if unexpected := [str(features.path) for run_id, features in self.given.items() if run_id not in expected]:
            raise UsageError(
                f"--features {unexpected[0]}: belong to another backbone, store, size or precision than those ranked here."
            )

    def of(self, backbone: Backbone, store: Images) -> np.ndarray:
        """Features of all images of a store, (N, D)."""
        if isinstance(store, SelectedRows):
            whole = self.given.get(features_id(backbone, store.store, self.size, self.precision))
            if whole:
                return whole.values[store.selected]
        given = self.given.get(features_id(backbone, store, self.size, self.precision))
        return (given or extract_features(backbone, store, size=self.size, precision=self.precision)).values


def _candidates(
    sample: Sample,
    backbones: Mapping[str, Backbone],
    sources: Sequence[SourceLabels],
    extraction: _Extraction,
    seed: int,
) -> list[Candidate]:
    """Score every backbone."""
    candidates = []
    for number, (name, backbone) in enumerate(backbones.items(), 1):
        say(f"rank: {name} ({number} of {len(backbones)})")
        extract = partial(extraction.of, backbone)
        posteriors = partial(_posteriors, backbone, sources, extract, seed)
        candidates.append(candidate(name, backbone, sample, partial(extract, sample.task.store), posteriors, seed))
    return candidates


def _posteriors(
    backbone: Backbone,
    sources: Sequence[SourceLabels],
    extract: Callable[[Images], np.ndarray],
    seed: int,
    features: np.ndarray,
) -> SourcePosteriors | None:
    return source_posteriors(backbone, features, sources, extract, seed)


def _has_source(backbone: Backbone, sources: Sequence[SourceLabels]) -> bool:
    return backbone.classifier is not None or any(source.store.id in backbone.card.stores for source in sources)


def _unused(sources: Sequence[SourceLabels], backbones: Mapping[str, Backbone]) -> list[str]:
    """A caveat for each source store that no backbone was pretrained on."""
    pretrained_on = {store for backbone in backbones.values() for store in backbone.card.stores}
    return [
        f"{source.store.path} is not used as a source: none of these backbones was pretrained on it."
        for source in sources
        if source.store.id not in pretrained_on
    ]


def _ranked(candidate: Candidate) -> RankedBackbone:
    card, values = candidate.card, candidate.values
    return RankedBackbone(
        name=candidate.name,
        id=card.id,
        method=card.method,
        source_domain=card.source_domain,
        feature_dim=card.feature_dim,
        scores={name: values[name] for name in SCORES},
        knn=candidate.value("knn"),
        linear_probe=candidate.value("linear_probe"),
        intervals={name: interval for name in criteria() if (interval := candidate.interval(name))},
        source_classes=candidate.source,
        seconds=candidate.seconds,
        group_pool=candidate.pooling or None,
    )


def _table(ranking: Ranking) -> pandas.DataFrame:
    """Content of `scores.csv`: value and interval, a row per backbone and criterion."""
    rows = []
    for backbone in ranking.backbones:
        for criterion in criteria():
            low, high = backbone.intervals.get(criterion, (None, None))
            value = backbone.value(criterion)
            rows.append({"backbone": backbone.name, "criterion": criterion, "value": value, "low": low, "high": high})
    return pandas.DataFrame(rows)
