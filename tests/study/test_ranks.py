"""Mean ranks over targets: against scipy, Demšar's example, and plain enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from ssl_transfer.study.statistics import mean_ranks, rank_table, ranks_over_targets, summary
from ssl_transfer.study.statistics.ranks import RANK_COLUMNS, critical_difference
from ssl_transfer.study.table import COLUMNS


def values(targets: int, arms: int, seed=0, ties=False, gain=0.0) -> pd.DataFrame:
    drawn = np.random.default_rng(seed).normal(size=(targets, arms)) + gain * np.arange(arms)
    return pd.DataFrame(np.round(drawn) if ties else drawn, columns=[*"abcdefgh"[:arms]])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(5, 4), (12, 3), (30, 6)])
def test_friedmans_test_is_that_of_scipy(shape, ties):
    table = values(*shape, ties=ties)
    ours, theirs = mean_ranks(table), friedmanchisquare(*(table[name] for name in table))
    assert (ours.chi2, ours.p_chi2) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_mean_ranks_are_from_the_best_to_the_worst_with_ties_sharing_theirs():
    table = values(6, 4, ties=True)
    expected = pd.Series(rankdata(-table.to_numpy(), axis=1).mean(0), table.columns).sort_values(kind="stable")
    pd.testing.assert_series_equal(mean_ranks(table).means, expected)


@pytest.mark.parametrize(("arms", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_uses_the_quantiles_of_demsars_table(arms, q):
    assert critical_difference(arms, 20) == pytest.approx(q * math.sqrt(arms * (arms + 1) / 120), rel=5e-4)
    exact = studentized_range.ppf(0.95, arms, np.inf) / math.sqrt(2)
    assert critical_difference(arms, 20) == pytest.approx(exact * math.sqrt(arms * (arms + 1) / 120))


def test_demsars_example_has_its_critical_difference():
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_the_permutation_p_value_is_that_of_all_orders_within_targets():
    table = values(3, 3, seed=2, gain=0.8)
    ranks = rankdata(-table.to_numpy(), axis=1)
    every = [
        friedmanchisquare(*np.array(orders).T).statistic
        for orders in itertools.product(*map(itertools.permutations, ranks))
    ]
    exact = np.mean(np.array(every) >= friedmanchisquare(*table.to_numpy().T).statistic - 1e-9)
    assert mean_ranks(table).p_value == pytest.approx(exact, abs=0.015)


def test_equal_arms_rank_differently_in_at_most_five_percent():
    p = [mean_ranks(values(4, 4, seed)).p_value for seed in range(200)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize("seed", range(6))
def test_groups_join_exactly_the_arms_that_do_not_differ(seed):
    ranks = mean_ranks(values(10, 8, seed, gain=0.25))
    means, groups = ranks.means.to_numpy(), ranks.groups
    for i, j in itertools.combinations(range(8), 2):
        joined = any(first <= i and j <= last for first, last in groups)
        assert joined == (means[j] - means[i] <= ranks.critical_difference)
    assert not any(a != b and a[0] >= b[0] and a[1] <= b[1] for a in groups for b in groups)


def test_nothing_but_ties_has_no_test():
    ranks = mean_ranks(pd.DataFrame(np.ones((4, 3)), columns=[*"abc"]))
    assert math.isnan(ranks.chi2) and math.isnan(ranks.p_value) and ranks.groups == [(0, 2)]


def test_two_targets_more_arms_cannot_differ_and_it_is_known():
    assert not mean_ranks(values(3, 3)).can_differ or critical_difference(3, 3) < 2
    assert mean_ranks(values(12, 3)).can_differ


def results(metrics: dict[str, str], arms: dict[str, float], fractions=(0.1, 1.0), without=()) -> pd.DataFrame:
    """`summary` of a study in which arms have their value on every target, less where less is better."""
    rows = [
        {
            "protocol": "linear_probe",
            "pretraining": arm,
            "task": task,
            "fraction": fraction,
            "pretraining_seed": seed,
            "seed": 0,
            "metric": metric,
            "value": (-1 if metric == "hd95" else 1) * value + 0.001 * seed,
            "noise": "none",
            "noise_sigma": 0.0,
        }
        for task, metric in metrics.items()
        for arm, value in arms.items()
        for fraction in fractions
        for seed in range(3)
        if (task, arm, fraction) not in without
    ]
    return summary(pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS))


METRICS = {"ct": "auroc", "xray": "accuracy", "liver": "hd95"}
ARMS = {"a": 0.5, "b": 0.9, "c": 0.7}


def test_targets_of_different_metrics_are_ranked_by_their_own_direction():
    ((setting, ranks, left_out),) = ranks_over_targets(results(METRICS, ARMS))
    assert setting["protocol"] == "linear_probe" and left_out == []
    assert ranks.means.to_dict() == {"b": 1, "c": 2, "a": 3}


def test_an_arm_that_lacks_a_target_is_left_out_and_named():
    without = [("ct", "d", fraction) for fraction in (0.1, 1.0)]
    ((_, ranks, left_out),) = ranks_over_targets(results(METRICS, {**ARMS, "d": 0.95}, without=without))
    assert left_out == ["d"] and list(ranks.means.index) == ["b", "c", "a"]


def test_only_label_fractions_that_all_arms_have_count():
    frame = results(METRICS, {**ARMS, "d": 0.95}, without=[("ct", "d", 0.1)])
    ((_, ranks, left_out),) = ranks_over_targets(frame)
    assert left_out == [] and ranks.means.index[0] == "d"


@pytest.mark.parametrize("metrics", [{"ct": "auroc"}, {"ct": "auroc", "xray": "auroc"}])
def test_fewer_than_three_targets_have_no_ranks(metrics):
    assert not list(ranks_over_targets(results(metrics, ARMS)))


def test_the_table_has_a_row_per_arm_and_numbers_its_groups():
    setting, ranks, left_out = next(ranks_over_targets(results(METRICS, ARMS)))
    table = rank_table(setting, ranks, left_out)
    assert list(table.columns) == RANK_COLUMNS
    assert table["pretraining"].tolist() == ["b", "c", "a"] and table["n_targets"].tolist() == [3, 3, 3]
    assert [set(groups.split()) for groups in table["groups"]] == [
        {str(n) for n, (first, last) in enumerate(ranks.groups, 1) if first <= i <= last} for i in range(3)
    ]
