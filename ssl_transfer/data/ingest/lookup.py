"""Names of the files of a store: its rows and refusals have hashes, which are computed again from the source."""

from __future__ import annotations

from pathlib import Path

from ssl_transfer.data.ingest.opening import open_reader
from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.ingest.pseudonyms import KEY_VARIABLE, file_pseudonym
from ssl_transfer.data.ingest.stage import DEFAULTS
from ssl_transfer.data.readers.reader import walk
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import SourceError


def file_names(store: ImageStore, source: str | Path) -> dict[str, str]:
    """Find which file of a source each value of the column `file`, and each refused file, stands for.

    Args:
        store: A store that was ingested from the source.
        source: The folder or file that was ingested: paths are hashed as they are below it.

    Returns:
        Stored name -> path below the source, for every file that is still there, sorted by path.

    Raises:
        SourceError: If none of its files belongs to the store: another source, or hashed with another key.
    """
    root = Path(source)
    if not root.exists():
        raise SourceError(f"{source}: no such file or folder. Give the source of the store {store.path}.")
    files = walk(root)
    names = [name for name, _ in files] + [refusal.file for refusal in files.refused]
    if root.is_file():  # of several images, such as an npz
        names += [item.file for item in open_reader(root, Options.of(DEFAULTS, {}))[0].scan().items]
    stored = {*map(str, store.column("file")), *(refusal["file"] for refusal in store.card.refused)}
    found = {file_pseudonym(name): name for name in sorted(set(names))}
    found = {hashed: name for hashed, name in found.items() if hashed in stored}
    if not found:
        raise SourceError(
            f"{source}: none of its {len(names)} files is one of {store.path}. Give the folder that was ingested, and set "
            f"{KEY_VARIABLE} as it was then (with --keep-paths, the store has the names itself)."
        )
    return found
