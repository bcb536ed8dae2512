"""Studies in which nothing differs: how often a contrast, and a whole family, is nevertheless declared different.

Every study is a task, and a family, of its own in one tidy frame, so that thousands go through `contrasts` at once.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from ssl_transfer.study.statistics import contrasts, strategy_contrasts

STUDIES = 10_000
HIGHEST = 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)  # contrasts of one study are correlated: n is that of studies
RATIOS = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, math.inf]  # standard deviation of pretraining over that of fine-tuning


def noise(ratio: float, studies: int, arms: int, pretrainings: int, seeds: int) -> np.ndarray:
    """Values of equal arms, shape (studies, arms, pretrainings, seeds)."""
    rng = np.random.default_rng(1)
    shared, own = (
        rng.normal(size=(studies, arms, pretrainings, 1)),
        rng.normal(size=(studies, arms, pretrainings, seeds)),
    )
    return shared + 0 * own if math.isinf(ratio) else ratio * shared + own


def tidy(values: np.ndarray) -> pd.DataFrame:
    """The frame of such values; NaN: no such run."""
    names = ["task", "pretraining", "pretraining_seed", "seed"]
    levels = [range(size) for size in values.shape]
    levels[1] = list("abcdef"[: values.shape[1]])
    frame = pd.DataFrame({"value": values.ravel()}, index=pd.MultiIndex.from_product(levels, names=names)).reset_index()
    return frame.dropna().assign(protocol="knn", strategy=None, fraction=1.0, metric="accuracy")


def rejected(table: pd.DataFrame) -> float:
    return (table["p_value"] < 0.05).mean()


def family_rejected(table: pd.DataFrame) -> float:
    return (table.groupby("task")["p_holm"].min() < 0.05).mean()


@pytest.fixture(scope="module", params=RATIOS)
def null(request) -> pd.DataFrame:
    """Contrasts of 10,000 studies: three equal arms, 4 pretraining × 3 fine-tuning seeds."""
    return contrasts(tidy(noise(request.param, STUDIES, 3, 4, 3)), family=("task",))


def test_every_null_study_has_three_contrasts_over_pretraining_seeds(null):
    assert len(null) == 3 * STUDIES
    assert set(zip(null["unit"], null["n_a"], null["n_b"], strict=True)) == {("pretraining_seed", 4, 4)}


def test_a_contrast_is_falsely_significant_no_more_often_than_its_level(null):
    assert 0.03 < rejected(null) <= HIGHEST


def test_a_family_holds_a_false_difference_no_more_often_than_its_level(null):
    assert 0.02 < family_rejected(null) <= HIGHEST


def test_verdicts_of_null_studies_differ_exactly_where_holm_rejects(null):
    assert (null["verdict"].isin(["better", "worse"]) == (null["p_holm"] < 0.05)).all()


@pytest.mark.parametrize("ratio", [0.5, 1.0, 4.0])
def test_the_paired_sensitivity_analysis_holds_its_level(ratio):
    table = contrasts(tidy(noise(ratio, 4000, 2, 4, 3)))
    assert (table["p_paired"] < 0.05).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_strategies_of_shared_pretrainings_hold_their_level():
    values = noise(1.0, 4000, 2, 4, 3)
    values += 2 * np.random.default_rng(2).normal(
        size=(4000, 1, 4, 1)
    )  # the effect of the backbone that both start from
    frame = tidy(values).rename(columns={"strategy": "none", "pretraining": "strategy"}).assign(pretraining="ct")
    assert rejected(strategy_contrasts(frame)) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


# --- arms with unequal variances and numbers of seeds ---


@pytest.mark.parametrize("spread", [1, 2, 4, 10])
@pytest.mark.parametrize(("n_a", "n_b"), [(4, 4), (4, 8), (8, 4), (5, 7)])
def test_unequal_variances_and_unequal_numbers_of_seeds_keep_the_level(spread, n_a, n_b):
    values = noise(1.0, 4000, 2, 8, 2) * np.array([1.0, spread])[:, None, None]
    for arm, n in enumerate((n_a, n_b)):
        values[:, arm, n:] = np.nan
    table = contrasts(tidy(values))
    assert set(zip(table["n_a"], table["n_b"], strict=True)) == {(n_a, n_b)}
    assert rejected(table) <= 0.06 + 3 * math.sqrt(0.06 * 0.94 / 4000)


# --- wrong units of analysis are rejected far too often: the simulation can tell ---


@pytest.mark.parametrize(("ratio", "rate"), [(0.5, 0.12), (1.0, 0.29), (2.0, 0.55)])
def test_fine_tuning_seeds_of_one_pretraining_each_reject_far_too_often(ratio, rate):
    table = contrasts(tidy(noise(ratio, 4000, 2, 1, 4)))
    assert set(table["unit"]) == {"seed"}
    assert rejected(table) == pytest.approx(rate, abs=0.03)


def test_pooling_nested_runs_rejects_far_too_often():
    frame = tidy(noise(1.0, 4000, 2, 3, 4))
    pooled = frame.assign(pretraining_seed=4 * frame["pretraining_seed"] + frame["seed"], seed=0)
    assert rejected(contrasts(frame)) <= 0.06
    assert rejected(contrasts(pooled)) == pytest.approx(0.24, abs=0.03)
