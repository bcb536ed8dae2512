"""The tidy table says what the results say, and nothing twice."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from support.results import made_result

from ssl_transfer.errors import RunError
from ssl_transfer.result import EvalResult
from ssl_transfer.study.table import study_table, write_table

TIDY = [  # others rely on these columns: written out on purpose
    "protocol",
    "pretraining",
    "task",
    "strategy",
    "fraction",
    "pretraining_seed",
    "seed",
    "metric",
    "value",
    "boundary",
    "run_id",
    "noise",
    "noise_sigma",
    "draw",
    "test_cases",
    "seen_cases",
    "value_clean",
]
SEEN = {"cases": 20, "images": 20, "seen": 3, "patient": None, "pixels": 1, "near": 3, "unknown": 0}


def result(run_id="r1", **changes) -> EvalResult:
    return made_result(run_id, **changes)


def test_the_columns_are_exactly_the_documented_ones():
    assert list(study_table([result()]).columns) == TIDY
    assert list(study_table([]).columns) == TIDY


def test_seen_test_cases_and_the_metric_on_the_others_stand_beside_the_metric():
    seen = {**SEEN, "metrics_clean": {"auroc": 0.75, "accuracy": None}}
    frame = study_table([result("r1", contamination=seen), result("r2", seed=1)]).set_index(["run_id", "metric"])
    assert frame.loc["r1", ["test_cases", "seen_cases"]].drop_duplicates().to_numpy().tolist() == [[20, 3]]
    assert frame.loc[("r1", "auroc"), "value_clean"] == 0.75 and pd.isna(frame.loc[("r1", "accuracy"), "value_clean"])
    assert frame.loc["r2", ["test_cases", "seen_cases", "value_clean"]].isna().all(axis=None)


def test_cases_of_which_nothing_is_known_are_not_counted_as_unseen():
    unknown = {**SEEN, "seen": 0, "pixels": 0, "near": 0, "unknown": 20, "metrics_clean": None}
    assert study_table([result(contamination=unknown)])["seen_cases"].isna().all()


def test_the_draw_is_that_of_the_result_and_missing_where_it_states_none():
    frame = study_table([result("r1", draw=2968811710), result("r2", draw=None), result("r3")])
    assert frame["draw"].dtype == "Int64"
    assert frame.groupby("run_id")["draw"].first().tolist()[:1] == [2968811710] and frame["draw"].isna().sum() == 4


def test_there_is_one_row_per_run_and_test_metric_and_none_for_validation():
    frame = study_table([result("r1"), result("r2", seed=1)])
    assert frame[["run_id", "metric", "value"]].values.tolist() == [
        ["r1", "auroc", 0.8],
        ["r1", "accuracy", 0.7],
        ["r2", "auroc", 0.8],
        ["r2", "accuracy", 0.7],
    ]


def test_the_pretraining_arm_is_named_by_the_backbone_where_it_names_no_arm():
    unnamed = {"id": "b", "name": "timm:resnet50"}
    assert study_table([result(backbone=unnamed)])["pretraining"].tolist() == ["timm:resnet50"] * 2


def test_the_noise_of_a_run_is_that_of_its_settings_and_none_where_they_say_nothing():
    noise = {"kind": "gaussian", "sigma": 0.01, "at": "test"}
    frame = study_table([result("r1"), result("r2", settings={"size": 32}), result("r3", settings={"noise": noise})])
    labels = ["none"] * 4 + ["gaussian test"] * 2
    assert (frame["noise"].tolist(), frame["noise_sigma"].tolist()) == (labels, [0.0] * 4 + [0.01] * 2)


def test_a_repeated_run_id_is_refused():
    with pytest.raises(RunError, match="r1: appears twice"):
        study_table([result("r1"), result("r1")])


def test_a_metric_that_is_null_stays_a_row_without_a_value():
    frame = study_table([result(metrics={"test": {"auroc": None}})])
    assert len(frame) == 1
    assert np.isnan(frame["value"].item())


def test_a_written_table_reads_back_equal_from_parquet_and_csv(tmp_path):
    frame = study_table([result("r1"), result("r2", pretraining_seed=None)])
    write_table(frame, tmp_path / "new")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "new/table.parquet"), frame)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new/table.csv", dtype=frame.dtypes.to_dict()), frame)


def test_no_study_module_imports_torch():
    code = "import sys; from ssl_transfer.study import report, statistics, table; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
