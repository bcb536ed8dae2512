"""Cost of jobs: recorded for those that ran, estimated from these records for the others."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean as mean
from typing import Any, NamedTuple

from ssl_transfer.run import read_json
from ssl_transfer.study.plan import Job


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a plan.

    Attributes:
        hours: Sum of the hours of all jobs.
        gpu_hours: Sum over jobs of hours × GPUs.
        disk_gb: Size of their output.
        recorded: Share of the jobs whose kind has records; the others are estimated by the study's `resources`.
    """

    hours: float
    gpu_hours: float
    disk_gb: float
    recorded: float


class Spent(NamedTuple):
    """What a job has cost: seconds per unit, bytes, and its number of threads, if known."""

    seconds: float
    bytes: float
    threads: int | None


@dataclass
class Costs:
    """Seconds per unit, bytes and number of threads of each kind of job that has a record.

    Attributes:
        threads: Estimates are those of so many threads per job, where there are such records; None: of all records.
        spent: Kind of job -> what each of its records says.
    """

    threads: int | None = None
    spent: dict[str, list[Spent]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def recorded(cls, folder: Path, threads: int | None = None) -> Costs:
        """Read the records of a study and of the studies beside it."""
        costs = cls(threads)
        for path in Path(folder).parent.glob("*/jobs/*.json"):
            record = read_json(path) if path.name.count(".") == 1 else None
            if record is None:
                continue
            with suppress(KeyError, TypeError):  # of another version, or incomplete: ignored
                same_study = path.parent.parent == Path(folder)
                threads = record.get("threads")  # of records before jobs ran at once: unknown
                costs.add(record["cost"], record["seconds"], record["bytes"], same_study=same_study, threads=threads)
        return costs

    def add(
        self,
        cost: Mapping[str, Any],
        seconds: float,
        size: float,
        *,
        same_study: bool = True,
        threads: int | None = None,
    ) -> None:
        """Add a finished job; one of the same study also counts for the same work on other arms."""
        for name in (cost["kind"], cost["like"]) if same_study else (cost["kind"],):
            self.spent[name].append(Spent(seconds / (cost["units"] or 1), size, threads))

    def seconds(self, job: Job) -> float:
        """Estimated seconds of a job: from records of its kind, or from the study's `resources`."""
        records = self._records(job)
        return mean(record.seconds for record in records) * job.cost["units"] if records else job.cost["seconds"]

    def bytes(self, job: Job) -> float:
        """Estimated bytes on disk, likewise."""
        records = self._records(job)
        return mean(record.bytes for record in records) if records else job.cost["disk_mb"] * 1e6

    def estimate(self, jobs: Iterable[Job]) -> Estimate:
        """Estimate several jobs together."""
        jobs = list(jobs)
        seconds = [self.seconds(job) for job in jobs]
        gpu_seconds = sum(time * job.resources["gpus"] for time, job in zip(seconds, jobs, strict=True))
        recorded = sum(bool(self._records(job)) for job in jobs)
        return Estimate(
            round(sum(seconds) / 3600, 2),
            round(gpu_seconds / 3600, 2),
            round(sum(map(self.bytes, jobs)) / 1e9, 2),
            round(recorded / max(1, len(jobs)), 2),
        )

    def _records(self, job: Job) -> list[Spent]:
        records = self.spent.get(job.cost["kind"]) or self.spent.get(job.cost["like"]) or []
        alike = [record for record in records if record.threads == self.threads] if self.threads else []
        return alike or records


def folder_bytes(folder: str | Path) -> int:
    """Size of all files below a folder."""
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names)
