"""The steps of ingest: scan, join labels, check splits, then read, fit and write every image, and write the card."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ssl_transfer.console import say, warn
from ssl_transfer.data.ingest.appending import append_items
from ssl_transfer.data.ingest.classes import stratify_columns
from ssl_transfer.data.ingest.decisions import decisions
from ssl_transfer.data.ingest.duplicates import find_duplicates
from ssl_transfer.data.ingest.fit import Fit, choose_fit
from ssl_transfer.data.ingest.image_rows import Groups, ImageRows
from ssl_transfer.data.ingest.labels import LabelTable, join_labels, read_labels
from ssl_transfer.data.ingest.opening import scan_source
from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.ingest.patients import complete_patients
from ssl_transfer.data.ingest.persons import (
    folders_as_labels,
    open_pseudonyms,
    person_warnings,
    refused_items,
    stored_refusals,
    stored_source,
)
from ssl_transfer.data.ingest.progress import Progress
from ssl_transfer.data.ingest.pseudonyms import Pseudonyms, key_digest
from ssl_transfer.data.ingest.ranges import Ranges, choose_ranges
from ssl_transfer.data.ingest.resume import resumed
from ssl_transfer.data.ingest.splitting import choose_splits, small_classes, split_unit
from ssl_transfer.data.partial import PartialStore
from ssl_transfer.data.readers.finite import replaced_note
from ssl_transfer.data.readers.reader import Item, Reader, Refusal, Scan, shown
from ssl_transfer.data.splits import shared_groups
from ssl_transfer.data.store import ImageStore, StoreWriter
from ssl_transfer.domains import Domain
from ssl_transfer.errors import SourceError, SplitError
from ssl_transfer.texts import Values

EXPECTED = ("patient", "study", "series", "label", "split")  # columns from which splits and classes are counted
FORMING = (
    "range",
    "range_per",
    "axis",
    "modality",
    "max_megapixels",
)  # options that new images of the same kind are read with, too
NAMED_IDS = 64  # with more mask values, these are instances, not classes


@dataclass(frozen=True)
class Plan:
    """What is decided about a source before its images are written.

    Attributes:
        scan: Its items, with labels joined and intensity ranges in their rows.
        fit: Form of the store.
        ranges: Intensity ranges.
        domain: Of the images.
        keeps_splits: Whether the splits of the source are kept.
        names: Pseudonyms of what identifies persons.
        warnings: For the user.
        split_warnings: Those about splits and classes, as far as they are known before pixels are.
        decisions: For the card and for `ingest --check`; see `decisions`.
    """

    scan: Scan
    fit: Fit
    ranges: Ranges
    domain: Domain
    keeps_splits: bool
    names: Pseudonyms
    warnings: list[str]
    split_warnings: list[str]
    decisions: dict[str, Any]


def prepare(
    root: Path,
    reader: Reader,
    options: Options,
    *,
    source: str,
    warnings: list[str],
    measured: Callable[[int], range] | None = range,
) -> Plan:
    """Scan a source, join labels, and decide everything that can be decided before images are written.

    Args:
        root: File or folder that the reader reads, for messages.
        reader: Finds and reads the files.
        options: Options of `ingest`.
        source: The source as given by the user.
        warnings: Warnings so far.
        measured: Positions of the items whose intensity ranges by percentile are measured; see `choose_ranges`.

    Raises:
        SourceError, LabelError, SplitError: See `ingest`.
    """
    table = _label_table(options)
    scan = scan_source(root, reader, options)
    if table is not None:
        labels = os.path.realpath(table.path)
        scan.refused = [refusal for refusal in scan.refused if os.path.realpath(root / refusal.file) != labels]
    _check_refused(root, scan.refused, len(scan.items), options.max_refused)
    warnings = warnings + scan.warnings
    if table is not None:
        warnings += join_labels(scan.items, scan.refused, table, options.max_unmatched)
    names_patients, table = table is not None and "patient" in table.columns, None  # it takes 70 bytes a row
    warnings += complete_patients(scan)
    domain = Domain.parse(options.domain or scan.domain)
    if domain.open_modality:
        warnings = [*warnings, domain.open_modality]
    if note := folders_as_labels(scan, options):
        say(note)
    names = open_pseudonyms(root, scan, options)
    warnings += person_warnings(scan, names, options, source)
    keeps_splits = _check_source_splits(root, scan.items, options)
    fit = choose_fit(scan.items, scan.units, options.size, options.channels, scan.mask_dtype)
    ranges = choose_ranges(
        scan,
        reader,
        options.range,
        channels=fit.channels,
        per=options.range_per,
        workers=options.workers,
        measured=measured,
    )
    fit = fit.in_range(ranges)
    stratify = stratify_columns(options.stratify, (item.row for item in scan.items))
    rows = ImageRows.expected(scan.items, (*EXPECTED, *stratify), names)
    unit, notes = split_unit(rows)
    splits, split_by = None, unit
    if keeps_splits or unit != "image":
        splits, split_by, notes = choose_splits(rows, Groups(rows), options, keeps_splits)
        notes += small_classes(rows, Groups(rows), splits, split_by, options) if unit != "image" else []
    known_by = _known_by(scan, reader, options, names_patients=names_patients)
    decided = decisions(scan, fit, ranges, rows, splits=splits, split_by=split_by, known_by=known_by)
    decided["options"] = {name: value for name, value in options.given.items() if name in FORMING}
    return Plan(scan, fit, ranges, domain, keeps_splits, names, [*warnings, *ranges.warnings], notes, decided)


def _known_by(scan: Scan, reader: Reader, options: Options, *, names_patients: bool) -> str | None:
    """How patients are known, such as by a label table that names them; None if all are unknown."""
    if options.patient_from:
        return f"--patient-from {options.patient_from}"
    if names_patients:
        return "label table"
    known = next((item for item in scan.items if item.row.get("patient")), None)
    if known is None:
        return None
    if "study" in known.row:
        return "header"
    if scan.patient_per_file and known.row["patient"] == known.row.get("series"):
        return "each file counts as a patient"
    return "file names" if reader.reads_folders else "the archive"


def fill_store(
    root: Path,
    reader: Reader,
    partial: PartialStore,
    options: Options,
    *,
    source: str,
    inputs: str,
    warnings: list[str],
) -> ImageStore:
    """Write the files that a reader finds into a store.

    Args:
        root: File or folder that the reader reads, for messages.
        reader: Finds and reads the files.
        partial: Folder of the store that is being written; an ingest of the same inputs that was interrupted goes on from it.
        options: Options of `ingest`.
        source: The source as given by the user, for the card.
        inputs: Digest of the inputs, for the card.
        warnings: Warnings for the card; those of this function are appended.

    Returns:
        The store, opened.

    Raises:
        SourceError, LabelError, SplitError, OutputError, Interrupted: See `ingest`.
    """
    plan = prepare(root, reader, options, source=source, warnings=warnings)
    images, files = sum(item.n_images for item in plan.scan.items), len(plan.scan.items)
    opening = resumed(partial, Progress(inputs), plan.fit, compress=options.compress, images=images, files=files)
    with opening as (writer, recorder):
        append_items(writer, reader, plan.scan, plan.fit, plan.names, recorder, workers=options.workers)
        return finish_store(root, plan, writer, options, recorder.progress, source=source)


def finish_store(
    root: Path, plan: Plan, writer: StoreWriter, options: Options, progress: Progress, *, source: str
) -> ImageStore:
    """Decide what needs all images (splits, classes, duplicates), and write rows and card.

    Args:
        root: File or folder that was read, for messages.
        plan: What was decided before.
        writer: Has all images.
        options: Options of `ingest`.
        progress: What was found while images were read.
        source: The source as given by the user, for the card.

    Returns:
        The store, opened.

    Raises:
        SourceError: If too many files are unreadable.
    """
    scan, names, warnings = plan.scan, plan.names, list(plan.warnings)
    n_files = len(scan.items) + _unreadable(scan)
    scan.refused += refused_items(scan.items, progress, names)
    _check_refused(root, scan.refused, n_files - _unreadable(scan), options.max_refused)
    stratify = stratify_columns(options.stratify, (item.row for item in scan.items))
    rows = ImageRows.written(writer.rows, (*EXPECTED, *stratify))
    groups = Groups(rows, writer.rows)
    splits, split_by, split_warnings = choose_splits(rows, groups, options, plan.keeps_splits)
    duplicate_warnings, duplicates = find_duplicates(writer, rows, splits, scan.items, names)
    mask_classes, mask_warnings = _mask_classes(scan.mask_classes, set(progress.mask_values) - {scan.mask_ignore})
    warnings += split_warnings + duplicate_warnings + small_classes(rows, groups, splits, split_by, options)
    warnings += mask_warnings + replaced_note(progress.replaced_by_file(scan.items))
    store = writer.finish(
        splits,
        units=plan.ranges.units,
        domain=str(plan.domain),
        classes=_classes(scan.classes, rows),
        mask_classes=mask_classes,
        mask_ignore=scan.mask_ignore,
        refused=stored_refusals(scan, names),
        warnings=names.warnings(warnings, chain(scan.items, scan.refused)),
        split_by=split_by,
        split_seed=None if split_by == "source" else options.seed,
        source=stored_source(source, names),
        inputs=progress.inputs,
        value_range=plan.ranges.value_range,
        decisions=plan.decisions | ({"duplicates": duplicates} if duplicates else {}),
        patient_key=key_digest(),
    )
    for warning in warnings:
        warn(shown(warning))
    store.warnings = [shown(warning) for warning in warnings]
    store.refused = [{"file": r.file, "kind": r.kind, "reason": shown(r.reason)} for r in scan.refused]
    return store


def _unreadable(scan: Scan) -> int:
    return sum(refusal.kind == "unreadable" for refusal in scan.refused)


def _check_refused(root: Path, refused: list[Refusal], taken: int, most: float) -> None:
    """Fail if too many files are unreadable, or if no image is left."""
    unreadable = [refusal for refusal in refused if refusal.kind == "unreadable"]
    share = len(unreadable) / max(1, len(unreadable) + taken)
    if share > most:
        examples = "".join(f"\n  {r.file}: {shown(r.reason)}" for r in unreadable[:5])
        raise SourceError(
            f"{root}: {len(unreadable)} of {len(unreadable) + taken} image files ({share:.1%}) cannot be read, "
            f"more than {most:.1%}. Repair them, or raise --max-refused. The first ones:{examples}"
        )
    if not taken:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(r.kind for r in refused).items())
        examples = "".join(f"\n  {r.file}: {shown(r.reason)}" for r in refused[:3])
        raise SourceError(f"{root}: no image to ingest (files refused: {kinds or 'none'}).{examples}")


def _check_source_splits(root: Path, items: Sequence[Item], options: Options) -> bool:
    """Whether the splits of the source are kept, because every image has one; otherwise splits are drawn.

    Raises:
        SplitError: If only some images have a split, a patient has images in several splits, or splits are to be stratified that
            are kept, or by a column that there is not.
    """
    splits = Values(item.row.get("split") for item in items)
    stratify_columns(options.stratify, (item.row for item in items))
    if options.resplit or not any(splits.distinct):
        return False
    if options.stratify is not None:
        raise SplitError(f"--stratify {options.stratify}: the source has splits, which are kept. Add --resplit.")
    if not all(splits.distinct):
        raise SplitError(
            f"{root}: {sum(not s for s in splits)} of {len(splits)} images have no split, but the others have one. "
            "Assign a split to every image, or ingest with --resplit."
        )
    shared = shared_groups((item.row.get("patient") for item in items), splits)
    if shared:
        patient, where = shared[0]
        raise SplitError(
            f"{root}: patient {patient} has images in both {' and '.join(where)} ({len(shared)} such patients). "
            "Splits must be patient-disjoint; ingest again with --resplit."
        )
    return True


def _label_table(options: Options) -> LabelTable | None:
    """The label CSV, if there is one."""
    if options.labels is None:
        return None
    return read_labels(
        options.labels,
        options.label_key,
        file_column=options.file_column,
        patient_column=options.patient_column,
        label_column=options.label_column,
        missing=options.missing,
    )


def _classes(ordered: list[str] | None, rows: ImageRows) -> list[str] | None:
    """Label names in the order of the source, or sorted if it has none; None without labels."""
    seen = rows.labels()
    if not seen:
        return None
    return ordered if ordered and seen <= set(ordered) else sorted(seen)


def _mask_classes(names: dict[int, str], seen: set[int]) -> tuple[dict[int, str], list[str]]:
    """Names of mask values, and warnings. Without any names, values are named by their number, unless there are too many."""
    unnamed = sorted(seen - set(names))
    if not names:
        return ({value: str(value) for value in unnamed} if len(unnamed) <= NAMED_IDS else {}), []
    if not unnamed:
        return names, []
    return names, [f"mask values without a name: {', '.join(map(str, unnamed[:10]))}"]
