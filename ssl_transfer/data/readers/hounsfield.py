"""Whether values without a unit are Hounsfield units: decided per volume, by the peak of air.

CT has air: a peak at −1000 HU with next to nothing below but a constant padding. Volumes of other modalities may have low values,
but no such peak: phase images fill their range evenly, and differences and normalised images are spread around 0. A cropped CT
without air has values that fit HU; it is decided by the other volumes of the source.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssl_transfer.data.readers.reader import named_file
from ssl_transfer.domains import DICOM_MODALITIES, UNKNOWN

AIR_PEAK = (-1100.0, -900.0)
CLIPPED_AT = (-1024.0, -1000.0)  # smallest value of most CT volumes, however little air they have
AIR_SHARE = 0.01  # smallest share of the voxels
BELOW_AIR = 0.25  # largest share below the peak, relative to the peak; a normal distribution around 0 has more
LOWEST_HU, HIGHEST_HU = -3100.0, 4500.0  # padding of some scanners; metal reaches 3071, or more on an extended scale
METAL_SHARE = 0.01
WHOLE_SHARE = 0.95  # of a CT volume without air: scanners store whole numbers
LOW = -500.0  # a volume of another modality that reaches below is named
NORMALISED = 10.0  # fractions that reach no further from 0 are normalised values: HU of any volume do
SAMPLED_VOXELS = 2**20

Verdict = Literal["ct", "fits", "other"]


@dataclass(frozen=True)
class Evidence:
    """What the values of a volume say.

    Attributes:
        verdict: `ct`: they have a peak of air; `fits`: they may be HU of a region without air; `other`: they are no HU.
        reason: Why, for the user.
        lowest: Smallest value.
    """

    verdict: Verdict
    reason: str
    lowest: float = 0.0


def hu_evidence(values: np.ndarray, modality: str | None = None) -> Evidence:
    """Judge a sample of a volume's values.

    Args:
        values: Numbers of any shape; those that are not finite are left out.
        modality: DICOM modality that a file beside the volume states, which decides.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    lowest = float(values.min()) if values.size else 0.0
    if modality in DICOM_MODALITIES:
        return Evidence("ct" if modality == "CT" else "other", f"its sidecar states Modality {modality}", lowest)
    if not values.size:
        return Evidence("other", "it has no finite value")
    if lowest < AIR_PEAK[0] and np.count_nonzero(values == lowest) > 1:
        values = values[values > lowest]  # a constant below air is padding
        if not values.size:
            return Evidence("other", f"it is constant ({lowest:g})", lowest)
    air = float(np.mean((values >= AIR_PEAK[0]) & (values <= AIR_PEAK[1])))
    below, above = float(np.mean(values < AIR_PEAK[0])), float(np.mean(values > HIGHEST_HU))
    if air >= AIR_SHARE and below <= BELOW_AIR * air and above <= METAL_SHARE:
        return Evidence("ct", f"{air:.0%} of its voxels are air around -1000", lowest)
    if below > BELOW_AIR * air + 1e-3 or above > METAL_SHARE:
        return Evidence("other", f"{below + above:.1%} of its voxels are outside of -1100 to {HIGHEST_HU:g}", lowest)
    if lowest >= 0:
        return Evidence("other", f"its values are not negative ({lowest:g} to {values.max():g})", lowest)
    whole = float(np.mean(values == np.rint(values)))
    if whole < WHOLE_SHARE or float(np.ptp(values)) < 50:
        text = (
            f"it has no air, and values from {lowest:.3g} to {values.max():.3g} of which {whole:.0%} are whole numbers"
        )
        return Evidence("other", text, lowest)
    if lowest in CLIPPED_AT:
        return Evidence("ct", f"its smallest value is {lowest:g}, where CT is clipped", lowest)
    return Evidence("fits", f"no air, but values from {lowest:g} to {values.max():g} fit HU", lowest)


def is_normalised(values: np.ndarray) -> bool:
    """Whether values were scaled to a range such as 0 to 1: as HU, they would be rounded to a few numbers.

    Example:
        >>> is_normalised(np.array([0.0, 0.25, 1.0])), is_normalised(np.array([-1024.0, 40.5]))
        (True, False)
    """
    if values.dtype.kind != "f":
        return False
    finite = values[np.isfinite(values)]
    return bool(finite.size) and float(np.abs(finite).max()) <= NORMALISED and bool((finite % 1 != 0).any())


def nonnegative_note(domain: str, what: str) -> str:
    """The warning about values that are read as HU by the user's word, although none is below 0."""
    return (
        f"read as HU because of --domain {domain}, although {what} is below 0, where CT has air. If values were windowed, ingest "
        "them without --domain"
    )


@dataclass(frozen=True)
class Decision:
    """Whether a source is in HU, and which of its volumes are not of its kind.

    Attributes:
        in_hu: Whether values are HU.
        domain: `ct`, what the user states, or unknown.
        set_aside: Position of each volume that does not fit -> reason.
        notes: What was decided, for the card and the user.
    """

    in_hu: bool
    domain: str
    set_aside: dict[int, str]
    notes: list[str]


def decide_by_domain(domain: str) -> Decision:
    """The decision that `--domain` states."""
    return Decision(domain.split("/")[0] == "ct", domain, {}, [])


def decide_by_values(names: Sequence[str], evidence: Sequence[Evidence]) -> Decision:
    """Decide by the values of all volumes: those of the rarer kind are set aside.

    Args:
        names: Names of the volumes, for messages.
        evidence: The evidence of each.
    """
    verdicts = [sys.intern(of_volume.verdict) for of_volume in evidence]
    n_ct, n_other = verdicts.count("ct"), verdicts.count("other")
    in_hu = n_ct > 0 and n_ct >= n_other
    notes: list[str] = []
    set_aside: dict[int, str] = {}
    for position, verdict in enumerate(verdicts):
        if in_hu and verdict == "other":
            set_aside[position] = f"no HU among {n_ct} CT volumes: {evidence[position].reason}"
        elif not in_hu and n_ct and verdict == "ct":
            set_aside[position] = f"CT in HU among {n_other} volumes of another kind: {evidence[position].reason}"
    if in_hu:
        notes.append(
            f"read as CT in HU: {n_ct} of {len(names)} volume(s) have a peak of air at -1000; --domain overrides this"
        )
        cropped = array("q", (position for position, verdict in enumerate(verdicts) if verdict == "fits"))
        if cropped:
            notes.append(
                f"read as HU like the others, without air of their own: {_some(names, cropped)}; --domain overrides this"
            )
    else:
        low = array("q", (k for k, e in enumerate(evidence) if e.verdict != "ct" and e.lowest <= LOW))
        if low:
            notes.append(
                f"not read as HU, although values reach below {LOW:g}, because there is no peak of air at -1000: "
                f"{_some(names, low)}; --domain ct overrides this"
            )
    if set_aside:
        kind = "no HU among CT volumes" if in_hu else "CT in HU among volumes of another kind"
        notes.append(
            f"{len(set_aside)} volume(s) set aside, {kind}: {_some(names, list(set_aside))}. "
            "To take all of them, state what they are: --domain"
        )
    return Decision(in_hu, "ct" if in_hu else UNKNOWN, set_aside, notes)


def _some(names: Sequence[str], positions: Sequence[int]) -> str:
    """The first names at some positions, and how many follow."""
    shown = ", ".join(named_file(names[position]) for position in positions[:3])
    return shown + (f" and {len(positions) - 3} more" if len(positions) > 3 else "")
