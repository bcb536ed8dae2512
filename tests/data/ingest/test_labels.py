"""Label tables: joined by patient, series or file; every row means something, and what is decided is said."""

from pathlib import Path

import numpy as np
import pytest

from ssl_transfer.data.ingest.labels import join_labels, read_labels
from ssl_transfer.data.readers.reader import Item, Refusal, shown
from ssl_transfer.errors import LabelError


def table(tmp_path, text, key=None, **options):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_labels(path, key, **options)


def items(*files):
    return [
        Item(file, Path(file), 1, (1, 1), 1, np.dtype(np.uint8), {"patient": f"P{number // 2}", "label": "from header"})
        for number, file in enumerate(files)
    ]


def column(read, name):
    return [values[name] for _, values in read.rows.values()]


def test_columns_are_joined_by_patient_and_typed(tmp_path):
    found = items("a", "b", "c")
    notes = join_labels(found, [], table(tmp_path, "patient,label,age,site,dose\nP0,ill,60,007a,1.5\nP1,well,,x,2\n"))
    assert [item.row["label"] for item in found] == ["ill", "ill", "well"]
    assert [item.row["age"] for item in found] == [60, 60, None]
    assert found[0].row["site"] == "007a" and found[0].row["dose"] == 1.5 and notes == []


def test_ages_that_identify_are_counted_and_stay_numbers_that_a_task_may_predict(tmp_path):
    read = table(tmp_path, "patient,label,age,stage\nP0,ill,89,90\nP1,well,94,91\nP2,well,97.5,92\n")
    assert column(read, "age") == [89.0, 94.0, 97.5]
    (note,) = read.notes
    assert "labels.csv: column 'age': 2 ages of 90 or more are stored as they are" in note and "85-89 and 90+" in note
    assert table(tmp_path, "patient,label,age\nP0,ill,89\n").notes == []
    assert table(tmp_path, "patient,label,age\nP0,ill,90+\nP1,well,85-89\n").notes == []


def test_images_without_a_row_lose_their_label_and_are_counted(tmp_path):
    found = items("a", "b", "c")
    notes = join_labels(found, [], table(tmp_path, "patient,label\nP0,ill\n"))
    assert found[2].row["label"] is None and list(map(shown, notes)) == [
        "1 of 3 files are not in labels.csv (c): its columns are empty for them"
    ]


@pytest.mark.parametrize("name", ["x/a.png", "a.png"])
def test_files_are_named_by_path_or_by_base_name(tmp_path, name):
    found = items("x/a.png", "x/b.png")
    join_labels(found, [], table(tmp_path, f"file;label;patient;split\n{name};ill;P9;Valid\n"))
    assert found[0].row | {"label": "ill", "patient": "P9", "split": "val"} == found[0].row
    assert found[1].row["patient"] == "P0"


def test_names_without_extension_are_found_and_said(tmp_path):
    found = items("a.png", "b.png")
    notes = join_labels(found, [], table(tmp_path, "file,label\na,ill\nb,well\n"))
    assert [item.row["label"] for item in found] == ["ill", "well"]
    assert list(map(shown, notes)) == [
        "labels.csv: 2 of 2 file names are found without the extension, for example 'a' as a.png"
    ]


def test_an_ambiguous_base_name_is_refused(tmp_path):
    with pytest.raises(LabelError, match=r"line 2: file 'a.png' could be x/a.png or y/a.png"):
        join_labels(items("x/a.png", "y/a.png"), [], table(tmp_path, "file,label\na.png,1\n"))


# Rows and images that do not fit


def test_a_few_rows_that_are_not_in_the_source_are_a_warning_with_examples(tmp_path):
    files = [f"{number}.png" for number in range(10)]
    rows = "".join(f"{file},{'ab'[number % 2]}\n" for number, file in enumerate([*files, "other.png"]))
    notes = join_labels(items(*files), [], table(tmp_path, "file,label\n" + rows))
    assert list(map(shown, notes)) == ["1 of 11 rows of labels.csv are not in the source (line 12: 'other.png')"]


def test_more_rows_that_are_not_in_the_source_are_refused_by_line(tmp_path):
    read = table(tmp_path, "patient,label\nP0,ill\nP7,well\n")
    message = (
        r"labels.csv line 3: patient 'P7' is not in the source, which has 1 patient ids, for example 'P0'\. 1 of 2 rows"
    )
    with pytest.raises(LabelError, match=message):
        join_labels(items("a"), [], read)
    assert len(join_labels(items("a"), [], read, max_unmatched=0.5)) == 1


