"""Which columns say something of an image, by which images can be alike, and a sample of whole patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ssl_transfer.analysis.columns import (
    descriptive_columns,
    in_order,
    patients_of,
    repeating_columns,
    sample_of_patients,
    with_age_bands,
)
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.errors import UsageError

N = 40


@pytest.fixture
def store(tmp_path):
    """Make a store of forty black images with these columns."""

    def make(**columns):
        folder = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        with StoreWriter(folder, (1, 4, 4), np.uint8) as writer:
            for row in range(N):
                image = np.full((1, 4, 4), row, np.uint8)
                writer.append(image, {name: values[row] for name, values in columns.items()})
            return writer.finish(np.repeat(["train", "test"], N // 2), units="display", domain="ct", split_by="patient")

    return make


LABELS = [["benign", "malign"][i % 2] for i in range(N)]


def test_columns_of_one_value_files_and_digests_are_left_out(store):
    table = descriptive_columns(
        store(label=LABELS, vendor=["acme"] * N, file=[f"{i}.png" for i in range(N)], none=[None] * N)
    )
    assert list(table) == ["label", "split"] and len(table) == N


def test_a_recoding_of_an_earlier_column_is_dropped(store):
    coded = [{"benign": 7, "malign": 3}[label] for label in LABELS]
    partly = [None if i == 0 else label for i, label in enumerate(LABELS)]
    table = descriptive_columns(store(label=LABELS, code=coded, partly=partly, site=[i % 5 for i in range(N)]))
    assert list(table) == ["label", "split", "partly", "site"]


def test_the_values_are_those_of_the_store(store):
    made = store(label=LABELS, patient=[f"p{i // 4}" for i in range(N)])
    table = descriptive_columns(made)
    assert table["label"].tolist() == LABELS and table["patient"].tolist() == made.column("patient").tolist()


def test_repeating_columns_are_text_that_repeats_and_numbers_with_few_values():
    draw = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "label": draw.choice(["a", "b", "c"], 200),
            "patient": np.repeat(np.arange(50), 4).astype(str),
            "mostly_alone": [f"w{i}" if i % 3 else "same" for i in range(200)],
            "grade": draw.integers(0, 30, 200),
            "age": np.arange(200) % 31,
            "weight": draw.normal(size=200),
            "slice": np.arange(200) % 10,
            "smoker": draw.random(200) < 0.3,
            "half_known": [None if i % 2 else "xy"[i % 4 // 2] for i in range(200)],
        }
    )
    assert repeating_columns(table, None) == ["label", "patient", "grade", "smoker", "half_known"]


def test_numbers_of_few_values_may_have_unknown_ones():
    values = pd.Series([None, 1, 2, 3] * 30, dtype=object)
    assert repeating_columns(pd.DataFrame({"stage": values, "dose": values.astype(float)}), None) == ["stage", "dose"]


def test_requested_columns_keep_their_order():
    table = pd.DataFrame({"label": ["a", "b"] * 20, "weight": np.arange(40.0), "slice": np.arange(40)})
    assert repeating_columns(table, ["slice", "weight"]) == ["slice", "weight"]


def test_a_missing_column_is_refused_with_the_nearest_name(store):
    with pytest.raises(UsageError, match=r"no column 'lable'.*Did you mean 'label'\?"):
        descriptive_columns(store(label=LABELS), ["lable"])


def test_every_row_with_an_unknown_patient_is_a_group_of_its_own(store):
    known = patients_of(store(patient=[None if i < 3 else f"p{i % 4}" for i in range(N)]))
    assert len(set(known)) == 3 + 4 and known[3] == "p3"
    assert len(set(patients_of(store(label=LABELS)))) == N


@pytest.mark.parametrize("images", [1, 37, 200, 999, 5000])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_sample_is_of_whole_patients_and_no_more_of_them_than_needed(images, seed):
    sizes = np.random.default_rng(3).integers(1, 20, 100)
    groups = np.random.default_rng(4).permutation(np.repeat([f"p{i}" for i in range(100)], sizes)).astype(object)
    rows = sample_of_patients(groups, images, seed)
    assert len(rows) == len(set(rows)) >= min(images, len(groups))
    chosen = set(groups[rows])
    assert set(np.flatnonzero(np.isin(groups.astype(str), list(chosen)))) == set(rows)
    assert len(rows) - max(np.sum(groups == one) for one in chosen) < images
    assert np.array_equal(rows, sample_of_patients(groups, images, seed))
    assert len(rows) < 3 or (np.diff(rows) < 0).any()  # in random order


def test_another_seed_draws_other_patients():
    groups = np.repeat(np.arange(50), 4).astype(str).astype(object)
    assert set(groups[sample_of_patients(groups, 40, 0)]) != set(groups[sample_of_patients(groups, 40, 1)])


def test_with_one_patient_the_sample_is_all_images():
    assert sorted(sample_of_patients(np.full(60, "p", object), 10, 0)) == list(range(60))


def test_an_explorer_opens_with_the_requested_column_and_splits_are_at_the_end():
    columns = ["label", "patient", "split", "diagnosis", "distance"]
    assert in_order(columns, ["diagnosis"]) == ["diagnosis", "label", "patient", "distance", "split"]
    assert in_order(columns, ["split"]) == ["split", "label", "patient", "diagnosis", "distance"]


def test_ages_are_shown_in_bands_of_which_the_last_joins_the_oldest():
    table = pd.DataFrame({"age": [61, None, 97], "Age (years)": ["60-64", None, "90+"], "stage": [1, 2, 95]})
    shown = with_age_bands(table)
    assert (shown[["age", "Age (years)"]].fillna("").T.to_numpy() == ["60-64", "", "90+"]).all()
    assert shown["stage"].tolist() == [1, 2, 95]


def test_ages_beside_a_word_are_shown_in_bands_too():
    table = pd.DataFrame({"age": ["61", "unknown", "97"]})
    assert with_age_bands(table)["age"].tolist() == ["60-64", "unknown", "90+"]
