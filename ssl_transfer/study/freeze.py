"""The frozen design of a study: its digest and date, `frozen.json` in its folder, and what was changed since."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssl_transfer.console import warn
from ssl_transfer.errors import UsageError
from ssl_transfer.recipe import digest, read_yaml
from ssl_transfer.records import Count, damage, validated
from ssl_transfer.run import read_json, write_json
from ssl_transfer.study.look_record import now
from ssl_transfer.study.plan import Plan

SCHEMA = 1
FILE = "frozen.json"
AGAIN = "Put back a copy of the file, or delete it: the report then says that the design was not frozen."
LEFT_OUT = ("sources", "resources", "notes")  # where files lie, where and how long jobs run, and words on the page
CHANGES_SHOWN = 12


def design(plan: Plan) -> dict[str, Any]:
    """The design of a study: its resolved recipe, its task cards, and the recipe of each arm; words and paths left out."""
    recipe = {key: value for key, value in plan.recipe.items() if key not in LEFT_OUT}
    recipe["statistics"] = _without_words(recipe["statistics"])
    return {**recipe, "task_cards": plan.tasks, "pretraining_recipes": dict(_pretrainings(plan))}


def _without_words(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """The declared contrasts with what they expect, without the words of the claims that they test."""

    def declared(contrast: Any) -> Any:
        left_out = ("claim", "published", *(() if contrast.get("expect") else ("expect",)))  # older designs have none
        return {key: value for key, value in contrast.items() if key not in left_out}

    gate, primary = statistics["gate"], statistics["primary"]
    return {
        **statistics,
        "gate": declared(gate) if isinstance(gate, Mapping) else gate,
        "primary": primary and [declared(contrast) for contrast in primary],
    }


def _pretrainings(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Arm -> its resolved recipe without seed and paths, which a folder's name would change."""
    arms: set[str] = set()
    for job in plan.jobs:
        if job.stage == "pretrain" and job.about["arm"] not in arms and Path(job.words[1]).is_file():
            arms.add(job.about["arm"])
            content = read_yaml(Path(job.words[1]))
            train = {key: value for key, value in content["train"].items() if key != "seed"}
            data = {key: value for key, value in content["data"].items() if key not in ("store", "mix")}
            backbone = {key: value for key, value in content["backbone"].items() if key != "init"}
            yield job.about["arm"], {**content, "train": train, "data": data, "backbone": backbone}


def freeze(plan: Plan) -> dict[str, Any]:
    """Write digest and date of the design; a changed design is added to those before it.

    Returns:
        `study`, `digest`, `time`, `results` (finished runs at that time), `changed` (keys, old and new value, against the
        frozen design before), `frozen` (path).
    """
    versions, present = frozen_versions(plan.folder), design(plan)
    changed = differences(versions[-1]["design"], present) if versions else []
    if not versions or changed:
        version = {"time": now(), "digest": digest(present), "results": _finished(plan), "design": present}
        versions = [*versions, version]
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_json(plan.folder / FILE, {"schema": SCHEMA, "kind": "frozen", "versions": versions})
    last = versions[-1]
    return {
        "study": plan.name,
        **{key: last[key] for key in ("digest", "time", "results")},
        "changed": changed,
        "frozen": str(plan.folder / FILE),
    }


def frozen_versions(folder: str | Path) -> list[dict[str, Any]]:
    """The frozen designs of a study's folder, oldest first: time, digest, results, design.

    Raises:
        UsageError: If `frozen.json` is damaged: without it, the report would call the design not frozen.
    """
    path = Path(folder) / FILE
    content = read_json(path)
    if content is None and not path.exists():
        return []
    if content is None or content.get("schema") != SCHEMA:
        raise UsageError(f"{path}: {damage(path) or 'another schema'}. {AGAIN}")
    versions = [asdict(version) for version in validated(_Frozen, content, path, UsageError, AGAIN).versions]
    for version in versions:
        if digest(version["design"]) != version["digest"]:
            raise UsageError(f"{path}: the design of {version['time'][:10]} was changed after it was frozen. {AGAIN}")
    return versions


@dataclass
class _Version:
    """A frozen design."""

    time: str
    digest: str
    results: Count
    design: dict[str, Any]


@dataclass
class _Frozen:
    """The keys of `frozen.json`."""

    versions: list[_Version]


def _finished(plan: Plan) -> int:
    """Number of finished runs of the study's folder, of former plans too."""
    planned = {run["result"] for run in plan.runs}
    return len(
        {path for path in planned if Path(path).exists()}
        | {str(path) for path in (plan.folder / "evaluate").glob("*/*/result.json")}
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Keys of two designs whose values differ: `key` (dotted), `old` and `new`, None where a design has no such key.

    Designs that an earlier version froze may have keys that are left out today; they are not compared.
    """
    before, after = ({key: value for key, value in each.items() if key not in LEFT_OUT} for each in (old, new))
    return list(_differences(before, after, ""))


def _differences(old: Any, new: Any, key: str) -> Iterator[dict[str, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{key}.{name}" if key else str(name)
            yield from _differences(old.get(name), new.get(name), inner)
    elif old != new:
        yield {"key": key, "old": old, "new": new}


def changes_since_freeze(plan: Plan) -> list[dict[str, Any]]:
    """Changes of the plan's design since it was frozen last; none if it never was."""
    versions = frozen_versions(plan.folder)
    return differences(versions[-1]["design"], design(plan)) if versions else []


def warn_of_changes(plan: Plan) -> None:
    """Print a warning if the design differs from the frozen one."""
    if changed := changes_since_freeze(plan):
        last = frozen_versions(plan.folder)[-1]
        warn(
            f"{plan.folder}: the design was frozen on {last['time'][:10]} and is another one now: {_listed(changed)}. The report "
            f"will say so. `ssl-transfer study freeze {plan.folder}` records the new design with today's date."
        )


def freeze_sentences(plan: Plan) -> list[str]:
    """When the design was frozen and what was changed after results existed; a sentence that says so if it never was."""
    versions = frozen_versions(plan.folder)
    if not versions:
        return ["The design was not frozen before the results."]
    sentences = [f"The design was frozen on {versions[0]['time'][:10]}, {_existed(versions[0]['results'])}."]
    for before, after in itertools.pairwise(versions):
        changed = _listed(differences(before["design"], after["design"]))
        sentences.append(f"It was changed on {after['time'][:10]}, {_existed(after['results'])}: {changed}.")
    if changed := changes_since_freeze(plan):
        sentences.append(f"This report is of a design that differs from the frozen one: {_listed(changed)}.")
    return sentences


def _existed(results: int) -> str:
    return "before any result existed" if not results else f"after {results} results existed"


def _listed(changed: list[dict[str, Any]]) -> str:
    """Changes as text: key: old → new."""
    shown = [
        f"{change['key']}: {_short(change['old'])} → {_short(change['new'])}" for change in changed[:CHANGES_SHOWN]
    ]
    more = len(changed) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _short(value: Any) -> str:
    text = "not there" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
