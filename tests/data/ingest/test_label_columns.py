"""Which column of a label CSV is the file, the patient, the series, the label and the split."""

import pytest

from ssl_transfer.data.ingest.labels import read_labels
from ssl_transfer.errors import LabelError


def read(tmp_path, header, key=None, **options):
    path = tmp_path / "labels.csv"
    path.write_text(f"{header}\n" + ",".join(f"v{number}" for number in range(header.count(",") + 1)) + "\n")
    return read_labels(path, key, **options)


@pytest.mark.parametrize(
    ("header", "key", "columns"),
    [
        ("file,label,age", "file", ["label", "age"]),
        ("File,Label", "file", ["label"]),
        ("image,patient_id,diagnosis", "file", ["patient", "label", "diagnosis"]),
        ("filename,class", "file", ["label", "class"]),
        ("Path,Subject ID,target", "file", ["patient", "label", "target"]),
        ("Image Index,Patient ID,Finding Labels", "file", ["patient", "Finding Labels"]),  # ChestX-ray14
        ("lesion_id,image_id,dx,age,sex", "file", ["label", "lesion_id", "dx", "age", "sex"]),  # HAM10000
        ("subject,diagnosis", "patient", ["label", "diagnosis"]),
        ("PatientID,label", "patient", ["label"]),
        ("SeriesInstanceUID,region", "series", ["region"]),
        ("patient,image,label", "file", ["patient", "label"]),
    ],
)
def test_columns_are_found_by_name_case_and_synonym(tmp_path, header, key, columns):
    table = read(tmp_path, header)
    assert table.key == key and table.columns == columns
    assert {value for _, values in table.rows.values() for value in values.values()} <= {f"v{n}" for n in range(5)}


def test_columns_that_are_not_called_by_their_role_are_said(tmp_path):
    assert read(tmp_path, "image,patient_id,Label").notes == [
        "labels.csv: column 'image' is read as the file (--file-column)",
        "labels.csv: column 'patient_id' is read as the patient (--patient-column)",
        "labels.csv: column 'Label' is read as the label (--label-column)",
    ]


def test_options_name_columns(tmp_path):
    options = {"file_column": "scan", "patient_column": "who", "label_column": "finding"}
    table = read(tmp_path, "finding,who,scan,label", **options)
    assert table.key == "file" and list(table.rows) == ["v2"]
    assert table.rows["v2"][1] == {"patient": "v1", "label": "v0", "finding": "v0", "label_csv": "v3"}
    assert table.notes == ["labels.csv: column 'label' is joined as 'label_csv': 'label' is another column"]


def test_an_option_may_differ_in_case(tmp_path):
    assert list(read(tmp_path, "Scan No,label", file_column="scan_no").rows) == ["v0"]


def test_a_column_of_ingest_is_joined_under_another_name(tmp_path):
    table = read(tmp_path, "file,volume,bits")
    assert table.columns == ["volume_csv", "bits_csv"] and len(table.notes) == 2


def test_a_synonym_of_split_is_a_split_only_if_it_holds_splits(tmp_path):
    assert read(tmp_path, "file,subset").columns == ["subset"]
    path = tmp_path / "labels.csv"
    path.write_text("file,subset\na,Training\nb,test\n")
    assert [row["split"] for _, row in read_labels(path).rows.values()] == ["train", "test"]


def test_two_columns_that_could_be_the_label_are_none_and_said(tmp_path):
    table = read(tmp_path, "file,diagnosis,target")
    assert table.columns == ["diagnosis", "target"]
    assert (
        "'diagnosis' and 'target' could each be the label, so none is. Name one with --label-column" in table.notes[0]
    )


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("image,path,label", {}, r"'image' and 'path' could each be the file\. Name one with --file-column"),
        ("file,patient_id,subject", {}, r"'patient_id' and 'subject' could each be the patient\. .*--patient-column"),
        ("file,label", {"file_column": "fil"}, r"no column 'fil', which --file-column names\. Did you mean 'file'\?"),
        ("file,label", {"label_column": "x"}, r"no column 'x', which --label-column names\. Known: file, label\."),
    ],
)
def test_columns_that_cannot_be_told_apart_are_refused(tmp_path, header, options, message):
    with pytest.raises(LabelError, match=message):
        read(tmp_path, header, **options)
