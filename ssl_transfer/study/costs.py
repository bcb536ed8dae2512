"""What jobs cost: recorded where they ran, and estimated from that where they have not."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_transfer.run import read_json


@dataclass(frozen=True)
class Estimate:
    """Of a whole plan.

    Attributes:
        hours: Of all jobs, one after the other.
        gpu_hours: Hours × GPUs of each.
        disk_gb: What they leave on disk.
        recorded: Share of the jobs whose kind has a record; the rest rests on the stage's, or on the recipe's own guess.
    """

    hours: float
    gpu_hours: float
    disk_gb: float
    recorded: float


@dataclass
class Costs:
    """Seconds and bytes per unit of each kind of job, and of each stage."""

    spent: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def recorded(cls, folder: Path) -> Costs:
        """Read the records of a study and of the studies beside it."""
        costs = cls()
        for path in Path(folder).parent.glob("*/jobs/*.json"):
            if path.name.count(".") == 1 and (found := read_json(path)) and found.get("kind") == "record":
                costs.add(found["stage"], found["cost"], found["seconds"], found["bytes"])
        return costs

    def add(self, stage: str, cost: Mapping[str, Any], seconds: float, size: int) -> None:
        """Learn from a job that was done."""
        units = cost["units"] or 1
        for name in (cost["kind"], _wider(cost), f"stage {stage}"):
            self.spent[name].append((seconds / units, size / units))

    def seconds(self, job: Any) -> float:
        """How long a job may take: as its kind did, or its stage, or as the study's recipe says."""
        found = self._of(job)
        return found[0] * job.cost["units"] if found else job.cost["seconds"]

    def bytes(self, job: Any) -> float:
        """What it may leave on disk, likewise."""
        found = self._of(job)
        return found[1] * job.cost["units"] if found else job.cost["disk_mb"] * 1e6

    def estimate(self, jobs: Iterable[Any]) -> Estimate:
        """Of several jobs together."""
        jobs = list(jobs)
        seconds = [self.seconds(job) for job in jobs]
        gpu_seconds = sum(own * job.resources["gpus"] for own, job in zip(seconds, jobs, strict=True))
        known = sum(job.cost["kind"] in self.spent for job in jobs)
        return Estimate(
            round(sum(seconds) / 3600, 2), round(gpu_seconds / 3600, 2), round(sum(map(self.bytes, jobs)) / 1e9, 2),
            round(known / max(1, len(jobs)), 2),
        )  # fmt: skip

    def _of(self, job: Any) -> tuple[float, float] | None:
        """Mean seconds and bytes per unit."""
        for name in (job.cost["kind"], _wider(job.cost), f"stage {job.stage}"):
            if found := self.spent.get(name):
                return sum(own[0] for own in found) / len(found), sum(own[1] for own in found) / len(found)
        return None


def _wider(cost: Mapping[str, Any]) -> str:
    """The kind without its last words: the same protocol and task of another arm."""
    return "like " + " ".join(cost["kind"].split()[:2])


def folder_bytes(folder: str | Path) -> int:
    """Size of all files below a folder."""
    return sum(os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(folder) for name in names)
