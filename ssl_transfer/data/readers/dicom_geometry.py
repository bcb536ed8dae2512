"""Where DICOM frames lie: pixel spacing, position along the slice normal, and the attributes by which volumes differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssl_transfer.data.readers.dicom_values import (
    functional_group,
    group_or_header,
    is_enhanced,
    number,
    numbers,
    states,
    text,
    words,
)

Point = tuple[float, float, float]
STANDING = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # orientation of an axial slice, where none is stated
COMPONENTS = {"M": "M", "P": "P", "R": "R", "I": "I", "MAGNITUDE": "M", "PHASE": "P", "REAL": "R", "IMAGINARY": "I"}
PLACE_DIMENSIONS = ("InStackPositionNumber", "ImagePositionPatient", "PlanePositionSequence", "ImagePositionVolume")
NUCLEAR_VECTORS = (
    "EnergyWindowVector",
    "DetectorVector",
    "PhaseVector",
    "RotationVector",
    "RRIntervalVector",
    "TimeSlotVector",
    "TimeSliceVector",
)  # of nuclear medicine, whose frames differ by more than by slice
COMPONENT = 2  # of `Frame.parts`
IMAGE_TYPE = 6  # of `Frame.times`
UNORDERED = (3, 6, 7)  # of `Frame.times`: gradient direction, image type, contrast agent
B_VALUES = ((0x0019, 0x100C), (0x2001, 0x1003), (0x0043, 0x1039))  # private, of Siemens, Philips and GE


@dataclass(frozen=True)  # without slots, which take longer to pickle
class Frame:
    """Attributes of a frame that decide about its volume and its place in it.

    Attributes:
        point: ImagePositionPatient in mm; None if unknown.
        axes: ImageOrientationPatient; None if unknown.
        parts: Attributes in which slices of one volume never differ: stack, echo, component, b-value, kernel.
        times: Attributes that tell slices at the same position apart, in the order in which they are tried.
        instance: InstanceNumber.
        in_stack: Number of the slice in its stack, for frames without a position.
    """

    point: Point | None
    axes: tuple[float, ...] | None
    parts: tuple
    times: tuple
    instance: float | None
    in_stack: float | None

    @property
    def quantity(self) -> tuple:
        """What its values measure: component (magnitude, phase, …) and image type. Volumes of one quantity share a scale."""
        return self.parts[COMPONENT], self.times[IMAGE_TYPE]

    @property
    def normal(self) -> Point:
        """Unit vector across the slice."""
        a, b, c, d, e, f = self.axes or STANDING
        normal = b * f - c * e, c * d - a * f, a * e - b * d
        length = math.hypot(*normal)
        return (normal[0] / length, normal[1] / length, normal[2] / length) if length > 0 else (0.0, 0.0, 1.0)

    @property
    def position(self) -> float | None:
        """Position along the normal in mm, to 0.1 µm; None if unknown."""
        return None if self.point is None else round(_dot(self.normal, self.point), 4)

    @property
    def in_plane(self) -> tuple[float, float] | None:
        """Position of the first pixel within its plane in mm; None if unknown."""
        axes = self.axes or STANDING
        return None if self.point is None else (_dot(axes[:3], self.point), _dot(axes[3:], self.point))


def frames_of(dataset, count: int) -> list[Frame]:
    """The frames of an object, in the order of the file."""
    if count == 1 and not states(dataset, "PerFrameFunctionalGroupsSequence"):
        return [_frame(dataset, dataset, 0, ())]
    dimensions = _dimensions(dataset)
    vectors = [numbers(dataset, keyword) for keyword in NUCLEAR_VECTORS if states(dataset, keyword)]
    vectors = [vector for vector in vectors if len(vector) == count]
    slices = numbers(dataset, "SliceVector")
    frames = []
    for frame in range(count):
        content = functional_group(dataset, frame, "FrameContentSequence")
        indices = numbers(content, "DimensionIndexValues") if content is not None else []
        other = tuple(indices[k] for k in dimensions if k < len(indices)) or tuple(v[frame] for v in vectors)
        made = _frame(dataset, content if content is not None else dataset, frame, other)
        if made.in_stack is None and len(slices) == count:
            made = Frame(made.point, made.axes, made.parts, made.times, made.instance, slices[frame])
        frames.append(made)
    return frames


def _frame(dataset, content, frame: int, dimensions: tuple) -> Frame:
    def group(macro: str) -> Any:
        return group_or_header(dataset, frame, macro) if has_groups else dataset

    has_groups = is_enhanced(dataset)
    point = numbers(group("PlanePositionSequence"), "ImagePositionPatient")
    axes = numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient")
    return Frame(
        (point[0], point[1], point[2]) if len(point) == 3 else None,
        tuple(axes) if len(axes) == 6 else None,
        _parts(dataset, content, group),
        _times(dataset, content, group, dimensions),
        number(dataset, "InstanceNumber"),
        number(content, "InStackPositionNumber"),
    )


def _parts(dataset, content, group) -> tuple:
    """Attributes in which slices of one volume never differ."""
    kinds = words(dataset, "ImageType")
    component = next((COMPONENTS[kind] for kind in kinds[2:] if kind in COMPONENTS), None)
    stated = words(group("MRImageFrameTypeSequence"), "ComplexImageComponent")
    component = COMPONENTS.get(stated[0], stated[0]) if stated else component
    is_mr = text(dataset, "Modality") == "MR"
    return (
        text(content, "StackID"),
        number(dataset, "EchoNumbers") if is_mr else None,
        component,
        _b_value(dataset, group) if is_mr else None,
        text(group("CTReconstructionSequence"), "ConvolutionKernel"),
        tuple(numbers(group("PixelMeasuresSequence"), "PixelSpacing")),
    )


def _times(dataset, content, group, dimensions: tuple) -> tuple:
    """Attributes that tell slices at the same position apart; those that say most about the reason come first."""
    date = text(dataset, "AcquisitionDate") or ""
    moment = text(content, "FrameAcquisitionDateTime") or text(dataset, "AcquisitionDateTime")
    time = text(dataset, "AcquisitionTime")
    magnetic = (None, None, None, None)
    if text(dataset, "Modality") == "MR":
        echo_time = _first(number(group("MREchoSequence"), "EffectiveEchoTime"), number(dataset, "EchoTime"))
        direction = _direction(dataset, group)
        magnetic = echo_time, direction, number(dataset, "InversionTime"), number(dataset, "FlipAngle")
    return (
        dimensions or None,
        _first(number(content, "TemporalPositionIndex"), number(dataset, "TemporalPositionIdentifier")),
        *magnetic,
        "\\".join(words(dataset, "ImageType")) or None,
        text(dataset, "ContrastBolusAgent"),
        _first(
            number(group("CardiacSynchronizationSequence"), "NominalCardiacTriggerDelayTime"),
            number(dataset, "TriggerTime"),
        ),
        number(dataset, "FrameReferenceTime"),
        _first(number(content, "FrameAcquisitionNumber"), number(dataset, "AcquisitionNumber")),
        moment or (date + time if time else None),
        text(dataset, "ContentTime"),
    )


def _first(*values: float | None) -> float | None:
    """The first value that is stated; 0 is one."""
    return next((value for value in values if value is not None), None)


def _b_value(dataset, group) -> float | None:
    stated = number(group("MRDiffusionSequence"), "DiffusionBValue")
    if stated is not None:
        return stated
    for tag in B_VALUES:
        try:
            value = dataset[tag].value if tag in dataset else None
            value = value.decode("latin-1").split("\\")[0] if isinstance(value, bytes) else value
            value = value if isinstance(value, (str, float, int)) or value is None else value[0]
            if value is not None:
                return float(value) % 1e5  # GE adds 1e9
        except Exception:  # another manufacturer's element under this number
            continue
    return None


def _direction(dataset, group) -> tuple | None:
    """Direction of the diffusion gradient."""
    holder = group("MRDiffusionSequence")
    inner = holder.get("DiffusionGradientDirectionSequence") if holder is not dataset else None
    stated = numbers(inner[0] if inner else dataset, "DiffusionGradientOrientation")
    if not stated and (0x0019, 0x100E) in dataset:  # Siemens
        try:
            stated = [float(value) for value in dataset[0x0019, 0x100E].value]
        except Exception:
            stated = []
    return tuple(round(value, 3) for value in stated) or None


def _dimensions(dataset) -> list[int]:
    """Places in DimensionIndexValues of the dimensions that are not the place of a slice."""
    from pydicom.datadict import keyword_for_tag

    try:
        pointers = [int(item.DimensionIndexPointer) for item in dataset.get("DimensionIndexSequence") or []]
    except Exception:  # a damaged sequence
        return []
    return [k for k, tag in enumerate(pointers) if keyword_for_tag(tag) not in PLACE_DIMENSIONS]


def pixel_spacing(dataset, frame: int = 0) -> tuple[tuple[float | None, float | None], bool]:
    """Distance in mm between pixel centres of a frame (row, column), and whether it is that at the detector.

    PixelSpacing holds at the patient. Without it, the spacing at the detector is divided by the magnification, which projection
    radiographs state as a factor or as two distances. If that is unknown, the spacing at the detector is returned.
    PixelSpacing that equals ImagerPixelSpacing was not corrected for magnification (PS3.3 10.7.1.3).
    """
    stated = _pair(group_or_header(dataset, frame, "PixelMeasuresSequence"), "PixelSpacing")
    detector = _pair(dataset, "ImagerPixelSpacing")
    if stated and stated != detector:
        return stated, False
    if detector:
        magnification = _magnification(dataset)
        if magnification is None:
            return detector, True
        return (detector[0] / magnification, detector[1] / magnification), False
    return stated or _pair(dataset, "NominalScannedPixelSpacing") or (None, None), False


def _magnification(dataset) -> float | None:
    factor = number(dataset, "EstimatedRadiographicMagnificationFactor")
    source_detector = number(dataset, "DistanceSourceToDetector")
    source_patient = number(dataset, "DistanceSourceToPatient")
    if factor is None and source_detector and source_patient:
        factor = source_detector / source_patient
    return factor if factor is not None and 1 <= factor < 20 else None


def _pair(dataset, keyword: str) -> tuple[float, float] | None:
    values = numbers(dataset, keyword)
    return (values[0], values[1]) if len(values) == 2 and min(values) > 0 else None


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
