"""Answers of `ssl-transfer study plan --power` and `study extend` as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ssl_transfer.cli.text import as_lines


def study_text(answer: dict[str, Any]) -> str:
    """The answer of any action of `study`, without what is not known."""
    answer = {key: value for key, value in answer.items() if value is not None}
    if "power" in answer:
        rest = {key: value for key, value in answer.items() if key != "power"}
        return f"{as_lines(rest)}\n\n{power_text(answer['power'])}"
    extends = isinstance(answer.get("contrasts"), list)  # a report counts its contrasts
    return extension_text(answer) if extends else as_lines(answer)


def power_text(contrasts: Sequence[dict[str, Any]]) -> str:
    """A table per contrast: its looks, what is expected over them, and the cheapest allocation."""
    return "\n\n".join("\n".join(_power_lines(row)) for row in contrasts) or "no gate and no primary contrast"


def _power_lines(row: dict[str, Any]) -> list[str]:
    title = _title(row)
    if "note" in row:
        return [title, f"  {row['note']}"]
    found, relevant = row["components"], row["relevant"]
    residual = "" if found["residual"] is None else f", residual {_number(found['residual'])}"
    upper = "" if found["unit_sd_upper"] is None else f", 80 % upper limit {_number(found['unit_sd_upper'])}"
    unit = "a trained seed" if "public" in found else "a pair"
    lines = [
        title,
        f"  SD of {unit} {_number(found['unit_sd'])}{upper} (pretraining {_number(found['pretraining'])}{residual}, "
        f"{found['draws']} draws; {found['source']})",
        *_public_lines(found),
    ]
    at = "" if relevant is None else f" at {relevant:g}"
    columns = {
        "look": lambda look: str(look["look"]),
        "seeds": lambda look: str(look["seeds"]),
        "level": lambda look: f"{look['level']:.2g}",
        "detectable": lambda look: _number(look["detectable"]),
        f"power{at}": lambda look: _share(look["power"]),
        f"decided{at}": lambda look: _share(look["decided"]),
        "decided if equal": lambda look: _share(look["decided_if_equal"]),
        "hours so far": lambda look: f"{look['hours']:.3g}",
    }
    if relevant is None:
        columns = {name: of for name, of in columns.items() if name not in ("power", "decided")}
    lines += _table(columns, row["looks"])
    if relevant is not None:
        lines.append(
            f"  expected at {relevant:g}: {row['expected_seeds']:.1f} seeds, {row['expected_hours']:.3g} hours; "
            f"{row['expected_seeds_if_equal']:.1f} seeds if nothing differs"
        )
    if row["allocation"]:
        lines.append(f"  {row['allocation']['sentence']}")
    return lines


def _public_lines(components: dict[str, Any]) -> list[str]:
    if "public" not in components:
        return []
    lines = [
        f"  SD of an evaluation of the public weights {_number(components['public'])}, over {components['public_seeds']} "
        "evaluation seeds: Welch's test; the verdict holds for these weights"
    ]
    return [*lines, *([f"  {components['warning']}"] if components["warning"] else [])]


def extension_text(answer: dict[str, Any]) -> str:
    """A line per contrast, a table of the looks that are left, and the command."""
    lines = []
    for row in answer["contrasts"]:
        lines.append(f"{row['words']}{_status(row['status'])}")
        if "looks" in row:
            lines += _looks_left(row)
    if "command" in answer:
        lines += ["", f"The next look: {answer['command']}"]
    if replication := answer.get("replication"):
        lines += ["", f"{'; '.join(replication['contrasts'])}: {replication['why']}", replication["command"]]
        if needed := replication["seeds_for_80_percent_power_at_relevant"]:
            lines.append(f"80 % power at the relevant difference takes {needed} seeds.")
    return "\n".join(lines) or "no gate and no primary contrast"


def _status(status: str) -> str:
    return {
        "over": ": no look is left",
        "closed": ": the gate is settled and not passed, more seeds cannot change that",
        "waiting": ": waits for its first look",
    }.get(status, "")


def _looks_left(row: dict[str, Any]) -> list[str]:
    columns = {
        "look": lambda look: str(look["look"]),
        "seeds": lambda look: str(look["seeds"]),
        "seeds to add": lambda look: f"{look['seeds_to_add']} per arm",
        "minutes": lambda look: f"{look['minutes_to_add']:.3g}",
        "level": lambda look: f"{look['level']:.2g}",
        f"decided at {row['estimate']:+.3g}": lambda look: _share(look["decided_at_estimate"]),
    }
    if row["relevant"] is not None:
        columns[f"decided at {row['relevant']:g}"] = lambda look: _share(look["decided_at_relevant"])
    expected = (
        f"  expected at the estimate: {row['expected_seeds_at_estimate']:.1f} seeds, "
        f"{row['expected_minutes_at_estimate']:.3g} minutes"
    )
    if row["relevant"] is not None:
        expected += (
            f"; at {row['relevant']:g}: {row['expected_seeds_at_relevant']:.1f} seeds, "
            f"{row['expected_minutes_at_relevant']:.3g} minutes"
        )
    lines = [*_table(columns, row["looks"]), expected]
    if row["seeds_needed"] is not None:
        lines.append(
            f"  a difference of {row['relevant']:g} needs {row['seeds_needed']} pairs, at the level of the last look"
        )
    return lines


def _title(row: dict[str, Any]) -> str:
    fractions = "" if row["fractions"] is None else f", fractions {', '.join(f'{each:g}' for each in row['fractions'])}"
    tasks = f" on {', '.join(row['tasks'])}" if row["tasks"] else ""
    return f"{row['family']}: {row['a']} against {row['b']}{tasks} ({row['protocol']}, {row['metric']}{fractions})"


def _table(columns: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Right-aligned columns."""
    cells = [list(columns), *([of(row) for of in columns.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return ["  " + "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells]


def _number(value: float) -> str:
    return "–" if not math.isfinite(value) else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
