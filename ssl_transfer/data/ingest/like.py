"""Ingest of new images in the form of a store, for a network that was fitted on that store.

Files are found, read, converted and refused as by `ingest`. What `ingest` decides from all files of a source (size, channels,
dtype, units, the depth in use of a detector) is not decided anew: it is that of the store. What it decides for each image (its
window, its stored bits, the percentiles of its volume) is decided by the same rule.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.console import warn
from ssl_transfer.data.form import StoreForm
from ssl_transfer.data.ingest.appending import append_items
from ssl_transfer.data.ingest.decisions import DETECTOR
from ssl_transfer.data.ingest.fit import Fit
from ssl_transfer.data.ingest.opening import detect_format, scan_source
from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.ingest.patients import complete_patients
from ssl_transfer.data.ingest.persons import (
    open_pseudonyms,
    person_warnings,
    refused_items,
    stored_refusals,
    stored_source,
)
from ssl_transfer.data.ingest.progress import Progress
from ssl_transfer.data.ingest.pseudonyms import key_digest
from ssl_transfer.data.ingest.ranges import choose_ranges
from ssl_transfer.data.ingest.resume import resumed
from ssl_transfer.data.ingest.sampling import Span
from ssl_transfer.data.ingest.stage import DEFAULTS, PHANTOM, assert_exists, inputs_digest, opened
from ssl_transfer.data.partial import PartialStore
from ssl_transfer.data.readers.dicom_grey import AIR_HU
from ssl_transfer.data.readers.finite import replaced_note
from ssl_transfer.data.readers.items import stored_in
from ssl_transfer.data.readers.reader import Reader, Scan, shown
from ssl_transfer.data.readers.registry import READERS, reader_options
from ssl_transfer.data.readers.workers import shared_workers
from ssl_transfer.data.store import ImageStore
from ssl_transfer.domains import UNKNOWN, Domain, boundary
from ssl_transfer.errors import SourceError
from ssl_transfer.run import run_id, to_json

RANGES = {"range", "range_per"}  # options of ingest that are not those of a reader
ONLY_SPLIT = "train"  # of a store that nothing is trained on: every store has one


def ingest_like(source: str | os.PathLike, out: str | os.PathLike, form: StoreForm, **settings: Any) -> ImageStore:
    """Read files and write them as a store of a given form.

    Args:
        source: A folder or file, or `phantom:NAME…`.
        out: Folder of the store; must not exist.
        form: The form of the store.
        settings: Options of `ingest` that say how files are found and named: `format`, `modality`, `keep_paths`, `patient_from`,
            `workers`.

    Returns:
        The store, opened. Files that are not in it are its `refused`; any number may be.

    Raises:
        SourceError: If there is no image, or images are in HU where those of the form are not, or the reverse.
        UsageError: If an option is wrong.
        OutputError: If `out` cannot be written.
    """
    source = str(source)
    assert_exists(source)
    options = _options(source, form, settings)
    with (
        PartialStore(Path(out)) as partial,
        stored_in(partial.folder),
        shared_workers(options.workers),
        opened(source, options) as (root, reader, chosen, warnings),
    ):
        return _filled(root, reader, partial, form, chosen, source, warnings)


def inputs_like(source: str | os.PathLike, form: StoreForm, settings: dict[str, Any]) -> str:
    """Hash of everything that determines the images of `ingest_like`: form, options, and the files as `inputs_digest` has them.

    Raises:
        SourceError: If there is no such source.
        UsageError: If an option is wrong.
    """
    assert_exists(str(source))
    files = inputs_digest(str(source), _options(str(source), form, settings))
    return run_id("ingest like", to_json(form), [files])


def _options(source: str, form: StoreForm, settings: dict[str, Any]) -> Options:
    """The options of ingest that shaped the images of the form, as far as the reader of these files has them, and the user's."""
    given = {name: value for name, value in settings.items() if value is not None}
    shaping = {name: value for name, value in form.options.items() if name in DEFAULTS}
    if shaping.keys() - RANGES and not source.startswith(PHANTOM):
        reader = given.get("format", "auto")
        reader = detect_format(Path(source))[0] if reader == "auto" else reader
        taken = reader_options(reader) if reader in READERS else ()  # an unknown one is refused below
        shaping = {name: value for name, value in shaping.items() if name in (*RANGES, *taken)}
    return Options.of(DEFAULTS, {**shaping, **given, "max_refused": 1.0, "resplit": True})


