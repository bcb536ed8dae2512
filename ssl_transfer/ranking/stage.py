"""The stage `rank`: which of several backbones to take for a task, before any is fine-tuned. Test images are not looked at.

Frozen features of training and validation images are scored by every transferability score, and by kNN and a linear probe, which
are cross-validated over patients; the probe sets the order unless asked otherwise. Patients are resampled to say how sure it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from ssl_transfer.console import say
from ssl_transfer.data.images import Images
from ssl_transfer.data.tasks import Task
from ssl_transfer.environment import device_name, environment
from ssl_transfer.errors import TaskError, UsageError
from ssl_transfer.features import Features, extract_features, features_id
from ssl_transfer.measures.transferability import SCORES
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.opening import open_backbones
from ssl_transfer.ranking.candidate import Candidate, candidate, criteria, known_criterion
from ssl_transfer.ranking.sample import Sample
from ssl_transfer.ranking.source_classifier import SourceLabels, source_posteriors
from ssl_transfer.ranking.verdict import verdict
from ssl_transfer.result import RankedBackbone, Ranking
from ssl_transfer.run import Artifact


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
    precision: Literal["fp32", "bf16"] = "fp32",
) -> tuple[Ranking, Path]:
    """Score backbones on a task's training and validation images and put them in order.

    Args:
        task: A multiclass or multilabel task, its card by name, or the path of one. Of multilabel tasks only LogME and the probes
            are defined.
        backbones: Opened, or by path or name (see `load_backbone`); a mapping also names them.
        out: Folder; None: `runs/rank/ID`. It gets `rank.json` and `scores.csv`.
        features: Folders of features that are there already, of any of these backbones and stores.
        sources: Labelled stores, `STORE` or `STORE:COLUMN`, on which LEEP and NCE may train a head, for backbones that were
            pretrained on them.
        by: What the order rests on.
        fraction: Share of the training patients that are looked at, as for `evaluate`.
        seed: Of the fraction, the folds, the resamples, and the mixture of N-LEEP.
        folds: Of patients, at least three, for the probes.
        resamples: Of patients, for intervals and the share of first places; 0: neither.
        size, precision: Of the features; see `extract_features`.

    Returns:
        The ranking and its folder.

    Raises:
        TaskError: If it is a segmentation task.
        UsageError: If there are fewer than three folds, `by` applies to no backbone, features are of something else, or `out`
            holds something else.
        SplitError: If there are fewer than three patients.
        BackboneError: If features are no numbers.
    """
    task = task if isinstance(task, Task) else Task.load(task)
    backbones = open_backbones(backbones, task.store)
    sources = [source if isinstance(source, SourceLabels) else SourceLabels.open(source) for source in sources]
    if task.kind == "segmentation":
        raise TaskError(f"task {task.name}: it is a segmentation task; rank is for multiclass and multilabel tasks.")
    settings = {
        "by": by,
        "fraction": fraction,
        "seed": seed,
        "folds": folds,
        "resamples": resamples,
        "size": size,
        "precision": precision,
    }
    asked = {**settings, "names": list(backbones), "task": task.card.model_dump(exclude={"store"})}
    upstream = [*(one.id for one in backbones.values()), task.store.id, *(source.id for source in sources)]
    artifact = Artifact.of("rank", asked, upstream, out, record="rank.json")
    if artifact.is_finished():
        return Ranking.load(artifact.folder), artifact.folder
    needs_source = by in SCORES and SCORES[by].needs_source
    if needs_source and not any(_has_source(backbone, sources) for backbone in backbones.values()):
        raise UsageError(
            f"by={by}: none of the backbones has source classes at hand. Take linear_probe, or give a --source."
        )
    sample = Sample.of(task, fraction, seed, folds, resamples)
    stores = [task.store, *(source.store for source in sources)]
    wanted = {features_id(one, store, size, precision) for one in backbones.values() for store in stores}
    known = {one.card.run_id: one for one in map(Features.load, features)}
    if strange := [str(one.path) for name, one in known.items() if name not in wanted]:
        raise UsageError(
            f"--features {strange[0]}: of another backbone, store, size or precision than what is ranked here."
        )

    def extracted(backbone: Backbone, store: Images) -> np.ndarray:
        there = known.get(features_id(backbone, store, size, precision))
        return (there or extract_features(backbone, store, size=size, precision=precision)).values

    candidates = []
    for number, (name, backbone) in enumerate(backbones.items(), 1):
        say(f"rank: {name} ({number} of {len(backbones)})")
        candidates.append(
            candidate(
                name,
                backbone,
                sample,
                lambda own=backbone: extracted(own, task.store),
                lambda values, own=backbone: source_posteriors(
                    own, values, sources, lambda store: extracted(own, store), seed
                ),
                seed,
            )
        )
    if all(one.values[by] is None for one in candidates):
        raise UsageError(
            f"by={by}: this score applies to none of the backbones, or not to this task. Take linear_probe."
        )
    ranking = Ranking(
        run_id=artifact.id,
        task=task.name,
        metric=task.card.metric,
        by=by,
        backbones=tuple(map(_ranked, candidates)),
        **verdict(candidates, sample, by, _unused(sources, backbones)),
        n=task.count(sample.rows),
        settings=settings,
        environment=environment(device_name()),
    )
    with artifact.writing() as temporary:
        _table(ranking).to_csv(temporary / "scores.csv", index=False)
        ranking.save(temporary)
    return ranking, artifact.folder


def _has_source(backbone: Backbone, sources: Sequence[SourceLabels]) -> bool:
    return backbone.classifier is not None or any(one.store.id in backbone.card.stores for one in sources)


def _unused(sources: Sequence[SourceLabels], backbones: Mapping[str, Backbone]) -> list[str]:
    """A sentence for each store that no backbone was pretrained on."""
    known = {store for backbone in backbones.values() for store in backbone.card.stores}
    return [
        f"{source.store.path} is no source: none of these backbones was pretrained on it."
        for source in sources
        if source.store.id not in known
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
    )


def _table(ranking: Ranking) -> pandas.DataFrame:
    """One row per backbone and criterion: value and interval."""
    rows = []
    for backbone in ranking.backbones:
        for criterion in criteria():
            low, high = backbone.intervals.get(criterion, (None, None))
            value = backbone.value(criterion)
            rows.append({"backbone": backbone.name, "criterion": criterion, "value": value, "low": low, "high": high})
    return pandas.DataFrame(rows)
