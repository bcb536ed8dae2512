"""Contrasts over patients: in their own metric, from predictions, for every kind of task, within bounds."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, mean_absolute_error, roc_auc_score

from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.study.declared import DeclaredContrast
from ssl_transfer.study.statistics import (
    PATIENT_COLUMNS,
    PatientContrast,
    PredictedRun,
    decide,
    declared_patient_contrasts,
    patient_contrasts,
    patient_contrasts_of,
)
from ssl_transfer.study.statistics import patients as module

CELL = {
    "protocol": "linear_probe",
    "task": "region",
    "strategy": "",
    "fraction": 0.1,
    "noise": "none",
    "noise_sigma": 0.0,
}


def pair(metric: str, a="CT", b="photographs", **changes) -> dict:
    return {**CELL, "metric": metric, "a": a, "b": b, **changes}


def compared(pairs: pd.DataFrame, runs, **options) -> pd.DataFrame:
    return patient_contrasts(patient_contrasts_of(pairs), runs, **options)


def multiclass(seed: int, skill: float, images=90) -> pd.DataFrame:
    """Three images of each patient; patients differ in difficulty."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(7).integers(0, 3, images)
    hard = np.random.default_rng(8).normal(0, 0.5, images // 3)[np.arange(images) // 3]
    scores = np.exp(rng.normal(size=(images, 3)) + np.eye(3)[truth] * (skill + hard)[:, None])
    scores /= scores.sum(1, keepdims=True)
    columns = {f"score_{name}": scores[:, c] for c, name in enumerate("abc")}
    return pd.DataFrame(
        {"row": np.arange(images), "patient": np.arange(images) // 3, "label": np.array([*"abc"])[truth], **columns}
    )


def multilabel(seed: int, skill: float) -> pd.DataFrame:
    rng, truth = np.random.default_rng(seed), np.random.default_rng(7).integers(0, 2, (90, 2))
    scores = 1 / (1 + np.exp(-rng.normal(size=(90, 2)) - skill * (2 * truth - 1)))
    labels = {f"label_{name}": truth[:, c] for c, name in enumerate("xy")}
    columns = {f"score_{name}": scores[:, c] for c, name in enumerate("xy")}
    return pd.DataFrame({"row": np.arange(90), "patient": np.arange(90) // 3, **labels, **columns})


def segmentation(seed: int, skill: float) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [{"case": f"case {i // 2}", "patient": f"p{i // 4}", "class": "xy"[i % 2]} for i in range(60)]
    dice = np.clip(0.5 + 0.1 * skill + 0.2 * rng.normal(size=60), 0, 1)
    return pd.DataFrame(rows).assign(dice=dice, hd95=1.0, truth_voxels=3, found_voxels=3)


def regression(seed: int, skill: float) -> pd.DataFrame:
    rng, truth = np.random.default_rng(seed), np.random.default_rng(7).normal(60, 10, 90)
    table = {"row": np.arange(90), "patient": np.arange(90) // 3, "label": truth}
    return pd.DataFrame({**table, "predicted": truth + rng.normal(0, 5 / skill, 90)})


def predicted(kind, seeds=4, draws=2, none=()):
    """Runs of two arms; CT has more skill. Arms in `none` have no pretraining seeds."""

    def runs(cell):
        arm = cell["pretraining"]
        return [
            PredictedRun(
                None if arm in none else seed,
                draw,
                partial(_read, kind, 100 * seed + 10 * draw + (arm == "CT"), 1.5 if arm == "CT" else 1.0),
            )
            for seed in range(1 if arm in none else seeds)
            for draw in range(draws)
        ]

    return runs


def _read(kind, seed, skill):
    return CasePredictions(kind(seed, skill))


def balanced(table):
    return balanced_accuracy_score(table["label"], np.array([*"abc"])[table.filter(like="score_").to_numpy().argmax(1)])


def area(table):
    return roc_auc_score(table.filter(like="label_"), table.filter(like="score_"), average="macro")


def mean_dice(table):
    return table.groupby("class")["dice"].mean().mean()


def mean_error(table):
    return mean_absolute_error(table["label"], table["predicted"])


@pytest.mark.parametrize(
    ("kind", "metric", "reference"),
    [
        (multiclass, "balanced_accuracy", balanced),
        (multilabel, "auroc", area),
        (segmentation, "dice", mean_dice),
        (regression, "mae", mean_error),
    ],
)
def test_every_kind_of_task_is_compared_in_its_own_metric(kind, metric, reference):
    runs = predicted(kind)
    table = compared(pd.DataFrame([pair(metric)]), runs, resamples=600)
    row = table.iloc[0]
    assert list(table.columns) == PATIENT_COLUMNS
    assert (row["metric"], row["unit"], row["test"], row["n_a"]) == (metric, "pretraining_seed", "paired", 4)
    tables = {arm: [run.read().table for run in runs({"pretraining": arm})] for arm in ("CT", "photographs")}

    def difference(rows=slice(None)):
        a, b = (np.mean([reference(table.iloc[rows]) for table in tables[arm]]) for arm in tables)
        return a - b

    patient = tables["CT"][0]["patient"]
    names, rng, drawn = patient.unique(), np.random.default_rng(0), []
    for _ in range(80):
        picked = rng.choice(names, len(names))
        drawn.append(difference(np.concatenate([np.flatnonzero(patient == name) for name in picked])))
    assert row["difference"] == pytest.approx(difference())
    assert row["n_patients"] == len(names)
    assert row["patients_high"] - row["patients_low"] == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.35)


def test_arms_without_shared_pretraining_seeds_are_compared_unpaired():
    row = compared(pd.DataFrame([pair("auroc")]), predicted(multiclass, none=("photographs",)), resamples=100).iloc[0]
    assert (row["test"], row["unit"], row["n_a"], row["n_b"]) == ("welch", "seed", 4, 2)
    forced = compared(pd.DataFrame([pair("auroc", test="welch")]), predicted(multiclass), resamples=100).iloc[0]
    assert (forced["test"], forced["unit"], forced["n_a"], forced["n_b"]) == ("welch", "pretraining_seed", 4, 4)


def test_one_shared_pretraining_is_paired_over_evaluation_seeds():
    row = compared(pd.DataFrame([pair("auroc")]), predicted(multiclass, seeds=1, draws=3), resamples=100).iloc[0]
    assert (row["test"], row["unit"], row["n_a"]) == ("paired", "seed", 3)


def test_a_level_makes_the_intervals_those_of_this_level():
    rows = pd.DataFrame([pair("auroc"), pair("auroc", level=0.005)])
    at_5, at_half = compared(rows, predicted(multiclass), resamples=400).to_dict("records")
    assert (at_5["level"], at_half["level"]) == (0.05, 0.005)
    assert at_half["ci_low"] < at_5["ci_low"] and at_half["p_value"] == at_5["p_value"]


def test_runs_tested_on_different_cases_are_not_compared():
    def runs(cell):
        images = 90 if cell["pretraining"] == "CT" else 60
        return [
            PredictedRun(seed, 0, lambda seed=seed: CasePredictions(multiclass(seed, 1.0, images))) for seed in range(3)
        ]

    assert not len(compared(pd.DataFrame([pair("auroc")]), runs, resamples=50))


def test_an_arm_without_predictions_has_no_row():
    assert not len(compared(pd.DataFrame([pair("auroc")]), lambda cell: [], resamples=50))
    assert list(compared(pd.DataFrame([pair("auroc")])[:0], lambda cell: []).columns) == PATIENT_COLUMNS


def test_gate_and_primary_contrasts_come_first_where_there_are_too_many():
    families = ["exploratory", "secondary", "primary", "gate"]
    rows = pd.DataFrame([pair("auroc", family=family) for family in families])
    table = compared(rows, predicted(multiclass, seeds=2, draws=1), resamples=50, most=2)
    assert table["family"].tolist() == ["gate", "primary"]


def test_fewer_resamples_are_drawn_where_they_would_take_too_long(monkeypatch):
    monkeypatch.setattr(module, "MOST_WORK", 90 * 3 * 2 * 2 * 500)  # images × classes × runs of an arm × arms
    table = compared(pd.DataFrame([pair("auroc")]), predicted(multiclass, seeds=2, draws=1), resamples=2000)
    assert table["resamples"].tolist() == [500]


def test_a_contrast_over_several_targets_averages_them_within_each_seed_and_resamples_their_patients_apart():
    sides = [
        tuple({**pair("auroc"), "task": task, "pretraining": arm} for arm in ("CT", "photographs")) for task in "xyz"
    ]
    one, three = (
        patient_contrasts([PatientContrast(pair("auroc", family="primary"), cells)], predicted(multiclass)).iloc[0]
        for cells in (sides[:1], sides)
    )
    assert three["difference"] == pytest.approx(one["difference"])  # the same predictions on each
    assert (three["n_a"], three["n_patients"]) == (4, 3 * one["n_patients"])
    assert three["se_seeds"] == pytest.approx(one["se_seeds"])
    assert three["se_patients"] == pytest.approx(one["se_patients"] / np.sqrt(3), rel=0.2)


def test_a_seed_that_lacks_a_target_is_left_out():
    sides = [
        tuple({**pair("auroc"), "task": task, "pretraining": arm} for arm in ("CT", "photographs")) for task in "xy"
    ]

    def runs(cell):
        return [run for run in predicted(multiclass)(cell) if cell["task"] == "x" or run.pretraining_seed != 2]

    row = patient_contrasts([PatientContrast(pair("auroc"), sides)], runs, resamples=50).iloc[0]
    assert (row["n_a"], row["n_b"]) == (3, 3)


def test_declared_contrasts_are_those_of_their_decisions_with_all_their_targets_and_fractions():
    rows = [
        {
            **pair("auroc"),
            "pretraining": arm,
            "task": task,
            "fraction": fraction,
            "pretraining_seed": seed,
            "seed": draw,
        }
        for arm in ("CT", "photographs")
        for task in "xy"
        for fraction in (0.1, 1.0)
        for seed in range(4)
        for draw in range(2)
    ]
    frame = pd.DataFrame(rows).drop(columns=["a", "b"])
    values = {}
    for arm in ("CT", "photographs"):
        for run in predicted(multiclass)({"pretraining": arm}):
            predictions = run.read()
            value = predictions.metric("auroc", np.ones((len(predictions.table), 1)))[0]
            values[arm, run.pretraining_seed, run.seed] = value
    keys = zip(frame["pretraining"], frame["pretraining_seed"], frame["seed"], strict=True)
    frame["value"] = [values[key] for key in keys]
    sides = ({"pretraining": "CT"}, {"pretraining": "photographs"})
    decisions = decide(frame, None, [DeclaredContrast(*sides, ("x", "y"), "linear_probe", "auroc")], looks=(4, 8))
    (contrast,) = declared_patient_contrasts(decisions, frame)
    assert len(contrast.cells) == 4 and contrast.level == decisions[0].look.level < 0.05
    row = patient_contrasts([contrast], predicted(multiclass, seeds=6), resamples=100).iloc[0]  # two after the look
    assert row["difference"] == pytest.approx(decisions[0].look.difference)
    assert (row["family"], row["task"], row["n_a"], row["n_patients"]) == ("primary", "x + y", 4, 60)


def test_two_thousand_resamples_of_sixteen_seeds_take_seconds():
    started = time.perf_counter()
    runs = predicted(partial(multiclass, images=300), seeds=16, draws=1)
    table = compared(pd.DataFrame([pair("balanced_accuracy")]), runs)
    assert table["resamples"].tolist() == [2000] and time.perf_counter() - started < 10
