"""Label tables: joined by patient, series or file, and every line must mean something."""

from pathlib import Path

import numpy as np
import pytest

from ssl_transfer.data.ingest.labels import join_labels, read_labels
from ssl_transfer.data.readers.reader import Item, Refusal
from ssl_transfer.errors import LabelError


def table(tmp_path, text, key=None):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_labels(path, key)


def items(*files):
    return [
        Item(file, Path(file), 1, (1, 1), 1, np.dtype(np.uint8), {"patient": f"P{number // 2}", "label": "from header"})
        for number, file in enumerate(files)
    ]


def test_columns_are_joined_by_patient_and_typed(tmp_path):
    found = items("a", "b", "c")
    notes = join_labels(found, [], table(tmp_path, "patient,label,age,site,dose\nP0,ill,60,007a,1.5\nP1,well,,x,2\n"))
    assert [item.row["label"] for item in found] == ["ill", "ill", "well"]
    assert [item.row["age"] for item in found] == [60, 60, None]
    assert found[0].row["site"] == "007a" and found[0].row["dose"] == 1.5 and notes == []


def test_images_without_a_line_lose_their_label_and_are_counted(tmp_path):
    found = items("a", "b", "c")
    notes = join_labels(found, [], table(tmp_path, "patient,label\nP0,ill\n"))
    assert found[2].row["label"] is None and "1 of 3 files are not in labels.csv" in notes[0]


@pytest.mark.parametrize("name", ["x/a.png", "a.png"])
def test_files_are_named_by_path_or_by_base_name(tmp_path, name):
    found = items("x/a.png", "x/b.png")
    join_labels(found, [], table(tmp_path, f"file;label;patient;split\n{name};ill;P9;valid\n"))
    assert found[0].row | {"label": "ill", "patient": "P9", "split": "val"} == found[0].row
    assert found[1].row["patient"] == "P0"


def test_an_ambiguous_base_name_is_refused(tmp_path):
    with pytest.raises(LabelError, match=r"line 2: file 'a.png' could be x/a.png or y/a.png"):
        join_labels(items("x/a.png", "y/a.png"), [], table(tmp_path, "file,label\na.png,1\n"))


def test_an_unknown_key_is_named_with_its_line(tmp_path):
    with pytest.raises(LabelError, match=r"labels.csv line 3: patient 'P7' is not in the source .*example 'P0'"):
        join_labels(items("a"), [], table(tmp_path, "patient,label\nP0,ill\nP7,well\n"))


def test_a_line_may_name_a_file_that_was_refused(tmp_path):
    refused = [Refusal("scout.dcm", "localizer", "", {"patient": "P7"})]
    join_labels(items("a"), refused, table(tmp_path, "patient,label\nP0,ill\nP7,well\n"))


@pytest.mark.parametrize(
    "text, key, message",
    [
        ("patient,label\nP0,a\nP0,b\n", None, "line 3: patient 'P0' was given in line 2 already"),
        ("patient,label\n,a\n", None, "line 2: the patient is empty"),
        ("patient,label\n", "series", "no column 'series'"),
        ("name,label\n", None, "Name one with --label-key"),
        ("patient,series,label\n", None, "Name one with --label-key"),
        ("patient\nP0\n", None, "Add a column 'label'"),
        ("patient,label\n", "study", "--label-key study"),
        ("patient,split\nP0,dev\n", None, "line 2: split 'dev'"),
        ("patient,pixel_digest\nP0,1\n", None, "reserved for ingest"),
        ("", None, "Name one with --label-key"),
    ],
)
def test_an_invalid_table_is_refused(tmp_path, text, key, message):
    with pytest.raises(LabelError, match=message):
        table(tmp_path, text, key)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(LabelError, match="cannot be read"):
        read_labels(tmp_path / "none.csv", "file")
