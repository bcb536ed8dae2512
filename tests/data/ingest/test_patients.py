"""Who the patient of a file is: patterns, conventions of names, and what only looks like several files of one patient."""

from pathlib import Path

import numpy as np
import pytest

from ssl_transfer.data.ingest.patients import PatientPattern, assign_patients, complete_patients, suspected_pattern
from ssl_transfer.data.readers.reader import Item, Refusal, Scan
from ssl_transfer.errors import SourceError, UsageError


def scan(*files, refused=(), volumes=False, **row) -> Scan:
    items = [Item(file, Path(file), 1, (4, 4), 1, np.dtype("u1"), dict(row)) for file in files]
    for item in items if volumes else ():
        item.row["series"] = item.file
    return Scan(items, [Refusal(file, "unreadable", "x") for file in refused], "stored", patient_per_file=volumes)


def patients(found: Scan) -> list:
    return [item.row.get("patient") for item in found.items]


@pytest.mark.parametrize(
    "pattern, file, patient",
    [
        ("{patient}_*", "ct/P7_left_1.png", "P7"),
        ("{patient}", "ct/P7.nii.gz", "P7"),
        ("*/{patient}/**", "ct/P7/thorax/1.dcm", "P7"),
        ("**/{patient}/*.png", "a/b/P7/1.png", "P7"),
        ("**/{patient}/*.png", "P7/1.png", "P7"),
        ("BraTS20_Training_{patient}_*", "BraTS20_Training_001_t1.nii", "001"),
        ("{patient}/{patient}_*", "P7/P7_1.png", "P7"),
        ("?_{patient}-*", "a_P7-1.png", "P7"),
        ("*_{patient}_*", "scan_P7_left_2.png", "P7"),
        ("{patient}/**", "Müller [1]+/x/1.png", "Müller [1]+"),
        ("{patient}_*", "R\\xe9my_1.png", "R\\xe9my"),
    ],
)
def test_a_pattern_names_the_part_of_a_path_that_is_the_patient(pattern, file, patient):
    assert PatientPattern(pattern).fields(file)["patient"] == patient


@pytest.mark.parametrize(
    "pattern, file",
    [
        ("{patient}/*", "P7.png"),
        ("{patient}_*", "P7.png"),
        ("{patient}/{patient}_*", "P7/P8_1.png"),
        ("x/{patient}", "y/P7"),
    ],
)
def test_a_path_that_a_pattern_does_not_fit_has_no_patient(pattern, file):
    assert PatientPattern(pattern).fields(file) is None


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("*_x", r"no \{patient\}"),
        ("{patient}_{slice}", r"no field is called \{slice\}. Fields: \{patient\}, \{series\}"),
    ],
)
def test_a_pattern_without_patient_or_with_an_unknown_field_is_refused(pattern, message):
    with pytest.raises(UsageError, match=message):
        PatientPattern(pattern)


def test_a_pattern_that_does_not_fit_every_image_is_refused_with_examples():
    with pytest.raises(
        SourceError, match=r"--patient-from \{patient\}_\*: 2 of 3 images do not match, for example a.png, b.png"
    ):
        assign_patients(scan("P1_1.png", "a.png", "b.png"), "{patient}_*")


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [("Pat_{patient}_", "Pat_{patient}_*"), ("b/Pat_{patient}_*", "**/b/Pat_{patient}_*"), ("{patient}-*", None)],
)
def test_what_a_pattern_lacks_at_its_ends_is_named_where_it_fits(pattern, meant):
    with pytest.raises(SourceError) as refusal:
        assign_patients(scan("a/b/Pat_1_1.png", "a/b/Pat_1_2.png"), pattern)
    assert f"Did you mean '{meant}'?" in str(refusal.value) if meant else "Did you mean" not in str(refusal.value)


