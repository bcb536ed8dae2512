"""What jobs cost: recorded where they ran, and estimated from that where they have not."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_transfer.run import read_json
from ssl_transfer.study.plan import Job


@dataclass(frozen=True)
class Estimate:
    """Of a whole plan.

    Attributes:
        hours: Of all jobs, one after the other.
        gpu_hours: Hours × GPUs of each.
        disk_gb: What they leave on disk.
        recorded: Share of the jobs that records tell of; the rest rests on the recipe's own guess.
    """

    hours: float
    gpu_hours: float
    disk_gb: float
    recorded: float


@dataclass
class Costs:
    """Seconds per unit, and bytes, of each kind of job that has a record."""

    spent: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def recorded(cls, folder: Path) -> Costs:
        """Read the records of a study and of the studies beside it."""
        costs = cls()
        for path in Path(folder).parent.glob("*/jobs/*.json"):
            found = read_json(path) if path.name.count(".") == 1 else None
            with suppress(KeyError, TypeError):  # of another version, or half of one: it tells nothing
                costs.add(found["cost"], found["seconds"], found["bytes"], own=path.parent.parent == Path(folder))
        return costs

    def add(self, cost: Mapping[str, Any], seconds: float, size: float, own: bool = True) -> None:
        """Learn from a job that was done; within its own study also for the same work on other arms."""
        for name in (cost["kind"], cost["like"]) if own else (cost["kind"],):
            self.spent[name].append((seconds / (cost["units"] or 1), size))

    def seconds(self, job: Job) -> float:
        """How long a job may take: as its kind did, or as the study's recipe says."""
        return self._mean(job, 0) * job.cost["units"] if self._known(job) else job.cost["seconds"]

    def bytes(self, job: Job) -> float:
        """What it may leave on disk, likewise."""
        return self._mean(job, 1) if self._known(job) else job.cost["disk_mb"] * 1e6

    def estimate(self, jobs: Iterable[Job]) -> Estimate:
        """Of several jobs together."""
        jobs = list(jobs)
        seconds = [self.seconds(job) for job in jobs]
        gpu_seconds = sum(own * job.resources["gpus"] for own, job in zip(seconds, jobs, strict=True))
        known = sum(bool(self._known(job)) for job in jobs)
        return Estimate(
            round(sum(seconds) / 3600, 2),
            round(gpu_seconds / 3600, 2),
            round(sum(map(self.bytes, jobs)) / 1e9, 2),
            round(known / max(1, len(jobs)), 2),
        )

    def _known(self, job: Job) -> list[tuple[float, float]]:
        return self.spent.get(job.cost["kind"]) or self.spent.get(job.cost["like"]) or []

    def _mean(self, job: Job, which: int) -> float:
        values = [pair[which] for pair in self._known(job)]
        return sum(values) / len(values)


def folder_bytes(folder: str | Path) -> int:
    """Size of all files below a folder."""
    return sum(os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(folder) for name in names)
