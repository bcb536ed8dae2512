"""The record of a study's looks, `looks.json` in its folder: what was looked at when, at which level, and where it stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from ssl_transfer.errors import UsageError
from ssl_transfer.recipe import digest
from ssl_transfer.records import damage, validated
from ssl_transfer.run import read_json, write_json
from ssl_transfer.study.plan import Plan

if TYPE_CHECKING:
    from ssl_transfer.study.statistics import Decision

SCHEMA = 1
FILE = "looks.json"
AGAIN = "Put back a copy of the file; without it, looks that were taken would be taken again."
VALUES = ("level", "level_tost", "difference", "ci_low", "ci_high", "confidence", "p_value", "p_tost")


def read_looks(folder: str | Path) -> dict[str, Any]:
    """The record of a study's folder: `looks` (a row per contrast and look), `stopped` (None while seeds are still added).

    Raises:
        UsageError: If the record is damaged: without it, the looks that were taken would be forgotten.
    """
    path = Path(folder) / FILE
    content = read_json(path)
    if content is None and not path.exists():
        return {"looks": [], "stopped": None}
    if content is None or content.get("schema") != SCHEMA:
        found = damage(path) or f"schema {(content or {}).get('schema')}, expected {SCHEMA}"
        raise UsageError(f"{path}: {found}. {AGAIN}")
    return asdict(validated(_Looks, content, path, UsageError, AGAIN))


def _is_look(row: dict[str, Any]) -> dict[str, Any]:
    if missing := [key for key in ("contrast", "look", "time") if key not in row]:
        raise ValueError(f"a look without {missing[0]}")
    return row


@dataclass
class _Stopped:
    """Where a study stopped."""

    time: str
    at: list[dict[str, Any]]
    not_needed: dict[str, list[int]]


@dataclass
class _Looks:
    """The keys of `looks.json`."""

    looks: list[Annotated[dict[str, Any], AfterValidator(_is_look)]]
    stopped: _Stopped | None


def has_looks(plan: Plan) -> bool:
    """Whether a study is run look by look."""
    return bool(plan.recipe["statistics"].get("looks"))


def write_looks(plan: Plan, decisions: Sequence[Decision], not_needed: dict[str, list[int]] | None) -> None:
    """Add the looks that are new to the record, and whether the study stops.

    Looks that are recorded keep the date and the values of the day on which they were taken.

    Args:
        plan: The plan of the study.
        decisions: The gate and the primary contrasts.
        not_needed: Arm -> pretraining seeds that are not needed, once no more seeds are added; None: before.
    """
    content = read_looks(plan.folder)
    before = {(row["contrast"], row["look"]) for row in content["looks"]}
    rows = [row for decision in decisions for row in _rows(decision) if (row["contrast"], row["look"]) not in before]
    stopped = content["stopped"]
    if not_needed is None:
        stopped = None
    elif stopped is None or stopped["not_needed"] != not_needed or rows:
        stopped = {"time": now(), "at": [_end(decision) for decision in decisions], "not_needed": not_needed}
    if rows or stopped != content["stopped"]:
        plan.folder.mkdir(parents=True, exist_ok=True)
        content = {"schema": SCHEMA, "kind": "looks", "looks": [*content["looks"], *rows], "stopped": stopped}
        write_json(plan.folder / FILE, content)


def _rows(decision: Decision) -> Iterable[dict[str, Any]]:
    """A row for every look of a contrast."""
    contrast = decision.contrast
    for number, look in enumerate(decision.looks, 1):
        decided = decision.at == number - 1 and decision.found
        yield {
            "time": now(),
            "contrast": digest(vars(contrast)),
            "family": decision.family,
            "a": contrast.name_a,
            "b": contrast.name_b,
            "protocol": contrast.protocol,
            "metric": contrast.metric,
            "look": number,
            "of": len(decision.planned_looks),
            "seeds": look.planned,
            "n": [look.n_a, look.n_b],
            "verdict": decision.ungated if decided else "not decided",
            **{name: _finite(getattr(look, name)) for name in VALUES},
        }


def _end(decision: Decision) -> dict[str, Any]:
    """Where a contrast stands when the study stops."""
    return {
        "family": decision.family,
        "a": decision.contrast.name_a,
        "b": decision.contrast.name_b,
        "verdict": decision.verdict,
        "look": None if decision.at is None else decision.at + 1,
        "of": len(decision.planned_looks),
        "seeds": decision.look and decision.look.planned,
        "level": decision.look and _finite(decision.look.decides_at),
        "reason": decision.reason,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def not_needed_jobs(plan: Plan) -> set[str]:
    """Ids of jobs that the study does not need any more, because it stopped before their pretraining seeds.

    A job that another arm still needs, such as the parent of a chain, is needed.
    """
    stopped = read_looks(plan.folder)["stopped"]
    if stopped is None:
        return set()
    seeds = {arm: set(of_arm) for arm, of_arm in stopped["not_needed"].items()}
    needed: set[str] = set()
    for job in reversed(plan.jobs):  # each before those that it depends on
        ends = bool(job.runs) or job.stage == "rank"
        if job.id in needed or (ends and job.about["seed"] not in seeds.get(job.about["arm"], ())):
            needed |= {job.id, *job.inputs}
    return {job.id for job in plan.jobs} - needed


def stop_sentence(folder: str | Path) -> str:
    """Where a study stopped, in words; empty if it did not."""
    stopped = read_looks(folder)["stopped"]
    if stopped is None:
        return ""
    parts = []
    for end in stopped["at"]:
        name = f"{end['a']} against {end['b']} ({end['family']})"
        if end["look"] is None:
            parts.append(f"{name}: no look, its runs failed")
            continue
        where = f"at look {end['look']} of {end['of']} ({end['seeds']} seeds, level {end['level']:.2g})"
        parts.append(f"{name}: {end['verdict']} {where}" + (f"; {end['reason']}" if end["reason"] else ""))
    unused = sorted({seed for seeds in stopped["not_needed"].values() for seed in seeds})
    saved = f" Pretraining seeds {', '.join(map(str, unused))} were not needed in all arms." if unused else ""
    return f"Stopped on {stopped['time'][:10]}. {'. '.join(parts)}.{saved}"


def now() -> str:
    """The time in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
