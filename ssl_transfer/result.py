"""Results of the stages `evaluate`, `tune`, `rank` and `analyze`, and their JSON files."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ssl_transfer.errors import UsageError
from ssl_transfer.recipe import digest
from ssl_transfer.records import Count, PathPart, damage, validated
from ssl_transfer.run import from_json, read_json, to_json, write_json

Result = TypeVar("Result")

RESULT_SCHEMA = 1
TUNING_SCHEMA = 1
RANKING_SCHEMA = 1
ANALYSIS_SCHEMA = 1


@dataclass(frozen=True)
class EvalResult:
    """Metrics of one evaluation; the fields are the keys of `result.json`.

    Attributes:
        seed, pretraining_seed: Evaluation seed, and seed of the backbone; None for public weights.
        draw: The seed of everything random in this evaluation, from the other two (see `ssl_transfer.draws`); None in results
            that were written before there were draws.
        n: Split -> number of images and of patients (null if patients are unknown).
        selected: Hyper-parameters selected on validation.
        settings: Every option of the protocol with its value.
        temperature: Of temperature scaling, fitted on validation, for the metrics after it; None: targets without classes,
            and results of earlier versions.
        metrics: `val` and `test` -> name -> value. Test was evaluated once, with the selected hyper-parameters.
        intervals: Test metric -> 95 % interval [low, high], by the bootstrap over patients.
        seen_in_pretraining: Whether the backbone was trained, in any stage, on images or patients of the task's store; `unknown`
            if none is known to be, and some of its training images are unknown, such as those of public weights.
        contamination: How many test `cases` were `seen`, by the same `patient` (null: not comparable), the same `pixels`, or as
            `near`-duplicates; `unknown`: cases that are not known to be seen, while the images of `unknown_stages` are unknown;
            `without_content`: images of which near-duplicates cannot be searched; `other_images` of the task's store, and how
            many of them were seen (near-duplicates: of a sample of 200); `metrics_clean`: test metrics of the cases that are
            not known to be seen. None in results of earlier versions.
        external: Name of each external store -> its test: `store` (id), `domain`, `boundary` to the task's domain, the `classes`
            that both have, `n`, `left_out` cases, `metrics` with `intervals`, `own` (the metrics of the own test on these
            classes), `gap` (metric minus own metric) with `gap_intervals` (patients of both tests are resampled),
            `subgroups`, `seen_in_pretraining` and `contamination` of its cases, and `notes`.
        subgroups: The test metrics of groups of cases, see `evaluation.subgroups.subgroup_metrics`; None: the task names none.
        files: Names of the files beside it -> hash of their bytes.
        path: Folder of the result, not part of `result.json`; None: not saved.
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
    n: dict[str, dict[str, Count | None]]
    selected: dict[str, Any]
    metrics: dict[str, dict[str, float | None]]
    intervals: dict[str, list[float]]
    seen_in_pretraining: bool | str
    cost: dict[str, Any]
    environment: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    draw: int | None = None
    temperature: float | None = None
    files: dict[PathPart, str] = field(default_factory=dict)
    contamination: dict[str, Any] | None = None
    external: dict[str, dict[str, Any]] = field(default_factory=dict)
    subgroups: dict[str, Any] | None = None
    schema: int = RESULT_SCHEMA
    kind: str = "result"
    path: Path | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The content of `result.json`."""
        return _json(self)

    def save(self, folder: Path) -> Path:
        """Write `result.json`; with this file the run is finished."""
        return _save(self, folder / "result.json")

    @classmethod
    def load(cls, path: str | Path) -> EvalResult:
        """Read `result.json`, or the folder that holds it.

        Raises:
            UsageError: If it is missing, damaged, changed, no such result, or of another schema version.
        """
        path = Path(path)
        path = path / "result.json" if path.is_dir() else path
        result = _loaded(path, cls, "result", RESULT_SCHEMA, "Evaluate")
        if problem := _missing_keys(result):
            raise UsageError(f"{path}: is damaged: {problem}. Evaluate again.")
        return replace(result, path=path.parent)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Settings of a protocol that were tried on validation; the fields are the keys of `tuning.json`.

    Attributes:
        backbone: Id of the backbone.
        task: Name of the task.
        metric: Metric of the task, by which a trial is selected.
        fraction, seed: Of the training patients that every trial learnt from.
        trials: In the order of the grid: `settings` (by dotted key), `validation` (metric -> value, at its best step), `selected`
            (what the protocol selected within the trial, such as the step) and `seconds`.
        selected: Settings of the trial with the best metric on validation, the first of several equal ones.
        n: Number of images and of patients of `train` and `val`. Test was not read.
        path: Folder of the tuning, not part of `tuning.json`; None: not saved.
    """

    schema: int = TUNING_SCHEMA
    kind: str = "tuning"
    run_id: str
    protocol: str
    strategy: str | None
    backbone: str
    task: str
    metric: str
    fraction: float
    seed: int
    trials: tuple[dict[str, Any], ...]
    selected: dict[str, Any]
    n: dict[str, dict[str, int | None]]
    environment: dict[str, Any]
    path: Path | None = field(default=None, compare=False)

    @classmethod
    def load(cls, folder: str | Path) -> Tuning:
        """Read `tuning.json` in a folder.

        Raises:
            UsageError: If it is missing, incomplete, something else, or of another schema.
        """
        folder = Path(folder)
        return replace(_loaded(folder / "tuning.json", cls, "tuning", TUNING_SCHEMA, "Tune"), path=folder)

    def save(self, folder: Path) -> None:
        """Write `tuning.json`; with this file the tuning is finished."""
        _save(self, folder / "tuning.json")

    def to_json(self) -> dict[str, Any]:
        """The content of `tuning.json`."""
        return _json(self)


