"""Uncompressed grey pixels are read at their place in the file, and are those that parsing the file gives."""

from unittest import mock

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from support.dicom_files import MR, XRAY, make_dicom, save

from ssl_transfer.data.readers import dicom
from ssl_transfer.data.readers.dicom import DicomReader

VALUES = np.random.default_rng(0).integers(100, 2000, (24, 20)).astype(np.uint16)
PADDED = np.where(np.hypot(*np.mgrid[-12:12, -10:10]) < 8, VALUES, 63_536)
OVERLAY = VALUES | np.where(np.eye(24, 20, dtype=bool), 1 << 12, 0).astype(np.uint16)
FILES = {
    "HU": (VALUES, {}),
    "signed, 16 bits": (VALUES.astype(np.int16) - 1500, {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15}),
    "signed, 12 bits": ((VALUES.astype(np.int16) - 1500) & 0xFFF, {"PixelRepresentation": 1}),
    "overlay": (OVERLAY, {}),
    "padding beyond the bits": (PADDED.astype(np.uint16), {"PixelPaddingValue": 63_536}),
    "fractional slope": (VALUES, {"RescaleSlope": 0.7, "RescaleIntercept": -500.3}),
    "large slope": (VALUES, {"RescaleSlope": 10, "RescaleIntercept": -1024}),
    "8 bits": (VALUES.astype(np.uint8), MR | {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}),
    "MONOCHROME1": (VALUES, XRAY | {"PhotometricInterpretation": "MONOCHROME1"}),
}


def images(folder, plain):
    """The images and columns that a reader gives, with or without reading plain pixels at their place."""
    reader = DicomReader(folder)
    [one] = reader.scan().items
    assert one.pixels is not None
    with mock.patch.object(dicom, "decode_plain", dicom.decode_plain if plain else lambda *_: None):
        return one, list(reader.read(one))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=["implicit", "explicit"])
@pytest.mark.parametrize("name", FILES)
def test_plain_pixels_are_those_of_the_parsed_file(tmp_path, name, syntax):
    values, elements = FILES[name]
    dataset = make_dicom(values, **elements)
    dataset.file_meta.TransferSyntaxUID = syntax
    save(dataset, tmp_path / "a")
    _, [(image, columns, mask)] = images(tmp_path, plain=True)
    _, [(parsed, parsed_columns, _)] = images(tmp_path, plain=False)
    assert np.array_equal(image, parsed) and image.dtype == parsed.dtype and columns == parsed_columns and mask is None


def test_plain_pixels_are_read_without_the_parser(tmp_path, monkeypatch):
    save(make_dicom(VALUES), tmp_path / "a")
    reader = DicomReader(tmp_path)
    [one] = reader.scan().items
    monkeypatch.setattr(dicom, "decode", None)
    [(image, _, _)] = reader.read(one)
    assert np.array_equal(image[0], VALUES.astype(int) - 1024)


def test_a_file_that_has_changed_since_is_parsed(tmp_path):
    save(make_dicom(VALUES), tmp_path / "a")
    reader = DicomReader(tmp_path)
    [one] = reader.scan().items
    save(make_dicom(VALUES, PatientComments="written later"), tmp_path / "a")
    [(image, _, _)] = reader.read(one)
    assert np.array_equal(image[0], VALUES.astype(int) - 1024)


def test_pixels_with_an_element_behind_them_are_parsed(tmp_path):
    dataset = make_dicom(VALUES)
    dataset.DataSetTrailingPadding = b"\0" * 8
    save(dataset, tmp_path / "a")
    [one] = DicomReader(tmp_path).scan().items
    assert one.pixels is None
