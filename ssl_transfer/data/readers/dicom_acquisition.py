"""Columns of DICOM headers that describe the patient and the acquisition, without ids, dates, names or free text.

A value that the standard does not define is missing, and nothing is inferred from an element that is absent: anonymisation
removes elements. Scanner model and kernel are names that manufacturers choose; `ingest` looks at them as at the columns of a
label table (`ingest.identifying`), and hashes those that may name a person.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date
from typing import Any

from ssl_transfer.data.demographics import age_band, sex, years_between
from ssl_transfer.data.readers.dicom_values import first_item, group_or_header, number, text

AGE = re.compile(r"(\d{1,3})([DWMY])")
YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}  # of a unit
DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")  # with points: before 1993
NO_BIRTH = date(1900, 1, 1)  # what anonymisation writes in place of a date
DAYS = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")  # of the examination, the first that is stated
POSITIONS = frozenset(  # PatientPosition, DICOM PS3.3 C.7.3.1.1.2
    word
    for line in ("HFP HFS HFDR HFDL FFP FFS FFDR FFDL", "LFP LFS RFP RFS", "AFDR AFDL PFDR PFDL")
    for word in line.split()
)
LATERALITIES = frozenset("RLBU")  # right, left, both, unpaired
VIEWS = frozenset(  # ViewPosition of radiographs, DICOM PS3.3 C.8.11.5, and of mammograms, C.8.11.7
    word
    for line in ("AP PA LL RL RLD LLD RLO LLO LAT", "CC MLO ML LM LMO FB SIO ISO XCC XCCL XCCM")
    for word in line.split()
)
VIEW_WORDS = {"LATERAL": "LAT"}
VIEW_CODES = {  # ViewCodeSequence of mammograms: SNOMED CT, and SNOMED RT in older files; DICOM PS3.16 CID 4014
    **dict.fromkeys(("399162004", "R-10242"), "CC"),
    **dict.fromkeys(("399368009", "R-10226"), "MLO"),
    **dict.fromkeys(("399260004", "R-10224"), "ML"),
    **dict.fromkeys(("399352003", "R-10228"), "LM"),
    **dict.fromkeys(("399099002", "R-10230"), "LMO"),
    **dict.fromkeys(("399196006", "R-10244"), "FB"),
    **dict.fromkeys(("399188001", "R-102D0"), "SIO"),
    **dict.fromkeys(("441555000", "R-40AAA"), "ISO"),
    **dict.fromkeys(("399192008", "R-1024A"), "XCCL"),
    **dict.fromkeys(("399101009", "R-1024B"), "XCCM"),
}
MANUFACTURERS = {  # words of the value that follow each other -> canonical spelling
    **dict.fromkeys(("GE", "GEMS", "GEHC"), "GE"),
    **{name.upper(): name for name in ("Siemens", "Philips", "Toshiba", "Canon", "Hitachi", "Hologic", "Lorad")},
    **{name.upper(): name for name in ("Shimadzu", "Samsung", "Varian", "Elekta", "Accuray", "Esaote", "Mindray")},
    **{name.upper(): name for name in ("Agfa", "Carestream", "Kodak", "Swissray", "Planmed", "Sectra", "Neusoft")},
    **{name.upper(): name for name in ("Bruker", "Zeiss", "Topcon", "Nidek", "Leica", "Marconi")},
    **dict.fromkeys(("FUJIFILM", "FUJI"), "Fujifilm"),
    **dict.fromkeys(("KONICA", "MINOLTA", "KONICAMINOLTA"), "Konica Minolta"),
    **dict.fromkeys(("UIH", "UNITED IMAGING"), "United Imaging"),
    "HEIDELBERG ENGINEERING": "Heidelberg Engineering",
}
MANUFACTURER = re.compile(rf"\b({'|'.join(MANUFACTURERS)})\b")
# The name of a hospital in the place of the manufacturer's: some hospitals have the name of a manufacturer, or of its town.
HOSPITAL = re.compile(r"HOSPITAL|HOPITAL|OSPEDALE|CLINIC\b|KLINI[KE]|UNIVERSI|\bMEDICAL CENT(ER|RE)\b")
UNSTATED = frozenset(("", "UNKNOWN", "NONE", "NA", "N/A", "NULL", "ANONYMOUS", "ANONYMIZED", "REMOVED"))
NO_AGENT = frozenset(
    (
        *("NO", "N", "NONE", "WITHOUT", "NO CONTRAST", "WITHOUT CONTRAST", "W/O", "W/O CONTRAST", "0"),
        *("NON CONTRAST", "NON-CONTRAST", "UNENHANCED", "NATIVE"),
    )
)
ADMINISTERED = {"YES": "yes", "NO": "no"}


def acquisition(dataset, frame: int = 0) -> dict[str, Any]:
    """The columns of a header; None where it states nothing that the standard defines.

    Args:
        dataset: A pydicom dataset.
        frame: Number of the frame, for what enhanced objects state of each frame.

    Returns:
        `sex` (M, F, O); `age` (bands of five years, 90+ joined; from PatientAge, otherwise from the dates of birth and of the
        study, neither of which is kept); `manufacturer` and `scanner_model` (canonical spelling); `kernel` (as stated);
        `slice_thickness_mm`, `spacing_between_slices_mm`, `kvp`; `contrast` (yes, no: only where it is stated);
        `view_position`, `laterality`, `patient_position` (codes of the standard).
    """

    def group(macro: str) -> Any:
        return group_or_header(dataset, frame, macro)

    return {
        "sex": sex(text(dataset, "PatientSex") or ""),
        "age": _age(dataset),
        "manufacturer": manufacturer(text(dataset, "Manufacturer")),
        "scanner_model": scanner_model(text(dataset, "ManufacturerModelName")),
        "kernel": text(group("CTReconstructionSequence"), "ConvolutionKernel"),
        "slice_thickness_mm": _positive(group("PixelMeasuresSequence"), "SliceThickness"),
        "spacing_between_slices_mm": _positive(group("PixelMeasuresSequence"), "SpacingBetweenSlices"),
        "kvp": _positive(group("CTXRayDetailsSequence"), "KVP"),
        "contrast": _contrast(dataset, group("ContrastBolusUsageSequence")),
        "view_position": _view_position(dataset),
        "laterality": _laterality(dataset, group("FrameAnatomySequence")),
        "patient_position": _code(text(dataset, "PatientPosition"), POSITIONS),
    }


def manufacturer(stated: str | None) -> str | None:
    """The canonical spelling of a manufacturer; an unknown one stays as it is, with single blanks.

    Example:
        >>> manufacturer("GE MEDICAL SYSTEMS"), manufacturer("Siemens Healthineers"), manufacturer("United  Hospital")
        ('GE', 'Siemens', 'United Hospital')
    """
    if stated is None or stated.upper() in UNSTATED:
        return None
    words = " ".join(re.findall(r"[A-Z0-9]+", stated.upper().replace(".", "")))
    found = None if HOSPITAL.search(words) else MANUFACTURER.search(words)
    return MANUFACTURERS[found[0]] if found else " ".join(stated.split())


def scanner_model(stated: str | None) -> str | None:
    """The canonical spelling of a model: capital letters, single blanks in place of underscores and blanks.

    Example:
        >>> scanner_model("Somatom_Definition  AS+"), scanner_model("unknown")
        ('SOMATOM DEFINITION AS+', None)
    """
    spelled = " ".join((stated or "").replace("_", " ").upper().split())
    return None if spelled in UNSTATED else spelled


def _age(dataset) -> str | None:
    stated = AGE.fullmatch((text(dataset, "PatientAge") or "").upper())
    if stated:
        return age_band(int(stated[1]) * YEARS[stated[2]])
    birth = _date(dataset, "PatientBirthDate")
    day = next(filter(None, (_date(dataset, name) for name in DAYS)), None)
    return None if birth in (None, NO_BIRTH) or day is None else age_band(years_between(birth, day))


def _date(dataset, keyword: str) -> date | None:
    stated = DATE.fullmatch(text(dataset, keyword) or "")
    with suppress(ValueError):  # the 31st of February
        return date(*map(int, stated.groups())) if stated else None
    return None


def _positive(header, keyword: str) -> float | None:
    value = number(header, keyword)
    return value if value is not None and value > 0 else None


def _contrast(dataset, usage) -> str | None:
    administered = ADMINISTERED.get(text(usage, "ContrastBolusAgentAdministered") or "")
    if administered is not None:
        return administered
    agent = (text(dataset, "ContrastBolusAgent") or "").upper()
    if agent in NO_AGENT:
        return "no"
    return None if agent in UNSTATED and first_item(dataset, "ContrastBolusAgentSequence") is None else "yes"


def _view_position(dataset) -> str | None:
    stated = (text(dataset, "ViewPosition") or "").upper()
    view = _code(VIEW_WORDS.get(stated, stated), VIEWS)
    if view is None and (item := first_item(dataset, "ViewCodeSequence")) is not None:
        return VIEW_CODES.get(text(item, "CodeValue") or "")
    return view


def _laterality(dataset, anatomy) -> str | None:
    stated = (text(anatomy, "FrameLaterality"), text(dataset, "ImageLaterality"), text(dataset, "Laterality"))
    return next(filter(None, (_code(value, LATERALITIES) for value in stated)), None)


def _code(stated: str | None, known: frozenset[str]) -> str | None:
    code = (stated or "").upper()
    return code if code in known else None
