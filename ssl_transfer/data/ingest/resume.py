"""Going on with an ingest that was interrupted: the writer of its store, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from ssl_transfer.console import say
from ssl_transfer.data.ingest.fit import Fit
from ssl_transfer.data.ingest.progress import Pace, Progress
from ssl_transfer.data.ingest.space import check_space
from ssl_transfer.data.partial import NOTHING_KEPT, PartialStore
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.errors import Interrupted
from ssl_transfer.writing import writes


class Recorder:
    """Records the progress of an ingest from time to time.

    Args:
        partial: Folder of the store that is being written.
        writer: Writes its images.
        progress: How far it has come.
        files: Number of files.
    """

    def __init__(self, partial: PartialStore, writer: StoreWriter, progress: Progress, files: int):
        self.partial, self.writer, self.progress, self.files = partial, writer, progress, files
        self._pace = Pace()
        self._tell()

    def done(self, item: int) -> None:
        """State that an item is done, with all images before it."""
        self.progress.items = item + 1
        if self._pace.is_due():
            self.record()

    def all_done(self) -> None:
        """State that all items are done; recorded if the ingest has been long enough for other records."""
        if self.progress.images:
            self.record()

    def record(self) -> None:
        """Write all images to the disk, and record them."""
        began = time.monotonic()
        self.progress.images, self.progress.batches = self.writer.flush()
        self.progress.save(self.partial.folder)
        self._pace.took(time.monotonic() - began)
        self._tell()

    def _tell(self) -> None:
        if self.progress.images:
            self.partial.kept = f"{self._counted} are kept; the same command goes on from there."

    @property
    def _counted(self) -> str:
        return f"{self.progress.items:,} of {self.files:,} files are done and"

    def interrupted(self, interruption: Interrupted) -> Interrupted:
        """Record the progress, and say how to go on."""
        self.record()
        text = f"{self.partial.out}: stopped. {self.partial.kept or 'Nothing was kept.'}"
        return Interrupted(text, *getattr(interruption, "args", ())[1:])


@contextmanager
def resumed(
    partial: PartialStore, begin: Progress, fit: Fit, *, compress: bool, images: int, files: int
) -> Iterator[tuple[StoreWriter, Recorder]]:
    """Open the writer of a store, behind the last record of an ingest of the same inputs.

    Args:
        partial: Folder of the store that is being written, entered.
        begin: The progress of an ingest that begins.
        fit: Form of the store.
        compress: The `--compress` option.
        images: Number of images, by the headers.
        files: Number of files.

    Raises:
        OutputError: If the disk has no room for the images.
    """
    progress = Progress.load(partial, begin)
    masks = 0 if fit.mask_dtype is None else np.dtype(fit.mask_dtype).itemsize
    image_bytes = fit.size[0] * fit.size[1] * (fit.channels * fit.dtype.itemsize + masks)
    written = progress.images
    check_space(partial.folder, partial.out, images, image_bytes, compress=compress, written=written)
    with ExitStack() as stack:
        try:
            writer = stack.enter_context(_writer(partial, fit, compress, progress))
        except (ValueError, FileNotFoundError):  # the record is newer than its files: they did not reach the disk
            progress = begin
            writer = stack.enter_context(_writer(partial, fit, compress, progress))
        if progress.images:
            say(f"{partial.out}: going on after {progress.items:,} of {files:,} files")
        try:
            yield writer, Recorder(partial, writer, progress, files)
        except Exception:
            with writes(partial.out, partial.kept or NOTHING_KEPT):  # a full disk is one sentence
                raise


def _writer(partial: PartialStore, fit: Fit, compress: bool, progress: Progress) -> StoreWriter:
    form = ((fit.channels, *fit.size), fit.dtype, fit.mask_dtype, compress)
    return StoreWriter(partial.out, *form, partial=partial, start=(progress.images, progress.batches))