def test_a_pattern_overrides_the_header_and_sets_patient_and_series_of_refused_files_too():
    found = scan("P1/t1/1.dcm", "P1/t2/1.dcm", refused=["P2/t1/1.dcm"], patient="ANONYMOUS", series="1.2.3")
    notes = assign_patients(found, "{patient}/{series}/*")
    assert patients(found) == ["P1", "P1"] and [item.row["series"] for item in found.items] == ["P1/t1", "P1/t2"]
    assert found.refused[0].row == {"patient": "P2"} and "1 patient in 2 files" in notes[0]


BIDS = [
    f"sub-{p:02d}/ses-{s}/anat/sub-{p:02d}_ses-{s}_{m}.nii.gz" for p in range(3) for s in (1, 2) for m in ("T1w", "T2w")
]
BRATS = [
    f"BraTS20_Training_{p:03d}/BraTS20_Training_{p:03d}_{m}.nii"
    for p in range(3)
    for m in ("flair", "t1", "t1ce", "seg")
]
BRATS_2023 = [
    f"BraTS-GLI-{p:05d}-{t:03d}-{m}.nii.gz" for p in range(3) for t in (0, 1) for m in ("t1n", "t1c", "t2w", "t2f")
]
NNUNET = [f"imagesTr/case_{p:04d}_{c:04d}.nii.gz" for p in range(3) for c in range(4)]
FOLDERS = [f"train/patient_{p}/{n}.png" for p in range(3) for n in range(4)]


@pytest.mark.parametrize(
    "files, first, said",
    [
        (BIDS, "sub-00", "BIDS subjects"),
        ([f"sub-{p:03d}_{m}.nii.gz" for p in range(3) for m in ("t1", "t2")], "sub-000", "BIDS subjects"),
        (BRATS, "BraTS20_Training_000", "BraTS cases"),
        (BRATS_2023, "BraTS-GLI-00000", "BraTS cases"),
        (NNUNET, "case_0000", "nnU-Net cases"),
        ([file.removeprefix("imagesTr/") for file in NNUNET], "case_0000", "nnU-Net cases"),
        ([*NNUNET, *(f"labelsTr/case_{p:04d}.nii.gz" for p in range(3))], "case_0000", "nnU-Net cases"),
        (FOLDERS, "patient_0", "folders that are named like patients"),
    ],
    ids=["bids", "flat bids", "brats", "brats 2023", "nnunet", "nnunet images", "nnunet labels", "folders"],
)
def test_names_of_known_conventions_are_recognised_and_said_aloud(files, first, said):
    found = scan(*files, volumes=True)
    notes = assign_patients(found, None)
    assert patients(found)[0] == first and len(set(patients(found))) == 3 and None not in patients(found)
    assert said in notes[0] and f"3 patients in {len(files)} files" in notes[0]
    assert complete_patients(found) == []


@pytest.mark.parametrize(
    "files",
    [
        [f"lung_{n:04d}.nii.gz" for n in range(12)],  # numbers of patients, not of channels
        [f"imagesTr/liver_{n:03d}.nii.gz" for n in range(12)],
        [f"benign ({n}).png" for n in range(12)],
        [f"ISIC_{n:07d}.jpg" for n in range(12)],
        [f"volume-{n}.nii" for n in range(12)],
    ],
)
def test_numbered_files_are_no_convention_and_nothing_is_suspected(files):
    found = scan(*files, volumes=True)
    assert assign_patients(found, None) == [] and complete_patients(found) == []
    assert len(set(patients(found))) == 12


def test_patients_of_headers_stay_whatever_files_are_called():
    found = scan(*BIDS, patient="P1")
    assert assign_patients(found, None) == [] and set(patients(found)) == {"P1"}


def test_few_files_that_do_not_follow_a_convention_are_counted():
    found = scan(*BIDS, "README.nii.gz", volumes=True)
    notes = assign_patients(found, None) + complete_patients(found)
    assert any("1 files are not named like the others" in note for note in notes)
    assert patients(found)[-1] == "README.nii.gz"


