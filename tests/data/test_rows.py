"""Rows in batches: what was appended comes back, with types that hold every value, whatever the batches were."""

import numpy as np
import pandas
import pytest

from ssl_transfer.data import rows as rows_module
from ssl_transfer.data.rows import RowBatches, content_digest

ROWS = [
    {"label": None, "slice": 0, "age": 3, "site": "a", "pixel_digest": "x"},
    {"label": None, "slice": 1, "age": 2.5, "site": 7, "pixel_digest": "y"},
    {"label": "liver", "slice": np.int64(2), "age": None, "pixel_digest": "z"},
    {"label": "liver", "slice": 3, "age": float("nan"), "late": True, "pixel_digest": "w"},
]


def joined(folder, rows, batch, monkeypatch):
    monkeypatch.setattr(rows_module, "BATCH", batch)
    (folder / str(batch)).mkdir()
    batches = RowBatches(folder / str(batch))
    for row in rows:
        batches.append(dict(row))
    return batches, batches.join(folder / str(batch), split=np.array(["train"] * len(rows)))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_rows_and_their_hash_do_not_depend_on_the_batches(tmp_path, monkeypatch, batch):
    _, path = joined(tmp_path, ROWS, batch, monkeypatch)
    frame = pandas.read_parquet(path)
    assert list(frame) == ["label", "patient", "series", "slice", "split", "pixel_digest", "age", "site", "late"]
    assert frame["age"].iloc[:2].tolist() == [3.0, 2.5] and frame["age"].isna().tolist() == [False, False, True, True]
    assert frame["site"].iloc[:2].tolist() == ["a", "7"] and frame["label"].iloc[2] == "liver"
    assert frame["slice"].tolist() == [0, 1, 2, 3] and frame["patient"].isna().all()
    _, whole = joined(tmp_path, ROWS, 2, monkeypatch)
    assert content_digest(path, "x") == content_digest(whole, "x") != content_digest(whole, "y")


def test_a_changed_value_changes_the_hash(tmp_path, monkeypatch):
    _, path = joined(tmp_path, ROWS, 4, monkeypatch)
    _, other = joined(tmp_path, [{**ROWS[0], "slice": 9}, *ROWS[1:]], 5, monkeypatch)
    assert content_digest(path, "") != content_digest(other, "")


def test_a_value_of_a_row_is_found_in_its_batch(tmp_path, monkeypatch):
    batches, _ = joined(tmp_path, [{"patient": f"patient {n}"} for n in range(10)], 3, monkeypatch)
    assert [batches.at("patient", n) for n in range(10)] == [f"patient {n}" for n in range(10)]
    assert batches.at("nothing", 4) is None


def test_rows_behind_the_last_flush_of_a_killed_ingest_are_dropped(tmp_path, monkeypatch):
    batches, _ = joined(tmp_path, ROWS, 1, monkeypatch)
    assert len(batches.paths) == 4
    again = RowBatches(batches.folder, batches=2)
    assert len(again) == 2 and [row["slice"] for row in again] == [0, 1]
    assert len(list(batches.folder.glob("rows-*.parquet"))) == 2
