"""A ranking as text: a table, the recommendation, and its caveats."""

from __future__ import annotations

from pathlib import Path

from ssl_transfer.measures.agreement import COEFFICIENTS
from ssl_transfer.measures.metrics import METRICS
from ssl_transfer.ranking.candidate import criteria, criterion_title
from ssl_transfer.ranking.verdict import measured_by
from ssl_transfer.result import RankedBackbone, Ranking


def as_text(ranking: Ranking, path: str | Path | None = None) -> str:
    """The text that `rank` prints.

    Args:
        ranking: The ranking.
        path: Path of its `rank.json`, to be printed; None: not printed.
    """
    position = {name: number for number, name in enumerate(ranking.order)}
    backbones = sorted(ranking.backbones, key=lambda backbone: position.get(backbone.name, len(position)))
    others = [
        name for name in criteria() if name != ranking.by and any(each.value(name) is not None for each in backbones)
    ]
    header = [
        "",
        "backbone",
        f"{criterion_title(ranking.by)} [95 %]",
        "first",
        *map(criterion_title, others),
        "seconds",
    ]
    rows = [header]
    for number, backbone in enumerate(backbones, 1):
        first = (ranking.first or {}).get(backbone.name)
        row = [
            f"{number}.",
            backbone.name,
            _with_interval(backbone, ranking.by),
            "–" if first is None else f"{first:.0%}",
        ]
        row += [_number(backbone.value(name)) for name in others]
        rows.append([*row, f"{sum(backbone.seconds.values()):.1f}"])
    n = ranking.n
    patients = "patients unknown" if n["patients"] is None else f"{n['patients']:,} patients"
    groups = f"{n['groups']:,} groups of " if n.get("groups") else ""
    measure = f"probe and kNN: {METRICS[ranking.metric].title}, cross-validated"
    lines = [
        f"{ranking.task}: {groups}{n['images']:,} images ({patients}) of train and val; {measure}",
        "",
        *_aligned(rows),
        "",
    ]
    if ranking.agreement:
        lines += [f"correlation with {measured_by(ranking.by, ranking.metric)}:", *_aligned(_agreements(ranking)), ""]
    lines += [ranking.recommendation, "", "Caveats:", *(f"- {caveat}" for caveat in ranking.caveats)]
    lines += ["", f"ranking: {path}"] if path else []
    return "\n".join(lines)


def _agreements(ranking: Ranking) -> list[list[str]]:
    rows = [["", "criterion", "Pearson", "Spearman", "Kendall", "weighted Kendall", "n"]]
    for name, correlations in ranking.agreement.items():
        values = [_number(correlations[key], 2) for key in COEFFICIENTS]
        rows.append(["", criterion_title(name), *values, str(correlations["n"])])
    return rows


def _with_interval(backbone: RankedBackbone, criterion: str) -> str:
    value, interval = _number(backbone.value(criterion)), backbone.intervals.get(criterion)
    return f"{value} [{_number(interval[0])}, {_number(interval[1])}]" if interval else value


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.4g}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first two columns are left-aligned, the others right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
