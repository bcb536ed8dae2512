"""Label tables: a CSV is joined to the images of a source by patient, series or file, before ids are hashed."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ssl_transfer.data.readers.reader import Item, Refusal
from ssl_transfer.data.store import SPLITS
from ssl_transfer.errors import LabelError, nearest

KEYS = ("patient", "series", "file")
RESERVED = ("slice", "study", "pixel_digest", "mask_digest")


@dataclass(frozen=True)
class LabelTable:
    """The content of a CSV.

    Attributes:
        path: Path of the CSV.
        key: Name of the key column.
        columns: Names of the other columns.
        rows: Line number and values by column (None if empty), for each key.
    """

    path: Path
    key: str
    columns: list[str]
    rows: dict[str, tuple[int, dict]]


def read_labels(path, key: str | None = None) -> LabelTable:
    """Read a label CSV (comma, semicolon or tab).

    Args:
        path: The file; its header has a key column and other columns.
        key: `patient`, `series` or `file`; None: `file` if the header has it, otherwise the key column that the header has.

    Raises:
        LabelError: If the file or its key column is missing, or a key is empty or repeated.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"--labels {path}: cannot be read ({error}). Expected a CSV in UTF-8.") from None
    delimiter = max(",;\t", key=lambda mark: lines[0].count(mark)) if lines else ","
    reader = csv.DictReader(lines, delimiter=delimiter)
    header = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = header
    key = _key(path, header, key)
    columns = [name for name in header if name and name != key]
    if not columns:
        raise LabelError(f"{path}: only the column '{key}'. Add a column 'label', or others to join.")
    if set(columns) & set(RESERVED):
        raise LabelError(f"{path}: column '{(set(columns) & set(RESERVED)).pop()}' is reserved for ingest. Rename it.")
    rows: dict[str, tuple[int, dict]] = {}
    for record in reader:
        value = (record[key] or "").strip()
        if not value:
            raise LabelError(f"{path} line {reader.line_num}: the {key} is empty. Fill it in or remove the line.")
        if value in rows:
            raise LabelError(
                f"{path} line {reader.line_num}: {key} '{value}' was given in line {rows[value][0]} already. "
                "Keep one of them."
            )
        rows[value] = reader.line_num, {name: (record[name] or "").strip() or None for name in columns}
    return LabelTable(path, key, columns, _typed(path, columns, rows))


def _key(path: Path, header: list[str], key: str | None) -> str:
    if key is None:
        present = ["file"] if "file" in header else [name for name in KEYS if name in header]
        if len(present) != 1:
            names = ", ".join(present) or "none"
            raise LabelError(
                f"{path}: of the columns patient, series and file it has {names}. Name one with --label-key."
            )
        return present[0]
    if key not in KEYS:
        raise LabelError(f"--label-key {key}: expected one of {', '.join(KEYS)}.")
    if key not in header:
        raise LabelError(f"{path}: no column '{key}', which --label-key names.{nearest(key, header)}")
    return key


def _typed(path: Path, columns: list[str], rows: dict) -> dict:
    """Convert columns of numbers to numbers; label, patient and split remain text."""
    for name in columns:
        if name == "split":
            _check_splits(path, rows)
        if name in ("label", "patient", "split", "series", "file"):
            continue
        values = [row[name] for _, row in rows.values() if row[name] is not None]
        for kind in (int, float):
            try:
                for value in values:
                    kind(value)
            except ValueError:
                continue
            for _, row in rows.values():
                row[name] = None if row[name] is None else kind(row[name])
            break
    return rows


def _check_splits(path: Path, rows: dict) -> None:
    for line, row in rows.values():
        row["split"] = {"valid": "val", "validation": "val"}.get(row["split"], row["split"])
        if row["split"] not in (*SPLITS, None):
            raise LabelError(f"{path} line {line}: split '{row['split']}'; expected {', '.join(SPLITS)}.")


def join_labels(items: Iterable[Item], refused: Iterable[Refusal], table: LabelTable) -> list[str]:
    """Add the columns of a table to the rows of `items`, in place.

    For images that are not in the table, these columns are null. Keys of `file` are paths below the source, or base names that no
    other file has.

    Args:
        items: Items of the source.
        refused: Refused files, which may also occur in the table.
        table: The label table.

    Returns:
        Warnings for the card.

    Raises:
        LabelError: If the table has a key that the source does not contain.
    """
    items = list(items)
    keys = _keys(items, table)
    available = set(keys) - {None}
    available |= {refusal.file if table.key == "file" else refusal.row.get(table.key) for refusal in refused}
    available |= {str(key).rsplit("/", 1)[-1] for key in available if key} if table.key == "file" else set()
    for value, (line, _) in table.rows.items():
        if value not in available:
            example = next((str(key) for key in sorted(map(str, available - {None}))), "none")
            unknown = sum(key not in available for key in table.rows)
            raise LabelError(
                f"{table.path} line {line}: {table.key} '{value}' is not in the source ({unknown} such lines; "
                f"the source has {len(set(keys) - {None})}, for example '{example}'). Remove the line or correct it."
            )
    empty = dict.fromkeys(table.columns)
    unnamed = unlabelled = 0
    for item, key in zip(items, keys, strict=True):
        _, values = (0, empty) if key is None else table.rows.get(key, (0, empty))
        unnamed += key not in table.rows
        unlabelled += "label" in table.columns and values["label"] is None
        kept = {name: value for name, value in values.items() if value is not None or name not in ("patient", "series")}
        item.row |= kept
    warnings = (
        [f"{unnamed} of {len(items)} files are not in {table.path.name}: its columns are empty for them"]
        if unnamed
        else []
    )
    if unlabelled > unnamed:
        warnings.append(f"{unlabelled} of {len(items)} files have no label in {table.path.name}")
    return warnings


def _keys(items: list[Item], table: LabelTable) -> list[str | None]:
    """The key of each item in the table; for files the path, or the base name where the table has only that."""
    if table.key != "file":
        return [None if item.row.get(table.key) is None else str(item.row[table.key]) for item in items]
    by_base: dict[str, list[str]] = defaultdict(list)
    for item in items:
        by_base[item.file.rsplit("/", 1)[-1]].append(item.file)
    keys = []
    for item in items:
        base = item.file.rsplit("/", 1)[-1]
        named_by_base = item.file not in table.rows and base in table.rows
        if named_by_base and len(by_base[base]) > 1:
            line = table.rows[base][0]
            raise LabelError(
                f"{table.path} line {line}: file '{base}' could be {by_base[base][0]} or {by_base[base][1]}. "
                "Give the path below the source."
            )
        keys.append(base if named_by_base else item.file)
    return keys
