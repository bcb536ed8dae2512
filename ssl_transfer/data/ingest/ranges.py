"""Intensity ranges: which physical values of each image become 0 and 1, by a stated rule.

HU need no range, and 8-bit grey and colour have that of their display, 0 to 255. For every other image, `--range` states a rule:

- `window`: the VOI window that the file states, of an enhanced object for each frame;
- `bits`: the values that the stored bits can hold;
- `percentile`: the 0.5 and 99.5 percentile of the series;
- `auto`: `window`, or `bits` where there is no window; `percentile` for MR, PET and scintigraphy, for other volumes of unknown
  modality (NIfTI), and for floats.

An image to which its rule does not apply has the next one: window, bits, percentile. MR intensities have no unit: their scale
differs between scanners, sequences and sessions, and the VOI window in an MR file is the operator's or the scanner's choice for
one slice or series. What the values of a tissue have in common is their rank within the volume, so percentiles of the volume are
the convention in the field. Slices of a volume share one range: the brightness of a tissue does not change from slice to slice.
So do the volumes of a series or file (`--range-per series`): time points, b-values and echoes were measured on one scale, and
what differs between them, such as the uptake of a contrast agent, is what they were taken for. Magnitude and phase, and other
image types, are no such volumes. Where a file holds different sequences, each volume needs its own range (`volume`).

Percentiles are those of a sample without randomness: 32 images of the series, evenly spaced, of each every n-th pixel, about
4,096. 16 bits are a promise of the container, not of the detector. Of these files (in DICOM: of one modality and manufacturer)
2,000 are read, evenly spaced, and the range is that of the smallest depth (8, 10, 12, 14, 16 bits) that contains their values.

References:
    VOI windows: DICOM PS3.3 C.11.2.1.2.
    Nyúl & Udupa 1999, doi 10.1002/(SICI)1522-2594(199912)42:6<1072::AID-MRM11>3.0.CO;2-M: MR intensities have no fixed meaning.
    Reinhold et al. 2019, https://arxiv.org/abs/1812.04652: normalisation of MR by volume.
    Ma et al. 2024 (MedSAM), doi 10.1038/s41467-024-44824-z: 0.5 and 99.5 percentile for MR, X-ray and ultrasound.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ssl_transfer.console import say
from ssl_transfer.data.display import DISPLAY_RANGE, SCALED_RANGE
from ssl_transfer.data.ingest.sampling import (
    Extremes,
    Percentiles,
    RangeGroups,
    Samples,
    Span,
    depth_in_use,
    evenly_spaced,
    is_native,
    percentile_range,
    pixel_bytes,
    sampled,
)
from ssl_transfer.data.readers.reader import Item, Reader, Scan, named_file
from ssl_transfer.data.readers.workers import ordered

Rule = Literal["auto", "window", "bits", "percentile"]
Per = Literal["series", "volume"]

XRAY = frozenset({"CR", "DX", "MG", "RF", "XA", "RG", "IO", "PX", "ES"})  # with a window or bits, even at 8 bits
WITHOUT_UNITS = frozenset({"MR", "PT", "NM"})  # whose VOI windows are one operator's choice
COUNTS = frozenset({"PT", "NM"})  # the brightest values are far above the 99.5 percentile and matter: lesions
AS_DISPLAYED = ("display", "colour", "palette")
INVERTED = ("MONOCHROME1", "MINISWHITE")  # photometric interpretations of DICOM and TIFF
PROMISED_BITS = 16  # from here on, bits are those of the container
DEPTH_FILES = 2000  # files whose values decide about the depth in use


@dataclass(frozen=True)
class Ranges:
    """What was decided for a store. The range of each image is in its row: `intensity` (the rule), `range_low`, `range_high`.

    Attributes:
        units: Units of the store: `hu`, `display`, `rgb`, `stored`, or `scaled` where ranges differ.
        value_range: The one range of all images (`stored`), 0 and 10000 (`scaled`); None: no range was decided.
        dtype: Dtype of a store that is scaled; None: that of its images.
        groups: Number of ranges by percentile.
        depths: Depth in use of each detector whose files have the bits of a container, by `_detector`.
        warnings: For the card.
    """

    units: str
    value_range: Span | None = None
    dtype: np.dtype | None = None
    groups: int = 0
    depths: Mapping[tuple, Span] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def choose_ranges(
    scan: Scan,
    reader: Reader,
    rule: Rule,
    *,
    channels: int,
    per: Per = "series",
    workers: int | None = None,
    measured: Callable[[int], range] | None = range,
    known: Mapping[tuple, Span] | None = None,
) -> Ranges:
    """Decide the intensity range of every item, and write it into the item's row.

    Args:
        scan: Items of the source.
        reader: Reads pixels where the range depends on them.
        rule: The `--range` option.
        channels: Channels of the store.
        per: The `--range-per` option.
        workers: Number of worker processes.
        measured: Positions of the items whose percentiles are measured, from their number: all, or those of a part of the
            source. That of the only volume of a source is always measured. None: none is.
        known: Depths in use that were found before (`Ranges.depths` of another source); they are not looked for again.
    """
    items = scan.items
    if scan.units == "hu":
        for item in items:
            item.row.setdefault("intensity", "hu")
        return Ranges("hu", warnings=_without_effect(rule, per, "all images are in HU"))
    colours, notes = _colours_in_use(items, reader, known or {}, workers)
    chosen = _Choice.of(items, rule)
    if chosen.is_displayed:
        for item in items:
            item.row["intensity"] = _rule(item, rule)
        reason = "all images are colour or 8-bit grey, which is stored as displayed"
        units = "rgb" if channels == 3 else "display"
        return Ranges(units, depths=colours, warnings=(*_without_effect(rule, per, reason), *notes))
    known = {detector: span for detector, span in (known or {}).items() if detector in chosen.containers}
    unknown = {detector: of for detector, of in chosen.containers.items() if detector not in known}
    depths = {**colours, **known, **_depths(items, unknown, reader, workers)}
    groups = RangeGroups(chosen.positions, chosen.volumes if per == "volume" else chosen.series)
    warnings = (*chosen.warnings(len(items), rule, per), *notes)
    stated = chosen.spans | {depths[detector] for detector in chosen.containers}
    one = len(groups) + len(stated) == 1
    spans = np.full((len(groups), 2), np.nan)
    if measured is not None:
        part = measured(len(items))
        shared = [number for number, of in enumerate(groups) if one or _is_measured(of, part)]
        _measure(spans, items, groups, np.array(shared, np.int64), reader, workers)
    of_groups = iter(groups.numbers.tolist())
    for item in items:
        of_item = _rule(item, rule)
        low, high = spans[next(of_groups)].tolist() if of_item == "percentile" else _stated(item, of_item, depths)
        item.row |= {"intensity": of_item} | ({"range_low": low, "range_high": high} if low == low else {})
        if of_item == "window" and item.windows and item.plan:
            item.plan = [(number, columns | _columns(item.windows[number])) for number, columns in item.plan]
    if one:
        found = next(iter([*stated, *((low, high) for low, high in spans.tolist() if low == low)]), None)
        return Ranges("stored", found, groups=len(groups), depths=depths, warnings=warnings)
    return Ranges("scaled", SCALED_RANGE, np.dtype(chosen.dtype), len(groups), depths, warnings)


def _columns(span: Span | None) -> dict[str, float]:
    """A range as columns; empty if there is none."""
    return {} if span is None else {"range_low": float(span[0]), "range_high": float(span[1])}


def stated_span(columns: Mapping[str, Any]) -> Span | None:
    """The range in the columns of a file or an image; None if there is none."""
    return None if columns.get("range_low") is None else (columns["range_low"], columns["range_high"])


def span_of(item: Item, images: Sequence[np.ndarray]) -> Span | None:
    """The range of an item: that in its row, or the percentiles of its images; None: it needs none."""
    if stated := stated_span(item.row):
        return stated
    return percentile_range(sampled(images)) if item.row.get("intensity") == "percentile" else None


def _rule(item: Item, rule: Rule) -> str:
    """The rule by which an item is read: `window`, `bits` or `percentile`, or `display`, `colour`, `palette`."""
    if item.channels == 3:
        return "palette" if item.row.get("intensity") == "palette" else "colour"
    modality = item.row.get("modality")
    eight_bit = item.dtype == np.uint8 and item.depth in (None, DISPLAY_RANGE)
    is_picture = "modality" not in item.row and item.together is None
    if eight_bit and (is_picture or (rule == "auto" and modality not in XRAY)):
        return "display"
    if rule == "auto":
        is_volume = "modality" not in item.row and item.together is not None
        rule = "percentile" if modality in WITHOUT_UNITS or is_volume or item.depth is None else "window"
    if rule == "window" and not _has_window(item):
        rule = "bits"
    return "percentile" if rule == "bits" and _full_depth(item) is None else rule


def _windows(item: Item) -> Sequence[Span | None]:
    """The VOI window of all images of an item, or that of each."""
    return item.windows or (item.window,)


def _has_window(item: Item) -> bool:
    """Whether an item states a window that contains a value which it can have, for each of its images."""
    return all(window is not None and _is_usable(window, item.depth) for window in _windows(item))


def _is_usable(window: Span, depth: Span | None) -> bool:
    """Whether a window contains a value of the range of the bits."""
    if not np.isfinite(window).all() or not window[0] < window[1]:
        return False
    return depth is None or (window[0] < depth[1] and depth[0] < window[1])


def _full_depth(item: Item) -> Span | None:
    if item.depth is None and item.dtype == np.uint8:
        return DISPLAY_RANGE
    return None if item.depth is None or not item.depth[0] < item.depth[1] else item.depth


@dataclass
class _Choice:
    """What the headers of all items say about their ranges. Items are held by position: a source may have millions.

    Attributes:
        images: Files by rule.
        spans: Ranges that are known from headers; of the first items that have two, since more decide nothing.
        containers: Positions of items whose depth in use is to be found, by `_detector`.
        positions: Items whose range is by percentile.
        series, volumes: A hash of the series and of the volume of each of these, whose intensities are on one scale.
        known_by_header: Whether headers say what the volumes of a series are (DICOM).
        ignored: Number of files whose VOI window is not used, and the first ones.
        dtype: Of a store that is scaled: int16, or float32 where rounding and the limits of int16 would cost values: floats, and
            PET and scintigraphy.
    """

    images: Counter = field(default_factory=Counter)
    spans: set[Span] = field(default_factory=set)
    containers: dict[tuple, array] = field(default_factory=dict)
    positions: array = field(default_factory=lambda: array("q"))
    series: array = field(default_factory=lambda: array("q"))
    volumes: array = field(default_factory=lambda: array("q"))
    known_by_header: bool = False
    ignored: tuple[int, list[str]] = (0, [])
    dtype: type = np.int16

    @classmethod
    def of(cls, items: Sequence[Item], rule: Rule) -> _Choice:
        choice = cls()
        for position, item in enumerate(items):
            of_item = _rule(item, rule)
            choice.images[of_item] += 1
            if of_item == "percentile":
                choice.positions.append(position)
                series = position if item.together is None else item.together
                choice.series.append(hash(series))
                choice.volumes.append(hash((series, item.row.get("volume"))))
                choice.known_by_header |= "modality" in item.row
            elif of_item == "bits" and _bits(item) >= PROMISED_BITS:
                choice.containers.setdefault(_detector(item), array("q")).append(position)
            elif len(choice.spans) < 2:
                of_images = item.windows if of_item == "window" and item.windows else [_stated(item, of_item, {})]
                choice.spans.update(filter(None, of_images))
            if any(window is not None and not _is_usable(window, item.depth) for window in _windows(item)):
                count, first = choice.ignored
                choice.ignored = count + 1, [*first, item.file][:3]
            is_float = item.dtype.kind == "f" and item.depth is None
            if item.channels == 1 and (is_float or item.row.get("modality") in COUNTS):
                choice.dtype = np.float32
        return choice

    @property
    def is_displayed(self) -> bool:
        """Whether every item is stored as displayed."""
        return set(self.images) <= set(AS_DISPLAYED)

    @property
    def divided(self) -> int:
        """Number of series with several volumes."""
        pairs = np.unique(np.stack([np.asarray(self.series), np.asarray(self.volumes)]), axis=1)
        return int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())

    def warnings(self, count: int, rule: Rule, per: Per) -> Iterator[str]:
        """What the user has to know: images to which the rule does not apply, and volumes that share a range."""
        divided = self.divided
        if per == "series" and divided and not self.known_by_header:
            yield (
                f"{divided} file(s) hold several volumes, which share one intensity range, so that what changes between time "
                "points or b-values is kept. If they are different sequences, as in the Medical Segmentation Decathlon, give "
                "each its own range: --range-per volume"
            )
        if per == "volume" and not divided:
            yield "--range-per volume decides nothing: no series has several volumes with a range by percentile"
        others = {of_item: n for of_item, n in self.images.items() if of_item not in (rule, *AS_DISPLAYED)}
        if rule != "auto" and others:
            how = " and ".join(sorted(others))
            yield f"--range {rule}: {sum(others.values())} of {count} files have no such range; read by {how}"
        count, first = self.ignored
        if count and rule in ("auto", "window"):
            yield (
                f"{count} files state a VOI window without any value that they can have, which is not used: "
                f"{', '.join(map(named_file, first))}"
            )


def _stated(item: Item, rule: str, depths: Mapping[tuple, Span]) -> Span:
    """The range of an item by a rule other than `percentile`."""
    if rule in AS_DISPLAYED:
        return DISPLAY_RANGE
    low, high = item.window if rule == "window" else depths.get(_detector(item)) or _full_depth(item)  # type: ignore[misc]
    return float(low), float(high)


def _detector(item: Item) -> tuple:
    """What items of one depth in use share. Pictures state neither modality nor manufacturer: one depth for the source."""
    return (item.depth, *(item.row.get(name) for name in ("modality", "manufacturer", "photometric")))


def _bits(item: Item) -> int:
    if item.row.get("bits"):
        return int(item.row["bits"])
    low, high = _full_depth(item) or DISPLAY_RANGE
    return int(np.ceil(np.log2(high - low + 1)))


def _depths(
    items: Sequence[Item], containers: Mapping[tuple, array], reader: Reader, workers: int | None
) -> dict[tuple, Span]:
    """The depth in use of items whose bits are those of a container, by `_detector`; reads files."""
    depths = {}
    for detector, positions in containers.items():
        sample = [items[positions[k]] for k in evenly_spaced(len(positions), DEPTH_FILES)]
        depth, bits = _full_depth(sample[0]), _bits(sample[0])
        assert depth is not None  # their rule is `bits`
        say(f"reading pixels of {len(sample)} of {len(positions)} files of {bits} bits: the depth in use decides")
        extremes = ordered(
            Extremes(reader),
            sample,
            "reading pixels",
            workers,
            fail=_none,
            pixel_bytes=pixel_bytes,
            native=is_native,
            worth_workers=reader.worth_workers,
        )
        known = [pair for pair in extremes if pair is not None]
        if known:
            lowest, highest = min(low for low, _ in known), max(high for _, high in known)
            inverted = sample[0].row.get("photometric") in INVERTED
            depth = depth_in_use(depth, bits, lowest, highest, inverted=inverted)
        depths[detector] = float(depth[0]), float(depth[1])
    return depths


def _colours_in_use(
    items: Sequence[Item], reader: Reader, known: Mapping[tuple, Span], workers: int | None
) -> tuple[dict[tuple, Span], list[str]]:
    """The depth in use of pictures with 16 bits per colour, of which readers give the upper 8; written into `bits` of their rows.

    Returns:
        The range of their decoded values by `_detector`, and warnings.
    """
    containers: dict[tuple, array] = {}
    for position, item in enumerate(items):
        if item.channels == 3 and item.depth == DISPLAY_RANGE and item.row.get("bits") == PROMISED_BITS:
            containers.setdefault(_detector(item), array("q")).append(position)
    if not containers:
        return {}, []
    unknown = {detector: of for detector, of in containers.items() if detector not in known}
    depths = {detector: known[detector] for detector in containers if detector in known}
    depths |= _depths(items, unknown, reader, workers)
    bits = {
        detector: round(np.log2(high / DISPLAY_RANGE[1] * (2**PROMISED_BITS - 1) + 1))
        for detector, (_, high) in depths.items()
    }
    for item in items:
        if item.channels == 3 and item.depth == DISPLAY_RANGE and item.row.get("bits") == PROMISED_BITS:
            item.row["bits"] = bits[_detector(item)]
    notes = [
        f"{len(containers[detector])} colour picture(s) of {PROMISED_BITS} bits use {used}, whose upper 8 are stored. Of PNG "
        f"only {max(used - 8, 0)} bits of them can be read: save these as TIFF or with 8 bits"
        for detector, used in bits.items()
        if used < PROMISED_BITS
    ]
    return depths, notes


def _is_measured(positions: np.ndarray, part: range) -> bool:
    """Whether a range is that of several items, some in a part of the source. That of one item is taken as it is read."""
    return len(positions) > 1 and positions[0] < part.stop and positions[-1] >= part.start


def _measure(
    spans: np.ndarray,
    items: Sequence[Item],
    groups: RangeGroups,
    chosen: np.ndarray,
    reader: Reader,
    workers: int | None,
) -> None:
    """Write the ranges of some groups by percentile into `spans`, (groups, 2); NaN stays where no file can be read."""
    if not len(chosen):
        return
    found = ordered(
        Percentiles(reader),
        Samples(items, groups, chosen),
        "measuring intensity ranges",
        workers,
        fail=_none,
        pixel_bytes=lambda sample: sum(map(pixel_bytes, sample)),
        native=lambda sample: any(map(is_native, sample)),
        worth_workers=reader.worth_workers,
    )
    for number, span in zip(chosen, found, strict=True):
        if span is not None:
            spans[number] = span


def _none(_: Any, reason: str) -> None:
    """The answer of a file that crashes its decoder, which is listed when it is to be written."""


def _without_effect(rule: Rule, per: Per, reason: str) -> tuple[str, ...]:
    given = [f"--range {rule}"] * (rule != "auto") + [f"--range-per {per}"] * (per != "series")
    return tuple(f"{option} decides nothing: {reason}" for option in given)
