"""What splits are stratified by, and classes that are too small for them."""

import numpy as np
import pytest
from PIL import Image

from ssl_transfer.data.ingest.classes import class_warnings, strata
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.splits import draw_splits
from ssl_transfer.errors import SplitError, UsageError

SHARES = (0.7, 0.15, 0.15)


@pytest.fixture
def source(tmp_path):
    """A folder of 40 patients with two images each, and a function that writes its CSV from columns."""
    folder = tmp_path / "images"
    folder.mkdir()
    files = [f"{patient:02d}_{number}.png" for patient in range(40) for number in range(2)]
    for value, file in enumerate(files):
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(folder / file)

    def csv(**columns):
        path = tmp_path / "labels.csv"
        rows = [
            ",".join([file, file[:2], *(str(values[i]) for values in columns.values())]) for i, file in enumerate(files)
        ]
        path.write_text("\n".join([",".join(["file", "patient", *columns]), *rows]))
        return path

    return folder, csv


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_finding_of_single_images_gets_its_share_of_every_split(seed):
    groups = np.repeat([f"p{n:03d}" for n in range(200)], 10)
    rare = np.where((np.arange(2000) % 10 == 0) & (np.arange(2000) < 200), "yes", "no")  # an image of 20 patients
    splits = draw_splits(groups, rare, SHARES, seed, by_rarest=True)
    positive = [len(set(groups[(splits == split) & (rare == "yes")])) for split in ("train", "val", "test")]
    assert positive == [14, 3, 3]


@pytest.mark.parametrize("seed", range(3))
def test_splits_are_stratified_by_the_column_that_is_named(source, tmp_path, seed):
    folder, csv = source
    rare = ["yes" if image // 2 < 10 else "no" for image in range(80)]
    labels = csv(label=["a"] * 80, rare=rare)
    store = ingest(folder, tmp_path / "out", labels=labels, stratify="rare", seed=seed)
    rows = store.rows[store.rows["rare"] == "yes"].groupby("split")["patient"].nunique()
    assert abs(rows["test"] - 1.5) < 1 and abs(rows["val"] - 1.5) < 1 and store.card.split_by == "patient"


def test_several_columns_are_one_stratum():
    assert strata([["a", "b", None], ["x", "y", None]]) == ["a, x", "b, y", None]


def test_numbers_of_many_values_are_divided_into_fifths():
    ages = [*range(20, 80), None]
    parts = strata([ages])
    assert [parts.count(str(part)) for part in range(5)] == [12] * 5 and parts[-1] is None
    assert strata([[3, 1, 2]]) == ["3", "1", "2"]


def test_an_unknown_column_or_splits_of_the_source_are_refused_before_anything_is_read(source, tmp_path):
    folder, csv = source
    labels = csv(label=["a", "b"] * 40, split=["train"] * 60 + ["test"] * 20)
    with pytest.raises(
        SplitError, match=r"--stratify lable: the images have no column 'lable'\. Did you mean 'label'\?"
    ):
        ingest(folder, tmp_path / "out", labels=labels, stratify="lable")
    with pytest.raises(SplitError, match=r"--stratify label: the source has splits, which are kept\. Add --resplit"):
        ingest(folder, tmp_path / "out", labels=labels, stratify="label")
    assert not (tmp_path / "out").exists()
    assert ingest(folder, tmp_path / "out", labels=labels, stratify="label", resplit=True).card.split_by == "patient"


def test_a_class_that_is_not_in_every_split_is_warned_of(source, tmp_path):
    folder, csv = source
    label = ["rare" if image == 0 else "ab"[image // 2 % 2] for image in range(80)]
    store = ingest(folder, tmp_path / "out", labels=csv(label=label))
    where = store.rows.loc[store.rows["label"] == "rare", "split"].item()
    absent = " and ".join(split for split in ("train", "val", "test") if split != where)
    assert list(store.card.warnings) == [
        f"1 of 3 classes of column 'label' are not in every split: 'rare' (1 patient; none in {absent}). "
        "Metrics leave them out where they are missing; a class needs at least 3 patients"
    ]


def test_small_classes_are_named_smallest_first_and_counted():
    values = [str(n) for n in range(8)] + ["all"] * 3
    splits = ["train"] * 8 + ["train", "val", "test"]
    (warning,) = class_warnings("dx", values, list(range(11)), splits, "study")
    assert warning.startswith(
        "8 of 9 classes of column 'dx' are not in every split: '0' (1 study; none in val and test), "
    )
    assert "and 3 more" in warning and "at least 3 studies" in warning


@pytest.mark.parametrize(
    ("values", "splits"),
    [(["a", "a"], ["train", "val"]), (["a", "b"], ["train", "train"]), ([None, float("nan")], ["train", "val"])],
)
def test_nothing_is_said_of_one_class_one_split_or_no_class(values, splits):
    assert class_warnings("label", values, [0, 1], splits, "patient") == []


@pytest.mark.parametrize("option", ["file_column", "patient_column", "label_column", "missing", "label_key"])
def test_options_of_the_csv_need_one(source, tmp_path, option):
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} file: there is no --labels CSV"):
        ingest(source[0], tmp_path / "out", **{option: "file"})


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_of_rows_lies_between_0_and_1(source, tmp_path, share):
    with pytest.raises(UsageError, match="--max-unmatched"):
        ingest(source[0], tmp_path / "out", max_unmatched=share)


def test_the_card_names_no_row_that_is_not_in_the_source(source, tmp_path, capsys):
    folder, csv = source
    labels = csv(label=["a", "b"] * 40)
    with open(labels, "a") as file:
        file.write("\nSmith_Jane.scan,Smith Jane,a\n")
    store = ingest(folder, tmp_path / "out", labels=labels)
    assert "Smith_Jane" in capsys.readouterr().err
    card = (store.path / "card.json").read_text()
    assert "Smith" not in card and "1 of 81 rows of" in card
