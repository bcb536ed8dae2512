"""A ranking as text: a table, what to take, and what to know before believing it."""

from __future__ import annotations

from typing import Any

from ssl_transfer.ranking.candidate import NAMES
from ssl_transfer.ranking.verdict import measured_by


def listing(answer: dict[str, Any]) -> str:
    """What `rank` prints for people.

    Args:
        answer: As `rank.json` has it.
    """
    places = {name: place for place, name in enumerate(answer["order"])}
    backbones = sorted(answer["backbones"], key=lambda one: places.get(one["name"], len(places)))
    shown = [name for name in NAMES if any(_value(one, name) is not None for one in backbones)]
    header = ["", "backbone", f"{NAMES[answer['by']]} [95 %]", "first"]
    header += [NAMES[name] for name in shown if name != answer["by"]] + ["seconds"]
    rows = [header]
    for place, one in enumerate(backbones, 1):
        first = (answer["first"] or {}).get(one["name"])
        row = [f"{place}.", one["name"], _with_interval(one, answer["by"]), "–" if first is None else f"{first:.0%}"]
        row += [_number(_value(one, name)) for name in shown if name != answer["by"]]
        rows.append([*row, f"{sum(one['seconds'].values()):.1f}"])
    n = answer["n"]
    patients = "patients unknown" if n["patients"] is None else f"{n['patients']:,} patients"
    of = f"probe and kNN: {answer['metric'].replace('_', ' ')}, cross-validated"
    lines = [f"{answer['task']}: {n['images']:,} images ({patients}) of train and val; {of}", "", *_aligned(rows), ""]
    if answer["agreement"]:
        lines += [f"agreement with {measured_by(answer['by'], answer['metric'])}:", *_aligned(_agreements(answer)), ""]
    lines += [answer["recommendation"], "", "Read with care:", *(f"- {said}" for said in answer["caveats"])]
    lines += ["", f"ranking: {answer['ranking']}"] if "ranking" in answer else []
    return "\n".join(lines)


def _agreements(answer: dict[str, Any]) -> list[list[str]]:
    rows = [["", "criterion", "Pearson", "Spearman", "Kendall", "weighted Kendall", "n"]]
    for name, own in answer["agreement"].items():
        values = [_number(own[key], 2) for key in ("pearson", "spearman", "kendall", "weighted_kendall")]
        rows.append(["", NAMES[name], *values, str(own["n"])])
    return rows


def _value(one: dict[str, Any], criterion: str) -> float | None:
    return one["scores"].get(criterion, one.get(criterion))


def _with_interval(one: dict[str, Any], criterion: str) -> str:
    value, interval = _number(_value(one, criterion)), one["intervals"].get(criterion)
    return f"{value} [{_number(interval[0])}, {_number(interval[1])}]" if interval else value


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.4g}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Columns of text, the first two to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
