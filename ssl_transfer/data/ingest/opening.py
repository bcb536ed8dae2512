"""Which reader reads a folder: the one that `--format` names, or that of most of its files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.readers.matching import suffix
from ssl_transfer.data.readers.reader import Reader, walk
from ssl_transfer.data.readers.registry import READERS, reader_options
from ssl_transfer.errors import SourceError, UsageError

HEAD_BYTES = 132  # read of a file without a known suffix
OWN_OPTIONS = {"domain", "workers"}  # `ingest` itself has a use for them, whatever the reader


def open_reader(root: Path, options: Options) -> tuple[Reader, list[str]]:
    """Make the reader of the files at `root`.

    Returns:
        The reader, and warnings about files of other kinds.

    Raises:
        SourceError: If no file is of a known kind, or the reader takes a single file and `root` is a folder.
        UsageError: If an option was given that the reader has no use for.
    """
    name, warnings = (options.format, []) if options.format != "auto" else detect_format(root)
    if root.is_dir() and not READERS[name].reads_folders:
        raise SourceError(f"{root}: it is a folder; --format {name} reads one file.")
    taken = reader_options(name)
    optional = {option for reader in READERS for option in reader_options(reader)} - OWN_OPTIONS
    for option in sorted(optional & set(options.given) - set(taken)):
        raise UsageError(f"--{option} {getattr(options, option)}: means nothing for {name} files. Leave it out.")
    if options.mask_names is not None and options.masks is None and "masks" in taken:
        raise UsageError(f"--mask-names {options.mask_names}: there are no --masks whose values it could name.")
    return READERS[name](root, **{option: getattr(options, option) for option in taken}), warnings


def detect_format(root: Path) -> tuple[str, list[str]]:
    """The kind of most files at `root`, by suffix or, without a known one, by their first bytes; ties go to the first reader.

    Returns:
        The format, and a warning for each other kind that is there too.

    Raises:
        SourceError: If no file is of a known kind, or the files can only be read one by one.
    """
    kinds = (_kind(path) for _, path in walk(root))
    counts = Counter(kind for kind in kinds if kind)
    if not counts:
        kinds_known = "; ".join(f"{name} ({' '.join(reader.suffixes)})" for name, reader in READERS.items())
        raise SourceError(f"{root}: holds no image file of a known kind: {kinds_known}. Say --format if it does.")
    chosen = max(READERS, key=lambda name: counts[name])
    others = [f"{counts[name]} {name} file(s)" for name in READERS if counts[name] and name != chosen]
    if root.is_dir() and not READERS[chosen].reads_folders:
        example = next(path for _, path in walk(root) if _kind(path) == chosen)
        raise SourceError(f"{root}: holds {chosen} files; give one of them, for example {example}.")
    return chosen, [f"read as {chosen}; beside that there are {', '.join(others)}"] if others else []


def _kind(path: Path) -> str | None:
    """The reader that a file belongs to; None if no reader knows it."""
    ending = suffix(path.name)
    for name, reader in READERS.items():
        if ending in reader.suffixes:
            return name
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    for name, reader in READERS.items():
        if any(head[offset : offset + len(mark)] == mark for offset, mark in reader.magic):
            return name
    return None