@pytest.mark.parametrize("lost", ["7", "7.0", "007"])
def test_zeros_that_a_spreadsheet_dropped_are_recognised_but_not_guessed(tmp_path, lost):
    found = items("a")
    found[0].row["patient"] = "0007"
    with pytest.raises(LabelError, match=r"drop the zeros of '0007'\? Format the column as text"):
        join_labels(found, [], table(tmp_path, f"patient,label\n{lost},ill\n"))


def test_a_row_may_name_a_file_that_was_refused(tmp_path):
    refused = [Refusal("scout.dcm", "localizer", "", {"patient": "P7"})]
    join_labels(items("a"), refused, table(tmp_path, "patient,label\nP0,ill\nP7,well\n"))


def test_two_names_of_one_file_must_agree(tmp_path):
    with pytest.raises(LabelError, match=r"line 3: 'a' is a\.png, as in line 2, with other values"):
        join_labels(items("a.png"), [], table(tmp_path, "file,label\na.png,ill\na,well\n"))
    join_labels(items("a.png"), [], table(tmp_path, "file,label\na.png,ill\na,ill\n"))


def test_rows_that_repeat_another_are_left_out_and_counted(tmp_path):
    read = table(tmp_path, "patient,label\nP0,a\nP1,b\nP0,a\n")
    assert list(read.rows) == ["P0", "P1"] and read.notes == ["labels.csv: 1 rows repeat another one in every column"]


# Values


def test_words_for_missing_values_are_missing_and_counted(tmp_path):
    read = table(tmp_path, "file,label,age\na,x,61\nb,NA,n/a\nc,nan,\nd,None,70\ne,n/a,55\n")
    assert column(read, "label") == ["x", None, None, None, None]
    assert column(read, "age") == [61, None, None, 70, 55]
    assert read.notes[0] == (
        "labels.csv: column 'label': read as missing: 'NA' (1), 'nan' (1), 'None' (1), 'n/a' (1) (--missing)"
    )


def test_other_words_can_be_missing(tmp_path):
    read = table(tmp_path, "file,label\na,None\nb,unknown\n", missing="unknown, 99")
    assert column(read, "label") == ["None", None]


def test_text_stays_text(tmp_path):
    text = "file,label,site,serial,group,accession,grade\n"
    rows = [f"a{n},{n % 2:02d},{n + 1:02d},{n}_00{n},{('1e3', '1000')[n % 2]},{'9' * 26}{n},{n}\n" for n in range(3)]
    read = table(tmp_path, text + "".join(rows))
    assert column(read, "label") == ["00", "01", "00"] and column(read, "site") == ["01", "02", "03"]
    assert column(read, "serial") == ["0_000", "1_001", "2_002"] and column(read, "group") == ["1e3", "1000", "1e3"]
    assert column(read, "accession") == [f"{'9' * 26}{n}" for n in range(3)] and column(read, "grade") == [0, 1, 2]


def test_1_and_1_0_are_one_class_and_said(tmp_path):
    read = table(tmp_path, "file,label\na,1\nb,1.0\nc,0\nd,0.0\ne, 1 \n")
    assert column(read, "label") == ["1", "1", "0", "0", "1"]
    assert read.notes == ["labels.csv: column 'label': '0.0' is the class '0', '1.0' is the class '1'"]


def test_classes_that_are_nearly_equal_are_mentioned(tmp_path):
    read = table(tmp_path, "file,label\na,Benign\nb,benign\nc,01\nd,1\ne,other\nf,1.5\ng,1.50\n")
    assert [note.partition("label': ")[2] for note in read.notes] == [
        "'01', '1' are 2 classes. Is it one?",
        "'1.5', '1.50' are 2 classes. Is it one?",
        "'Benign', 'benign' are 2 classes. Is it one?",
    ]


def test_a_number_column_with_a_few_words_stays_text_and_is_mentioned(tmp_path):
    rows = "".join(f"{n},{60 + n}\n" for n in range(9))
    read = table(tmp_path, f"file,age\n{rows}x,61y\n")
    assert list(map(shown, read.notes)) == ["labels.csv: column 'age' stays text: '61y' (line 11) is not a number"]


