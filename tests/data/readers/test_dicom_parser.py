"""The parser of ordinary headers gives what pydicom gives, and leaves all other files to it."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from support.dicom_files import make_dicom, save

from ssl_transfer.data.readers.dicom_parser import ordinary_header

FILES = sorted(path for path in (Path(pydicom.__file__).parent / "data").rglob("*") if path.is_file())


def parsed(path):
    """What the parser returns, and the position at which it leaves the file."""
    with open(path, "rb") as file:
        return ordinary_header(file), file.tell()


def described(dataset):
    """All of a dataset: elements, meta information, encoding, character set."""
    return str(dataset), str(dataset.file_meta), dataset.original_encoding, dataset.original_character_set


def test_headers_are_those_of_pydicom():
    ordinary = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in FILES:
            dataset, position = parsed(path)
            if dataset is None:
                assert position == 0
                continue
            ordinary += 1
            with open(path, "rb") as file:
                expected = pydicom.dcmread(file, stop_before_pixels=True)
                assert file.tell() == position, path
            assert described(dataset) == described(expected), path
    assert ordinary >= 70


@pytest.mark.parametrize("cut", [0, 100, 131, 140, 300, 600])
def test_cut_headers_are_left_to_pydicom(tmp_path, cut):
    save(make_dicom(np.zeros((4, 4), np.uint16)), tmp_path / "a")
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:cut])
    assert parsed(tmp_path / "a") == (None, 0)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_transfer_syntaxes_are_left_to_pydicom(tmp_path, syntax):
    path = pydicom.data.get_testdata_file("CT_small.dcm")
    content = Path(path).read_bytes().replace(b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20, b"\0")[:20])
    (tmp_path / "a").write_bytes(content)
    assert parsed(tmp_path / "a") == (None, 0)
