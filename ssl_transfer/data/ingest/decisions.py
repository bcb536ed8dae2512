"""What ingest decides from headers: series, intensity ranges, size, classes, subjects, splits. For the card and `--check`."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ssl_transfer.data.display import DISPLAY_RANGE
from ssl_transfer.data.ingest.fit import Fit
from ssl_transfer.data.ingest.ranges import AS_DISPLAYED, Ranges
from ssl_transfer.data.readers.reader import Item, Scan
from ssl_transfer.data.splits import FEWEST_GROUPS
from ssl_transfer.data.store import SPLITS

MOST_SHAPES = 8  # that are listed
UNEVEN = 0.02  # of the usual distance of slices: a distance that differs by more is uneven
DETECTOR = ("depth", "modality", "manufacturer", "photometric")  # what files of one depth in use have in common
RULES = ("hu", "window", "bits", "percentile", "display", "colour", "palette")


def decisions(
    scan: Scan,
    fit: Fit,
    ranges: Ranges,
    rows: Sequence[dict],
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
    known = {
        rule: (min(low for low, _ in spans), max(high for _, high in spans)) for rule, spans in facts.spans.items()
    }
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
                    "ranges": ranges.groups if rule == "percentile" else len(facts.spans[rule]),
                    "lowest": known[rule][0] if rule in known else None,
                    "highest": known[rule][1] if rule in known else None,
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
    """Counts over items, which are passed once: a source may have millions.

    Attributes:
        shapes, rules: Images by shape and by rule of intensity.
        spans: Ranges known from headers, by rule.
        colour: Images in colour.
        uids: A hash of each SOPInstanceUID.
        series: Hashes of the series.
        volumes: What is known of each volume.
    """

    def __init__(self) -> None:
        self.shapes: Counter = Counter()
        self.rules: Counter = Counter()
        self.spans: dict[str, set] = defaultdict(set)
        self.colour = 0
        self.uids, self.series = array("q"), set()
        self.volumes: dict[tuple, _Volume] = defaultdict(_Volume)

    def add(self, item: Item) -> None:
        """Count an item."""
        self.shapes[int(item.size[0]), int(item.size[1])] += item.n_images
        self.colour += item.n_images if item.channels == 3 else 0
        rule = str(item.row.get("intensity"))
        self.rules[rule] += item.n_images
        if rule in AS_DISPLAYED:
            self.spans[rule].add(DISPLAY_RANGE)
        elif rule not in ("hu", "percentile"):
            self.spans[rule].add((item.row["range_low"], item.row["range_high"]))
        if item.uid:
            self.uids.append(_hashed(item.uid))
        if item.row.get("series") is not None:
            series = _hashed(*(item.row.get(name) for name in ("patient", "study", "series")))
            self.series.add(series)
            self.volumes[series, item.row.get("volume")].add(item)


class _Volume:
    """Number, distance and positions in mm of the slices of a volume."""

    __slots__ = ("known", "positions", "slices", "stated_mm")

    def __init__(self) -> None:
        self.slices, self.known, self.positions = 0, True, array("d")
        self.stated_mm: float | None = None

    def add(self, item: Item) -> None:
        """Count a file of the volume."""
        self.slices += item.n_images
        stated, z_mm = item.row.get("spacing_slice_mm"), item.row.get("z_mm")
        self.stated_mm = self.stated_mm if stated is None else float(stated)
        self.known &= item.n_images == 1 and z_mm is not None
        if self.known and z_mm is not None:
            self.positions.append(float(z_mm))

    @property
    def distances(self) -> np.ndarray:
        """Distances of neighbouring positions, without 0; empty if a position is unknown."""
        return np.diff(np.unique(np.asarray(self.positions))) if self.known else np.zeros(0)

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
        return self.known and len(np.unique(np.asarray(self.positions))) < len(self.positions)


def _hashed(*texts: str | None) -> int:
    """A 64-bit hash."""
    return int.from_bytes(
        hashlib.blake2b("\0".join(map(str, texts)).encode(), digest_size=8).digest(), "little", signed=True
    )


def _series(facts: _Facts) -> dict[str, Any] | None:
    """Series, their volumes, and the distances of slices; None if no image has a series."""
    if not facts.series:
        return None
    volumes = facts.volumes.values()
    slices = sorted(volume.slices for volume in volumes)
    distances = [distance for volume in volumes if (distance := volume.distance_mm) is not None]
    return {
        "series": len(facts.series),
        "volumes": len(slices),
        "slices": {"fewest": slices[0], "median": slices[len(slices) // 2], "most": slices[-1]},
        "spacing_mm": {"smallest": min(distances), "largest": max(distances)} if distances else None,
        "uneven": sum(volume.is_uneven for volume in volumes),
        "repeated_positions": sum(volume.repeats for volume in volumes),
    }


def _classes(rows: Sequence[dict]) -> dict[str, Any]:
    """Images and patients of each label; `tiny` are those of too few patients (or images) for three splits."""
    images: Counter = Counter()
    patients: dict[str, set] = defaultdict(set)
    for row in rows:
        if row.get("label") is not None:
            images[str(row["label"])] += 1
            patients[str(row["label"])].add(row.get("patient"))
    known = all(row.get("patient") for row in rows)
    counts = {
        label: {"images": images[label], "patients": len(patients[label]) if known else None}
        for label in sorted(images)
    }
    tiny = [label for label, n in counts.items() if (n["patients"] if known else n["images"]) < FEWEST_GROUPS]
    return {"classes": counts, "unlabelled": len(rows) - images.total(), "tiny": tiny}


def _subjects(rows: Iterable[dict], split_by: str, known_by: str | None) -> dict[str, Any]:
    """Patients, and images whose patient is unknown."""
    known = Counter(row.get("patient") for row in rows)
    unknown = known.pop(None, 0)
    return {"patients": len(known), "known_by": known_by, "images_without_patient": unknown, "split_by": split_by}


def _splits(rows: Sequence[dict], splits: np.ndarray | None) -> dict[str, Any] | None:
    """Images and patients of each split."""
    if splits is None:
        return None
    images = Counter(splits.tolist())
    patients: dict[str, set] = defaultdict(set)
    for row, split in zip(rows, splits.tolist(), strict=True):
        patients[split].add(row.get("patient"))
    return {
        split: {"images": images[split], "patients": None if None in patients[split] else len(patients[split])}
        for split in SPLITS
        if images[split]
    }
