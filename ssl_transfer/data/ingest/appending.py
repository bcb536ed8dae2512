"""Reading of the items of a source, and appending of their images to a store or a part of one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import closing

import numpy as np

from ssl_transfer.data.ingest.decoding import Decoding, Written
from ssl_transfer.data.ingest.fit import Fit
from ssl_transfer.data.ingest.pseudonyms import Pseudonyms
from ssl_transfer.data.ingest.resume import Recorder
from ssl_transfer.data.ingest.sampling import is_native, pixel_bytes
from ssl_transfer.data.readers.items import Share
from ssl_transfer.data.readers.reader import Item, Reader, Refusal, Scan
from ssl_transfer.data.readers.workers import freed_memory_kept, ordered
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.errors import Interrupted

ITEM = "item_position"  # column of the rows of a part, which tells files apart


def append_items(
    writer: StoreWriter,
    reader: Reader,
    scan: Scan,
    fit: Fit,
    names: Pseudonyms,
    recorder: Recorder,
    *,
    workers: int | None = None,
    end: int | None = None,
    is_part: bool = False,
) -> None:
    """Append the images of every item that can be read, behind those that are there; note the others in the progress.

    Args:
        writer: Appends images.
        reader: Reads items.
        scan: The items.
        fit: Form of the store.
        names: Pseudonyms of what identifies persons.
        recorder: Records the progress.
        workers: Number of worker processes.
        end: Position behind the last item; None: all items.
        is_part: Whether copies are kept and rows have the position of their item, so that copies are found later.

    Raises:
        Interrupted: If a signal stops it; the progress is recorded.
    """
    progress, items = recorder.progress, scan.items
    repeated = frozenset() if is_part else repeated_uids(items)
    answers = ordered(
        Decoding(reader, fit),
        Share(items, len(items) if end is None else end),
        "reading images",
        workers,
        fail=_failed,
        pixel_bytes=pixel_bytes,
        native=is_native,
        worth_workers=reader.worth_workers,
        start=progress.items,
    )
    try:
        with closing(answers), freed_memory_kept():
            for position, answer in enumerate(answers, progress.items):
                item = items[position]
                if isinstance(answer, str):
                    reason = names.reason(Refusal(item.file, "unreadable", answer, item.row), item.path)
                    progress.refused.append((position, reason))
                elif (first := copy_of(item, position, answer, repeated, progress.seen)) is not None:
                    progress.copies.append((position, first))
                else:
                    row = names.row(item.row) | {"file": names.file(item.file)} | ({ITEM: position} if is_part else {})
                    for image, columns, mask, digests in answer:
                        writer.append(image, row | names.row(columns), mask, digests)
                        progress.add_replaced(position, columns.get("non_finite") or 0)
                        if mask is not None:
                            progress.add_mask(mask)
                recorder.done(position)
        recorder.all_done()
    except Interrupted as interruption:
        raise recorder.interrupted(interruption) from None


def repeated_uids(items: Iterable[Item]) -> frozenset[str]:
    """Ids that several items have. Memory: eight bytes an item."""
    hashes = np.fromiter((hash(item.uid) for item in items if item.uid), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    several = set(values[counts > 1].tolist())
    if not several:
        return frozenset()
    counted = Counter(item.uid for item in items if item.uid and hash(item.uid) in several)
    return frozenset(uid for uid, count in counted.items() if count > 1)


def copy_of(
    item: Item, position: int, images: list[Written], repeated: Collection[str], seen: dict[str, int]
) -> int | None:
    """Position of the earlier file that a file is a copy of; None if it is none.

    Args:
        item: The file.
        position: Its position among the items.
        images: Its images.
        repeated: Ids that several items have.
        seen: Position of the first file of each id and pixels; this one is entered.
    """
    if item.uid not in repeated:
        return None
    content = "|".join([str(item.uid), *(digests["pixel_digest"] for *_, digests in images)])
    first = seen.setdefault(hashlib.blake2b(content.encode(), digest_size=16).hexdigest(), position)
    return None if first == position else first


def _failed(item: Item, reason: str) -> str:
    return reason
