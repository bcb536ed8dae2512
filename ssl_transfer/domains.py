"""Domains of images, and the boundary between two of them.

The boundary between a source domain and a target domain is the scientific axis of every contrast.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssl_transfer.errors import RecipeError, nearest

UNKNOWN = "unknown"
MICROSCOPY = "microscopy"  # a family; as a modality, that of a store or backbone that does not say which one
DISTANCE = {"none": 0, "soft": 1, "hard": 2}  # boundary -> how far source and target lie apart; others come after these

# Modality -> family. Crossing a modality inside one family is a soft boundary, leaving the family a hard one.
FAMILIES = {
    "ct": "radiology",
    "xray": "radiology",
    "mammography": "radiology",
    "mr": "radiology",
    "ultrasound": "radiology",
    "nuclear": "radiology",
    "fluorescence": MICROSCOPY,
    "brightfield": MICROSCOPY,
    "phase_contrast": MICROSCOPY,
    "histology": MICROSCOPY,
    MICROSCOPY: MICROSCOPY,
    "photograph": "photograph",
    "web": "photograph",  # pictures of the web: photographs for the most part, drawings, screenshots
    "satellite": "remote sensing",
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
    "GM": MICROSCOPY,  # general microscopy: the standard does not say of which kind
    "OP": "fundus",
    "OPT": "fundus",
    "ES": "endoscopy",
    "DMS": "dermoscopy",
    "XC": "photograph",
}


@dataclass(frozen=True)
class Domain:
    """A modality and, where it matters, what is shown.

    Written `ct`, `ct/thorax`, `fluorescence/cell_line`: the part behind the slash is free text.

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

    @property
    def open_modality(self) -> str | None:
        """What to type in place of a family that stands for a modality; None for a modality."""
        if self.modality != MICROSCOPY:
            return None
        region = f"/{self.region}" if self.region else ""
        named = [f"{name}{region}" for name, family in FAMILIES.items() if family == MICROSCOPY != name]
        return (
            f"domain '{self}': microscopy is a family of several modalities, so its boundaries to other microscopy are unknown. "
            f"Ingest with --domain {', '.join(named[:-1])} or {named[-1]}."
        )

    def __str__(self) -> str:
        return f"{self.modality}/{self.region}" if self.region else self.modality


def boundary(source: Domain, target: Domain) -> str:
    """How far two domains lie apart.

    Returns:
        `none` (one modality), `soft` (one family, such as fluorescence and bright-field microscopy), `hard`, or `unknown`: if a
        modality is, or if both are microscopy and one of them does not say of which kind.
    """
    modalities = (source.modality, target.modality)
    if UNKNOWN in modalities:
        return UNKNOWN
    if FAMILIES[source.modality] != FAMILIES[target.modality]:
        return "hard"
    if MICROSCOPY in modalities:
        return UNKNOWN
    return "none" if source.modality == target.modality else "soft"
