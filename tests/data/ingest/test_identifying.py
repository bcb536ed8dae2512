"""Columns that identify persons: by their name, or by what they contain."""

import pytest

from ssl_transfer.data.ingest.identifying import identifying_columns


def kinds(**columns):
    names = list(columns)
    return identifying_columns(
        [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    )


@pytest.mark.parametrize(
    "name, kind",
    [
        ("patient_id", "patient"),
        ("PatientID", "patient"),
        ("Patient ID", "patient"),
        ("subject", "patient"),
        ("participant_id", "patient"),
        ("MRN", "patient"),
        ("id", "patient"),
        ("PatientName", "PatientName"),
        ("name", "name"),
        ("Nachname", "Nachname"),
        ("birth_date", "birth_date"),
        ("DOB", "DOB"),
        ("StudyDate", "StudyDate"),
        ("accession_number", "accession_number"),
        ("StudyInstanceUID", "StudyInstanceUID"),
        ("ReferringPhysicianName", "ReferringPhysicianName"),
        ("zip", "zip"),
        ("comment", "comment"),
        ("image_path", "file"),
        ("hostname", "hostname"),
    ],
)
def test_a_column_is_recognised_by_its_name_whatever_it_contains(name, kind):
    assert kinds(**{"label": ["a", "b"], name: [1, 2]}) == {name: kind}


@pytest.mark.parametrize(
    "name",
    ["age", "PatientAge", "patient_sex", "class_name", "site", "grade", "scanner", "organ_name", "weight", "pt_stage"],
)
def test_a_column_that_describes_stays(name):
    assert kinds(**{"label": ["a", "b"], name: ["1", "2"]}) == {}


ROWS = 40
PATIENTS = [f"P{n // 2}" for n in range(ROWS)]


@pytest.mark.parametrize(
    "values, hashed",
    [
        ([f"Doe_{n // 2}^Jane" for n in range(ROWS)], True),  # one for every patient
        ([f"nodule of {n} mm in the upper lobe" for n in range(ROWS)], True),
        ([f"00{n // 2:02d}" for n in range(ROWS)], True),  # leading zeros: record numbers
        ([7_000_000 + n // 2 for n in range(ROWS)], True),
        ([f"19{50 + n % 3}-04-0{1 + n % 3}" for n in range(ROWS)], True),
        ([f"0{1 + n % 3}.04.1950" for n in range(ROWS)], True),
        ([19500401 + n % 3 for n in range(ROWS)], True),
        ([f"scans/a{n % 3}/b.png" for n in range(ROWS)], True),
        (["ill" if n % 2 else "well" for n in range(ROWS)], False),
        ([f"class {n % 8}" for n in range(ROWS)], False),
        ([40 + n for n in range(ROWS)], False),
        ([f"{40 + n}" for n in range(ROWS)], False),
        ([f"{n}.5" for n in range(ROWS)], False),
        ([0.1 * n for n in range(ROWS)], False),
        ([f"mass|node {n}" for n in range(ROWS)], False),  # several labels
        ([None] * ROWS, False),
        ([bool(n % 2) for n in range(ROWS)], False),
    ],
)
def test_a_column_of_any_name_is_recognised_by_what_it_contains(values, hashed):
    assert bool(kinds(patient=PATIENTS, x7=values)) == hashed


@pytest.mark.parametrize("heading", ["x7", "befund", "seen_by", "Spalte1", "info", "reader_label"])
@pytest.mark.parametrize(
    "names", [("Miller", "Smith"), ("miller", "SMITH"), ("Anna K.", None), ("JD", "AK"), ("ill", "Jones")]
)
def test_a_name_in_a_column_of_few_values_is_hashed_under_any_heading_that_is_not_known(heading, names):
    values = [names[n % 2] for n in range(ROWS)]
    assert kinds(patient=PATIENTS, **{heading: values}) == {heading: heading}


@pytest.mark.parametrize(
    "value", ["Dr. Miller", "MILLER^JANE", "Prof. Dr. med. Miller", "Frau Miller", "seen by Mrs Miller"]
)
def test_what_is_written_like_a_name_is_hashed_under_any_heading(value):
    assert kinds(patient=PATIENTS, finding=["nodule"] * (ROWS - 1) + [value]) == {"finding": "finding"}


@pytest.mark.parametrize(
    "heading, values",
    [
        ("diagnosis", ("Morbus Crohn", "none")),
        ("scanner", ("Skyra", "Ingenia")),
        ("tumour_type", ("Ewing", "Wilms")),
        ("site", ("Basel", "Oslo")),
        ("class_name", ("Paget", "well")),
        ("Finding Labels", ("Hernia|Effusion", "No Finding")),  # of NIH ChestX-ray14
        ("localization", ("lower extremity", "acral")),  # of HAM10000
        ("AP/PA", ("AP", "RL")),  # of CheXpert
        ("Frontal/Lateral", ("Frontal", "Lateral")),
        ("mass margins", ("SPICULATED", "ILL_DEFINED-OBSCURED")),  # of CBIS-DDSM
        ("anatom_site_general", ("torso", "palms/soles")),  # of ISIC
    ],
)
def test_known_headings_keep_their_words(heading, values):
    assert kinds(patient=PATIENTS, **{heading: [values[n % 2] for n in range(ROWS)]}) == {}


@pytest.mark.parametrize(
    "values",
    [
        ("yes", "no"),
        ("benign", "malignant"),
        ("Grade IIb", "Grade III"),
        ("T1", "T2w"),
        ("left upper lobe", None),
        ("BI-RADS 4a", "BI-RADS 5"),
        ("mass|nodule", "mass"),
        ("+", "-"),
        ("1", "2.5"),
    ],
)
def test_known_words_are_kept_under_any_heading(values):
    assert kinds(patient=PATIENTS, x7=[values[n % 2] for n in range(ROWS)]) == {}


def test_columns_of_readers_and_columns_to_keep_are_not_looked_at():
    rows = [{"label": f"Doe_{n}", "body_part": f"M {n}", "x7": f"Doe_{n}"} for n in range(ROWS)]
    assert identifying_columns(rows) == {"x7": "x7"} and identifying_columns(rows, ["x7"]) == {}
