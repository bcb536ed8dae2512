"""The subgroups of a result as lines of text."""

from __future__ import annotations

from typing import Any


def subgroup_lines(subgroups: dict[str, Any] | None) -> list[str]:
    """The score of every group, the gap between the best and the worst one, and what such a gap is by chance."""
    if not subgroups:
        return []
    from ssl_transfer.data.subgroups import NOT_STATED
    from ssl_transfer.measures.metrics import METRICS

    columns, metric = subgroups["columns"], METRICS[subgroups["metric"]].title
    lines = [line for name, column in columns.items() for line in _column(name, column, metric)]
    groups = [group for column in columns.values() for group in column["groups"]]
    compared = sum("metrics" in group and group["value"] != NOT_STATED for group in groups)
    if compared > 2:
        lines.append(
            f"  {compared} groups were compared: the worst of many is low by chance alone, so read gaps beside those by chance"
        )
    return lines


def _column(name: str, column: dict[str, Any], metric: str) -> list[str]:
    lines = [f"  {metric} by {name}:", *map(_group, column["groups"])]
    if column["left_out"]:
        lines.append(f"    and {column['left_out']} smaller groups")
    if column["gap"] is None:
        return [*lines, "    no gap: fewer than two groups have a score"]
    gap = f"    gap {column['gap']:.4f}{_interval(column['gap_interval'])}: worst {column['worst']}, best {column['best']}"
    if column["gap_by_chance"] is not None:
        gap += f"; by chance up to {column['gap_by_chance']:.4f} (p {column['p']:.3f})"
    return [*lines, gap]


def _group(group: dict[str, Any]) -> str:
    size = f"{_number(group['cases'], 'case')} of {_number(group['patients'], 'patient')}"
    if "reason" in group:
        return f"    {group['value']}: {size}; no score: {group['reason']}"
    without = f", without {', '.join(group['without'])}" if "without" in group else ""
    return f"    {group['value']}: {group['score']:.4f}{_interval(group['interval'])}, {size}{without}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _interval(interval: list[float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"
