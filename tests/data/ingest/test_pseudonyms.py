"""Pseudonyms of ids, files and texts."""

from pathlib import Path

import numpy as np
import pytest

from ssl_transfer.data.ingest.pseudonyms import Pseudonyms, file_pseudonym, key_digest, pseudonym
from ssl_transfer.data.readers.reader import Item, Refusal, named_file, shown

NAMES = Pseudonyms(Path("/archive/Doe"), {"mrn": "patient"}, others=["Doe_labels.csv"])


@pytest.mark.parametrize(
    "file, suffix",
    [
        ("Doe_Jane/1.dcm", ".dcm"),
        ("a/scan.nii.gz", ".nii.gz"),
        ("a/b.PNG", ".png"),
        ("DOE.JANE", ""),  # a name
        ("IM.0001", ""),
        ("scan.19700101", ""),
        ("1.2.840.1", ""),
        ("notes.txt", ".txt"),
    ],
)
def test_a_file_is_stored_as_a_hash_and_a_known_suffix(file, suffix):
    assert file_pseudonym(file) == pseudonym("file", file) + suffix and len(pseudonym("file", file)) == 16


def test_hashes_depend_on_the_key_and_so_does_its_name(monkeypatch):
    before = pseudonym("patient", "7"), file_pseudonym("a.png"), key_digest()
    monkeypatch.setenv("SSL_TRANSFER_PATIENT_KEY", "secret")
    after = pseudonym("patient", "7"), file_pseudonym("a.png"), key_digest()
    assert not set(before) & set(after) and "secret" not in key_digest()


def test_equal_ids_have_equal_hashes_in_every_column_of_patients():
    row = NAMES.row({"patient": "0243", "mrn": "0243", "age": 3, "series": None})
    assert row == {
        "patient": pseudonym("patient", "0243"),
        "mrn": pseudonym("patient", "0243"),
        "age": 3,
        "series": None,
    }


def test_ids_in_another_unicode_form_are_equal():
    assert pseudonym("patient", "M\u00fcller") == pseudonym("patient", "Mu\u0308ller") != pseudonym("patient", "Muller")


def test_a_reason_is_stored_without_the_names_in_it():
    refusal = Refusal(
        "Doe_Jane/1.dcm",
        "unreadable",
        f"'/archive/Doe/Doe_Jane/1.dcm' of P-77 is no image; the same as {named_file('Doe John/2')}, its mask m_Doe.nii.gz",
        {"patient": "P-77"},
    )
    stored = NAMES.reason(refusal)
    assert not any(word in stored for word in ("Doe", "Jane", "P-77", "archive"))
    assert (
        stored.endswith(".nii.gz")
        and pseudonym("file", "Doe John/2") in stored
        and pseudonym("patient", "P-77") in stored
    )
    assert "the same as Doe John/2," in shown(refusal.reason)


def test_a_reason_keeps_its_numbers_if_the_file_is_called_like_one_of_them():
    reason = "truncated: its header states 1 frames of 512 x 512 pixels"
    assert NAMES.reason(Refusal("ct/512", "unreadable", reason)) == reason


def test_a_warning_is_stored_without_names_that_are_marked_or_those_of_any_file():
    items = [
        Item("Doe_Jane/my scan.dcm", Path("x"), 1, (1, 1), 1, np.dtype("u1"), {"patient": "P-77", "label": "CHEST"})
    ]
    warning = f"1 of 2 files are not in Doe_labels.csv: {named_file('Roe/x')}, Doe_Jane/my scan.dcm, Doe_Jane and P-77 (CHEST)"
    [stored] = NAMES.warnings([warning], items)
    assert not any(word in stored for word in ("Doe", "Roe", "my scan", "P-77"))
    assert stored.startswith("1 of 2 files are not in ") and stored.endswith("(CHEST)")


def test_words_of_a_message_are_not_taken_for_names():
    items = [Item("DICOM/CT/train/100/1.dcm", Path("x"), 1, (1, 1), 1, np.dtype("u1"), {"patient": "100"})]
    warning = "read as dicom, 100 of 300 files; CT in HU, train/ is a split, DICOM is read"
    assert NAMES.warnings([warning], items) == [warning]


@pytest.mark.parametrize("file", ["images/a1.png", "3", "patients/7", "glioma/a1.png"])
def test_folders_and_files_with_plain_names_leave_messages_readable(file):
    items = [Item(file, Path("x"), 1, (1, 1), 1, np.dtype("u1"), {"label": "glioma"})]
    warning = "patients are unknown for 3 of 3 images; class 'glioma' has 3"
    assert NAMES.warnings([warning], items) == [warning]


def test_a_folder_or_file_named_like_a_person_is_hidden_whatever_its_case():
    for file in ("mustermann/1.png", "mustermann"):
        items = [Item(file, Path("x"), 1, (1, 1), 1, np.dtype("u1"), {})]
        assert "mustermann" not in NAMES.warnings(["no row for mustermann, mustermann/1.png"], items)[0]


def test_paths_can_be_kept():
    names = Pseudonyms(Path("/archive/Doe"), keep_paths=True)
    refusal = Refusal("c0/1.png", "unreadable", f"like {named_file('c0/2.png')} of P-77", {"patient": "P-77"})
    assert names.file("c0/1.png") == "c0/1.png"
    assert names.reason(refusal) == f"like c0/2.png of {pseudonym('patient', 'P-77')}"
