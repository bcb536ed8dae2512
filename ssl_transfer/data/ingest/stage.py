"""Ingest: read the files of an archive and write an immutable image store.

A reader scans headers and lists the images. Labels are joined and splits are checked on that list. Then each file is decoded
once, converted to the form of the store and written. Files that cannot be read are listed in the card.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from ssl_transfer import __version__
from ssl_transfer.console import say
from ssl_transfer.data.ingest.filling import fill_store
from ssl_transfer.data.ingest.opening import open_reader
from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.ingest.pseudonyms import key_digest
from ssl_transfer.data.partial import PartialStore, parts_of
from ssl_transfer.data.readers.items import stored_in
from ssl_transfer.data.readers.matching import mask_files
from ssl_transfer.data.readers.nifti_file import sidecar
from ssl_transfer.data.readers.reader import Reader, add_states, walk
from ssl_transfer.data.readers.workers import shared_workers
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import SourceError, UsageError
from ssl_transfer.run import Artifact

PHANTOM = "phantom:"
INDIFFERENT = ("workers", "max_refused", "max_unmatched")  # options that do not change a store


def ingest(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    format: str = "auto",
    labels: str | os.PathLike | None = None,
    label_key: Literal["patient", "series", "file"] | None = None,
    file_column: str | None = None,
    patient_column: str | None = None,
    label_column: str | None = None,
    missing: str | None = None,
    max_unmatched: float = 0.1,
    patient_from: str | None = None,
    keep_paths: bool = False,
    keep_columns: str | None = None,
    size: int | None = None,
    channels: Literal[1, 3] | None = None,
    range: Literal["auto", "window", "bits", "percentile"] = "auto",
    range_per: Literal["series", "volume"] = "series",
    modality: str | None = None,
    domain: str | None = None,
    masks: str | os.PathLike | None = None,
    mask_names: str | None = None,
    mask_ignore: str | None = None,
    mask_threshold: float | None = None,
    mask_grid: Literal["affine", "shape"] = "affine",
    max_megapixels: float = 256.0,
    axis: Literal["axial", "coronal", "sagittal"] = "axial",
    compress: bool = False,
    resplit: bool = False,
    split: Sequence[float] = (0.7, 0.15, 0.15),
    stratify: str | None = None,
    seed: int = 0,
    max_refused: float = 0.05,
    workers: int | None = None,
) -> ImageStore:
    """Read files and write them as a store.

    Args:
        source: A folder or file, or `phantom:NAME…`.
        out: Folder of the store. If it has a store of the same inputs already, that store is returned.
        format: Name of a reader: dicom, nifti, images or npz; `auto`: the reader of most of the files.
        labels: CSV file whose columns are joined to the images.
        label_key: What finds the images of a row of the CSV; default: `file` if it has such a column, else patient or series.
        file_column: Column of the CSV with file names; default: the one that is called file, filename, path, image or the like.
        patient_column: Column of the CSV with patients; default: the one that is called patient, subject or the like.
        label_column: Column of the CSV with labels; default: the one that is called label, class, diagnosis, target or the like.
        missing: Words of the CSV that mean that a value is missing, separated by commas; default: NA, N/A, n.a., #N/A, <NA>, NaN,
            NaT, None, null, ?, ., - and --, in upper or lower case (but none is a class). Empty cells are always missing.
        max_unmatched: Largest share of the rows of the CSV that are not in the source; with more, ingest fails.
        patient_from: Part of the path that names the patient, as in {patient}_* or */{patient}/**; default: header, known names.
        keep_paths: Store the paths of files as they are, for sources that name no persons. Otherwise their hashes are stored.
        keep_columns: Columns of the CSV, separated by commas, that are stored as they are although they may hold ids or names.
        size: Height and width of the images in pixels; default: the most common shape. The aspect ratio is kept, by padding.
        channels: Number of channels; default: 3 if all images are colour, otherwise 1.
        range: What becomes 0 and 1 in grey images that are neither HU nor 8-bit: ends of the VOI window, of the stored bits, or
            percentiles 0.5 and 99.5 of the series; auto: window or bits, for MR, PET, NM, NIfTI and floats percentile.
        range_per: What has one range by percentile: a series (or 4-D file), whose time points and b-values then stay comparable,
            or each of its volumes, for files that hold different sequences.
        modality: DICOM modality to keep, for example CT; default: all.
        domain: Domain of the images, for example ct, xray/chest or fluorescence/cell_line; default: that of the source.
        masks: Label volumes or mask images: a file, a folder, or a pattern with the fields {stem}, {parent}, {number}.
        mask_names: Names of mask values: a JSON file such as {"1": "liver"}, or liver,lesion for 1 and 2, or for as many values
            in ascending order.
        mask_ignore: Values of the masks whose pixels are ignored by losses and metrics, such as 255 or 255,-1.
        mask_threshold: Value of the masks from which on a pixel belongs to the class, for smoothed or JPEG masks and
            probabilities; default: values are classes, and such masks are refused.
        mask_grid: NIfTI masks: `affine`: they have to lie where their volume lies, and are reoriented; `shape`: they have the
            voxels of their volume in the order of the file, whatever their affine.
        max_megapixels: Largest size of a picture (PNG, JPEG, TIFF, BMP), in millions of pixels; larger files are refused before
            they are decoded.
        axis: Orientation of the slices of a NIfTI volume.
        compress: Write blosc2 lz4 frames instead of plain `.npy` shards.
        resplit: Draw new splits even if the source has splits.
        split: Shares of the patients in train, val and test.
        stratify: Column, or several separated by commas, whose values get the same shares of the splits; default: label.
        seed: Seed of the splits.
        max_refused: Largest share of unreadable files; with more, ingest fails.
        workers: Number of worker processes that decode; default: one per core, at most 16.

    Returns:
        The store, opened.

    Raises:
        UsageError: If an option is wrong, or `out` contains something else.
        SourceError: If there is no image, or too many files are unreadable.
        LabelError: If the CSV does not fit the source.
        SplitError: If the source's splits share patients.
        OutputError: If `out` cannot be written, the disk is full, or another process writes it.
        Interrupted: If a signal stopped it; the same call goes on from there.
    """
    options = Options.of(DEFAULTS, locals())
    source, out = str(source), Path(out)
    assert_exists(source)
    if Path(source).resolve() in out.resolve().parents:
        raise UsageError(f"--out {out}: lies inside the source {source}. Choose a folder outside of it.")
    inputs = inputs_digest(source, options)
    if store := store_of(inputs, out):
        return store
    if parts := parts_of(out):
        raise UsageError(f"--out {out}: there are parts of it. Join them with --merge, or delete {parts[0].parent}.")
    with PartialStore(out) as partial, stored_in(partial.folder), shared_workers(options.workers):
        if store := store_of(inputs, out):  # of the process that had the lock
            return store
        with opened(source, options) as (root, reader, chosen, warnings):
            return fill_store(root, reader, partial, chosen, source=source, inputs=inputs, warnings=warnings)


def store_of(inputs: str, out: Path) -> ImageStore | None:
    """The store in a folder, if it is one of these inputs; None if there is none.

    Raises:
        UsageError: If the folder contains something else.
    """
    artifact = Artifact(inputs, out, "card.json", id_key="inputs", noun="a store of inputs")
    return ImageStore(out) if artifact.is_finished() else None


def assert_exists(source: str) -> None:
    """Refuse a source that does not exist."""
    if not source.startswith(PHANTOM) and not Path(source).exists():
        raise SourceError(f"{source}: no such file or folder. Give a folder of images, a file, or phantom:NAME.")


@contextmanager
def opened(source: str, options: Options) -> Iterator[tuple[Path, Reader, Options, list[str]]]:
    """Open a source. The files of a phantom are written into a temporary folder, and read like any others.

    Yields:
        File or folder, its reader, the options (those of a phantom where the user gave none), and warnings.
    """
    if not source.startswith(PHANTOM):
        reader, warnings = open_reader(Path(source), options)
        yield Path(source), reader, options, warnings
        return
    from ssl_transfer.data.readers.phantom.generate import expand

    with tempfile.TemporaryDirectory(prefix="ssl_transfer_phantom_") as folder:
        say(f"{source}: writing its files …")
        expanded: dict[str, Any] = expand(source, Path(folder))
        if options.labels is not None:
            expanded.pop("label_key", None)  # it is the key of the phantom's CSV
        root = Path(expanded.pop("source"))
        chosen = Options.of(DEFAULTS, expanded | options.given | {"keep_paths": True})  # there are no persons in it
        reader, warnings = open_reader(root, chosen)
        yield root, reader, chosen, warnings


DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(ingest).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def inputs_digest(source: str, options: Options) -> str:
    """Hash of everything that determines the store: options, the key of pseudonyms, and name, size and modification time of all
    files that are read."""
    determining = {name: value for name, value in options.values.items() if name not in INDIFFERENT}
    determining["key"] = key_digest()
    digest = hashlib.blake2b(json.dumps(determining, sort_keys=True).encode(), digest_size=16)
    if source.startswith(PHANTOM):
        digest.update(f"{source}|{__version__}".encode())
    add_states(digest, _files_read(source, options))  # the reader lists those that vanished since
    return digest.hexdigest()


def _files_read(source: str, options: Options) -> Iterator[tuple[str, Path]]:
    """Names and paths of the files of a source and of all options, inside of it or elsewhere."""
    root = Path(source)
    for path in (source, options.labels, options.mask_names):
        if path is not None and os.path.exists(path):
            yield from walk(Path(path))
    if options.masks is not None:
        yield from mask_files(root, options.masks)
    if root.is_file():  # its sidecar is outside of the source
        yield "sidecar", sidecar(root)
