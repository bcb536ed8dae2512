"""Opening of a source: choice of its reader (the one that `--format` names, or that of most files), and its scan."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.ingest.patients import assign_patients
from ssl_transfer.data.readers.items import Items
from ssl_transfer.data.readers.matching import suffix
from ssl_transfer.data.readers.reader import Reader, Refusal, Scan, refused_entries, walk
from ssl_transfer.data.readers.registry import READERS, reader_options
from ssl_transfer.errors import SourceError, UsageError

HEAD_BYTES = 132  # bytes that are read from files without a known suffix
OWN_OPTIONS = {"domain", "workers"}  # options that `ingest` itself uses, with any reader


def open_reader(root: Path, options: Options) -> tuple[Reader, list[str]]:
    """Create the reader of the files at `root`.

    Returns:
        The reader, and warnings about files of other kinds.

    Raises:
        SourceError: If no file is of a known kind, or if the reader reads a single file and `root` is a folder.
        UsageError: If an option is given that the reader does not use.
    """
    name, warnings = (options.format, []) if options.format != "auto" else detect_format(root)
    if root.is_dir() and not READERS[name].reads_folders:
        raise SourceError(f"{root}: it is a folder; --format {name} reads one file.")
    taken = reader_options(name)
    optional = {option for reader in READERS for option in reader_options(reader)} - OWN_OPTIONS
    for option in sorted(optional & set(options.given) - set(taken)):
        flag = f"--{option.replace('_', '-')} {getattr(options, option)}"
        raise UsageError(f"{flag}: is not an option for {name} files. Leave it out.")
    if options.masks is None and "masks" in taken:
        for option in sorted(option for option in options.given if option.startswith("mask_")):
            flag = f"--{option.replace('_', '-')} {getattr(options, option)}"
            raise UsageError(f"{flag}: there are no --masks, which it is for.")
    return READERS[name](root, **{option: getattr(options, option) for option in taken}), warnings


def scan_source(root: Path, reader: Reader, options: Options) -> Scan:
    """Scan a source: what its reader finds, the entries that cannot be read as files, and the patients that file names give.

    Raises:
        SourceError, UsageError: If the source cannot be read, or `--patient-from` does not fit.
    """
    scan = reader.scan()
    scan.items = Items.of(scan.items)
    files = walk(root)
    listed = {refusal.file for refusal in scan.refused} if files.refused else set()
    scan.refused += [refusal for refusal in files.refused if refusal.file not in listed]
    scan.warnings += refused_entries(files) + assign_patients(scan, options.patient_from)
    return scan


def detect_format(root: Path) -> tuple[str, list[str]]:
    """The kind of most files at `root`, by suffix or else by their first bytes. Of equally frequent kinds, the first in
    `READERS`.

    Returns:
        The format, and warnings about files of other kinds.

    Raises:
        SourceError: If no file is of a known kind, or the files can only be read one by one.
    """
    files = walk(root)
    refused, counts = list(files.refused), Counter[str]()
    for file, path in files:
        try:
            counts.update(filter(None, [_kind(path)]))
        except OSError as error:
            refused.append(Refusal(file, "unreadable", f"it cannot be opened: {error.strerror}"))
    if not counts:
        kinds_known = "; ".join(f"{name} ({' '.join(reader.suffixes)})" for name, reader in READERS.items())
        entries = "".join(f"\n  {entry.file}: {entry.reason}" for entry in refused[:5])
        raise SourceError(
            f"{root}: found no image file of a known kind: {kinds_known}. Use --format if there is one."
            + (f" Not read ({len(refused)}):{entries}" if entries else "")
        )
    chosen = max(READERS, key=lambda name: counts[name])
    others = [f"{counts[name]} {name} file(s)" for name in READERS if counts[name] and name != chosen]
    if root.is_dir() and not READERS[chosen].reads_folders:
        example = next(path for _, path in files if suffix(path.name) in READERS[chosen].suffixes)
        raise SourceError(f"{root}: contains {chosen} files; give one of them, for example {example}.")
    return chosen, [f"read as {chosen}; beside that there are {', '.join(others)}"] if others else []


def _kind(path: Path) -> str | None:
    """The reader of a file, by suffix or first bytes; None if there is none.

    Raises:
        OSError: If its first bytes are needed and cannot be read.
    """
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
