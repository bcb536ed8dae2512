"""Studies in which nothing differs, or in which arms differ by exactly the margin, from the tidy frame to the verdict.

Thousands of studies are decided at once. A false verdict of a primary family may occur in 5 % of them; three standard errors of
the simulation are allowed on top.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from ssl_transfer.study.declared import DeclaredContrast
from ssl_transfer.study.statistics import decide_many

LOOKS = (4, 6, 8, 12, 16)
SIZES = [pytest.param(1_000, id="1000"), pytest.param(10_000, id="10000", marks=pytest.mark.long)]
MARGIN = 0.03


def highest(studies: int) -> float:
    """The largest share of false verdicts that a familywise error of 5 % explains."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def noise(studies: int, arms: int, seeds: int, draws: int = 2, *, sds=(0.016, 0.049, 0.016, 0.036), factor=None):
    """Values of equal arms, shape (studies, arms, seeds, draws), in the crossed model with draws of their own.

    sds: pretraining, subset, arm × subset, residual. factor: SD of each arm relative to the others.
    """
    rng = np.random.default_rng(16 + studies)
    pretraining, subset, arm_subset, residual = sds
    own = np.ones(arms) if factor is None else np.asarray(factor)
    shape = (studies, arms, seeds, draws)
    return rng.normal(0, subset, (studies, 1, seeds, draws)) + own[:, None, None] * (
        rng.normal(0, pretraining, (*shape[:3], 1)) + rng.normal(0, math.hypot(arm_subset, residual), shape)
    )


def tidy(values: np.ndarray) -> pd.DataFrame:
    """The frame of such values, arms a, b, c, …; NaN: no such run."""
    names = ["study", "pretraining", "pretraining_seed", "seed"]
    levels = [range(size) for size in values.shape]
    levels[1] = list("abcdef"[: values.shape[1]])
    frame = pd.DataFrame({"value": values.ravel()}, index=pd.MultiIndex.from_product(levels, names=names)).reset_index()
    return frame.dropna().assign(protocol="knn", task="region", strategy=None, fraction=0.1, metric="accuracy")


def contrast(a: str, b: str) -> DeclaredContrast:
    return DeclaredContrast({"pretraining": a}, {"pretraining": b}, ("region",), "knn", "accuracy")


def primaries(count: int) -> list[DeclaredContrast]:
    return [contrast("a", b) for b in "bcdef"[:count]]


def false(table: pd.DataFrame, *verdicts: str) -> float:
    """Share of studies with such a verdict on any primary contrast."""
    primary = table[table["family"] == "primary"]
    return primary["verdict"].isin([*verdicts, "equivalent and different"]).groupby(primary["study"]).any().mean()


