"""Ingest in parts, for archives that need a cluster.

Every part reads all headers, so that all parts decide alike, and the pixels of its share of the files. Merging joins them and
decides what needs all images: copies, splits, classes, and the id, which is that of an ingest in one piece.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from ssl_transfer.console import say, tracked
from ssl_transfer.data.digests import FINGERPRINTS
from ssl_transfer.data.image_files import fingerprint_reader
from ssl_transfer.data.ingest.appending import ITEM, Written, append_items, copy_of, repeated_uids
from ssl_transfer.data.ingest.filling import Plan, finish_store, prepare
from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.ingest.progress import WRITER, Progress, other_writer
from ssl_transfer.data.ingest.resume import resumed
from ssl_transfer.data.ingest.stage import DEFAULTS, inputs_digest, opened, store_of
from ssl_transfer.data.partial import NOTHING_KEPT, PartialStore, partial_folder, parts_of
from ssl_transfer.data.readers.items import stored_in
from ssl_transfer.data.readers.reader import Reader
from ssl_transfer.data.readers.workers import shared_workers
from ssl_transfer.data.rows import RowBatches
from ssl_transfer.data.shards import ShardReader
from ssl_transfer.data.store import ImageStore, StoreWriter
from ssl_transfer.errors import StoreError, UsageError
from ssl_transfer.run import read_json, write_json
from ssl_transfer.writing import writes

DONE = "done.json"


def ingest_part(source: str | os.PathLike, out: str | os.PathLike, part: str, **settings: Any) -> dict[str, Any]:
    """Read one part of a source, into a folder beside the store.

    Args:
        source, out: As for `ingest`.
        part: Number and count of the parts, such as 3/64; numbers begin with 1.
        settings: Options of `ingest`, the same for all parts; `workers` may differ.

    Returns:
        `part`, `parts`, `folder`, `files`, `images`, and `refused` (files of this part that cannot be read).

    Raises:
        UsageError: If `part` is wrong, or there are parts of other inputs.
        SourceError, LabelError, SplitError, OutputError, Interrupted: As for `ingest`.
    """
    options = Options.of(DEFAULTS, settings)
    source, out = str(source), Path(out)
    number, count = _numbers(part)
    inputs = inputs_digest(source, options)
    folder = partial_folder(out) / f"part-{number}-of-{count}"
    if store_of(inputs, out):
        return {"part": number, "parts": count, "folder": str(out)}
    for other in parts_of(out):
        _check_same(other, count, inputs)
    if (folder / DONE).exists():
        say(f"{folder}: already there.")
        return _summary(folder, number, count)
    with writes(out, NOTHING_KEPT):
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        partial = stack.enter_context(PartialStore(folder))
        stack.enter_context(stored_in(partial.folder))
        stack.enter_context(shared_workers(options.workers))
        root, reader, chosen, warnings = stack.enter_context(opened(source, options))
        plan = prepare(
            root,
            reader,
            chosen,
            source=source,
            warnings=warnings,
            measured=lambda files: range(*_share(files, number, count)),
        )
        _write_part(partial, plan, reader, chosen, Progress(inputs), number, count)
    return _summary(folder, number, count)


def _write_part(
    partial: PartialStore, plan: Plan, reader: Reader, options: Options, start: Progress, number: int, count: int
) -> None:
    """Write the images of a part, its rows, and the record that it is done."""
    items = plan.scan.items
    begin, end = _share(len(items), number, count)
    start.items = begin
    images = sum(items[position].n_images for position in range(begin, end))
    opening = resumed(partial, start, plan.fit, compress=options.compress, images=images, files=len(items))
    with opening as (writer, recorder):
        append_items(writer, reader, plan.scan, plan.fit, plan.names, recorder, end=end, is_part=True)
        recorder.record()
        writer.close()
        for path in partial.folder.glob("rows-*.parquet"):
            path.rename(partial.store / path.name)
        record = {"inputs": start.inputs, "files": end - begin, "progress": asdict(recorder.progress)}
        write_json(partial.store / DONE, record)
        partial.publish()


def _share(files: int, number: int, count: int) -> tuple[int, int]:
    """Position of the first file of a part, and of the first one behind it."""
    return files * (number - 1) // count, files * number // count


def merge_parts(source: str | os.PathLike, out: str | os.PathLike, **settings: Any) -> ImageStore:
    """Join the parts of a source to a store.

    Args:
        source, out, settings: As for the parts.

    Returns:
        The store, opened. The parts are deleted.

    Raises:
        UsageError: If parts are missing, or are of other options or files.
        SourceError: If too many files are unreadable.
        OutputError: If the disk is full; the parts are kept.
    """
    options = Options.of(DEFAULTS, settings)
    source, out = str(source), Path(out)
    inputs = inputs_digest(source, options)
    if store := store_of(inputs, out):
        return store
    folders = _all_parts(out, inputs)
    with PartialStore(out) as partial, stored_in(partial.folder), shared_workers(options.workers):
        with opened(source, options) as (root, reader, chosen, warnings):
            plan = prepare(root, reader, chosen, source=source, warnings=warnings, measured=lambda files: range(0))
            partial.remove_images()
            images = sum(item.n_images for item in plan.scan.items)
            opening = resumed(partial, Progress(inputs), plan.fit, compress=chosen.compress, images=images, files=0)
            with opening as (writer, recorder):
                repeated = repeated_uids(plan.scan.items)
                for folder in tracked(folders, "merging parts", len(folders)):
                    _append_part(writer, plan, folder, recorder.progress, repeated)
                store = finish_store(root, plan, writer, chosen, recorder.progress, source=source)
        partial.remove_parts()
    return store


def _append_part(writer: StoreWriter, plan: Plan, folder: Path, progress: Progress, repeated: frozenset[str]) -> None:
    """Append the images of a part that are no copies of earlier ones."""
    record = read_json(folder / DONE) or {}
    part = Progress.of(record.get("progress", {}))
    if part is None:
        raise StoreError(f"{folder / DONE}: is damaged. Delete {folder} and ingest this part again.")
    for position, images in _files_of(writer, folder, part):
        item = plan.scan.items[position]
        if (first := copy_of(item, position, images, repeated, progress.seen)) is not None:
            progress.copies.append((position, first))
            continue
        for image, columns, mask, digests in images:
            writer.append(image, columns, mask, digests)
            progress.add_replaced(position, columns.get("non_finite") or 0)
    progress.refused += part.refused
    progress.mask_values = sorted({*progress.mask_values, *part.mask_values})


def _files_of(writer: StoreWriter, folder: Path, part: Progress) -> Iterator[tuple[int, list[Written]]]:
    """The files of a part: position among the items, and images with their rows, masks and digests."""
    pixels = ShardReader(folder, "pixels", writer.shape, writer.dtype, writer.images_per_shard[0], writer.compress)
    masks = None
    if writer.mask_dtype is not None:
        shape, per_shard = writer.shape[1:], writer.images_per_shard[1]
        masks = ShardReader(folder, "masks", shape, writer.mask_dtype, per_shard, writer.compress)
    number, fingerprints = 0, fingerprint_reader(folder)
    for position, rows in groupby(RowBatches(folder, part.batches), key=lambda row: row.pop(ITEM)):
        images: list[Written] = []
        for row in rows:
            digests = {name: row.pop(name) for name in ("pixel_digest", "mask_digest") if name in row}
            mask = None if masks is None else masks.read([number])[0]
            row[FINGERPRINTS] = fingerprints.read([number])[0]
            images.append((pixels.read([number])[0], row, mask, digests))
            number += 1
        yield position, images


def _all_parts(out: Path, inputs: str) -> list[Path]:
    """The folders of all parts, in order; all are done, and of the same inputs."""
    found = parts_of(out)
    if not found:
        raise UsageError(f"--merge: there are no parts of {out}. Make them first: --part 1/64, --part 2/64, …")
    count = int(found[0].name.rsplit("-", 1)[1])
    for folder in found:
        _check_same(folder, count, inputs)
    folders = [partial_folder(out) / f"part-{number}-of-{count}" for number in range(1, count + 1)]
    missing = [f"{number}/{count}" for number, folder in enumerate(folders, 1) if not (folder / DONE).exists()]
    if missing:
        listed = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise UsageError(f"--merge: {len(missing)} of {count} parts are not done: {listed}. Ingest each with --part.")
    return folders


def _check_same(folder: Path, count: int, inputs: str) -> None:
    """Refuse parts of another count or of other inputs."""
    found = int(folder.name.rsplit("-", 1)[1])
    if found != count:
        raise UsageError(
            f"--part: {count} parts, but there are parts of {found}. Delete {folder.parent} to divide anew."
        )
    record = read_json(folder / DONE) or {}
    if record and record.get("inputs") != inputs:
        raise UsageError(
            f"{folder}: was made with other options, or files have changed since. Give all parts the same options, or delete "
            f"{folder.parent} to begin anew."
        )
    if (progress := record.get("progress")) and progress.get("writer") != WRITER:
        raise UsageError(
            f"{folder}: was made by {other_writer(progress)}, but this is {WRITER}. Make all parts and merge them with one "
            f"release, or delete {folder.parent} to begin anew."
        )


def _numbers(part: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"--part {part}: expected a number and a count, such as 3/64, from 1/64 to 64/64.")
    return number, count


def _summary(folder: Path, number: int, count: int) -> dict[str, Any]:
    record = read_json(folder / DONE) or {}
    progress = record.get("progress", {})
    return {
        "part": number,
        "parts": count,
        "folder": str(folder),
        "files": record.get("files"),
        "images": progress.get("images"),
        "refused": len(progress.get("refused", [])),
    }
