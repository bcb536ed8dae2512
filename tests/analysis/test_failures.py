"""Agreement of errors: against counts by hand, at its extremes, and over patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from support.results import made_result

from ssl_transfer.analysis.failures import COLUMNS, Predictions, failures, shared_failures
from ssl_transfer.errors import UsageError


def predictions(right, patients=None, first_row=0) -> pd.DataFrame:
    """Predictions of two classes, correct where `right` is 1."""
    right = np.asarray(right, bool)
    label = np.where(np.arange(len(right)) % 2, "b", "a")
    score = np.where(right == (label == "a"), 0.9, 0.2)
    rows = np.arange(first_row, first_row + len(right))
    patients = [None] * len(right) if patients is None else patients
    return pd.DataFrame({"row": rows, "patient": patients, "label": label, "score_a": score, "score_b": 1 - score})


def test_the_shares_and_kappa_are_those_counted_by_hand():
    # Right: 1110 0101 and 1100 0111: both wrong in 2 of 8; they agree in 6 of 8; expected 5/8 · 5/8 + 3/8 · 3/8 = 34/64.
    found = shared_failures(predictions([1, 1, 1, 0, 0, 1, 0, 1]), predictions([1, 1, 0, 0, 0, 1, 1, 1]))
    assert found.wrong == pytest.approx((3 / 8, 3 / 8)) and found.both_wrong == pytest.approx(2 / 8)
    assert found.by_chance == pytest.approx(9 / 64)
    assert found.consistency == pytest.approx((6 / 8 - 34 / 64) / (1 - 34 / 64))


def test_the_same_errors_are_consistent_opposite_ones_are_not_and_independent_ones_are_neither():
    draw = np.random.default_rng(0)
    right = draw.random(4000) < 0.7
    assert shared_failures(predictions(right), predictions(right), 50).consistency == pytest.approx(1)
    half = np.arange(100) % 4 < 2
    assert shared_failures(predictions(half), predictions(~half), 50).consistency == pytest.approx(-1)
    independent = shared_failures(predictions(right), predictions(draw.random(4000) < 0.7), 200)
    assert independent.interval[0] < 0 < independent.interval[1] and abs(independent.consistency) < 0.06


def test_patients_are_resampled_as_one():
    draw = np.random.default_rng(1)
    right, other = (np.repeat(draw.random(20) < 0.6, 50) for _ in range(2))
    alone = shared_failures(predictions(right), predictions(other), 300)
    patients = np.repeat([f"p{i}" for i in range(20)], 50)
    together = shared_failures(predictions(right, patients), predictions(other, patients), 300)
    assert (alone.patients, together.patients) == (1000, 20) and alone.consistency == together.consistency
    assert np.diff(together.interval)[0] > 3 * np.diff(alone.interval)[0]


def test_only_images_that_both_have_scored_count():
    found = shared_failures(predictions([1] * 10), predictions([1] * 10, first_row=4), 10)
    assert found.n == 6 and np.isnan(found.consistency) and np.isnan(found.interval[0])  # nobody errs


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (predictions([1] * 4, first_row=100), "no image in common"),
        (predictions([1] * 4).assign(label="b"), "disagree on labels"),
        (pd.DataFrame({"case": [1], "dice": [0.5]}), "second table lacks row, label"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(other, said):
    with pytest.raises(UsageError, match=said):
        shared_failures(predictions([1, 0, 1, 1]), other)


# evaluations read from folders, and compared by task


def result(folder, name="simclr", task="lungs", right=(1, 0, 1, 1), **facts):
    """A folder as `evaluate` leaves it; `facts` lay over those of a linear probe."""
    folder.mkdir(parents=True)
    backbone, about = {"id": str(folder), "name": name}, {"name": task, "target_domain": "ct"}
    fields = {
        "backbone": backbone,
        "task": about,
        "fraction": 1.0,
        "pretraining_seed": 0,
        "metrics": {"test": {}},
        **facts,
    }
    made_result(str(folder), **fields).save(folder)
    predictions(right).to_parquet(folder / "predictions.parquet", index=False)
    return folder


def test_results_are_named_by_backbone_protocol_and_the_settings_in_which_they_differ(tmp_path):
    plain = [result(tmp_path / "a"), result(tmp_path / "b", "dino", protocol="finetune", strategy="lora")]
    assert [one.name for one in Predictions.open(plain)] == ["simclr, linear_probe", "dino, lora"]
    few = [result(tmp_path / "c", fraction=0.1), result(tmp_path / "d", pretraining_seed=1, seed=4)]
    assert [one.name for one in Predictions.open([plain[0], *few])] == [
        "simclr, linear_probe, fraction 1, pretraining seed 0, seed 0",
        "simclr, linear_probe, fraction 0.1, pretraining seed 0, seed 0",
        "simclr, linear_probe, fraction 1, pretraining seed 1, seed 4",
    ]


def test_two_results_of_one_task_never_have_the_same_name(tmp_path):
    # Two backbones that are called the same, or one probe with other settings.
    folders = [result(tmp_path / "a"), result(tmp_path / "b", right=(0, 1, 1, 0)), result(tmp_path / "c", "dino")]
    names = [one.name for one in Predictions.open(folders)]
    assert len(set(names)) == 3


def test_a_result_is_opened_by_its_folder_with_its_predictions(tmp_path):
    (one,) = Predictions.open([str(result(tmp_path / "a", right=(1, 1, 0)))])
    assert one.result.task["name"] == "lungs" and one.predictions.equals(predictions((1, 1, 0)))
    assert Predictions.open([]) == []


def test_a_result_can_be_given_by_the_path_of_its_file(tmp_path):
    # `evaluate` answers with the path of result.json, and `inspect` and EvalResult.load read it.
    (one,) = Predictions.open([result(tmp_path / "a") / "result.json"])
    assert one.name == "simclr, linear_probe"


def test_folders_without_a_multiclass_result_are_refused(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        Predictions.open([tmp_path / "nowhere"])
    bare = result(tmp_path / "bare")
    (bare / "predictions.parquet").unlink()
    with pytest.raises(UsageError, match=r"bare.*no predictions"):
        Predictions.open([bare])
    masks = result(tmp_path / "masks")
    pd.DataFrame({"case": ["a"], "dice": [0.5]}).to_parquet(masks / "predictions.parquet")
    with pytest.raises(UsageError, match=r"masks.*task multiclass"):
        Predictions.open([bare.parent / "masks"])


def test_every_two_evaluations_of_one_task_have_a_row(tmp_path):
    folders = [
        result(tmp_path / "a", right=(1, 1, 1, 0, 0, 1, 0, 1)),
        result(tmp_path / "b", "dino", right=(1, 1, 0, 0, 0, 1, 1, 1)),
        result(tmp_path / "c", "moco", right=[1] * 8),
        result(tmp_path / "d", task="liver"),
    ]
    table = failures(Predictions.open(folders), 50)
    assert tuple(table) == COLUMNS and len(table) == 3 and set(table["task"]) == {"lungs"}
    first = table.iloc[0]
    assert (first["result_a"], first["result_b"]) == ("simclr, linear_probe", "dino, linear_probe")
    expected = shared_failures(*(pd.read_parquet(folder / "predictions.parquet") for folder in folders[:2]), 50)
    for name in ("n", "patients", "both_wrong", "by_chance", "consistency"):
        assert first[name] == getattr(expected, name), name
    assert (first["wrong_a"], first["wrong_b"]) == expected.wrong
    assert (first["consistency_low"], first["consistency_high"]) == expected.interval


def test_without_two_of_one_task_the_table_is_empty_and_has_its_columns(tmp_path):
    for folders in ([], [result(tmp_path / "a")], [result(tmp_path / "b"), result(tmp_path / "c", task="liver")]):
        table = failures(Predictions.open(folders))
        assert len(table) == 0 and tuple(table) == COLUMNS


def test_the_interval_depends_on_the_seed_alone(tmp_path):
    draw = np.random.default_rng(0)
    folders = [result(tmp_path / name, name, right=draw.random(80) < 0.6) for name in "ab"]
    one, again, other = (failures(Predictions.open(folders), 40, seed) for seed in (0, 0, 1))
    assert one.equals(again) and not one.equals(other)
