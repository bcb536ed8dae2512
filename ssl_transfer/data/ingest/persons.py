"""Persons in a source: what is hashed in its store, what the user is told about it, and how refusals are stored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ssl_transfer.csv_table import plain_name
from ssl_transfer.data.ingest.identifying import identifying_columns
from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.ingest.progress import Progress
from ssl_transfer.data.ingest.pseudonyms import KEY_VARIABLE, Pseudonyms, file_pseudonym, has_own_key
from ssl_transfer.data.readers.reader import Item, Refusal, Scan, named_file
from ssl_transfer.errors import UsageError, nearest
from ssl_transfer.paths import portable

GENERATED = "phantom:"
MOST_NAMED = 5


def open_pseudonyms(root: Path, scan: Scan, options: Options) -> Pseudonyms:
    """The pseudonyms of a source.

    Raises:
        UsageError: If `--keep-columns` names a column that there is not.
    """
    keep = [name.strip() for name in (options.keep_columns or "").split(",") if name.strip()]
    rows = _Rows(scan.items)
    columns = {name for number in range(0, len(rows), max(1, len(rows) // 1000)) for name in rows[number]}
    for name in keep:
        if name not in columns:
            raise UsageError(f"--keep-columns {options.keep_columns}: no column '{name}'.{nearest(name, columns)}")
    if options.label_column:  # it is stored as it is, as `label`
        keep += [name for name in columns if plain_name(name) == plain_name(options.label_column)]
    files = [path for path in (options.labels, options.masks, options.mask_names) if path]
    others = {name for path in files for name in (str(path), os.path.abspath(path), os.path.basename(str(path)))}
    return Pseudonyms(root, identifying_columns(rows, keep), keep_paths=options.keep_paths, others=others)


class _Rows(Sequence[dict]):
    """The rows of items, one at a time."""

    def __init__(self, items):
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index].row


def person_warnings(scan: Scan, names: Pseudonyms, options: Options, source: str) -> list[str]:
    """What the user should know about persons in a source: a missing key, hashed columns, labels that are folders."""
    warnings = []
    hashed = [name for name in names.columns if name not in ("patient", "study", "series")]
    if hashed:
        warnings.append(
            f"columns that may identify persons are hashed: {', '.join(hashed)}. Equal values stay equal; --keep-columns NAME,… "
            "stores a column as it is"
        )
    hospital = bool(len(scan.items)) and "study" in scan.items[0].row  # as in DICOM headers
    if hospital and not has_own_key() and not source.startswith(GENERATED):
        warnings.append(
            f"{KEY_VARIABLE} is not set: ids are hashed with the key of the package, so short ids can be guessed by trying "
            "all of them. For data of a hospital set a secret, the same for all stores: "
            f'export {KEY_VARIABLE}="$(openssl rand -hex 32)"'
        )
    return warnings


def folders_as_labels(scan: Scan, options: Options) -> str | None:
    """A note that labels are the names of folders, which are stored as they are; None if they are not."""
    labels = {str(item.row["label"]) for item in scan.items if item.row.get("label") is not None}
    if not labels or not all(str(item.row.get("label")) in item.file.split("/")[:-1] for item in scan.items):
        return None
    some = ", ".join(sorted(labels)[:MOST_NAMED]) + (", …" if len(labels) > MOST_NAMED else "")
    advice = "" if options.patient_from else ". If they are persons, name them with --patient-from"
    return f"labels are the names of the folders, stored as they are ({len(labels)}: {some}){advice}"


def refused_items(items: Sequence[Item], progress: Progress, names: Pseudonyms) -> list[Refusal]:
    """The files that were refused while images were read, with the names that the record of the progress lacks."""
    found = [(position, "unreadable", names.revealed(reason, items[position])) for position, reason in progress.refused]
    found += [
        (position, "duplicate", f"the same SOPInstanceUID and pixels as {named_file(items[first].file)}")
        for position, first in progress.copies
    ]
    return [
        Refusal(items[position].file, kind, reason, items[position].row) for position, kind, reason in sorted(found)
    ]


def stored_refusals(scan: Scan, names: Pseudonyms) -> list[dict[str, str]]:
    """Refusals as the card has them: no names of files, and pseudonyms in place of ids."""
    return [
        {"file": names.file(refusal.file), "kind": refusal.kind, "reason": names.reason(refusal)}
        for refusal in sorted(scan.refused, key=lambda refusal: refusal.file)
    ]


def stored_source(source: str, names: Pseudonyms) -> str:
    """The source as the card has it: a phantom, the path with `--keep-paths`, or its hash."""
    if source.startswith(GENERATED):
        return source
    return portable(source) if names.keep_paths else file_pseudonym(source)
