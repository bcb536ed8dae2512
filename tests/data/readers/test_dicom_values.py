"""Elements as real headers have them: a side field never costs the image."""

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from support.dicom_files import XRAY, make_dicom, read, save, write_dicom

from ssl_transfer.data.readers.dicom import DicomReader

STORED = np.arange(64).reshape(8, 8)


def with_raw(dataset, tag, vr, raw):
    """Set the bytes of an element, whatever its value representation asks for."""
    dataset._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(raw), raw, 0, False, True)
    return dataset


SPACING, CENTER, INSTANCE, POSITION, AXES = 0x00280030, 0x00281050, 0x00200013, 0x00200032, 0x00200037


@pytest.mark.parametrize(
    "vr, raw, spacing",
    [
        ("DS", b"0.7 ", (None, None)),
        ("DS", b"", (None, None)),
        ("DS", b"0\\0 ", (None, None)),
        ("DS", b"nan\\nan ", (None, None)),
        ("DS", b"-0.5\\0.5", (None, None)),
        ("UT", b"2.5000\\2.5000 ", (2.5, 2.5)),
        ("DS", b"0,143\\0,144 ", (0.143, 0.144)),
        ("DS", b"0.586,0.195 ", (0.586, 0.195)),
        ("LO", b"0.586\\0.195 ", (0.586, 0.195)),
    ],
)
def test_pixel_spacing_is_a_value_or_unknown(tmp_path, vr, raw, spacing):
    save(with_raw(make_dicom(STORED), SPACING, vr, raw), tmp_path / "a")
    [image], [row], scan = read(tmp_path)
    assert (row["spacing_row_mm"], row["spacing_col_mm"]) == spacing
    assert np.array_equal(image[0], STORED - 1024) and scan.units == "hu"


@pytest.mark.parametrize(
    "tag, vr, raw",
    [
        (CENTER, "DS", b"40HU"),
        (CENTER, "DS", b"nan "),
        (INSTANCE, "IS", b"1.5 "),
        (INSTANCE, "IS", b"A1"),
        (POSITION, "DS", b""),
        (POSITION, "DS", b"0.0\\0.0 "),
        (POSITION, "DS", b"nan\\nan\\nan "),
        (AXES, "DS", b"nan\\nan\\nan\\nan\\nan\\nan "),
        (0x00280008, "IS", b"0 "),
        (0x00280008, "IS", b""),
        (0x00281052, "DS", b"-1024,0 "),
        (0x00281053, "UT", b"1 "),
    ],
)
def test_a_damaged_side_field_does_not_cost_the_image(tmp_path, tag, vr, raw):
    save(with_raw(make_dicom(STORED), tag, vr, raw), tmp_path / "a")
    [image], [row], scan = read(tmp_path)
    assert np.array_equal(image[0], STORED - 1024) and scan.units == "hu" and row["volume"] == 0


def test_an_intercept_that_is_not_a_number_is_not_guessed(tmp_path):
    for number in range(3):
        save(with_raw(make_dicom(STORED), 0x00281052, "DS", b"-1024HU "), tmp_path / f"bad/{number}")
        write_dicom(tmp_path / f"good/{number}", STORED, SeriesInstanceUID="1.9")
    scan = DicomReader(tmp_path).scan()
    assert len(scan.items) == 3 and len(scan.refused) == 3
    assert "no rescale slope and intercept" in scan.refused[0].reason


@pytest.mark.parametrize(
    "elements, spacing, at",
    [
        ({"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [0.15, 0.25]}, (0.1, 0.2), "patient"),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "detector"),
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "detector"),
        ({"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 1.25}, (0.16, 0.16), "patient"),
        (
            {"ImagerPixelSpacing": [0.2, 0.2], "DistanceSourceToDetector": 1000, "DistanceSourceToPatient": 800},
            (0.16, 0.16),
            "patient",
        ),
        ({"NominalScannedPixelSpacing": [0.3, 0.3]}, (0.3, 0.3), "patient"),
        ({}, (None, None), None),
    ],
)
def test_spacing_at_the_detector_is_divided_by_the_magnification(tmp_path, elements, spacing, at):
    write_dicom(tmp_path / "a", STORED, **XRAY | {"PixelSpacing": None} | elements)
    _, [row], _ = read(tmp_path)
    assert (row["spacing_row_mm"], row["spacing_col_mm"]) == pytest.approx(spacing) and row["spacing_at"] == at
