"""Division of a DICOM series into volumes, the order of their slices, and whether these are evenly spaced.

Slices of one volume share orientation, size, stack, echo, component, b-value and kernel. Where positions then still repeat,
attributes that tell the repetitions apart are tried one after the other: dimensions of enhanced objects, temporal position, echo
time, gradient direction, image type, contrast agent, trigger time, acquisition number and time, content time, in-plane position,
InstanceNumber. Where none does, the volume stays whole and is marked `repeated`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssl_transfer.data.readers.dicom_geometry import UNORDERED, Frame
from ssl_transfer.data.readers.dicom_header import ImageFile

UPRIGHT_AXES = {
    0: (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    1: (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
}  # sagittal and coronal, head above
SAME_AXES = 0.01  # largest difference of direction cosines within a volume
SAME_POSITION_MM = 0.01  # slices closer than this are at one position
EVEN_SHARE = 0.05  # largest deviation of a slice from even spacing, as a share of the spacing
EVEN_MM = 0.02  # or in mm: headers round positions
WHOLE_SHARE = 0.1  # largest deviation of a gap from a whole number of spacings
SHEAR_PIXELS = 0.5  # largest shift within the plane from the first slice to the last


@dataclass(slots=True)
class Slice:
    """A frame of a file, in its series.

    Attributes:
        image: Its file.
        number: Number of the frame in the file.
        frame: Attributes of the frame.
        z_mm: Position along the normal; None if unknown.
    """

    image: ImageFile
    number: int
    frame: Frame
    z_mm: float | None


@dataclass(frozen=True)
class Spacing:
    """The distances between the slices of a volume.

    Attributes:
        mm: Distance between neighbouring slices along the normal; None if unknown, or if no single distance is right.
        irregular: Why not: `repeated`, `uneven`, `gap`, `tilt`, `incomplete`, or several of them; None if slices are regular.
    """

    mm: float | None
    irregular: str | None


def divide(images: Sequence[ImageFile]) -> list[list[Slice]]:
    """Divide the files of a series into volumes.

    Args:
        images: The files of the series, sorted by name.

    Returns:
        Volumes, each with its slices in order.
    """
    slices = [Slice(image, number, frame, frame.position) for image, number, frame in _placed_frames(images)]
    groups = list(_by_part(slices).values())
    order = {id(slice_): position for position, slice_ in enumerate(slices)}
    groups.sort(key=lambda group: (min(_instance(s) for s in group), order[id(group[0])]))
    return [_ordered(volume) for group in groups for volume in _by_time(group)]


def _placed_frames(images: Sequence[ImageFile]) -> Iterator[tuple[ImageFile, int, Frame]]:
    """The frames of a series. Those without an orientation have that in which they are slices: sagittal if their positions differ
    from left to right alone, coronal from front to back, otherwise axial."""
    frames = [(image, number, frame) for image in images for number, frame in enumerate(image.frames)]
    points = [frame.point for _, _, frame in frames if frame.axes is None and frame.point is not None]
    extent = np.ptp(np.array(points), axis=0) if points else np.zeros(3)
    varying = np.flatnonzero(extent >= SAME_POSITION_MM)
    assumed = UPRIGHT_AXES.get(int(varying[0])) if len(varying) == 1 else None
    for image, number, frame in frames:
        yield image, number, replace(frame, axes=assumed) if frame.axes is None and assumed else frame


def spacing_of(volume: Sequence[Slice]) -> Spacing:
    """The spacing of the slices of a volume, which are in order."""
    known = [(s.frame, s.z_mm) for s in volume if s.z_mm is not None]
    if len(volume) == 1:
        return Spacing(None, None)
    if not known:
        return Spacing(None, None)
    if len(known) < len(volume):
        return Spacing(None, "incomplete")
    z = np.array([z_mm for _, z_mm in known], float)
    steps = np.diff(z)
    found = ["repeated"] if (steps < SAME_POSITION_MM).any() else []
    steps = steps[steps >= SAME_POSITION_MM]
    if not len(steps):
        return Spacing(None, ", ".join(found))
    unevenness = _unevenness(steps)
    found += [unevenness] if unevenness else []
    found += ["tilt"] if _is_sheared([frame for frame, _ in known], volume[0]) else []
    mm = None if found else round(float(steps.sum() / len(steps)), 4)
    return Spacing(mm, ", ".join(found) or None)


def _by_part(slices: list[Slice]) -> dict[Hashable, list[Slice]]:
    """Slices that share orientation, size and the other attributes in which slices of one volume never differ."""
    if all(s.z_mm is None for s in slices):
        rows: list[tuple] = [
            s.frame.parts[:-1] for s in slices
        ]  # pictures of one series may differ in size and spacing
    else:
        axes = _alike([s.frame.axes for s in slices])
        rows = [(a, s.image.item.size, *s.frame.parts) for a, s in zip(axes, slices, strict=True)]
    columns = [_completed(column) for column in zip(*rows, strict=True)]
    groups: dict[Hashable, list[Slice]] = defaultdict(list)
    for key, slice_ in zip(zip(*columns, strict=True), slices, strict=True):
        groups[key].append(slice_)
    return groups


def _alike(axes: Sequence[tuple[float, ...] | None]) -> list[int | None]:
    """A number for each orientation; those that differ by rounding have the same one."""
    found: list[tuple[float, ...]] = []
    known: dict[tuple[float, ...], int] = {}
    numbers: list[int | None] = []
    for one in axes:
        if one is None:
            numbers.append(None)
            continue
        if one not in known:
            near = (k for k, other in enumerate(found) if max(map(abs, np.subtract(one, other))) < SAME_AXES)
            known[one] = next(near, len(found))
            found += [one] if known[one] == len(found) else []
        numbers.append(known[one])
    return numbers


def _completed(column: Sequence[Any]) -> Sequence[Any]:
    """Fill in missing values if all others are equal: a field that one slice lacks does not make a volume."""
    stated = {value for value in column if value is not None and value != ()}
    return [next(iter(stated))] * len(column) if len(stated) == 1 else column


def _by_time(slices: list[Slice]) -> list[list[Slice]]:
    """Divide slices whose positions repeat by the first attribute that tells the repetitions apart, and so on.

    Without positions, as in nuclear medicine, numbers in the stack take their place.
    """
    if all(s.z_mm is not None for s in slices):
        places = [round((s.z_mm or 0) / SAME_POSITION_MM) for s in slices]
    elif all(s.frame.in_stack is not None for s in slices):
        places = [round(s.frame.in_stack or 0) for s in slices]
    else:
        return [slices]
    if len(set(places)) == len(places):
        return [slices]
    readers: list[Callable[[Slice], Any]] = [lambda s, k=k: s.frame.times[k] for k in range(len(slices[0].frame.times))]
    readers += [lambda s: tuple(round(mm) for mm in s.frame.in_plane or ()), lambda s: s.frame.instance]
    for number, read in enumerate(readers):
        parts = _parted(slices, places, [read(s) for s in slices], unordered=number in UNORDERED)
        if parts:
            return [volume for part in parts for volume in _by_time(part)]
    return [slices]


def _parted(slices: list[Slice], places: list[int], values: list[Any], *, unordered: bool) -> list[list[Slice]] | None:
    """Divide slices by an attribute; None if it does not tell slices at the same position apart.

    Slices with one value are a part if there are no more values than repetitions. Otherwise the attribute differs from slice to
    slice, as times do: the first value at each position makes the first part, and so on.

    Args:
        slices: The slices.
        places: Position of each.
        values: Value of the attribute of each.
        unordered: Whether values have no order: then parts are in the order of InstanceNumber.
    """
    different = set(values)
    if len(different) < 2 or None in different:
        return None
    repetitions = Counter(places)
    most = max(repetitions.values())
    if len(different) <= most:
        parts: dict[Any, list[int]] = defaultdict(list)
        for index, value in enumerate(values):
            parts[value].append(index)
        repeated = sum(len(part) - len({places[k] for k in part}) for part in parts.values())
        if repeated == len(places) - len(repetitions):
            return None
        if unordered:
            first = {value: min(_instance(slices[k]) for k in part) for value, part in parts.items()}
            return [[slices[k] for k in parts[value]] for value in sorted(parts, key=first.__getitem__)]
        return [[slices[k] for k in parts[value]] for value in sorted(parts, key=_sortable)]
    if set(repetitions.values()) != {most}:
        return None
    ranked: list[list[Slice]] = [[] for _ in range(most)]
    at: dict[int, list[int]] = defaultdict(list)
    for index, place in enumerate(places):
        at[place].append(index)
    for indices in at.values():
        if len({values[k] for k in indices}) < most:
            return None
        for rank, k in enumerate(sorted(indices, key=lambda k: _sortable(values[k]))):
            ranked[rank].append(slices[k])
    return ranked


def _sortable(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def _ordered(volume: list[Slice]) -> list[Slice]:
    """Slices by position, otherwise by their number in the stack, otherwise by InstanceNumber, otherwise as they are."""
    if all(s.z_mm is not None for s in volume):
        return sorted(volume, key=lambda s: (s.z_mm, _instance(s), s.image.item.file, s.number))
    if all(s.frame.in_stack is not None for s in volume):
        return sorted(volume, key=lambda s: (s.frame.in_stack, _instance(s), s.number))
    if all(s.frame.instance is not None for s in volume):
        return sorted(volume, key=lambda s: (s.frame.instance, s.image.item.file, s.number))
    return volume


def _instance(slice_: Slice) -> float:
    return np.inf if slice_.frame.instance is None else slice_.frame.instance


def _unevenness(steps: np.ndarray) -> str | None:
    """`gap` if some distances are multiples of the others, `uneven` if distances differ in another way; None if they are even."""
    even = steps.sum() / len(steps)
    deviation = np.abs(np.cumsum(steps) - even * np.arange(1, len(steps) + 1)).max()
    if deviation <= max(EVEN_SHARE * even, EVEN_MM) and np.abs(steps - even).max() <= max(
        2 * EVEN_SHARE * even, EVEN_MM
    ):
        return None
    multiples = steps / np.median(steps)
    whole = np.rint(multiples)
    is_gap = np.abs(multiples - whole).max() <= WHOLE_SHARE and whole.min() >= 1 and whole.max() >= 2
    return "gap" if is_gap else "uneven"


def _is_sheared(frames: Sequence[Frame], first: Slice) -> bool:
    """Whether slices shift within their planes, as with a tilted gantry: then no grid of voxels has right angles."""
    shifts = np.array([frame.in_plane for frame in frames], float)
    within = [mm for mm in (first.image.item.row["spacing_row_mm"], first.image.item.row["spacing_col_mm"]) if mm]
    return bool(np.abs(shifts - shifts[0]).max() > SHEAR_PIXELS * min(within, default=1.0))
