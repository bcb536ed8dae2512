"""Domains of images, and the boundary between two of them.

The boundary between a source domain and a target domain is the scientific axis of every contrast.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssl_transfer.errors import RecipeError, nearest

UNKNOWN = "unknown"
DISTANCE = {"none": 0, "soft": 1, "hard": 2}  # boundary -> how far source and target lie apart; others come after these

# Modality -> family. Crossing a modality inside one family is a soft boundary, leaving the family a hard one.
FAMILIES = {
    "ct": "radiology",
    "xray": "radiology",
    "mammography": "radiology",
    "mr": "radiology",
    "ultrasound": "radiology",
    "nuclear": "radiology",
    "microscopy": "microscopy",
    "histology": "microscopy",
    "photograph": "photograph",
    "fundus": "medical photograph",
    "dermoscopy": "medical photograph",
    "endoscopy": "medical photograph",
    UNKNOWN: UNKNOWN,
}

# DICOM Modality (0008,0060) -> ours.
DICOM_MODALITIES = {
    "CT": "ct",
    "CR": "xray",
    "DX": "xray",
    "RG": "xray",
    "RF": "xray",
    "XA": "xray",
    "PX": "xray",
    "MG": "mammography",
    "MR": "mr",
    "US": "ultrasound",
    "IVUS": "ultrasound",
    "NM": "nuclear",
    "PT": "nuclear",
    "SM": "histology",
    "GM": "microscopy",
    "OP": "fundus",
    "OPT": "fundus",
    "ES": "endoscopy",
    "DMS": "dermoscopy",
    "XC": "photograph",
}


@dataclass(frozen=True)
class Domain:
    """A modality and, where it matters, what is shown.

    Written `ct`, `ct/thorax`, `microscopy/cell_line`: the part behind the slash is free text.

    Example:
        >>> boundary(Domain.parse("ct/head"), Domain.parse("xray"))
        'soft'
    """

    modality: str
    region: str = ""

    @classmethod
    def parse(cls, text: str) -> Domain:
        """Read `modality` or `modality/region`.

        Raises:
            RecipeError: If the modality is not one of `FAMILIES`.
        """
        modality, _, region = str(text).strip().lower().partition("/")
        if modality not in FAMILIES:
            raise RecipeError(f"domain '{text}': no modality is called '{modality}'.{nearest(modality, FAMILIES)}")
        return cls(modality, region)

    def __str__(self) -> str:
        return f"{self.modality}/{self.region}" if self.region else self.modality


def boundary(source: Domain, target: Domain) -> str:
    """How far two domains lie apart: `none` (one modality), `soft` (one family), `hard`, or `unknown`."""
    if UNKNOWN in (source.modality, target.modality):
        return UNKNOWN
    if source.modality == target.modality:
        return "none"
    return "soft" if FAMILIES[source.modality] == FAMILIES[target.modality] else "hard"