@pytest.mark.parametrize("cells", ["+0.5 +1.5", "\u22120.5 \u22121.5", "5% 12.5%", "inf 1.5"])
def test_numbers_that_are_written_in_another_way_stay_text_and_are_mentioned(tmp_path, cells):
    read = table(tmp_path, "file,score\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells.split())))
    first = cells.split()[0]
    assert column(read, "score") == cells.split()
    assert list(map(shown, read.notes)) == [
        f"labels.csv: column 'score' stays text: '{first}' (line 2) is not a number"
    ]


def test_errors_of_a_spreadsheet_can_be_missing(tmp_path):
    read = table(tmp_path, "file,score\na,1\nb,#DIV/0!\n", missing="#DIV/0!")
    assert column(read, "score") == [1, None]


def test_codes_that_look_like_numbers_are_not_mentioned(tmp_path):
    assert table(tmp_path, "file,site\na,01\nb,1e3\nc,02\n").notes == []


def test_text_that_a_spreadsheet_made_a_formula_is_text(tmp_path):
    read = table(tmp_path, 'file,label,site\n"=""001""",x,"=""07"""\n="002",y,"=""08"""\n')
    assert list(read.rows) == ["001", "002"] and column(read, "site") == ["07", "08"]


@pytest.mark.parametrize(
    "text, key, message",
    [
        ("patient,label\nP0,a\nP0,b\n", None, "line 3: 'P0' is also in line 2, there with label 'a', here with 'b'"),
        ("Datei,patient,label\na,P0,x\nb,P0,x\n", None, "of one image, name the column of files: --file-column NAME"),
        ("patient,label\n,a\n", None, "line 2, column 'patient': no patient: the cell is empty"),
        (
            "patient,label\nP0,b\nNA,a\n",
            None,
            r"line 3, column 'patient': no patient: 'NA' means missing \(--missing\)",
        ),
        ("patient,label\nP0,a\n", "series", r"no column 'series', which --label-key names.* Rename it\."),
        ("patient,label\nP0,a\n", "file", r"no column 'file', which --label-key names.* Name it with --file-column\."),
        ("name,finding\nP0,a\n", None, "it has none; its columns are 'name', 'finding'. Name one with --file-column"),
        ("patient,series,label\nP0,1,a\n", None, r"it has patient \('patient'\) and series \('series'\).* --label-key"),
        ("patient\nP0\n", None, "Add a column 'label'"),
        ("patient,label\nP0,a\n", "study", "--label-key study"),
        ("patient,split\nP0,dev\n", None, "line 2, column 'split': split 'dev'; expected train, val, test"),
        (
            "file;label;age\na;x;60,5\nb;y;61\n",
            None,
            r"line 2, column 'age': found '60,5' \(1 such cells\).* point \(60\.5\)",
        ),
        (
            "file;age\na;1.060,5\nb;61\n",
            None,
            r"found '1.060,5' .* with a point \(1060\.5\) and nothing between thousands",
        ),
        (
            'file,age\na,"-1,060.5"\nb,61\n',
            None,
            r"found '-1,060.5' .* with a point \(-1060\.5\) and nothing between thousands",
        ),
        ("file,label\na," + "x" * 1001 + "\n", None, r"line 2, column 'label': 1,001 characters .*at most 1,000"),
        ("file,label,label\na,b,c\n", None, "the column 'label' is there twice"),
        ("", None, "is empty"),
    ],
)
def test_an_invalid_table_is_refused(tmp_path, text, key, message):
    with pytest.raises(LabelError, match=message):
        table(tmp_path, text, key)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(LabelError, match="cannot be read"):
        read_labels(tmp_path / "none.csv", "file")


@pytest.mark.parametrize("heading", ["sex", "Gender", "Patient Sex"])
def test_a_column_of_sexes_has_the_codes_of_dicom_and_this_is_said(tmp_path, heading):
    (tmp_path / "l.csv").write_text(f"patient,{heading}\na,male\nb,F\nc,\nd,Female\n")
    table = read_labels(tmp_path / "l.csv")
    assert [table.rows[patient][1][heading] for patient in "abcd"] == ["M", "F", None, "F"]
    assert f"l.csv: column '{heading}': 'Female' is F, 'male' is M" in table.notes


def test_a_column_of_sexes_with_another_word_stays_as_it_is(tmp_path):
    (tmp_path / "l.csv").write_text("patient,sex\na,male\nb,castrated\n")
    assert read_labels(tmp_path / "l.csv").rows["a"][1]["sex"] == "male"
