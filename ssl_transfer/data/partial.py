"""The folder of a store that is being written: `.NAME.partial` beside it, which one process has at a time.

It has the files of the store in `store/`, and what an interrupted ingest goes on with: rows and progress, which name nobody.
Headers that do not fit into memory are in a file without a name in it, which the system deletes with the process. Only its owner
may read the folder.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from ssl_transfer.errors import OutputError, SslTransferError
from ssl_transfer.writing import locked, writes

PROGRESS = "progress.json"  # how far an ingest has come
NOTHING_KEPT = "Nothing was kept."


class PartialStore:
    """Use it as a context manager: it is locked within the block, and deleted at its end, unless an ingest can go on from it.

    Args:
        out: Folder of the store.

    Attributes:
        folder: The folder, which exists within the block.
        store: Folder of the store's files in it.
        kept: What is kept if the block is interrupted, for the message; empty: everything is deleted.
    """

    def __init__(self, out: Path):
        self.out = out
        self.folder = partial_folder(out)
        self.store = self.folder / "store"
        self.kept = ""

    def __enter__(self) -> PartialStore:
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out}: this is not a folder. Give another --out.")
        self._stack = ExitStack()
        self._stack.enter_context(locked(self.out))
        try:
            with writes(self.out, f"{NOTHING_KEPT} Give another --out."):
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *exception: object) -> None:
        wrong_input = kind is not None and issubclass(kind, SslTransferError) and not issubclass(kind, OutputError)
        if kind is None or wrong_input or not self.kept:
            self.clear()
        self._stack.close()

    def clear(self) -> None:
        """Delete the folder, but not the parts of an ingest on a cluster."""
        if parts_of(self.out):
            self.remove_images()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def remove_parts(self) -> None:
        """Delete the parts of an ingest on a cluster."""
        for folder in parts_of(self.out):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_images(self) -> None:
        """Delete the images and rows of an ingest that cannot go on, and the record of its progress."""
        (self.folder / PROGRESS).unlink(missing_ok=True)
        shutil.rmtree(self.store, ignore_errors=True)
        for path in self.folder.glob("rows-*.parquet"):
            path.unlink()

    def publish(self) -> None:
        """Move the files of the store to its folder."""
        with writes(self.out, self.kept or NOTHING_KEPT):
            self.store.rename(self.out)


def parts_of(out: Path) -> list[Path]:
    """Folders of the parts of a store that are done."""
    return sorted(partial_folder(out).glob("part-*-of-*"))


def partial_folder(out: Path) -> Path:
    """The folder of a store that is being written."""
    return out.parent / f".{out.name}.partial"
