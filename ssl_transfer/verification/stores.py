"""Checks of a store: every image, mask and file against the checksums in its card."""

from __future__ import annotations

from pathlib import Path

from ssl_transfer.data.store import ImageStore
from ssl_transfer.verification.findings import Findings


def verify_store(folder: Path, findings: Findings) -> None:
    """Check a store.

    Args:
        folder: Folder of the store.
        findings: Collects what is found.
    """
    with findings.reading(folder):
        store = ImageStore(folder)
        problems = store.verify()
        for problem in problems:
            findings.wrong(folder, problem)
        if not problems:
            findings.fine(folder, f"store {store.id}: {len(store):,} images, all files as the card states")