def _filled(
    root: Path,
    reader: Reader,
    partial: PartialStore,
    form: StoreForm,
    options: Options,
    source: str,
    warnings: list[str],
) -> ImageStore:
    """Scan, choose ranges, read, and write."""
    scan = scan_source(root, reader, options)
    _assert_some(root, scan, len(scan.items), "was found")
    _assert_units(root, scan, form)
    warnings = [*warnings, *scan.warnings, *complete_patients(scan), *_domain_warning(scan, options, form)]
    names = open_pseudonyms(root, scan, options)
    warnings += person_warnings(scan, names, options, source)
    ranges = choose_ranges(
        scan,
        reader,
        options.range,
        channels=form.channels,
        per=options.range_per,
        workers=options.workers,
        known=_depths(form),
    )
    fit, progress = FormFit.of(form), Progress("")
    count = sum(item.n_images for item in scan.items)
    with resumed(partial, progress, fit, compress=False, images=count, files=len(scan.items)) as (writer, recorder):
        append_items(writer, reader, scan, fit, names, recorder, workers=options.workers)
        progress = recorder.progress
        scan.refused += refused_items(scan.items, progress, names)
        _assert_some(root, scan, len(writer), "can be read")
        warnings += [*ranges.warnings, *replaced_note(progress.replaced_by_file(scan.items))]
        store = writer.finish(
            np.full(len(writer), ONLY_SPLIT),
            units=form.units,
            domain=form.domain,
            refused=stored_refusals(scan, names),
            source=stored_source(source, names),
            value_range=form.value_range,
            patient_key=key_digest(),
        )
    for warning in warnings:
        warn(shown(warning))
    store.refused = [{"file": r.file, "kind": r.kind, "reason": shown(r.reason)} for r in scan.refused]
    return store


def _assert_some(root: Path, scan: Scan, count: int, what: str) -> None:
    """Refuse a source of which no image is left, with the first reasons."""
    if not count:
        examples = "".join(f"\n  {refusal.file}: {shown(refusal.reason)}" for refusal in scan.refused[:5])
        raise SourceError(f"{root}: no image {what} ({len(scan.refused)} files refused).{examples}")


def _assert_units(root: Path, scan: Scan, form: StoreForm) -> None:
    """Refuse values of another kind: HU are absolute, all others are not."""
    if (scan.units == "hu") != (form.units == "hu"):
        found, expected = ("HU", "values without HU") if scan.units == "hu" else ("values without HU", "HU")
        advice = " If there is CT among others, add --modality CT." if form.units == "hu" else ""
        raise SourceError(
            f"{root}: found images in {found}, and this probe was fitted on images in {expected} ({form.domain}): what it would "
            f"predict means nothing.{advice}"
        )


def _domain_warning(scan: Scan, options: Options, form: StoreForm) -> list[str]:
    """A warning if the images are of another domain than the form, as far as the files tell."""
    found, expected = Domain.parse(options.domain or scan.domain), Domain.parse(form.domain)
    if boundary(found, expected) in ("none", UNKNOWN):
        return []
    return [f"the images are of the domain {found}, and the probe was fitted on {expected}"]


def _depths(form: StoreForm) -> dict[tuple, Span]:
    """Depths in use by detector, as `choose_ranges` has them."""
    depths = {}
    for entry in form.depths:
        first, *others = DETECTOR
        low, high = entry["in_use"]
        depths[(tuple(entry[first]), *map(entry.get, others))] = (float(low), float(high))
    return depths


@dataclass(frozen=True)
class FormFit(Fit):
    """The conversion of images to a given form.

    Attributes:
        ends: The values that the ends of an image's range become, if the store has values of one range; None: as they are.
    """

    ends: Span | None = None

    @classmethod
    def of(cls, form: StoreForm) -> FormFit:
        """The conversion to a form."""
        scaled = form.units == "scaled"
        fill = AIR_HU if form.units == "hu" else form.value_range[0] if form.units == "stored" else 0
        ends = None if scaled else form.ends
        return cls(form.size, form.channels, np.dtype(form.dtype), None, fill, scaled, ends)

    def image(self, image: np.ndarray, span: Span | None = None) -> np.ndarray:
        """Convert an image (C, H, W), as `Fit.image`; in a store of one range, its own range first becomes this one."""
        if self.ends is None or span is None or span == self.ends:
            return super().image(image, span)
        (low, high), (first, last) = span, self.ends
        mapped = (first + (image.astype(np.float64) - low) * ((last - first) / (high - low))).astype(np.float32)
        image = Fit(self.size, self.channels, np.dtype(np.float32), None, self.fill).image(mapped)
        if self.dtype.kind == "f":
            return image
        limits = np.iinfo(self.dtype)
        return np.clip(np.rint(image), limits.min, limits.max).astype(self.dtype)
