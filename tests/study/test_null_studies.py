"""Studies in which nothing differs, or differs by the margin: how often a contrast and a whole family decide wrongly.

Every study is a task, and a family, of its own in one tidy frame, so that thousands go through `contrasts` at once.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ssl_transfer.study.statistics import contrasts, paired, strategy_contrasts

STUDIES = pytest.param(2000, id="2,000 studies"), pytest.param(10_000, id="10,000 studies", marks=pytest.mark.long)
# Standard deviations of a probe with 10 % of the labels in the quickstart; arm × subset is as large as pretraining.
MEASURED = {"pretraining": 0.016, "subset": 0.049, "arm_subset": 0.016, "residual": 0.036}


def highest(studies: int, rate: float = 0.05) -> float:
    """Three standard errors above a rate; contrasts of one study are correlated: n is that of studies."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / studies)


def noise(studies: int, shape: tuple[int, int, int], own: bool = True, seed: int = 1, **sd: float) -> np.ndarray:
    """Values of equal arms, shape (studies, arms, pretraining seeds, evaluation seeds).

    Args:
        studies: Number of studies.
        shape: Arms, pretraining seeds, and evaluation seeds of each.
        own: Whether each pretraining seed has label subsets of its own; all arms have the same.
        seed: Of the simulation.
        sd: Standard deviations of `MEASURED`; those left out are 0.
    """
    rng, (arms, n, m) = np.random.default_rng(seed), shape
    subsets = n if own else 1
    parts = {
        "pretraining": (studies, arms, n, 1),
        "subset": (studies, 1, subsets, m),
        "arm_subset": (studies, arms, subsets, m),
        "residual": (studies, arms, n, m),
    }
    return sum((sd.get(name, 0.0) * rng.normal(size=size) for name, size in parts.items()), np.zeros((studies, *shape)))


def tidy(values: np.ndarray) -> pd.DataFrame:
    """The frame of such values; NaN: no such run."""
    names = ["task", "pretraining", "pretraining_seed", "seed"]
    levels = [range(size) for size in values.shape]
    levels[1] = list("abcdef"[: values.shape[1]])
    frame = pd.DataFrame({"value": values.ravel()}, index=pd.MultiIndex.from_product(levels, names=names)).reset_index()
    return frame.dropna().assign(protocol="knn", strategy=None, fraction=1.0, metric="accuracy")


def rejected(table: pd.DataFrame) -> float:
    """Share of contrasts with p < .05."""
    return (table["p_value"] < 0.05).mean()


def family_decided(table: pd.DataFrame, verdicts: tuple[str, ...]) -> float:
    """Share of families with at least one of some verdicts."""
    return table["verdict"].isin(verdicts).groupby(table["task"]).any().mean()


DIFFERENT = ("better", "worse", "equivalent and different")
EQUIVALENT = ("equivalent", "equivalent and different")


# --- pairs of own draws ---


