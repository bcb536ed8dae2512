"""What ingest decides from headers: series, intensity ranges, size, classes, subjects, splits. For the card and `--check`."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_transfer.data.display import DISPLAY_RANGE
from ssl_transfer.data.ingest.fit import Fit
from ssl_transfer.data.ingest.image_rows import ImageRows
from ssl_transfer.data.ingest.ranges import AS_DISPLAYED, Ranges
from ssl_transfer.data.readers.reader import Item, Scan
from ssl_transfer.data.splits import FEWEST_GROUPS
from ssl_transfer.data.store import SPLITS
from ssl_transfer.texts import Partition, distinct_pairs

MOST_SHAPES = 8  # that are listed
UNEVEN = 0.02  # of the usual distance of slices: a distance that differs by more is uneven
DETECTOR = ("depth", "modality", "manufacturer", "photometric")  # what files of one depth in use have in common
RULES = ("hu", "window", "bits", "percentile", "display", "colour", "palette")


def decisions(
    scan: Scan,
    fit: Fit,
    ranges: Ranges,
    rows: ImageRows,
    *,
    splits: np.ndarray | None,
    split_by: str,
    known_by: str | None,
) -> dict[str, Any]:
    """The decisions about a source, from its headers.

    Numbers are those before pixels are read: files whose pixels turn out to be damaged are still counted.

    Args:
        scan: Items of the source, with labels joined and ranges chosen.
        fit: Form of the store.
        ranges: Of `choose_ranges`.
        rows: Patient, study, series, label and split of every image, ids hashed.
        splits: Split of every image; None: it depends on the pixels, because nothing else tells images apart.
        split_by: Unit that is kept together in a split; `source` if the source has splits.
        known_by: How patients are known; None if they are unknown.

    Returns:
        `files`, `series`, `intensity`, `size`, `channels`, `classes`, `subjects`, `splits` and `repeated_uids`: plain JSON.
    """
    facts = _Facts()
    for item in scan.items:
        facts.add(item)
    shapes = sorted(facts.shapes.items(), key=lambda entry: (-entry[1], entry[0]))
    return {
        "files": {
            "files": len(scan.items),
            "images": len(rows),
            "refused": dict(sorted(Counter(refusal.kind for refusal in scan.refused).items())),
        },
        "series": _series(facts),
        "intensity": {
            "units": ranges.units,
            "rules": [
                {
                    "rule": rule,
                    "images": facts.rules[rule],
                    "ranges": ranges.groups if rule == "percentile" else len(np.unique(np.asarray(facts.spans[rule]))),
                    "lowest": facts.lowest.get(rule),
                    "highest": facts.highest.get(rule),
                }
                for rule in sorted(
                    facts.rules, key=lambda rule: (RULES.index(rule) if rule in RULES else len(RULES), rule)
                )
            ],
            "depths": [
                {**dict(zip(DETECTOR, (list(depth), *others), strict=True)), "in_use": list(span)}
                for (depth, *others), span in ranges.depths.items()
            ],
        },
        "size": {
            "size": list(fit.size),
            "shapes": [{"size": list(shape), "images": count} for shape, count in shapes[:MOST_SHAPES]],
            "other_shapes": max(0, len(shapes) - MOST_SHAPES),
            "resampled": sum(count for shape, count in shapes if shape != tuple(fit.size)),
        },
        "channels": {
            "channels": fit.channels,
            "colour_images": facts.colour,
            "grey_images": facts.shapes.total() - facts.colour,
            "dtype": fit.dtype.name,
        },
        "classes": _classes(rows),
        "subjects": _subjects(rows, split_by, known_by),
        "splits": _splits(rows, splits),
        "repeated_uids": len(facts.uids) - len(np.unique(np.asarray(facts.uids))),
    }


class _Facts:
    """Counts over items, which are passed once: a source may have millions. Memory: some fifty bytes an item.

    Attributes:
        shapes, rules: Images by shape and by rule of intensity.
        lowest, highest: Ends of the ranges known from headers, by rule.
        spans: A hash of each of these ranges, by rule.
        colour: Images in colour.
        uids: A hash of each SOPInstanceUID.
        volumes: Of each item of a series: hashes of series and volume, slices, stated distance and position (mm; NaN: unknown).
    """

    def __init__(self) -> None:
        self.shapes: Counter = Counter()
        self.rules: Counter = Counter()
        self.lowest: dict[str, float] = {}
        self.highest: dict[str, float] = {}
        self.spans: dict[str, array] = defaultdict(lambda: array("q"))
        self.colour = 0
        self.uids = array("q")
        self.volumes = (array("q"), array("q"), array("q"), array("d"), array("d"))

    def add(self, item: Item) -> None:
        """Count an item."""
        self.shapes[int(item.size[0]), int(item.size[1])] += item.n_images
        self.colour += item.n_images if item.channels == 3 else 0
        rule = str(item.row.get("intensity"))
        self.rules[rule] += item.n_images
        if rule in AS_DISPLAYED:
            self._add_span(rule, *DISPLAY_RANGE)
        elif rule not in ("hu", "percentile"):
            for _, columns in item.plan or ((0, {}),):  # the frames of an object may have ranges of their own
                of_image = item.row | columns
                self._add_span(rule, of_image["range_low"], of_image["range_high"])
        if item.uid:
            self.uids.append(_hashed(item.uid))
        if item.row.get("series") is not None:
            ids = [item.row.get(name) for name in ("patient", "study", "series")]
            stated, z_mm = item.row.get("spacing_slice_mm"), item.row.get("z_mm")
            is_known = item.n_images == 1 and z_mm is not None
            values: tuple[Any, ...] = (
                _hashed(*ids),
                _hashed(*ids, item.row.get("volume")),
                item.n_images,
                np.nan if stated is None else float(stated),
                float(z_mm) if is_known and z_mm is not None else np.nan,
            )
            for column, value in zip(self.volumes, values, strict=True):
                column.append(value)

    def _add_span(self, rule: str, low: float, high: float) -> None:
        self.spans[rule].append(hash((low, high)))
        self.lowest[rule] = min(low, self.lowest.get(rule, low))
        self.highest[rule] = max(high, self.highest.get(rule, high))


@dataclass(frozen=True)
class _Volume:
    """The slices of a volume.

    Attributes:
        slices: Their number.
        stated_mm: Distance of the slices that the last row states which states one; None: none does.
        positions: Their positions in mm, of all or none.
    """

    slices: int
    stated_mm: float | None
    positions: np.ndarray

    @property
    def distances(self) -> np.ndarray:
        """Distances of neighbouring positions, without 0; empty if a position is unknown."""
        return np.diff(np.unique(self.positions))

    @property
    def distance_mm(self) -> float | None:
        """Distance of the slices: as their rows state it, otherwise the median of their positions."""
        if self.stated_mm is not None:
            return round(self.stated_mm, 4)
        return round(float(np.median(self.distances)), 4) if len(self.distances) else None

    @property
    def is_uneven(self) -> bool:
        distances = self.distances
        return len(distances) > 1 and bool(np.abs(distances / np.median(distances) - 1).max() > UNEVEN)

    @property
    def repeats(self) -> bool:
        """Whether two slices are at one position."""
        return len(np.unique(self.positions)) < len(self.positions)


def _volumes(facts: _Facts) -> Iterator[_Volume]:
    """The volumes of a source."""
    _, volumes, slices, stated, positions = (np.asarray(column) for column in facts.volumes)
    for members in Partition(volumes):
        z_mm, known = positions[members], stated[members][~np.isnan(stated[members])]
        yield _Volume(
            int(slices[members].sum()),
            float(known[-1]) if len(known) else None,
            z_mm if not np.isnan(z_mm).any() else np.zeros(0),
        )


def _hashed(*texts: Any) -> int:
    """A 64-bit hash."""
    return int.from_bytes(
        hashlib.blake2b("\0".join(map(str, texts)).encode(), digest_size=8).digest(), "little", signed=True
    )


def _series(facts: _Facts) -> dict[str, Any] | None:
    """Series, their volumes, and the distances of slices; None if no image has a series."""
    if not len(facts.volumes[0]):
        return None
    slices, distances, uneven, repeated = array("q"), array("d"), 0, 0
    for volume in _volumes(facts):
        slices.append(volume.slices)
        if (distance := volume.distance_mm) is not None:
            distances.append(distance)
        uneven += volume.is_uneven
        repeated += volume.repeats
    counts = np.sort(np.asarray(slices))
    return {
        "series": len(np.unique(np.asarray(facts.volumes[0]))),
        "volumes": len(counts),
        "slices": {"fewest": int(counts[0]), "median": int(counts[len(counts) // 2]), "most": int(counts[-1])},
        "spacing_mm": {"smallest": min(distances), "largest": max(distances)} if distances else None,
        "uneven": uneven,
        "repeated_positions": repeated,
    }


def _classes(rows: ImageRows) -> dict[str, Any]:
    """Images and patients of each label; `tiny` are those of too few patients (or images) for three splits."""
    labels, patients = rows["label"], rows.ids("patient")
    images = np.bincount(labels.codes, minlength=len(labels.distinct))
    persons = distinct_pairs(labels.codes, patients.numbers, len(labels.distinct))
    known = bool(patients.known.all())
    total: Counter[str] = Counter()
    owners: Counter[str] = Counter()
    for label, n_images, n_patients in zip(labels.distinct, images.tolist(), persons.tolist(), strict=True):
        if label is not None:
            total[str(label)] += n_images
            owners[str(label)] += n_patients
    counts = {label: {"images": total[label], "patients": owners[label] if known else None} for label in sorted(total)}
    tiny = [label for label in counts if (owners if known else total)[label] < FEWEST_GROUPS]
    return {"classes": counts, "unlabelled": len(rows) - total.total(), "tiny": tiny}


def _subjects(rows: ImageRows, split_by: str, known_by: str | None) -> dict[str, Any]:
    """Patients, and images whose patient is unknown."""
    patients = rows.ids("patient")
    known = patients.known
    count = len(np.unique(patients.numbers[known]))
    return {
        "patients": count,
        "known_by": known_by,
        "images_without_patient": int((~known).sum()),
        "split_by": split_by,
    }


def _splits(rows: ImageRows, splits: np.ndarray | None) -> dict[str, Any] | None:
    """Images and patients of each split."""
    if splits is None:
        return None
    patients, sizes = rows.ids("patient"), {}
    for split in SPLITS:
        inside = splits == split
        if inside.any():
            known = patients.known[inside].all()
            count = len(np.unique(patients.numbers[inside])) if known else None
            sizes[split] = {"images": int(inside.sum()), "patients": count}
    return sizes
