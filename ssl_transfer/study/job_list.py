"""Collects the jobs of a plan without duplicates; a job's id is a hash of its settings and inputs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ssl_transfer.recipe import digest
from ssl_transfer.study.design import Resources, StudyRecipe
from ssl_transfer.study.plan import Job, Stage, external_id

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Input:
    """An artifact that a job needs.

    Attributes:
        id: Id of the job that makes it, or `external:…`.
        spec: Its path or name in commands.
        made: Whether a job of the plan makes it; False: it exists already.
        name: Its name in the study.
    """

    id: str
    spec: str
    made: bool
    name: str

    @classmethod
    def external(cls, spec: str, name: str | None = None) -> Input:
        """An artifact that no job makes, identified by the id in its card if it exists, else by its spec."""
        return cls(f"external:{external_id(spec) or spec}", spec, False, name or spec)


def input_ids(inputs: Iterable[Input]) -> list[str]:
    """The ids of inputs that a job's id depends on, besides its settings."""
    return [artifact.id for artifact in inputs]


class JobList:
    """Collects jobs; a job that is added twice is listed once.

    Args:
        recipe: The recipe of the study.
        folder: Folder of the study.
        write: Whether recipes and task cards are written.
    """

    def __init__(self, recipe: StudyRecipe, folder: Path, write: bool):
        self.recipe, self.folder, self.writes = recipe, folder, write
        self.by_id: dict[str, Job] = {}
        self.written: set[Path] = set()

    def add(
        self,
        stage: Stage,
        identity: Any,
        inputs: Sequence[Input],
        command: list[str],
        output: Path,
        *,
        title: str,
        about: dict[str, Any],
        like: str,
        work: Any,
        units: float = 1,
        repeats: int = 1,
        resources: str | None = None,
        runs: Iterable[dict] = (),
        spec: Path | None = None,
        name: str = "",
    ) -> Input:
        """Add a job unless it is listed already.

        Args:
            stage: Stage of the job.
            identity: Its settings; the job's id is a hash of these and of the ids of `inputs`.
            inputs: Its inputs.
            command: Arguments of `ssl-transfer`.
            output: Folder of its output.
            title: Title in messages and the report.
            about: Arm, pretraining seed and task, where they apply.
            like: Key of jobs with about the same cost, for any arm.
            work: Further settings that its cost depends on.
            units: Amount of work that its cost is proportional to.
            repeats: How often it does what `resources` has the minutes of.
            resources: Key in the study's `resources`; None: the stage.
            runs: Evaluations in the job.
            spec: Path or name of its output in commands; None: `output`.
            name: Name of its output in the study.

        Returns:
            Its output, as an input of other jobs.
        """
        job_id = digest([identity, input_ids(inputs)])
        if job_id not in self.by_id:
            requested = self.recipe.resources.get(resources or stage) or Resources()
            program = ["ssl-transfer"]
            if requested.launch:
                launcher = ["accelerate", "launch", *requested.launch.split()]
                program = [*launcher, "--main_process_port", "0", "-m", "ssl_transfer"]
            limits = {
                "gpus": requested.gpus,
                "cpus": requested.cpus,
                "memory_gb": requested.memory_gb,
                "minutes": requested.limit_minutes,
            }
            cost = {
                "kind": f"{like}, {requested.gpus} GPUs, {digest([work, about.get('arm')])}",
                "like": like,
                "units": units,
                "seconds": 60 * requested.minutes * repeats,
                "disk_mb": requested.disk_mb,
            }
            made = [artifact.id for artifact in inputs if artifact.made]
            external = {artifact.spec: external_id(artifact.spec) for artifact in inputs if not artifact.made}
            self.by_id[job_id] = Job(
                job_id, stage, title, made, external, [*program, *command], str(output), about, limits, cost, list(runs)
            )
        return Input(job_id, str(spec or output), True, name)

    def write(self, path: Path, content: Any) -> None:
        """Write a YAML file for a command, unless it exists; its name contains the hash of its content."""
        if self.writes and path not in self.written and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.part")
            temporary.write_text(yaml.dump(content, Dumper=_Dumper, sort_keys=False))
            os.replace(temporary, path)
        self.written.add(path)

    def keep_needed(self) -> None:
        """Drop jobs that no evaluation or ranking needs."""
        needed = {job.id for job in self.by_id.values() if job.runs or job.stage == "rank"}
        for job in reversed(self.by_id.values()):
            if job.id in needed:
                needed |= set(job.inputs)
        self.by_id = {name: job for name, job in self.by_id.items() if name in needed}
