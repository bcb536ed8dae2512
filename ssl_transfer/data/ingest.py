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
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ssl_transfer import __version__
from ssl_transfer.console import say, warn
from ssl_transfer.data.fit import Fit, choose_fit
from ssl_transfer.data.labels import join_labels, read_labels
from ssl_transfer.data.pseudonyms import Pseudonyms
from ssl_transfer.data.sources import Item, Refusal, Scan, Source, Unreadable, walk
from ssl_transfer.data.sources.dicom import DicomSource
from ssl_transfer.data.sources.images import ImagesSource
from ssl_transfer.data.sources.matching import IMAGE_SUFFIXES, VOLUME_SUFFIXES, suffix
from ssl_transfer.data.sources.nifti import NiftiSource
from ssl_transfer.data.sources.npz import NpzSource
from ssl_transfer.data.splits import FEWEST_GROUPS, draw_splits, shared_groups
from ssl_transfer.data.store import ImageStore, StoreWriter, pixel_digest
from ssl_transfer.data.workers import ordered
from ssl_transfer.domains import Domain
from ssl_transfer.errors import SourceError, SplitError, StoreError, UsageError, nearest

SOURCES: dict[str, type[Source]] = {
    "dicom": DicomSource,
    "nifti": NiftiSource,
    "images": ImagesSource,
    "npz": NpzSource,
}
TAKES = {  # which of ingest's options a source reads
    "dicom": ("modality", "masks", "mask_names", "workers"),
    "nifti": ("domain", "axis", "masks", "mask_names"),
    "images": ("masks", "mask_names"),
    "npz": ("domain", "mask_names"),
}
PHANTOM = "phantom:"
NAMED_IDS = 64  # more mask values than this are instances, not classes


@dataclass(frozen=True)
class Options:
    """What `ingest` was asked for; its arguments are documented there."""

    format: str = "auto"
    labels: str | None = None
    label_key: str | None = None
    size: int | None = None
    channels: int | None = None
    modality: str | None = None
    domain: str | None = None
    masks: str | None = None
    mask_names: str | None = None
    axis: str = "axial"
    compress: bool = False
    resplit: bool = False
    split_shares: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0
    max_refused: float = 0.05
    workers: int | None = None

    def __post_init__(self):
        if self.format not in ("auto", *SOURCES):
            raise UsageError(f"--format {self.format}: no such format.{nearest(self.format, ['auto', *SOURCES])}")
        if self.channels not in (None, 1, 3):
            raise UsageError(f"--channels {self.channels}: expected 1 or 3.")
        if self.size is not None and self.size < 1:
            raise UsageError(f"--size {self.size}: expected a number of pixels above 0.")
        if not 0 <= self.max_refused <= 1:
            raise UsageError(f"--max-refused {self.max_refused}: expected a share from 0 to 1, such as 0.05.")
        if self.label_key is not None and self.labels is None:
            raise UsageError(f"--label-key {self.label_key}: there is no --labels CSV whose key it could be.")
        if self.domain is not None:
            Domain.parse(self.domain)

    def given(self) -> dict:
        """Options that differ from their defaults."""
        return {name: value for name, value in asdict(self).items() if value != getattr(Options, name)}


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
        format, None if labels is None else str(labels), label_key, size, channels, modality, domain,
        None if masks is None else str(masks), None if mask_names is None else str(mask_names), axis, compress, resplit,
        tuple(split_shares), seed, max_refused, workers,
    )  # fmt: skip
    source, out = str(source), Path(out)
    if not source.startswith(PHANTOM) and not Path(source).exists():
        raise SourceError(f"{source}: no such file or folder. Give a folder of images, a file, or phantom:NAME.")
    inputs = _inputs_digest(source, options)
    if (store := _already_there(out, inputs)) is not None:
        return store
    if not source.startswith(PHANTOM):
        return _build(Path(source), out, options, {"source": source, "inputs": inputs})
    from ssl_transfer.data.sources.phantom import expand

    with tempfile.TemporaryDirectory(prefix="ssl_transfer_phantom_") as folder:
        say(f"{source}: writing its files …")
        expanded = expand(source, Path(folder))
        if options.labels is not None:
            expanded.pop("label_key", None)  # it belongs to the phantom's own CSV
        root = Path(expanded.pop("source"))
        expanded = {name: str(value) if isinstance(value, Path) else value for name, value in expanded.items()}
        return _build(root, out, Options(**(expanded | options.given())), {"source": source, "inputs": inputs})


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