@pytest.mark.parametrize("studies", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_family_of_primary_contrasts_is_falsely_different_in_five_per_cent_over_all_looks(studies, count):
    values = noise(studies, count + 1, 16)
    table = decide_many(tidy(values), None, primaries(count), looks=LOOKS)
    assert false(table, "better", "worse") <= highest(studies)
    assert false(table, "better", "worse") > 0.02 / count


@pytest.mark.parametrize("studies", SIZES)
@pytest.mark.parametrize("seeds", [4, 8, 16])
def test_more_seeds_do_not_reject_more_true_nulls_if_arm_by_subset_varies_as_pretrainings_do(studies, seeds):
    values = noise(studies, 2, seeds, sds=(0.016, 0.049, 0.016, 0.0))
    table = decide_many(tidy(values), None, primaries(1), looks=(seeds,))
    assert 0.02 < false(table, "better", "worse") <= highest(studies)


@pytest.mark.parametrize("studies", SIZES)
def test_draws_that_all_pretraining_seeds_share_reject_more_true_nulls_with_more_seeds(studies):
    rng = np.random.default_rng(3)
    shared = rng.normal(0, 0.016, (studies, 2, 1, 2))  # arm × subset of subsets that all pretraining seeds share
    values = noise(studies, 2, 16, sds=(0.016, 0.049, 0.0, 0.036)) + shared
    table = decide_many(tidy(values), None, primaries(1), looks=(16,))
    assert false(table, "better", "worse") > 0.2


@pytest.mark.parametrize("studies", SIZES)
def test_nothing_is_claimed_falsely_behind_a_gate_that_is_true(studies):
    values = noise(studies, 4, 16)
    values[:, 3] -= 0.2  # random initialisation
    table = decide_many(tidy(values), contrast("a", "d"), primaries(2), looks=LOOKS)
    assert (table.loc[table["family"] == "gate", "verdict"] == "better").mean() > 0.99
    assert 0.02 < false(table, "better", "worse") <= highest(studies)


@pytest.mark.parametrize("studies", SIZES)
def test_a_pretraining_that_is_worth_nothing_passes_the_gate_in_two_and_a_half_per_cent(studies):
    values = noise(studies, 3, 16)
    values[:, 1] += 0.2  # another arm is better, which alone is no reason to claim it
    table = decide_many(tidy(values), contrast("a", "c"), primaries(1), looks=LOOKS)
    assert false(table, "better", "worse") <= highest(studies) / 2 + 0.01


@pytest.mark.parametrize("studies", SIZES)
@pytest.mark.parametrize("factor", [(1, 4, 1), (4, 1, 1), (1, 2, 8)], ids=str)
def test_arms_with_unequal_variances_keep_the_level(studies, factor):
    table = decide_many(tidy(noise(studies, 3, 16, factor=factor)), None, primaries(2), looks=LOOKS)
    assert 0.015 < false(table, "better", "worse") <= highest(studies)


@pytest.mark.parametrize("studies", SIZES)
@pytest.mark.parametrize("lacking", ["a run", "a seed"])
def test_a_missing_run_keeps_the_level(studies, lacking):
    values = noise(studies, 3, 16)
    values[:, 1, 2, 0 if lacking == "a run" else slice(None)] = np.nan
    table = decide_many(tidy(values), None, primaries(2), looks=LOOKS)
    assert 0.02 < false(table, "better", "worse") <= highest(studies)


@pytest.mark.parametrize("studies", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_arms_that_differ_by_the_margin_are_falsely_equivalent_in_five_per_cent(studies, count):
    values = noise(studies, count + 1, 16)
    values[:, 1:] -= MARGIN
    table = decide_many(tidy(values), None, primaries(count), looks=LOOKS, margin=MARGIN)
    assert false(table, "equivalent") <= highest(studies)


@pytest.mark.parametrize("studies", SIZES)
@pytest.mark.parametrize(
    ("sds", "factor", "lacking"),
    [
        ((0.016, 0.049, 0.016, 0.0), (1, 1, 1), ()),
        ((0.004, 0.049, 0.004, 0.009), (1, 3, 0.5), ()),
        ((0.004, 0.049, 0.004, 0.009), (1, 1, 1), (1, 2, 0)),
    ],
    ids=["crossed noise", "unequal variances", "a missing run"],
)
def test_equivalence_keeps_the_level_behind_a_gate(studies, sds, factor, lacking):
    values = noise(studies, 4, 16, sds=sds, factor=(*factor, 1))
    values[:, 1:] -= MARGIN
    values[:, 3] -= 0.2  # random initialisation
    if lacking:
        values[(slice(None), *lacking)] = np.nan
    table = decide_many(tidy(values), contrast("a", "d"), primaries(2), looks=LOOKS, margin=MARGIN)
    assert false(table, "equivalent") <= highest(studies)


@pytest.mark.parametrize("studies", SIZES)
def test_equivalence_of_one_contrast_does_not_make_another_falsely_different(studies):
    """If equivalence raised the level of tests for a difference, 7.5 % of these would claim one."""
    values = noise(studies, 3, 16, factor=(0.05, 0.05, 3.0))
    table = decide_many(tidy(values), None, primaries(2), looks=(16,), margin=0.02)
    first = table[(table["family"] == "primary") & (table["contrast"] == 0)]
    assert first["verdict"].isin(["equivalent", "equivalent and different"]).mean() > 0.95
    assert false(table, "better", "worse") <= highest(studies)


@pytest.mark.parametrize("studies", SIZES)
def test_a_difference_in_one_contrast_does_not_make_another_falsely_equivalent(studies):
    values = noise(studies, 3, 16, factor=(0.05, 0.05, 3.0))
    values[:, 1] -= 0.02
    values[:, 2] -= 0.02
    table = decide_many(tidy(values), None, primaries(2), looks=LOOKS, margin=0.02)
    assert false(table, "equivalent") <= highest(studies)


def test_one_study_among_many_is_decided_as_it_is_alone():
    from ssl_transfer.study.statistics import decide

    values = noise(10, 3, 16)
    values[:, 1] -= 0.03
    frame = tidy(values)
    many = decide_many(frame, contrast("a", "c"), primaries(2), looks=LOOKS, margin=MARGIN)
    for study in range(10):
        alone = decide(
            frame[frame["study"] == study].drop(columns="study"),
            contrast("a", "c"),
            primaries(2),
            looks=LOOKS,
            margin=MARGIN,
        )
        rows = many[many["study"] == study].sort_values("contrast")
        assert [decision.verdict for decision in alone] == rows["verdict"].tolist()
        assert [decision.at for decision in alone] == rows["look"].tolist()
        assert [decision.look.p_value for decision in alone] == pytest.approx(rows["p_value"].tolist())
