"""How a backbone is adapted: which strategy, how soon, and how large the variance between seeds is."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from support.tidy import tidy_frame

from ssl_transfer.errors import RunError
from ssl_transfer.study.report.drawing import arm_looks
from ssl_transfer.study.report.sections.strategies import strategy_means
from ssl_transfer.study.statistics import (
    CURVE_COLUMNS,
    averaged,
    contrasts,
    detectable_differences,
    mean_curve,
    paired_detectable_effect,
    strategy_contrasts,
    strategy_wins,
    summary,
    tidy_curves,
    time_to_quality,
    variance_components,
)

LEVELS = {"full": 0.8, "head_only": 0.6, "lp_ft": 0.8}


def study(arms=("CT", "photographs"), seeds=2, pretraining_seeds=4) -> pd.DataFrame:
    """Runs of three strategies; head_only is far behind."""
    rng = np.random.default_rng(0)
    rows = [
        (
            "finetune",
            arm,
            "ct",
            strategy,
            0.1,
            first,
            seed,
            "auroc",
            level + offset + rng.normal(0, 0.01),
            "none",
            "r",
            "none",
            0.0,
        )
        for arm in arms
        for strategy, level in LEVELS.items()
        for first in range(pretraining_seeds)
        for offset in [rng.normal(0, 0.02)]
        for seed in range(seeds)
    ]
    return tidy_frame(rows)


def curves(values: dict[str, list[list[float]]], metric: str = "auroc", every: int = 10) -> pd.DataFrame:
    """Validation of runs: arm -> one list per seed, checked every ten steps, a second per step."""
    rows = [
        {
            "task": "ct",
            "protocol": "finetune",
            "strategy": None,
            "fraction": 0.1,
            "pretraining": arm,
            "pretraining_seed": seed,
            "seed": 0,
            "step": every * (place + 1),
            "seconds": every * (place + 1.0),
            "metric": metric,
            "value": value,
        }
        for arm, runs in values.items()
        for seed, run in enumerate(runs)
        for place, value in enumerate(run)
    ]
    return pd.DataFrame(rows)


# --- strategies ---


def test_a_strategy_counts_for_each_pretraining_for_which_it_is_undominated():
    (setting,) = strategy_wins(strategy_contrasts(study(pretraining_seeds=8)))
    assert setting["counts"] == {"full": 2, "head_only": 0, "lp_ft": 2}
    assert (setting["arms"], setting["undecided"]) == (2, 0)


def test_the_interval_of_an_average_over_arms_is_that_of_its_contrast_coefficients():
    rng = np.random.default_rng(0)
    groups = [rng.normal(0.7, 0.02, 4), rng.normal(0.8, 0.05, 6), rng.normal(0.6, 0.01, 3)]
    rows = pd.DataFrame([{"mean": g.mean(), "sd": g.std(ddof=1), "n": len(g)} for g in groups])
    mean, low, high = averaged(rows)
    # naive: Satterthwaite's interval of the linear combination with weights 1/3
    from scipy import stats

    parts = [(g.var(ddof=1) / len(g) / 9, len(g) - 1) for g in groups]
    variance = sum(part for part, _ in parts)
    df = variance**2 / sum(part**2 / own for part, own in parts)
    assert mean == pytest.approx(np.mean([g.mean() for g in groups]))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, df, mean, math.sqrt(variance)))


def test_an_average_over_arms_of_one_seed_has_no_interval():
    mean, low, high = averaged(pd.DataFrame({"mean": [0.5, 0.7], "sd": [math.nan] * 2, "n": [1, 1]}))
    assert (mean, math.isnan(low), math.isnan(high)) == (pytest.approx(0.6), True, True)


@pytest.mark.parametrize(("arms", "averages"), [(2, 0), (5, 3)])
def test_few_pretrainings_have_intervals_of_their_own_and_many_an_average(arms, averages):
    names = [f"arm {i}" for i in range(arms)]
    (ax,) = strategy_means(summary(study(names)), arm_looks(names)).axes
    assert len([line for line in ax.lines if line.get_marker() == "|"]) == averages
    assert len(ax.collections) == (0 if averages else arms)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["full", "head only", "LP FT"]


# --- time to quality ---


def test_steps_to_quality_are_those_of_the_first_check_that_reaches_a_share_of_the_best_mean_of_any_arm():
    table = time_to_quality(
        tidy_curves(curves({"CT": [[0.5, 0.9, 1.0], [0.7, 1.0, 1.0]], "cells": [[0.5, 0.6, 0.97], [0.5, 0.6, 0.97]]}))
    ).set_index("pretraining")
    assert table.loc["CT", ["steps_95", "steps_99", "seconds_95", "n"]].tolist() == [20, 30, 20.0, 2]
    assert table.loc["cells", "steps_95"] == 30
    assert math.isnan(table.loc["cells", "steps_99"])  # 0.97 < 0.99: never
    assert table.loc["cells", "target_95"] == pytest.approx(0.95)


def test_where_less_is_better_the_target_lies_above_the_best():
    table = time_to_quality(tidy_curves(curves({"CT": [[2.0, 1.04, 1.0]]}, metric="loss")))
    assert table.loc[0, ["best", "target_95", "steps_95", "steps_99"]].tolist() == [1.0, pytest.approx(1.05), 20, 30]


def test_a_run_that_stopped_early_counts_on_with_its_last_value():
    mean = mean_curve(tidy_curves(curves({"CT": [[0.4, 0.6], [0.5, 0.7, 0.9]]})))
    assert mean["value"].tolist() == pytest.approx([0.45, 0.65, 0.75])


def test_a_mean_curve_begins_where_all_runs_have_a_value():
    late = curves({"CT": [[0.4, 0.6, 0.8]]})
    early = curves({"CT": [[0.5]]}, every=20).assign(pretraining_seed=1)
    assert mean_curve(tidy_curves(pd.concat([late, early]))).index.tolist() == [20, 30]


def test_a_check_that_a_resumed_run_made_twice_counts_once():
    once = curves({"CT": [[0.4, 0.6]]})
    again = once.iloc[[1]].assign(value=0.7)
    assert mean_curve(tidy_curves(pd.concat([once, again])))["value"].tolist() == [0.4, 0.7]


def test_runs_of_public_weights_have_no_pretraining_seed_and_are_kept_apart():
    rows = curves({"public": [[0.4], [0.6]]})
    rows["seed"], rows["pretraining_seed"] = rows["pretraining_seed"], None
    assert time_to_quality(tidy_curves(rows)).loc[0, ["n", "best"]].tolist() == [2, 0.5]


def test_settings_are_never_averaged_over():
    one = curves({"CT": [[0.4, 0.8]]})
    both = pd.concat([one, one.assign(strategy="lp_ft", value=0.5)])
    assert time_to_quality(tidy_curves(both))["best"].tolist() == [0.8, 0.5]


def test_curves_without_a_column_are_refused():
    with pytest.raises(RunError, match="validation curves: no column seconds; expected task, protocol"):
        tidy_curves(curves({"CT": [[0.5]]}).drop(columns="seconds"))
    assert len(CURVE_COLUMNS) == 11


# --- seed variance ---


def detections(frame: pd.DataFrame) -> pd.DataFrame:
    return detectable_differences(variance_components(frame), summary(frame), contrasts(frame))


def test_the_detectable_difference_follows_from_the_variance_of_the_units():
    row = detections(study()).set_index("strategy").loc["full"]
    assert (row["test"], row["unit"], row["n"], row["runs_per_unit"]) == ("paired", "pretraining_seed", 4, 2)
    components = np.nan_to_num([row["sd_pretraining"], row["sd_arm_subset"], row["sd_residual"]]) ** 2
    sd = math.sqrt(2 * (components[0] + (components[1] + components[2]) / 2))
    assert row["sd_difference"] == pytest.approx(sd)
    assert row["detects"] == pytest.approx(paired_detectable_effect(4, alpha=row["level"]) * sd)


def test_with_the_seeds_reported_as_needed_the_difference_is_detected():
    row = detections(study()).iloc[0]
    n, level = int(row["seeds_for_0.02"]), row["level"]
    assert paired_detectable_effect(n, alpha=level) * row["sd_difference"] <= 0.02
    assert paired_detectable_effect(n - 1, alpha=level) * row["sd_difference"] > 0.02


def test_one_run_per_pretraining_seed_includes_the_variance_of_both():
    row = detections(study(seeds=1)).iloc[0]
    assert math.isnan(row["sd_pretraining"])
    assert row["sd_difference"] == pytest.approx(math.sqrt(2) * row["sd_residual"])
    assert row["sd_difference"] > 0


def test_one_checkpoint_per_arm_has_the_variance_of_its_evaluation_seeds_alone():
    row = detections(study(pretraining_seeds=1, seeds=3)).iloc[0]
    assert (row["unit"], row["n"]) == ("seed", 3)
    assert row["sd_difference"] == pytest.approx(math.sqrt(2) * row["sd_residual"])


def test_a_single_run_has_no_seed_variance():
    row = detections(study(pretraining_seeds=1, seeds=1)).iloc[0]
    assert row[["sd_difference", "detects", "seeds_for_0.01"]].isna().all()