def _already_there(out: Path, inputs: str) -> ImageStore | None:
    """The finished store of the same inputs, or None if the place is free."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        store = ImageStore(out)
    except StoreError:
        raise UsageError(f"--out {out}: it exists and is no image store. Choose another folder.") from None
    if store.card.get("inputs") != inputs:
        raise UsageError(
            f"--out {out}: a store of other inputs is there (from {store.card.get('source')}). Stores are immutable: "
            "choose another folder, or remove it."
        )
    say(f"{out}: already there")
    return store


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
    chosen = max(SOURCES, key=lambda name: counts[name])
    others = [f"{counts[name]} {name} file(s)" for name in SOURCES if counts[name] and name != chosen]
    if chosen == "npz" and root.is_dir():
        raise SourceError(f"{root}: holds .npz files; give one of them, for example {next(root.rglob('*.npz'))}.")
    return chosen, [f"read as {chosen}; beside that there are {', '.join(others)}"] if others else []


def _starts_like_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or start[:2] == b"\x08\x00"  # with the preamble, or straight at group 0008


def _open_source(root: Path, options: Options) -> tuple[Source, list[str]]:
    """Make the source that an option or the files name; refuse options that it would not read."""
    name, notes = (options.format, []) if options.format != "auto" else detect_format(root)
    if name == "npz" and root.is_dir():
        raise SourceError(f"{root}: it is a folder; --format npz reads one file.")
    for option in ("modality", "masks", "axis"):
        if option in options.given() and option not in TAKES[name]:
            raise UsageError(f"--{option} {getattr(options, option)}: means nothing for {name} files. Leave it out.")
    return SOURCES[name](root, **{option: getattr(options, option) for option in TAKES[name]}), notes


def _build(root: Path, out: Path, options: Options, card: dict) -> ImageStore:
    """Scan, join, check, read, write."""
    source, notes = _open_source(root, options)
    table = read_labels(options.labels, options.label_key) if options.labels else None
    scan = source.scan()
    if table is not None:
        scan.refused = [r for r in scan.refused if (root / r.file).resolve() != table.path.resolve()]
    _check_refused(root, scan.refused, len(scan.items), options.max_refused)
    files = len(scan.items) + _unreadable(scan)
    if table is not None:
        notes += join_labels(scan.items, scan.refused, table)
    keeps_splits = _check_source_splits(root, scan.items, options.resplit)
    fit = choose_fit(scan.items, scan.units, options.size, options.channels, scan.mask_dtype)
    shape = (fit.channels, *fit.size)
    with StoreWriter(out, shape, fit.dtype, fit.mask_dtype, options.compress) as writer:
        mask_ids = _write_all(writer, source, scan, fit, options)
        _check_refused(root, scan.refused, files - _unreadable(scan), options.max_refused)
        splits, split_by, split_notes = _splits(writer.rows, options, keeps_splits)
        names, mask_notes = _mask_classes(scan.mask_classes, mask_ids)
        notes = scan.warnings + notes + split_notes + mask_notes
        colour = fit.channels == 3 and fit.dtype == np.uint8
        store = writer.finish(splits, card | {
            "units": "rgb" if colour else scan.units,
            "domain": str(Domain.parse(options.domain or scan.domain)), "classes": _classes(scan.classes, writer.rows),
            "mask_classes": names, "refused": _anonymous(scan), "warnings": notes, "split_by": split_by,
            "split_seed": None if split_by == "source" else options.seed, "version": __version__,
        })  # fmt: skip
    for note in notes:
        warn(note)
    return store


class _Reading:
    """Decode and fit one item; travels to worker processes."""

    def __init__(self, source: Source, fit: Fit, repeated: set[str]):
        self.source, self.fit, self.repeated = source, fit, repeated

    def __call__(self, item: Item) -> tuple[list, str | None] | str:
        """Images with their rows and masks, and a digest of the decoded pixels if the uid repeats; or why not."""
        try:
            frames = list(self.source.read(item))
            if not frames:
                return "there is no image in it"
            digest = None
            if item.uid in self.repeated:
                digest = "".join(pixel_digest(image) for image, _, _ in frames)
            spacing = self.fit.spacing(item.row, item.size)
            fitted = [
                (self.fit.image(image), own | spacing, None if mask is None else self.fit.mask(mask))
                for image, own, mask in frames
            ]
        except Unreadable as error:
            return str(error)
        return fitted, digest


def _write_all(writer: StoreWriter, source: Source, scan: Scan, fit: Fit, options: Options) -> set[int]:
    """Write every item that can be read; add the others to `scan.refused`. Returns the mask values seen."""
    uids = Counter(item.uid for item in scan.items if item.uid)
    reading = _Reading(source, fit, {uid for uid, count in uids.items() if count > 1})
    names = _pseudonyms(scan)
    first: dict[tuple[str, str], str] = {}
    mask_ids: set[int] = set()
    workers = options.workers if source.worth_workers else 1
    for item, answer in zip(scan.items, ordered(reading, scan.items, "reading images", workers), strict=True):
        if isinstance(answer, str):
            scan.refused.append(Refusal(item.file, "unreadable", answer, item.row))
            continue
        frames, digest = answer
        if digest is not None and first.setdefault((item.uid, digest), item.file) != item.file:
            reason = f"the same SOPInstanceUID and pixels as {first[item.uid, digest]}"
            scan.refused.append(Refusal(item.file, "duplicate", reason, item.row))
            continue
        row = names.row(item.row) | {"file": names.text(item.file, item.row)}
        for image, own, mask in frames:
            writer.append(image, row | own, mask)
            if mask is not None:
                mask_ids.update(np.flatnonzero(np.bincount(mask.ravel())).tolist())
    return mask_ids - {0}


def _unreadable(scan: Scan) -> int:
    return sum(refusal.kind == "unreadable" for refusal in scan.refused)


def _check_refused(root: Path, refused: list[Refusal], taken: int, most: float) -> None:
    """Fail if too much is unreadable, or nothing is left."""
    unreadable = [refusal for refusal in refused if refusal.kind == "unreadable"]
    share = len(unreadable) / max(1, len(unreadable) + taken)
    if share > most:
        examples = "".join(f"\n  {r.file}: {r.reason}" for r in unreadable[:5])
        raise SourceError(
            f"{root}: {len(unreadable)} of {len(unreadable) + taken} image files ({share:.1%}) cannot be read, "
            f"more than {most:.1%}. Repair them, or raise --max-refused. The first ones:{examples}"
        )
    if not taken:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(r.kind for r in refused).items())
        examples = "".join(f"\n  {r.file}: {r.reason}" for r in refused[:3])
        raise SourceError(f"{root}: no image to ingest (files set aside: {kinds or 'none'}).{examples}")


def _check_source_splits(root: Path, items: list[Item], resplit: bool) -> bool:
    """True if every image brings a split and no patient stands in two; False if splits are to be drawn."""
    splits = [item.row.get("split") for item in items]
    if resplit or not any(splits):
        return False
    if not all(splits):
        raise SplitError(
            f"{root}: {sum(not s for s in splits)} of {len(splits)} images have no split, the others have. "
            "Give every image one, or ingest with --resplit."
        )
    shared = shared_groups([item.row.get("patient") for item in items], splits)
    if shared:
        patient, where = shared[0]
        raise SplitError(
            f"{root}: patient {patient} has images in both {' and '.join(where)} ({len(shared)} such patients). "
            "Splits must be patient-disjoint; ingest again with --resplit."
        )
    return True


def _splits(rows: list[dict], options: Options, keeps: bool) -> tuple[np.ndarray, str, list[str]]:
    """Split of every row, what was kept together, and warnings."""
    notes = []
    if keeps:
        if not all(row.get("patient") for row in rows):
            notes.append("patients are unknown: whether the source's splits share any cannot be checked")
        return np.array([row["split"] for row in rows]), "source", notes
    units = Counter(next((unit for unit in ("patient", "study", "series") if row.get(unit)), "image") for row in rows)
    split_by = next((unit for unit in ("image", "series", "study") if units[unit]), "patient")
    if split_by != "patient":
        counts = ", ".join(f"{units[unit]} by {unit}" for unit in ("study", "series", "image") if units[unit])
        notes.append(f"{len(rows) - units['patient']} of {len(rows)} images name no patient; split {counts}")
    groups = [row.get("patient") or row.get("study") or row.get("series") or row["pixel_digest"] for row in rows]
    labels = [row.get("label") for row in rows]
    if len(set(groups)) < FEWEST_GROUPS:
        what = "patient(s)" if split_by == "patient" else f"group(s) by {split_by}"
        notes.append(f"{len(set(groups))} {what} are too few for three splits: all images are train")
    return draw_splits(groups, labels, options.split_shares, options.seed), split_by, notes


def _classes(known: list[str] | None, rows: list[dict]) -> list[str] | None:
    """Label names in the source's order if it has one, else sorted; None without labels."""
    seen = {str(row["label"]) for row in rows if row.get("label") is not None}
    if not seen:
        return None
    return known if known and seen <= set(known) else sorted(seen)


def _mask_classes(names: dict[int, str], seen: set[int]) -> tuple[dict[int, str], list[str]]:
    """Mask value -> name; values without a name are called by their number unless there are too many."""
    unnamed = sorted(seen - set(names))
    if not names:
        return ({value: str(value) for value in unnamed} if len(unnamed) <= NAMED_IDS else {}), []
    if not unnamed:
        return names, []
    return names, [f"mask values without a name: {', '.join(map(str, unnamed[:10]))}"]


def _pseudonyms(scan: Scan) -> Pseudonyms:
    rows = (entry.row for entry in (*scan.items, *scan.refused))
    return Pseudonyms({str(row["patient"]) for row in rows if row.get("patient")})


def _anonymous(scan: Scan) -> list[dict]:
    """Refusals for the card, without patient ids."""
    names = _pseudonyms(scan)
    return [
        {"file": names.text(r.file, r.row), "kind": r.kind, "reason": names.text(r.reason, r.row)}
        for r in sorted(scan.refused, key=lambda refusal: refusal.file)
    ]
