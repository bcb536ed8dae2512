"""Files of a source by the names that a CSV gives them."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_transfer.data.ingest.label_files import lost_zeros, match_files

NFC, NFD = (unicodedata.normalize(form, "Müller.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("name", "file", "rule"),
    [
        ("x/a.png", "x/a.png", None),
        ("a.png", "x/a.png", None),
        ("./x/a.png", "x/a.png", None),
        (NFC, NFD, None),
        (NFD, NFC, None),
        ("train/x/a.png", "x/a.png", "by the end of the path"),
        ("/data/study/x/a.png", "x/a.png", "by the end of the path"),
        ("C:\\study\\x\\a.png", "x/a.png", "by the end of the path"),
        ("images\\a.png", "a.png", "by the end of the path"),
        ("a", "x/a.png", "without the extension"),
        ("x/a", "x/a.png", "without the extension"),
        ("a.jpg", "a.png", "without the extension"),
        ("case_07", "case_07.nii.gz", "without the extension"),
        ("1.2.840.113", "1.2.840.113.dcm", "without the extension"),
        ("IMG_1.PNG", "img_1.png", "without regard to upper and lower case"),
    ],
)
def test_a_name_finds_its_file(name, file, rule):
    matches = match_files([name], [file, "x/other.png"])
    assert matches.files == {name: file}
    assert matches.rules == ({} if rule is None else {rule: (1, name, file)})


@pytest.mark.parametrize("name", ["b.png", "y/a.png", "0.png", "1.2.840.114", "x"])
def test_other_names_find_none(name):
    matches = match_files([name], ["x/a.png", "x/00.png", "1.2.840.113"])
    assert matches.files == {} and matches.ambiguous == {}


def test_a_name_that_fits_two_files_is_ambiguous():
    assert match_files(["a"], ["x/a.png", "y/a.png"]).ambiguous == {"a": ["x/a.png", "y/a.png"]}
    assert match_files(["Müller.png"], [NFC, NFD]).ambiguous == {"Müller.png": [NFC, NFD]}


def test_the_better_fit_wins():
    matches = match_files(["a.png", "x/a.png", "b", "B"], ["a.png", "x/a.png", "b.png", "B.png"])
    assert matches.files == {"a.png": "a.png", "x/a.png": "x/a.png", "b": "b.png", "B": "B.png"}


def test_a_refused_file_is_found_before_an_image_of_another_extension():
    assert match_files(["a.jpg", "b"], ["a.png", "b.png"], refused=["a.jpg", "b.txt"]).files == {
        "a.jpg": "a.jpg",
        "b": "b.png",
    }


PART = st.text("abXY.é", min_size=1, max_size=3).filter(lambda part: part.strip("."))


@settings(max_examples=50, deadline=None)
@given(files=st.lists(st.lists(PART, min_size=1, max_size=3).map("/".join), min_size=1, max_size=6, unique=True))
def test_every_path_of_the_source_finds_itself(files):
    matches = match_files(files, files)
    assert matches.files == {file: file for file in files} and not matches.rules


@pytest.mark.parametrize(("name", "found"), [("7", "0007"), ("7.0", "0007"), ("x", None), ("8", None), ("9", None)])
def test_dropped_zeros_have_one_explanation_or_none(name, found):
    assert lost_zeros(name, ["0007", "008", "0008"]) == found