@dataclass(frozen=True, kw_only=True)
class RankedBackbone:
    """A backbone in a ranking.

    Attributes:
        name: Name among the candidates.
        id, method, source_domain, feature_dim: From its card.
        scores: Transferability score -> value; None where it does not apply.
        knn, linear_probe: The task's metric of the probe, cross-validated over patients.
        intervals: Criterion -> 95 % interval [low, high], by the bootstrap over patients.
        source_classes: Source classifier; None: none available.
        seconds: Step -> duration in seconds.
        group_pool: Of tasks with `target_of`: the pooling of the features that scores are of; None: features of images.
    """

    name: str
    id: str
    method: str
    source_domain: str | None
    feature_dim: int
    scores: dict[str, float | None]
    knn: float
    linear_probe: float
    intervals: dict[str, list[float]]
    source_classes: str | None
    seconds: dict[str, float]
    group_pool: str | None = None

    def value(self, criterion: str) -> float | None:
        """The value of a score, of `knn` or of `linear_probe`."""
        return self.scores[criterion] if criterion in self.scores else getattr(self, criterion, None)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Backbones in the order in which to try them on a task; the fields are the keys of `rank.json`.

    Attributes:
        task: Name of the task.
        metric: Metric of the task.
        by: Criterion that backbones are ordered by.
        backbones: The backbones in the order in which they were given.
        order: Names of the backbones, the best first.
        first: Name -> share of bootstrap samples in which it is the best; None without resampling.
        not_told_apart: Names of the backbones that may be the best one, `order[0]` first; empty if no other one may be.
        agreement: Criterion -> its correlation coefficients with the criterion `by`.
        recommendation: The recommended backbone, as a sentence.
        caveats: Caveats, as sentences.
        n: Number of images and patients that were used.
        settings: Every option of `rank` with its value.
        cost: What it has cost (see `Cost`); None in those of earlier versions.
        path: Folder of the ranking, not part of `rank.json`; None: not saved.
    """

    schema: int = RANKING_SCHEMA
    kind: str = "rank"
    run_id: str
    task: str
    metric: str
    by: str
    backbones: tuple[RankedBackbone, ...]
    order: tuple[str, ...]
    first: dict[str, float] | None
    not_told_apart: tuple[str, ...]
    agreement: dict[str, dict[str, Any]]
    recommendation: str
    caveats: tuple[str, ...]
    n: dict[str, int | None]
    settings: dict[str, Any]
    environment: dict[str, Any]
    cost: dict[str, Any] | None = field(default=None, compare=False)
    path: Path | None = field(default=None, compare=False)

    @classmethod
    def load(cls, folder: str | Path) -> Ranking:
        """Read `rank.json` in a folder.

        Raises:
            UsageError: If it is missing, incomplete, something else, or of another schema.
        """
        folder = Path(folder)
        return replace(_loaded(folder / "rank.json", cls, "rank", RANKING_SCHEMA, "Rank"), path=folder)

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> Ranking:
        """Make a ranking from its JSON object; other keys are ignored."""
        backbones = [from_json(RankedBackbone, backbone) for backbone in content["backbones"]]
        return from_json(cls, {**content, "backbones": backbones})

    def save(self, folder: Path) -> None:
        """Write `rank.json`."""
        _save(self, folder / "rank.json")

    def to_json(self) -> dict[str, Any]:
        """The content of `rank.json`."""
        return _json(self)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Feature spaces of backbones on the images of a store; the fields are the keys of `analysis.json`.

    Attributes:
        store: Id of the store.
        store_path: Path of the store at the time.
        n: Number of images and patients of the store, of images that were `analysed` (if these are a sample), and of those in
            the `sample` for layers and probes.
        backbones: The measurements of each backbone, with facts from its card.
        findings: `title` and `text` of each finding.
        leaks: Near-duplicates between splits, as a sentence.
        settings: Every option of `analyze` with its value.
        seconds: Step -> duration in seconds.
        path: Folder of the analysis, not part of `analysis.json`; None: not saved.
    """

    schema: int = ANALYSIS_SCHEMA
    kind: str = "analysis"
    run_id: str
    store: str
    store_path: str
    n: dict[str, int | None]
    backbones: tuple[dict[str, Any], ...]
    findings: tuple[dict[str, str], ...]
    leaks: str
    settings: dict[str, Any]
    seconds: dict[str, float]
    environment: dict[str, Any]
    path: Path | None = field(default=None, compare=False)

    @classmethod
    def load(cls, folder: str | Path) -> Analysis:
        """Read `analysis.json` in a folder.

        Raises:
            UsageError: If it is missing, incomplete, something else, or of another schema.
        """
        folder = Path(folder)
        return replace(_loaded(folder / "analysis.json", cls, "analysis", ANALYSIS_SCHEMA, "Analyze"), path=folder)

    def save(self, folder: Path) -> None:
        """Write `analysis.json`."""
        _save(self, folder / "analysis.json")

    def to_json(self) -> dict[str, Any]:
        """The content of `analysis.json`."""
        return _json(self)


