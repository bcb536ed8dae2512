"""Cost of jobs: stated by what they made, recorded for those that ran, estimated from these records for the others."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean as mean
from typing import Any, NamedTuple

from ssl_transfer.cost import Cost
from ssl_transfer.run import read_json
from ssl_transfer.study.plan import Job

LEAST_SHARE = 0.1  # of the units of a job: of shorter ones, the time is not in proportion


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a plan.

    Attributes:
        hours: Sum of the hours of all jobs.
        gpu_hours: Sum over jobs of hours × GPUs.
        disk_gb: Size of their output.
        flops: Floating-point operations of the jobs whose kind has records of them; None: no kind has.
        recorded: Share of the jobs whose kind has records; the others are estimated by the study's `resources`.
    """

    hours: float
    gpu_hours: float
    disk_gb: float
    flops: int | None
    recorded: float


class Spent(NamedTuple):
    """What a job has cost: its units, seconds and FLOPs per unit, bytes, and its number of threads; the last ones if known."""

    units: float
    seconds: float
    bytes: float
    threads: int | None
    flops: float | None


@dataclass
class Costs:
    """Seconds and FLOPs per unit, bytes and number of threads of each kind of job that has a record.

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
            with suppress(AttributeError, KeyError, TypeError):  # of another version, or incomplete: ignored
                same_study = path.parent.parent == Path(folder)
                threads = record.get("threads")  # of records before jobs ran at once: unknown
                known = {"threads": threads, "flops": Cost.of_record(record.get("spent") or {}).flops}
                costs.add(record["cost"], record["seconds"], record["bytes"], same_study=same_study, **known)
        return costs

    def add(
        self,
        cost: Mapping[str, Any],
        seconds: float,
        size: float,
        *,
        same_study: bool = True,
        threads: int | None = None,
        flops: int | None = None,
    ) -> None:
        """Add a finished job; one of the same study also counts for the same work on other arms."""
        units = cost["units"] or 1
        spent = Spent(units, seconds / units, size, threads, None if flops is None else flops / units)
        for name in (cost["kind"], cost["like"]) if same_study else (cost["kind"],):
            self.spent[name].append(spent)

    def seconds(self, job: Job) -> float:
        """Estimated seconds of a job: from records of its kind that are long enough, or from the study's `resources`."""
        records = self._timed(job)
        return mean(record.seconds for record in records) * job.cost["units"] if records else job.cost["seconds"]

    def bytes(self, job: Job) -> float:
        """Estimated bytes on disk, likewise."""
        records = self._records(job)
        return mean(record.bytes for record in records) if records else job.cost["disk_mb"] * 1e6

    def flops(self, job: Job) -> float | None:
        """Estimated floating-point operations from records of its kind; None without one."""
        known = [record.flops for record in self._records(job) if record.flops is not None]
        return mean(known) * job.cost["units"] if known else None

    def estimate(self, jobs: Iterable[Job]) -> Estimate:
        """Estimate several jobs together."""
        jobs = list(jobs)
        seconds = [self.seconds(job) for job in jobs]
        gpu_seconds = sum(time * job.resources["gpus"] for time, job in zip(seconds, jobs, strict=True))
        flops = [count for job in jobs if (count := self.flops(job)) is not None]
        recorded = sum(bool(self._timed(job)) for job in jobs)
        return Estimate(
            round(sum(seconds) / 3600, 2),
            round(gpu_seconds / 3600, 2),
            round(sum(map(self.bytes, jobs)) / 1e9, 2),
            round(sum(flops)) if flops else None,
            round(recorded / max(1, len(jobs)), 2),
        )

    def _timed(self, job: Job) -> list[Spent]:
        """Records that tell the time of a job: of a trial of one epoch, most of it is the start of the process."""
        return [record for record in self._records(job) if record.units >= LEAST_SHARE * (job.cost["units"] or 1)]

    def _records(self, job: Job) -> list[Spent]:
        records = self.spent.get(job.cost["kind"]) or self.spent.get(job.cost["like"]) or []
        alike = [record for record in records if record.threads == self.threads] if self.threads else []
        return alike or records


def job_cost(job: Job, seconds: float) -> Cost:
    """The cost of a job that has just ended: its time, and the images, steps and FLOPs that its output states."""
    stated = sum(map(Cost.of_record, _stated(job)), Cost())
    return stated.lasting(seconds, job.resources["gpus"])


def _stated(job: Job) -> Iterator[Mapping[str, Any]]:
    """Yield the costs that the records of a job's output state; an ingest has no network."""
    output = Path(job.output)
    if job.stage == "pretrain":
        yield (read_json(output / "backbone" / "card.json") or {}).get("training") or {}
    elif job.stage == "tune":
        yield from (read_json(output / "tuning.json") or {}).get("trials", ())
    elif job.stage == "evaluate":
        yield from ((read_json(path) or {}).get("cost") or {} for path in {Path(run["result"]) for run in job.runs})
    elif job.stage != "ingest":
        yield (read_json(output / {"features": "card.json", "rank": "rank.json"}[job.stage]) or {}).get("cost") or {}


def folder_bytes(folder: str | Path) -> int:
    """Size of all files below a folder."""
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names)
