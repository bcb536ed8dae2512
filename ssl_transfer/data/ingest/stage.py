"""Ingest: files of a real archive go in, an immutable image store comes out.

A source scans headers and promises images; labels are joined and splits checked on that promise; then each file is
decoded once, fitted to the store's form and written. What could not be taken is listed in the card.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ssl_transfer import __version__
from ssl_transfer.console import say
from ssl_transfer.data.ingest.filling import fill_store
from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.readers.dicom import DicomReader
from ssl_transfer.data.readers.images import ImagesReader
from ssl_transfer.data.readers.matching import IMAGE_SUFFIXES, VOLUME_SUFFIXES, suffix
from ssl_transfer.data.readers.nifti import NiftiReader
from ssl_transfer.data.readers.npz import NpzReader
from ssl_transfer.data.readers.reader import Reader, walk
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import SourceError, UsageError
from ssl_transfer.run import Artifact

READERS: dict[str, type[Reader]] = {
    "dicom": DicomReader,
    "nifti": NiftiReader,
    "images": ImagesReader,
    "npz": NpzReader,
}
TAKES = {  # which of ingest's options a source reads
    "dicom": ("modality", "masks", "mask_names", "workers"),
    "nifti": ("domain", "axis", "masks", "mask_names"),
    "images": ("masks", "mask_names"),
    "npz": ("domain", "mask_names"),
}
PHANTOM = "phantom:"


def ingest(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    format: str = "auto",
    labels: str | os.PathLike | None = None,
    label_key: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    modality: str | None = None,
    domain: str | None = None,
    masks: str | os.PathLike | None = None,
    mask_names: str | None = None,
    axis: str = "axial",
    compress: bool = False,
    resplit: bool = False,
    split_shares: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    max_refused: float = 0.05,
    workers: int | None = None,
) -> ImageStore:
    """Turn files into a store.

    Args:
        source: A folder or file, or `phantom:NAME…`.
        out: Folder of the store. If a store of the same inputs is there already, it is returned as it is.
        format: `dicom`, `nifti`, `images`, `npz`, or `auto`: what most files are.
        labels: CSV whose columns are joined to the images.
        label_key: Its key column: `patient`, `series` or `file`.
        size: Side of the images in pixels; None for the most common shape. Aspect is kept, the rest is padded.
        channels: 1 or 3; None for 3 only if all images are colour.
        modality: DICOM: keep this one only.
        domain: Such as `ct/thorax`; None for what the source says.
        masks: Label volumes or mask images: a file, a folder, or a pattern (see `sources.matching`).
        mask_names: Names of mask values: a JSON file, or `liver,lesion`.
        axis: NIfTI: `axial`, `coronal` or `sagittal` slices.
        compress: Write blosc2 frames in place of plain `.npy` shards.
        resplit: Draw splits even if the source brings some.
        split_shares: Of train, val and test, in patients.
        seed: Of the splits.
        max_refused: Share of unreadable files above which ingest fails.
        workers: Processes for decoding; None for one per core, at most 16.

    Returns:
        The store, opened.

    Raises:
        UsageError: If an option is wrong, or `out` holds something else.
        SourceError: If there is no image, or too many files are unreadable.
        LabelError: If the CSV does not fit the source.
        SplitError: If the source's own splits share patients.
    """
    options = Options(
        format,
        None if labels is None else str(labels),
        label_key,
        size,
        channels,
        modality,
        domain,
        None if masks is None else str(masks),
        None if mask_names is None else str(mask_names),
        axis,
        compress,
        resplit,
        tuple(split_shares),
        seed,
        max_refused,
        workers,
    )
    source, out = str(source), Path(out)
    if not source.startswith(PHANTOM) and not Path(source).exists():
        raise SourceError(f"{source}: no such file or folder. Give a folder of images, a file, or phantom:NAME.")
    if Path(source).resolve() in out.resolve().parents:
        raise UsageError(f"--out {out}: lies inside the source {source}. Choose a folder outside of it.")
    inputs = _inputs_digest(source, options)
    if Artifact(inputs, out, "card.json", id_key="inputs", noun="a store of inputs").is_finished():
        return ImageStore(out)
    if not source.startswith(PHANTOM):
        return _ingest_files(Path(source), out, options, source, inputs)
    from ssl_transfer.data.readers.phantom.generate import expand

    with tempfile.TemporaryDirectory(prefix="ssl_transfer_phantom_") as folder:
        say(f"{source}: writing its files …")
        expanded = expand(source, Path(folder))
        if options.labels is not None:
            expanded.pop("label_key", None)  # it belongs to the phantom's own CSV
        root = Path(expanded.pop("source"))
        expanded = {name: str(value) if isinstance(value, Path) else value for name, value in expanded.items()}
        chosen = Options(**(expanded | options.given()))
        return _ingest_files(root, out, chosen, source, inputs)


def _ingest_files(root: Path, out: Path, options: Options, source: str, inputs: str) -> ImageStore:
    reader, warnings = _open_reader(root, options)
    return fill_store(root, reader, out, options, source=source, inputs=inputs, warnings=warnings)


def _inputs_digest(source: str, options: Options) -> str:
    """Hash what decides about the store: options, and name, size and time of every file that is read."""
    decisive = asdict(options)
    for name in ("workers", "max_refused"):
        decisive.pop(name)
    digest = hashlib.blake2b(json.dumps(decisive, sort_keys=True).encode(), digest_size=16)
    if source.startswith(PHANTOM):
        digest.update(f"{source}|{__version__}".encode())
    for path in (source, options.labels, options.masks, options.mask_names):
        if path is not None and os.path.exists(path):
            for file, found in walk(Path(path)):
                status = found.stat()
                digest.update(f"{file}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def detect_format(root: Path) -> tuple[str, list[str]]:
    """Tell what most files at `root` are; ties go to DICOM, then NIfTI, then images.

    Returns:
        The format, and a warning for each other kind that lies there too.

    Raises:
        SourceError: If no file is of a known kind.
    """
    counts: Counter = Counter()
    for _, path in walk(root):
        ending = suffix(path.name)
        if ending in VOLUME_SUFFIXES:
            counts["nifti"] += 1
        elif ending in IMAGE_SUFFIXES:
            counts["images"] += 1
        elif ending == ".npz":
            counts["npz"] += 1
        elif ending in (".dcm", ".dicom", ".ima") or _starts_like_dicom(path):
            counts["dicom"] += 1
    if not counts:
        raise SourceError(f"{root}: holds no DICOM, NIfTI, PNG, JPEG, TIFF, BMP or .npz file. Say --format if it does.")
    chosen = max(READERS, key=lambda name: counts[name])
    others = [f"{counts[name]} {name} file(s)" for name in READERS if counts[name] and name != chosen]
    if chosen == "npz" and root.is_dir():
        raise SourceError(f"{root}: holds .npz files; give one of them, for example {next(root.rglob('*.npz'))}.")
    return chosen, [f"read as {chosen}; beside that there are {', '.join(others)}"] if others else []


def _starts_like_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or start[:2] == b"\x08\x00"  # with the preamble, or straight at group 0008


def _open_reader(root: Path, options: Options) -> tuple[Reader, list[str]]:
    """The reader that `format` or the files name. Options that it has no use for are refused."""
    name, notes = (options.format, []) if options.format != "auto" else detect_format(root)
    if name == "npz" and root.is_dir():
        raise SourceError(f"{root}: it is a folder; --format npz reads one file.")
    for option in ("modality", "masks", "axis"):
        if option in options.given() and option not in TAKES[name]:
            raise UsageError(f"--{option} {getattr(options, option)}: means nothing for {name} files. Leave it out.")
    if options.mask_names is not None and options.masks is None and name != "npz":
        raise UsageError(f"--mask-names {options.mask_names}: there are no --masks whose values it could name.")
    return READERS[name](root, **{option: getattr(options, option) for option in TAKES[name]}), notes
