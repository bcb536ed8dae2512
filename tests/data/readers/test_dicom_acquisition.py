"""Columns that describe patient and acquisition: values of the standard, and nothing for all others."""

import numpy as np
import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping
from support.dicom_files import DX, item, make_dicom

from ssl_transfer.data.ingest.identifying import identifying_columns
from ssl_transfer.data.readers.dicom_acquisition import VIEW_CODES, acquisition

STORED = np.arange(64).reshape(8, 8)


def columns(**elements):
    return acquisition(make_dicom(STORED, **elements))


@pytest.mark.parametrize(
    "elements, age",
    [
        ({"PatientAge": "045Y"}, "45-49"),
        ({"PatientAge": "089Y"}, "85-89"),
        ({"PatientAge": "090Y"}, "90+"),
        ({"PatientAge": "104Y"}, "90+"),
        ({"PatientAge": "011M"}, "00-04"),
        ({"PatientAge": "072M"}, "05-09"),
        ({"PatientAge": "300D"}, "00-04"),
        ({"PatientAge": "45Y"}, "45-49"),
        ({"PatientAge": "045"}, None),
        ({"PatientAge": "999Y"}, None),
        ({"PatientBirthDate": "19500630", "StudyDate": "20100629"}, "55-59"),
        ({"PatientBirthDate": "19500630", "StudyDate": "20100630"}, "60-64"),
        ({"PatientBirthDate": "19500630", "AcquisitionDate": "20100630"}, "60-64"),
        ({"PatientBirthDate": "19500630", "StudyDate": "20100630", "PatientAge": "041Y"}, "40-44"),
        ({"PatientBirthDate": "19500630", "StudyDate": "19400630"}, None),
        ({"PatientBirthDate": "19500630"}, None),
        ({"StudyDate": "20100630"}, None),
        ({"PatientBirthDate": "18000101", "StudyDate": "20100630"}, None),
        ({"PatientBirthDate": "19000101", "StudyDate": "20100630"}, None),
        ({"PatientBirthDate": "19000101", "StudyDate": "20100630", "PatientAge": "041Y"}, "40-44"),
    ],
)
def test_age_is_a_band_from_the_age_or_from_two_dates(elements, age):
    assert columns(**elements)["age"] == age


@pytest.mark.parametrize(
    "element, value, column, expected",
    [
        ("PatientSex", "F", "sex", "F"),
        ("PatientSex", "O", "sex", "O"),
        ("PatientSex", "X", "sex", None),
        ("Manufacturer", "GE MEDICAL SYSTEMS", "manufacturer", "GE"),
        ("Manufacturer", "G.E. Medical Systems", "manufacturer", "GE"),
        ("Manufacturer", "SIEMENS", "manufacturer", "Siemens"),
        ("Manufacturer", "Siemens Healthineers", "manufacturer", "Siemens"),
        ("Manufacturer", "TOSHIBA_MEC", "manufacturer", "Toshiba"),
        ("Manufacturer", "FUJI PHOTO FILM Co., ltd.", "manufacturer", "Fujifilm"),
        ("Manufacturer", "Georgia Imaging", "manufacturer", "Georgia Imaging"),
        ("Manufacturer", "UNITED IMAGING HEALTHCARE", "manufacturer", "United Imaging"),
        ("Manufacturer", "Heidelberg-Engineering GmbH", "manufacturer", "Heidelberg Engineering"),
        ("Manufacturer", "United  Christian", "manufacturer", "United Christian"),
        ("Manufacturer", "Heidelberg", "manufacturer", "Heidelberg"),
        ("Manufacturer", "Samsung Medical Center", "manufacturer", "Samsung Medical Center"),
        ("Manufacturer", "Hitachi General Hospital", "manufacturer", "Hitachi General Hospital"),
        ("Manufacturer", "UNKNOWN", "manufacturer", None),
        ("ManufacturerModelName", "Somatom_Definition AS+", "scanner_model", "SOMATOM DEFINITION AS+"),
        ("ConvolutionKernel", ["I30f", "2"], "kernel", "I30f\\2"),
        ("SliceThickness", "1.25", "slice_thickness_mm", 1.25),
        ("SliceThickness", "0", "slice_thickness_mm", None),
        ("SpacingBetweenSlices", "2.5", "spacing_between_slices_mm", 2.5),
        ("KVP", "120", "kvp", 120.0),
        ("ContrastBolusAgent", "OMNIPAQUE 350", "contrast", "yes"),
        ("ContrastBolusAgent", "NONE", "contrast", "no"),
        ("ContrastBolusAgent", "non-contrast", "contrast", "no"),
        ("ContrastBolusAgent", "", "contrast", None),
        ("ContrastBolusAgentAdministered", "NO", "contrast", "no"),
        ("ContrastBolusAgentSequence", [item(CodeValue="C-B0322")], "contrast", "yes"),
        ("ViewPosition", "PA", "view_position", "PA"),
        ("ViewPosition", "LATERAL", "view_position", "LAT"),
        ("ViewPosition", "SOMEHOW", "view_position", None),
        ("ViewCodeSequence", [item(CodeValue="R-10226")], "view_position", "MLO"),
        ("ImageLaterality", "L", "laterality", "L"),
        ("Laterality", "R", "laterality", "R"),
        ("Laterality", "left", "laterality", None),
        ("PatientPosition", "FFS", "patient_position", "FFS"),
        ("PatientPosition", "SITTING", "patient_position", None),
    ],
)
def test_values_of_the_standard_are_kept_and_others_are_missing(element, value, column, expected):
    assert columns(**{element: value})[column] == expected


def test_an_empty_header_states_nothing():
    assert set(columns().values()) == {None}


def test_an_enhanced_object_states_them_in_its_functional_groups():
    shared = item(
        PixelMeasuresSequence={"SliceThickness": 0.6, "SpacingBetweenSlices": 0.4},
        CTReconstructionSequence={"ConvolutionKernel": "Br40"},
        CTXRayDetailsSequence={"KVP": 100},
        ContrastBolusUsageSequence={"ContrastBolusAgentAdministered": "YES"},
        FrameAnatomySequence={"FrameLaterality": "B"},
    )
    found = columns(SharedFunctionalGroupsSequence=[shared])
    assert (found["slice_thickness_mm"], found["spacing_between_slices_mm"], found["kvp"]) == (0.6, 0.4, 100.0)
    assert (found["kernel"], found["contrast"], found["laterality"]) == ("Br40", "yes", "B")


def test_codes_of_mammographic_views_are_those_of_the_standard():
    names = set(cid_concepts[4014]["SCT"]) - {"TissueSpecimenFromBreast"}
    codes = {code for name in names for code, (_, contexts) in concepts["SCT"][name].items() if 4014 in contexts}
    assert codes | {mapping["SCT"][code] for code in codes} == set(VIEW_CODES) and len(codes) == 10


def test_no_date_and_no_name_is_in_the_columns():
    found = columns(PatientBirthDate="19500630", StudyDate="20100629", PatientName="Doe^Jane", SOPClassUID=DX)
    assert not any(word in str(found) for word in ("1950", "2010", "Doe"))


def test_a_model_that_is_written_like_a_name_is_hashed():
    rows = [{"patient": str(n), "scanner_model": "LIGHTSPEED VCT", "kernel": "Doe^Jane"} for n in range(20)]
    assert identifying_columns(rows) == {"kernel": "kernel"}