@pytest.mark.parametrize("studies", STUDIES)
@pytest.mark.parametrize("n", [4, 8, 16])
def test_pairs_with_draws_of_their_own_keep_the_level_of_differences_and_of_equivalence(studies, n):
    values = noise(studies, (2, n, 3), **MEASURED)
    margin = 0.02
    values[:, 0] += margin * (np.arange(studies) % 2)[:, None, None]  # every other study: as far apart as the margin
    table = contrasts(tidy(values), margin=margin, family=("task",))
    equal = table["task"] % 2 == 0
    assert set(zip(table["unit"], table["test"], table["n_a"], strict=True)) == {("pretraining_seed", "paired", n)}
    assert 0.03 < table.loc[equal, "verdict"].isin(DIFFERENT).mean() <= highest(studies // 2)
    assert table.loc[~equal, "verdict"].isin(EQUIVALENT).mean() <= highest(studies // 2)


def inflated(n: int, ignored: float) -> float:
    """How often a paired t-test rejects equal arms if the mean has `ignored` times the variance besides that of its units."""
    return 2 * stats.t.sf(stats.t.ppf(0.975, n - 1) / math.sqrt(1 + ignored), n - 1)


@pytest.mark.parametrize("n", [4, 8, 16])
def test_draws_shared_by_all_pretraining_seeds_reject_the_more_the_more_seeds_there_are(n):
    table = contrasts(tidy(noise(2000, (2, n, 3), own=False, **MEASURED)))
    pretraining, arm_subset, residual = (MEASURED[name] ** 2 for name in ("pretraining", "arm_subset", "residual"))
    rate = inflated(n, n * arm_subset / 3 / (pretraining + residual / 3))  # 8, 14 and 24 %
    assert rejected(table) == pytest.approx(rate, abs=0.03)


@pytest.mark.parametrize("studies", STUDIES)
@pytest.mark.parametrize("ratio", [2, 10])
def test_unequal_variances_keep_the_level(studies, ratio):
    values = noise(studies, (2, 4, 3), **MEASURED)
    extra = noise(studies, (2, 4, 3), seed=2, pretraining=0.016 * ratio, residual=0.036 * ratio)
    values[:, 1] += extra[:, 1]
    assert rejected(contrasts(tidy(values))) <= highest(studies)


def averaged_over_whatever_is_there(values: np.ndarray) -> float:
    """Share of studies with p < .05, if the units of both arms are averaged over all runs that each has."""
    units = np.nanmean(values, axis=3)
    return np.mean([paired(a, b).p_value < 0.05 for a, b in units])


@pytest.mark.parametrize("studies", STUDIES)
def test_one_missing_run_leaves_the_level_and_its_partner_is_left_out(studies):
    values = noise(studies, (2, 4, 3), **MEASURED)
    values[:, 0, 0, 0] = np.nan
    table = contrasts(tidy(values))
    assert set(zip(table["n_a"], table["unpaired_a"], table["unpaired_b"], strict=True)) == {(4, 0, 1)}
    assert rejected(table) <= highest(studies)


@pytest.mark.parametrize("studies", STUDIES)
def test_a_missing_evaluation_seed_leaves_the_level_where_units_of_whatever_is_there_do_not(studies):
    values = noise(studies, (2, 8, 3), own=False, **{**MEASURED, "arm_subset": 0.0})
    values[:, 0, :, 0] = np.nan  # an arm whose first evaluation seed failed with every pretraining seed
    assert rejected(contrasts(tidy(values))) <= highest(studies)
    assert averaged_over_whatever_is_there(values[:500]) > 0.15


@pytest.mark.parametrize("studies", STUDIES)
def test_a_run_without_a_value_is_a_missing_run(studies):
    values = noise(studies, (2, 4, 3), **MEASURED)
    frame = tidy(values)
    lost = (frame["pretraining"] == "a") & (frame["pretraining_seed"] == 1) & (frame["seed"] == 2)
    table = contrasts(frame.assign(value=frame["value"].where(~lost)))
    assert set(zip(table["n_a"], table["missing_a"], table["unpaired_b"], strict=True)) == {(4, 1, 1)}
    assert rejected(table) <= highest(studies)


# --- families ---


@pytest.mark.parametrize("studies", STUDIES)
def test_a_family_holds_a_false_difference_no_more_often_than_its_level(studies):
    table = contrasts(tidy(noise(studies, (3, 4, 3), **MEASURED)), family=("task",))
    assert len(table) == 3 * studies
    assert 0.02 < family_decided(table, DIFFERENT) <= highest(studies)
    assert (table["verdict"].isin(DIFFERENT) == (table["p_holm"] <= 0.05)).all()


@pytest.mark.parametrize("studies", STUDIES)
@pytest.mark.parametrize("sd", [0.3, 1.0])
def test_a_family_holds_a_false_equivalence_no_more_often_than_its_level(studies, sd):
    values = noise(studies, (3, 4, 3), **{name: sd * value for name, value in MEASURED.items()})
    values[:, 0] += 0.1  # as far from the second arm as the margin; the third is twice as far from the second
    values[:, 2] += 0.2
    table = contrasts(tidy(values), margin=0.1, family=("task",))
    assert family_decided(table, EQUIVALENT) <= highest(studies)


def test_exploratory_contrasts_of_equal_arms_are_falsely_different_no_more_often_than_their_level():
    table = contrasts(tidy(noise(2000, (4, 4, 3), **MEASURED)), family=("task",), exploratory=[{}])
    assert set(table["family"]) == {"exploratory"}
    assert family_decided(table, DIFFERENT) <= highest(2000)


def test_a_study_with_half_of_its_cells_has_the_levels_of_the_whole():
    frame = pd.concat(
        [tidy(noise(1000, (3, 4, 2), seed=seed, **MEASURED)).assign(fraction=seed / 4) for seed in (1, 2)]
    )
    done = frame[(frame["fraction"] == 0.25)]
    whole, half = (contrasts(part, family=("task",), planned=frame) for part in (frame, done))
    alone = contrasts(done, family=("task",))
    assert (half["level"].min(), alone["level"].min()) == pytest.approx((0.05 / 6, 0.05 / 3))
    assert (half["level"] <= alone["level"] + 1e-12).all()
    assert (half["p_holm"].to_numpy() >= whole.loc[whole["fraction"] == 0.25, "p_holm"].to_numpy() - 1e-12).all()


# --- Welch, where nothing is shared ---


@pytest.mark.parametrize("spread", [1, 4])
@pytest.mark.parametrize(("n_a", "n_b"), [(4, 4), (4, 8), (5, 7)])
def test_independent_arms_of_unequal_variances_and_numbers_of_seeds_keep_the_level(spread, n_a, n_b):
    values = noise(4000, (2, 8, 2), pretraining=1.0, residual=1.0) * np.array([1.0, spread])[:, None, None]
    for arm, n in enumerate((n_a, n_b)):
        values[:, arm, n:] = np.nan
    table = contrasts(tidy(values), shared_draws=False)
    assert set(zip(table["test"], table["n_a"], table["n_b"], strict=True)) == {("welch", n_a, n_b)}
    assert rejected(table) <= highest(4000, 0.06)


# --- strategies ---


def test_strategies_of_shared_pretrainings_hold_their_level():
    values = noise(4000, (2, 4, 3), pretraining=1.0, residual=1.0)
    values += 2 * np.random.default_rng(2).normal(
        size=(4000, 1, 4, 1)
    )  # the effect of the backbone that both start from
    frame = tidy(values).rename(columns={"strategy": "none", "pretraining": "strategy"}).assign(pretraining="ct")
    assert rejected(strategy_contrasts(frame)) <= highest(4000)


# --- wrong units of analysis are rejected far too often: the simulation can tell ---


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_evaluation_seeds_of_one_pretraining_each_reject_far_too_often(ratio):
    table = contrasts(tidy(noise(4000, (2, 1, 4), pretraining=ratio, residual=1.0)))
    assert set(zip(table["unit"], table["holds_for"], strict=True)) == {("seed", "these two checkpoints")}
    assert rejected(table) == pytest.approx(inflated(4, 4 * ratio**2), abs=0.03)  # 12, 25 and 50 %


def test_pooling_nested_runs_rejects_far_too_often():
    frame = tidy(noise(4000, (2, 3, 4), pretraining=1.0, residual=1.0))
    pooled = frame.assign(pretraining_seed=4 * frame["pretraining_seed"] + frame["seed"], seed=0)
    assert rejected(contrasts(frame)) <= 0.06
    assert rejected(contrasts(pooled)) > 0.15