def _json(result: EvalResult | Tuning | Ranking | Analysis) -> dict[str, Any]:
    """A result as a JSON object, without its path."""
    return {name: value for name, value in to_json(result).items() if name != "path"}


def _save(result: EvalResult | Tuning | Ranking | Analysis, path: Path) -> Path:
    """Write a result, with the digest of its content as the last key."""
    content = json.loads(json.dumps(_json(result), default=str, allow_nan=False))
    write_json(path, {**content, "digest": digest(content)})
    return path


def _loaded(path: Path, result: type[Result], kind: str, schema: int, verb: str) -> Result:
    """Read and check the JSON object of a result.

    Args:
        path: Path of the file.
        result: Dataclass of the result.
        kind: Expected kind.
        schema: Expected schema version.
        verb: Command that makes such a file, for messages.

    Raises:
        UsageError: If the file is missing, damaged, no such result, of another schema version, or was changed after it was
            written.
    """
    content = read_json(path)
    if content is None:
        raise UsageError(
            f"{path}: no readable result: {damage(path)}. {verb} first, or name the folder that holds {path.name}."
        )
    if content.get("kind") != kind or content.get("schema") != schema:
        raise UsageError(f"{path}: expected a {kind} of schema {schema}. {verb} again with this version.")
    needed = [field.name for field in fields(result) if field.default is field.default_factory is MISSING]  # type: ignore[arg-type]
    if missing := [name for name in needed if name not in content]:
        raise UsageError(f"{path}: not all keys of a result are there (missing: {', '.join(missing)}). {verb} again.")
    written = content.pop("digest", None)  # results of earlier versions have none
    if written is not None and written != digest(content):
        raise UsageError(f"{path}: its content was changed after it was written: its digest differs. {verb} again.")
    content.pop("path", None)
    return validated(result, content, path, UsageError, f"{verb} again.")


def _missing_keys(result: EvalResult) -> str:
    """What a result lacks below its fields, in words; empty if nothing."""
    noise = result.settings.get("noise")
    inner = {
        "backbone": (result.backbone, ("name",)),
        "task": (result.task, ("name",)),
        "metrics": (result.metrics, ("test",)),
        "settings.noise": ({"kind": "none"} if noise is None else noise, ("kind",)),
    }
    for name, (content, keys) in inner.items():
        if not isinstance(content, dict) or any(key not in content for key in keys):
            return f"{name}: expected the keys {', '.join(keys)}"
    return ""
