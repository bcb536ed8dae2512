"""The decisions of ingest as a table, for `ingest --check` and `inspect`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ssl_transfer.cli.text import as_lines

MOST_CLASSES = 20  # that are listed
RULES = {
    "hu": "Hounsfield units",
    "window": "VOI window",
    "bits": "stored bits",
    "percentile": "0.5 and 99.5 percentile",
    "display": "8-bit grey as displayed",
    "colour": "colour",
    "palette": "palette colour",
}
UNITS = {
    "hu": "in HU",
    "display": "as displayed, 0 to 255",
    "rgb": "RGB, 0 to 255",
    "stored": "values as in the files, one range",
    "scaled": "several ranges; the range of each image becomes 0 to 10000",
}


def store_text(summary: dict[str, Any]) -> str:
    """The summary of a store, its decisions as a table."""
    decided = summary.get("decisions")
    rest = as_lines({name: value for name, value in summary.items() if name != "decisions"})
    return f"{rest}\ndecisions:\n{decisions_text(decided)}" if decided else rest


def decisions_text(decided: dict[str, Any]) -> str:
    """The field `decisions` of a store's card as lines: a subject, what was decided, and details below it."""
    blocks = {
        "files": [_files(decided["files"])],
        "series": _series(decided["series"]),
        "intensity": _intensity(decided["intensity"]),
        "size": _size(decided["size"]),
        "channels": [_channels(decided["channels"])],
        "classes": _classes(decided["classes"]),
        "patients": [_subjects(decided["subjects"])],
        "splits": _splits(decided["splits"]),
        "duplicates": _duplicates(decided),
    }
    width = max(map(len, blocks))
    return "\n".join(
        f"{subject if number == 0 else '':{width}}  {line}".rstrip()
        for subject, lines in blocks.items()
        for number, line in enumerate(lines)
    )


def _files(files: dict[str, Any]) -> str:
    refused = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in files["refused"].items())
    return f"{_count(files['files'], 'file')}, {_count(files['images'], 'image')}; refused: {refused or 'none'}"


def _series(series: dict[str, Any] | None) -> list[str]:
    if series is None:
        return ["none stated"]
    slices, spacing = series["slices"], series["spacing_mm"]
    number = _count(slices["most"], "slice")
    if slices["fewest"] != slices["most"]:
        number = f"{slices['fewest']} to {number} (median {slices['median']})"
    lines = [f"{series['series']:,} series, {_count(series['volumes'], 'volume')} of {number}"]
    if spacing:
        lines.append(f"distance of slices {_span(spacing['smallest'], spacing['largest'])} mm")
    for name, what in (("uneven", "with uneven distances"), ("repeated_positions", "with repeated positions")):
        if series[name]:
            lines.append(f"{_count(series[name], 'volume')} {what}")
    return lines


def _intensity(intensity: dict[str, Any]) -> list[str]:
    rows = [
        (str(RULES.get(rule["rule"], rule["rule"])), f"{rule['images']:,}", _ranges(rule))
        for rule in intensity["rules"]
    ]
    return [f"{intensity['units']}: {UNITS[intensity['units']]}", *_aligned(("rule", "images", "become 0 and 1"), rows)]


def _ranges(rule: dict[str, Any]) -> str:
    if rule["rule"] == "hu":
        return "the window of a recipe"
    if rule["lowest"] is None:
        return f"measured in the pixels, {_count(rule['ranges'], 'range')}"
    if rule["ranges"] == 1:
        return f"{rule['lowest']:g} and {rule['highest']:g}"
    return f"{rule['ranges']:,} ranges within {rule['lowest']:g} to {rule['highest']:g}"


def _size(size: dict[str, Any]) -> list[str]:
    rows = [(_shape(shape["size"]), f"{shape['images']:,}") for shape in size["shapes"]]
    first = f"{_shape(size['size'])} px; {_count(size['resampled'], 'image')} resampled or padded"
    if len(rows) == 1:
        return [first if not size["resampled"] else f"{first} from {rows[0][0]}"]
    more = [f"  and {_count(size['other_shapes'], 'other shape')}"] if size["other_shapes"] else []
    return [first, *_aligned(("shape", "images"), rows), *more]


def _channels(channels: dict[str, Any]) -> str:
    return (
        f"{channels['channels']} (of {_count(channels['grey_images'], 'grey image')}, {channels['colour_images']:,} in colour), "
        f"{channels['dtype']}"
    )


def _classes(classes: dict[str, Any]) -> list[str]:
    counts = classes["classes"]
    if not counts:
        return ["no labels"]
    most = sorted(counts.items(), key=lambda entry: (-entry[1]["images"], entry[0]))[:MOST_CLASSES]
    rows = [
        (label, f"{n['images']:,}", "unknown" if n["patients"] is None else f"{n['patients']:,}") for label, n in most
    ]
    unlabelled = f"; {_count(classes['unlabelled'], 'image')} without a label" if classes["unlabelled"] else ""
    lines = [f"{len(counts):,}{unlabelled}"]
    lines += _aligned(("class", "images", "patients"), rows)
    if len(counts) > MOST_CLASSES:
        lines.append(f"  and {len(counts) - MOST_CLASSES:,} rarer classes")
    if classes["tiny"]:
        lines.append(f"  too small for three splits: {', '.join(classes['tiny'][:MOST_CLASSES])}")
    return lines


def _subjects(subjects: dict[str, Any]) -> str:
    unknown, split_by = subjects["images_without_patient"], subjects["split_by"]
    known = f"{subjects['patients']:,} ({subjects['known_by']})" if subjects["patients"] else "unknown"
    missing = f"; unknown for {_count(unknown, 'image')}" if unknown and subjects["patients"] else ""
    return f"{known}{missing}; " + ("splits of the source" if split_by == "source" else f"splits by {split_by}")


def _splits(splits: dict[str, Any] | None) -> list[str]:
    if splits is None:
        return ["by image: drawn when pixels are known, so that identical images are in one split"]
    rows = [
        (name, f"{n['images']:,}", "unknown" if n["patients"] is None else f"{n['patients']:,}")
        for name, n in splits.items()
    ]
    return list(_aligned(("split", "images", "patients"), rows))


def _duplicates(decided: dict[str, Any]) -> list[str]:
    """Files with a repeated SOPInstanceUID, and images with identical pixels, which only the card of a store counts."""
    lines = []
    if decided["series"] is not None:
        lines.append(f"{_count(decided['repeated_uids'], 'file')} with the SOPInstanceUID of another")
    elif "duplicates" not in decided:
        lines.append("counted when pixels are known")
    if "duplicates" in decided:
        lines.append(f"{_count(decided['duplicates']['images'], 'image')} with the pixels of another")
    return lines


def _aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows as lines of columns, numbers to the right."""
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    numbers = [all(row[column].replace(",", "").isdigit() for row in table[1:]) for column in range(len(head))]
    for row in table:
        cells = (
            f"{cell:>{width}}" if right else f"{cell:{width}}"
            for cell, width, right in zip(row, widths, numbers, strict=True)
        )
        yield f"  {'   '.join(cells)}".rstrip()


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _shape(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