@pytest.mark.parametrize(
    "files, pattern, count",
    [
        ([f"P{p:03d}_{side}.png" for p in range(4) for side in ("left", "right")], "{patient}_*", 4),
        ([f"{p:08d}_{n:03d}.png" for p in range(4) for n in range(3)], "{patient}_*", 4),
        ([f"scan-{p}-{n}.png" for p in range(4) for n in range(3)], "*-{patient}-*", 4),
        ([f"ill/{p:04d}/{name}.png" for p in range(4) for name in "ab"], "*/{patient}/*", 4),
        ([f"OAS3{p:04d}_MR_d{day}/T1w.nii" for p in range(4) for day in (1, 290)], "{patient}_*/*", 4),
        ([f"case_{n}.png" for n in range(9)], None, None),
        ([f"IMG_{n:04d}.png" for n in range(9)], None, None),
        (["a.png", "b.png"], None, None),
        ([], None, None),
    ],
)
def test_names_that_look_like_several_files_of_a_patient_suggest_a_pattern(files, pattern, count):
    answer = suspected_pattern(files)
    assert (answer and (answer[0], answer[3])) == (pattern and (pattern, count))


def test_the_warning_shows_two_files_and_the_pattern_to_type():
    [warning] = complete_patients(scan("P1_a.png", "P1_b.png", "P2_a.png", "P2_b.png"))
    assert (
        "4 files have no patient" in warning and "--patient-from '{patient}_*' makes 2 patients in 4 files" in warning
    )
    [warning] = complete_patients(scan("P1_a.nii", "P1_b.nii", "P2_a.nii", "P2_b.nii", volumes=True))
    assert "4 files each count as a patient" in warning


def test_volumes_of_a_file_are_one_file_and_suggest_no_pattern():
    assert complete_patients(scan(*(f"{n}.ome.tif" for n in range(3) for _ in range(8)))) == []
    [warning] = complete_patients(
        scan(*(f"P{p}_{n}.nii" for p in range(3) for n in "ab" for _ in range(8)), volumes=True)
    )
    assert "6 files each count as a patient" in warning and "3 patients in 6 files" in warning


def test_folders_that_are_patients_are_no_labels():
    files = [f"Smith_{p}/{n}.png" for p in range(4) for n in range(2)]
    found = scan(*files)
    for item in found.items:
        item.row["label"] = item.file.split("/")[0]
    notes = assign_patients(found, "{patient}/*")
    assert {item.row["label"] for item in found.items} == {None} and "not used as labels" in notes[-1]
    found = scan(*(f"{label}/P{p}_{n}.png" for p, label in enumerate("aabb") for n in range(2)))
    for item in found.items:
        item.row["label"] = item.file.split("/")[0]
    assign_patients(found, "*/{patient}_*")
    assert {item.row["label"] for item in found.items} == {"a", "b"}


def test_ids_that_are_written_in_several_ways_are_counted():
    found = scan("1.dcm", "2.dcm", "3.dcm", study="1.2")
    for item, patient in zip(found.items, ("pat 1", "PAT1", "pat2"), strict=True):
        item.row["patient"] = patient
    [warning] = complete_patients(found)
    assert "1 patient ids are written in several ways" in warning and "different patients" in warning
    for item, patient in zip(found.items, ("017", "17.0", "170"), strict=True):
        item.row["patient"] = patient
    [warning] = complete_patients(found)
    assert "1 patient ids are written in several ways" in warning and "017" in warning and "17.0" in warning


@pytest.mark.parametrize(
    "patient, warned", [("ANONYMOUS", True), ("anon", True), ("000", True), ("Anna", False), ("P7", False)]
)
def test_a_placeholder_for_all_patients_is_warned_of(patient, warned):
    found = scan("1.dcm", "2.dcm", patient=patient)
    for number, item in enumerate(found.items):
        item.row["study"] = f"1.2.{number}"
    assert bool(complete_patients(found)) == warned
    found.items[1].row["study"] = "1.2.0"
    assert complete_patients(found) == []  # one study is of one person
