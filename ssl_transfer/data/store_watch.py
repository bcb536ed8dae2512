"""Notices that a store was replaced while a stage read it: its results would be of no store at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ssl_transfer.data.images import Images
from ssl_transfer.errors import StoreError
from ssl_transfer.run import read_json

Signature = tuple[int, int, int] | None  # of a card: inode, time of the last change, bytes


class StoreWatch:
    """Watches the cards of stores.

    Args:
        stores: The stores, as they were opened.
    """

    def __init__(self, stores: Iterable[Images]):
        self._ids = {Path(store.path): store.card.id for store in stores}
        self._signatures = {path: _signature(path) for path in self._ids}

    def check(self) -> None:
        """Raise an error if a store is not the one that was opened.

        Raises:
            StoreError: If a store is missing, or has another id.
        """
        for path, opened in self._ids.items():
            if (signature := _signature(path)) == self._signatures[path]:
                continue
            found = (read_json(path / "card.json") or {}).get("id")
            if found != opened:
                raise StoreError(
                    f"{path}: was replaced while it was read: it was {opened}, and is {found or 'gone'} now. What was read "
                    "since is not saved. Put the former store back and repeat the command, or give the new one another --out."
                )
            self._signatures[path] = signature


def _signature(path: Path) -> Signature:
    try:
        status = (path / "card.json").stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
