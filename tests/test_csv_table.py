"""CSV files as spreadsheets, programs and people write them."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssl_transfer.csv_table import numbers, read_csv, tidy, without_missing
from ssl_transfer.errors import LabelError


def table(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv(path, LabelError)


@pytest.mark.parametrize(
    "content",
    [
        "file,label\na,x\nb,y\n",
        "file;label\r\na;x\r\nb;y\r\n",
        "file\tlabel\na\tx\nb\ty",
        "file|label\na|x\nb|y\n",
        "file,label\ra,x\rb,y\r",
        "\ufefffile,label\na,x\nb,y\n",
        "file,label\na,x\nb,y\n".encode("utf-16"),
        "file\tlabel\na\tx\nb\ty\n".encode("utf-16-le").join([b"\xff\xfe", b""]),
        "sep=;\nfile;label\na;x\nb;y\n",
        "\n file , label ,,\n a , x ,,\n\n,,\n'b',y".replace("'", '"'),
        ",file,label\n0,a,x\n1,b,y\n",
        'file,label\n"a", "x"\n"b","y"\n',
    ],
)
def test_the_dialects_of_spreadsheets_and_programs_are_the_same_table(tmp_path, content):
    read = table(tmp_path, content)
    assert read.cells == {"file": ["a", "b"], "label": ["x", "y"]} and read.notes == []


def test_cells_with_commas_line_breaks_and_quotes_are_kept_and_lines_are_those_of_the_file(tmp_path):
    read = table(tmp_path, 'file,note\na,"one\ntwo, ""three"""\n\nb,seen\u2028again\n')
    assert read.cells["note"] == ['one\ntwo, "three"', "seen\u2028again"]
    assert list(read.lines) == [2, 5] and read.where(1, "note").endswith("table.csv line 5, column 'note'")


def test_decimal_commas_do_not_divide_cells(tmp_path):
    read = table(tmp_path, "file;age, years\na;60,5\nb;61,5\n")
    assert read.cells == {"file": ["a", "b"], "age, years": ["60,5", "61,5"]}


def test_both_unicode_forms_of_a_letter_and_invisible_characters_give_the_same_text(tmp_path):
    read = table(tmp_path, "file,label\nMu\u0308ller,\u200bO\u0308dem\u00a0\nMüller,Ödem\n")
    assert len(set(read.cells["file"])) == len(set(read.cells["label"])) == 1


def test_a_column_without_a_name_is_left_out_and_mentioned(tmp_path):
    assert table(tmp_path, "file,,label\na,7,x\nb,9,y\n").notes == ["table.csv: column 2 has no name and is left out"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty. Expected a line with the names"),
        ("\n\n", "is empty"),
        ("file,label\n", "has a header and no rows"),
        (
            "file,label\na,carcinoma, ductal\n",
            "line 2: 3 cells where the header has 2: 'a,carcinoma,ductal'. Put cells",
        ),
        ("file,label,split\na,x,train\nb,y\n", "line 3: 2 cells where the header has 3: 'b,y'. Add the cells"),
        (
            "file;label\na;x;y\n",
            "line 2: 3 cells where the header has 2: 'a;x;y'. Put cells that contain ';' in quotes",
        ),
        ("file,label,label\na,x,y\n", "line 1: the column 'label' is there twice (columns 2 and 3)"),
        ('file,label\na,x\nb,"y\nc,z\n', 'line 3: a quote (") is opened here and never closed'),
        ('file,label\na,"x"y\n', "line 2: cannot be read as CSV"),
        ("file,label\na,x\nb,y\0\n", "line 3: contains a NUL character"),
        (
            "file,label\na," + "x" * 200_000,
            "line 2, column 'label': a cell of 200,000 characters; expected at most 100,000",
        ),
        ("file,label\na,\xd6dem\n".encode("cp1252"), "line 2: is not UTF-8 (byte 0xd6). Save it as 'CSV UTF-8'"),
        (b"PK\x03\x04xl/workbook.xml", "is an Excel workbook or another zip file. Expected a CSV"),
        (b"\x1f\x8b\x08", "is compressed by gzip"),
    ],
)
def test_what_is_no_table_is_an_error_with_its_line(tmp_path, content, message):
    with pytest.raises(LabelError) as error:
        table(tmp_path, content)
    assert message in str(error.value) and str(error.value).startswith(str(tmp_path / "table.csv"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(LabelError, match=r"none\.csv: cannot be read \(No such file or directory\)"):
        read_csv(tmp_path / "none.csv", LabelError)
    with pytest.raises(LabelError, match=r"cannot be read \(Is a directory\)"):
        read_csv(tmp_path, LabelError)


CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=6), delimiter=st.sampled_from(",;\t"))
def test_whatever_the_csv_module_writes_is_read_back(tmp_path_factory, rows, delimiter):
    kept = [tuple(map(tidy, row)) for row in rows if any(map(str.strip, row))]
    assume(kept)
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("first", "second", "third"), *rows])
    read = table(tmp_path_factory.mktemp("table"), buffer.getvalue())
    assert list(zip(*read.cells.values(), strict=True)) == kept


# Values


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "-2", "0"], [1, -2, 0]),
        (["1", "1.0", ".5"], [1.0, 1.0, 0.5]),
        (["1e-05", "1.5E3", None], [1e-05, 1500.0, None]),
        (["9007199254740992"], [2**53]),
    ],
)
def test_numbers_as_programs_print_them_are_numbers(texts, values):
    assert numbers(texts) == values and [type(v) for v in numbers(texts)] == [type(v) for v in values]


@pytest.mark.parametrize(
    "text",
    [
        "01",
        "1_001",
        "1e3",
        "+7",
        "0x10",
        "1,5",
        "1.2.3",
        "inf",
        "nan",
        "1e+999",
        "٣",
        "12 ",
        "9007199254740993",
        "9" * 26,
        "9" * 5000,
    ],
)
def test_everything_else_is_text(text):
    assert numbers(["1", text]) is None


def test_words_for_missing_values_are_missing_in_either_case():
    values, found = without_missing(
        ["NA", "nan", "n/a", "None", "null", "-", "", "#N/A", "a", "none", "nano", "not a number"]
    )
    assert values == [None] * 8 + ["a", "none", "nano", "not a number"] and sum(found.values()) == 7


def test_a_dash_is_a_result_beside_a_plus():
    assert without_missing(["+", "-", "", "NA"])[0] == ["+", "-", None, None]


def test_other_words_can_be_missing():
    assert without_missing(["NA", "unknown", ""], ["Unknown"])[0] == ["NA", None, None]
