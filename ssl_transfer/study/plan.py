"""The plan of a study: every job once, identified by its content, with its command."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from ssl_transfer.channels import stated_input
from ssl_transfer.errors import UsageError, nearest
from ssl_transfer.kept import located
from ssl_transfer.paths import portable
from ssl_transfer.poolings import stated_pooling
from ssl_transfer.records import PathPart, damage, validated
from ssl_transfer.run import file_digest, read_json, write_json
from ssl_transfer.study.plan_checks import check_jobs
from ssl_transfer.writing import writes

SCHEMA = 1
AGAIN = "Plan the study again: ssl-transfer study plan STUDY.yaml"
FEATURES = "features:"  # spec of features from a file in place of a backbone
RESOLVED = "study.yaml"  # in the folder of the study


Stage = Literal["ingest", "pretrain", "features", "tune", "evaluate", "rank"]


@dataclass
class Job:
    """A command with its inputs, output and resources.

    Attributes:
        stage: `ingest`, `pretrain`, `features`, `tune`, `evaluate` or `rank`.
        inputs: Ids of the jobs that it depends on.
        external: Artifacts that no job of the study makes: path of a store or backbone -> its id when the study was planned,
            null if it did not exist, or is a name such as `timm:resnet50`.
        output: Folder of its output.
        resources: Request to a scheduler: gpus, cpus, memory_gb, minutes (the limit).
        about: Its `arm` and `seed`, and its `store` or `task` of the study.
        cost: `kind` (jobs of one kind cost alike, in proportion to `units`), `like` (the same work on another arm of the
            study), and the estimate without a record.
        runs: Coordinates and `result` (path) of every evaluation in it.
    """

    id: PathPart
    stage: Stage
    title: str
    inputs: list[PathPart]
    external: dict[str, str | None]
    command: list[str]
    output: str
    about: dict[str, Any]
    resources: dict[str, Any]
    cost: dict[str, Any]
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def launched(self) -> bool:
        """Whether it is started by `accelerate launch`, in separate processes."""
        return self.command[0] == "accelerate"

    @property
    def words(self) -> list[str]:
        """Verb and arguments of its command."""
        return self.command[self.command.index("ssl_transfer" if self.launched else "ssl-transfer") + 1 :]


@dataclass(frozen=True)
class Plan:
    """All jobs of a study, each after the jobs that it depends on."""

    name: str
    folder: Path
    recipe: dict[str, Any]
    arms: list[dict[str, Any]]
    tasks: dict[str, dict[str, Any]]
    jobs: list[Job]

    @property
    def runs(self) -> Iterator[dict[str, Any]]:
        """All evaluations."""
        return itertools.chain.from_iterable(job.runs for job in self.jobs)

    @property
    def stated_folder(self) -> Path:
        """The folder as pages name it: outside of the working directory by its name alone."""
        folder = Path(portable(self.folder))
        return Path(folder.name) if folder.is_absolute() else folder

    def backbone(self, arm: str, seed: int | None = None) -> str:
        """Path of the backbone of an arm and pretraining seed, which may not exist yet.

        Raises:
            UsageError: If the plan has none, or it was not pretrained by the study (the plan's `arms` name it).
        """
        return str(Path(self._output("pretrain", arm=arm, seed=seed)) / "backbone")

    def store(self, name: str) -> str:
        """Path of a store that the study ingests, which may not exist yet.

        Raises:
            UsageError: If it ingests no store of that name.
        """
        return self._output("ingest", store=name)

    def features(self, arm: str, seed: int | None, store: str) -> str:
        """Path of the features of a store by a backbone, which may not exist yet.

        Raises:
            UsageError: If no probe uses them.
        """
        return self._output("features", arm=arm, seed=seed, store=store)

    def task(self, name: str) -> str:
        """Path of the card of a task of the study.

        Raises:
            UsageError: If nothing is evaluated on a task of that name.
        """
        for job in self.jobs:
            if job.about.get("task") == name:
                return next(word for word in job.command if Path(word).name == f"{name}.yaml")
        raise UsageError(f"{self.folder}: no task {name}.{nearest(name, self.tasks)}")

    def _output(self, stage: str, **about: Any) -> str:
        for job in self.jobs:
            if job.stage == stage and job.about == about:
                return job.output
        described = ", ".join(f"{key} {value}" for key, value in about.items())
        raise UsageError(f"{self.folder}: no {stage} job of {described}. `plan.json` lists all jobs.")

    def by_stage(self) -> dict[str, int]:
        """Number of jobs of each stage."""
        counts: dict[str, int] = {}
        for job in self.jobs:
            counts[job.stage] = counts.get(job.stage, 0) + 1
        return counts

    def save(self) -> Path:
        """Write `plan.json`; and `study.yaml`, the YAML of the study with all overrides, which plans the same jobs."""
        path = self.folder / "plan.json"
        content = {
            "schema": SCHEMA,
            "kind": "plan",
            "name": self.name,
            "recipe": self.recipe,
            "arms": self.arms,
            "tasks": self.tasks,
            "jobs": [vars(job) for job in self.jobs],
        }
        with writes(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
        head = f"# The study as it was planned, with all overrides:\n#   ssl-transfer study plan {self.folder / RESOLVED}\n"
        text = yaml.safe_dump(self.recipe, sort_keys=False, allow_unicode=True)
        with writes(self.folder / RESOLVED):
            (self.folder / RESOLVED).write_text(head + text, encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Plan:
        """Read the plan of a study's folder.

        Raises:
            UsageError: If there is no plan, one of another schema version, a damaged one, or one that is not a list of this
                program's verbs.
        """
        folder = Path(portable(folder))
        path = folder / "plan.json" if folder.is_dir() else folder
        content = read_json(path)
        if content is None and path.is_file():
            raise UsageError(f"{path}: {damage(path)}. {AGAIN}")
        if not content or content.get("kind") != "plan":
            raise UsageError(f"{path}: no plan of a study. Make one: ssl-transfer study plan STUDY.yaml")
        if content.get("schema") != SCHEMA:
            raise UsageError(
                f"{path}: plan of schema {str(content.get('schema'))[:40]}, this version reads {SCHEMA}. Plan again."
            )
        read = validated(_Content, content, path, UsageError, AGAIN)
        check_jobs(path, read.jobs)
        return cls(read.name, path.parent, read.recipe, read.arms, read.tasks, read.jobs)


@dataclass
class _Content:
    """The keys of `plan.json`."""

    name: str
    recipe: dict[str, Any]
    arms: list[dict[str, Any]]
    tasks: dict[str, dict[str, Any]]
    jobs: list[Job]


def external_id(spec: str) -> str | None:
    """The id of a store, backbone or file of features; None for a name such as `timm:resnet50`, and if it does not exist.

    Raises:
        BackboneError: If it is a backbone of a run and epoch (`RUN@5`), and the run has none, or it states no channels.
    """
    bare, channels = stated_input(spec)
    bare, pooling = stated_pooling(bare)
    if bare.startswith(FEATURES):
        path = bare.removeprefix(FEATURES).partition(",")[0]
        files = sorted(glob.glob("*".join(map(glob.escape, path.split("{store}")))))
        return " ".join(file_digest(Path(file)) for file in files) or None
    identity = (read_json(located(bare) / "card.json") or {}).get("id")
    stated = [f"pooling={pooling}"] if pooling else []
    stated += [str(channels)] if channels.are_stated else []
    return ",".join([identity, *stated]) if identity else None


def open_study(folder: str | Path) -> Plan:
    """The plan of a study's folder: where its stores, backbones and features are.

    Raises:
        UsageError: If the folder has no plan.
    """
    return Plan.load(folder)
