"""Contrasts of strategies: paired on the backbones that both start from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.arms import arm, random_arm, random_study, study

from ssl_transfer.errors import RunError
from ssl_transfer.study.statistics import benjamini_hochberg, holm, strategy_contrasts

STRATEGIES = [
    "protocol",
    "task",
    "pretraining",
    "fraction",
    "noise",
    "noise_sigma",
    "metric",
    "a",
    "b",
    "unit",
    "n",
    "mean_a",
    "mean_b",
    "difference",
    "ci_low",
    "ci_high",
    "t",
    "df",
    "p_value",
    "p_holm",
    "p_bh",
    "verdict",
    "family",
    "level",
    "holds_for",
]


def strategies(**arms) -> pd.DataFrame:
    """A tidy frame of one pretraining; `arms` maps strategy -> {(pretraining_seed, seed): value}."""
    return pd.concat([study({"ct": runs}, strategy=name, protocol="finetune") for name, runs in arms.items()])


def test_the_columns_of_strategy_contrasts_are_exactly_the_documented_ones():
    assert list(strategy_contrasts(strategies(full=arm(0.1, 0.2), lora=arm(0.3, 0.5))).columns) == STRATEGIES
    assert list(strategy_contrasts(strategies(full=arm(0.1, 0.2)).iloc[:0]).columns) == STRATEGIES


def test_strategies_are_paired_over_pretraining_seeds():
    rng = np.random.default_rng(0)
    full, lora = random_arm(rng, 0.9), random_arm(rng, 0.8)
    row = strategy_contrasts(strategies(full=full, lora=lora)).iloc[0]
    a, b = ([np.mean([runs[p, s] for s in range(2)]) for p in range(4)] for runs in (full, lora))
    theirs = stats.ttest_rel(a, b)
    assert (row.a, row.b, row.unit, row.n, row.df) == ("full", "lora", "pretraining_seed", 4, 3)
    assert (row.mean_a, row.mean_b, row.difference) == pytest.approx((np.mean(a), np.mean(b), np.mean(a) - np.mean(b)))
    assert (row.t, row.p_value) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert (row.ci_low, row.ci_high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert row.verdict == "better"


@pytest.mark.parametrize("only_seed", [0, pd.NA])
def test_strategies_of_one_pretraining_are_paired_over_fine_tuning_seeds_and_say_so(only_seed):
    a, b = [0.90, 0.92, 0.94], [0.50, 0.53, 0.54]
    sides = [{(only_seed, s): value for s, value in enumerate(values)} for values in (a, b)]
    row = strategy_contrasts(strategies(full=sides[0], lora=sides[1])).iloc[0]
    assert (row.unit, row.n) == ("seed", 3)
    assert row.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert (row.verdict, row.holds_for) == ("better", "this checkpoint")


def test_only_seeds_that_both_strategies_have_are_averaged():
    row = strategy_contrasts(strategies(full=arm(0.1, 0.2, 0.4, 0.9), lora=arm(0.1, 0.1, 0.1))).iloc[0]
    assert (row.n, row.mean_a, row.mean_b) == (3, pytest.approx(0.7 / 3), pytest.approx(0.1))


def test_a_strategy_with_one_of_several_pretrainings_is_not_decided():
    row = strategy_contrasts(strategies(full=arm(0.1, 0.2, 0.3), lora={(0, s): 0.1 * s for s in range(3)})).iloc[0]
    assert (row.unit, row.n, row.verdict) == ("seed", 1, "not decided")


def test_strategies_without_a_common_seed_are_a_row_that_decides_nothing():
    row = strategy_contrasts(strategies(full={(0, 0): 0.1, (1, 0): 0.2}, lora={(2, 0): 0.1, (3, 0): 0.3})).iloc[0]
    assert (row.n, row.verdict) == (0, "not decided")


def test_strategies_are_compared_within_a_pretraining_and_protocols_without_any_not_at_all():
    frame = pd.concat([random_study(strategy=name, seed=i) for i, name in enumerate(["full", "head", "lora"])])
    table = strategy_contrasts(pd.concat([frame, random_study().assign(protocol="linear_probe")]))
    assert len(table) == 2 * 2 * 4 * 3  # tasks × metrics × pretrainings × pairs
    assert set(zip(table["a"], table["b"], strict=True)) == {("full", "head"), ("full", "lora"), ("head", "lora")}
    assert set(table["protocol"]) == {"knn"}


def test_the_family_of_strategies_is_a_protocol_and_metric_unless_declared():
    frame = pd.concat([random_study(strategy=name, seed=i) for i, name in enumerate(["full", "lora"])])
    for family in (("protocol", "metric"), ("task", "pretraining")):
        table = strategy_contrasts(frame, family)
        for _, tests in table.groupby(list(family)):
            np.testing.assert_allclose(tests["p_holm"], holm(tests["p_value"]))
            np.testing.assert_allclose(tests["p_bh"], benjamini_hochberg(tests["p_value"]))
    pd.testing.assert_frame_equal(strategy_contrasts(frame), strategy_contrasts(frame, ("protocol", "metric")))


def test_a_family_that_strategies_do_not_have_is_refused():
    with pytest.raises(RunError, match="no column 'boundary_a'"):
        strategy_contrasts(strategies(full=arm(0.1, 0.2)), ("boundary_a",))
