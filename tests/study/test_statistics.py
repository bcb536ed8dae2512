"""Contrasts of pretrainings: who is compared with whom, over which units, and with which words."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.arms import arm, random_arm, random_study, study
from support.contrast_columns import CONTRAST_COLUMNS

from ssl_transfer.errors import RunError
from ssl_transfer.study import statistics
from ssl_transfer.study.statistics import (
    benjamini_hochberg,
    contrasts,
    hedges_g,
    holm,
    paired,
    seed_units,
    summary,
    tost,
    welch,
)


def test_every_statistic_is_found_in_this_module():
    public = {
        "welch",
        "hedges_g",
        "holm",
        "benjamini_hochberg",
        "tost",
        "paired",
        "minimal_detectable_effect",
        "seeds_needed",
        "contrasts",
        "strategy_contrasts",
        "summary",
        "seed_units",
        "variance_components",
    }
    assert public <= set(statistics.__all__)
    assert all(hasattr(statistics, name) for name in statistics.__all__)


# --- contrasts ---


def test_the_columns_of_contrasts_are_exactly_the_documented_ones():
    frame = study({"a": arm(0.1, 0.2), "b": arm(0.3, 0.5)})
    assert list(contrasts(frame).columns) == CONTRAST_COLUMNS
    assert list(contrasts(frame.iloc[:0]).columns) == CONTRAST_COLUMNS


def test_evaluation_seeds_are_averaged_within_their_pretraining_seed_and_compared_in_pairs():
    offsets = (0.0, 0.2, -0.1, 0.4)  # of the label subsets of each pretraining seed, which both arms share
    a = {(p, s): 0.7 + 0.01 * p + offsets[p] + (0.05 if s else -0.05) for p in range(4) for s in range(2)}
    b = {(p, s): [0.5, 0.52, 0.54, 0.57][p] + offsets[p] for p, s in a}
    row = contrasts(study({"a": a, "b": b})).iloc[0]
    theirs = stats.ttest_rel([0.70, 0.71, 0.72, 0.73], [0.5, 0.52, 0.54, 0.57])
    assert (row.unit, row.test, row.n_a, row.n_b, row.df) == ("pretraining_seed", "paired", 4, 4, 3)
    assert (row.t, row.p_value, row.difference) == pytest.approx((theirs.statistic, theirs.pvalue, 0.1825))


def test_results_that_share_no_draws_are_compared_by_welch_over_the_same_units():
    a = {(p, s): 0.7 + 0.01 * p + (0.05 if s else -0.05) for p in range(4) for s in range(2)}
    row = contrasts(study({"a": a, "b": arm(0.5, 0.52, 0.54, 0.57)}), shared_draws=False).iloc[0]
    expected = welch([0.70, 0.71, 0.72, 0.73], [0.5, 0.52, 0.54, 0.57])
    assert (row.unit, row.test, row.n_a, row.n_b) == ("pretraining_seed", "welch", 4, 4)
    assert (row.p_value, row.df, row.difference) == pytest.approx((expected.p_value, expected.df, expected.difference))


@pytest.mark.parametrize("only_seed", [0, pd.NA], ids=["one seed", "public weights"])
def test_one_pretraining_per_side_is_paired_by_its_draws_and_says_for_which_checkpoints(only_seed):
    a, b = [0.9, 0.91, 0.92], [0.5, 0.52, 0.51]
    frame = study(
        {"a": {(only_seed, s): v for s, v in enumerate(a)}, "b": {(only_seed, s): v for s, v in enumerate(b)}}
    )
    row = contrasts(frame).iloc[0]
    assert (row.unit, row.test, row.n_a, row.n_b) == ("seed", "paired", 3, 3)
    assert row.p_value == pytest.approx(paired(a, b).p_value)
    assert (row.verdict, row.holds_for) == ("better", "these two checkpoints")


def test_only_runs_of_seeds_that_both_sides_have_are_compared_and_the_others_are_counted():
    a = {(p, s): 0.7 + 0.01 * p * p + 0.1 * s for p in range(4) for s in range(3)}
    b = {(p, s): 0.5 + 0.02 * p + 0.1 * s for p in range(1, 5) for s in range(3) if (p, s) != (2, 1)}
    row = contrasts(study({"a": a, "b": b})).iloc[0]
    shared = [[(p, s) for s in range(3) if (p, s) in b] for p in (1, 2, 3)]
    units = [[np.mean([runs[key] for key in keys]) for keys in shared] for runs in (a, b)]
    assert row.p_value == pytest.approx(stats.ttest_rel(*units).pvalue)
    assert (row.mean_a, row.mean_b) == pytest.approx((np.mean(units[0]), np.mean(units[1])))
    assert (row.n_a, row.n_b, row.unpaired_a, row.unpaired_b) == (3, 3, 4, 3)


def test_pretraining_seeds_that_only_one_side_has_are_no_pairs():
    row = contrasts(study({"a": arm(0.9, 0.91, 0.92), "b": {(p, 0): 0.1 * p for p in (7, 8, 9)}})).iloc[0]
    assert (row.unit, row.n_a, row.verdict, row.unpaired_a) == ("pretraining_seed", 0, "not decided", 3)
    assert math.isnan(row.difference)


def test_a_side_with_several_pretrainings_keeps_them_as_units_beside_a_single_checkpoint():
    nested = {(p, s): 0.7 + 0.02 * p for p in range(4) for s in range(3)}
    row = contrasts(study({"a": nested, "b": {(pd.NA, s): 0.5 + 0.01 * s for s in range(3)}})).iloc[0]
    assert (row.unit, row.n_a, row.n_b) == ("seed", 4, 3)
    assert (row.verdict, row.holds_for) == ("better", "this checkpoint")


@pytest.mark.parametrize(
    ("values", "options", "verdict"),
    [
        ((arm(0.90, 0.91, 0.92), arm(0.50, 0.51, 0.53)), {}, "better"),
        ((arm(0.50, 0.51, 0.53), arm(0.90, 0.91, 0.92)), {}, "worse"),
        ((arm(0.50, 0.51, 0.53), arm(0.51, 0.50, 0.54)), {}, "not decided"),
        ((arm(0.50, 0.51, 0.53), arm(0.51, 0.50, 0.54)), {"margin": 0.1}, "equivalent"),
        ((arm(0.500, 0.501, 0.502), arm(0.520, 0.522, 0.521)), {"margin": 0.1}, "equivalent and different"),
        ((arm(0.90, 0.91, 0.92), arm(0.50, 0.51, 0.53)), {"margin": 0.1}, "better"),
        ((arm(0.9, 0.9), arm(0.1, 0.1)), {"margin": 0.1}, "not decided"),
        ((arm(0.9), arm(0.1, 0.2)), {}, "not decided"),
    ],
)
def test_verdicts_follow_the_documented_rules(values, options, verdict):
    assert contrasts(study(dict(zip("ab", values, strict=True))), **options)["verdict"].item() == verdict


def test_a_lower_calibration_error_is_the_better_one():
    frame = study({"a": arm(0.90, 0.91, 0.92), "b": arm(0.50, 0.51, 0.53)}, metric="calibration_error")
    assert contrasts(frame)["verdict"].item() == "worse"


def test_every_pair_appears_once_the_nearer_domain_first_and_scratch_last():
    frame = study({name: arm(0.1, 0.2) for name in ("scratch", "photographs", "ct", "xray")})
    boundaries = {("photographs", "t"): "hard", ("ct", "t"): "none", ("xray", "t"): "soft"}
    pairs = contrasts(frame, boundaries)
    assert list(zip(pairs["a"], pairs["b"], strict=True)) == list(
        itertools.combinations(["ct", "xray", "photographs", "scratch"], 2)
    )
    assert pairs.iloc[0][["boundary_a", "boundary_b"]].tolist() == ["none", "soft"]


def test_the_declared_family_decides_how_many_tests_holm_counts():
    arms = {"a": arm(0.90, 0.91, 0.92), "b": arm(0.80, 0.83, 0.81)}
    frame = pd.concat([study(arms, task="one"), study(arms, task="two")])
    p = contrasts(frame)["p_value"].iloc[0]
    assert contrasts(frame)["p_holm"].tolist() == pytest.approx([2 * p, 2 * p])
    assert contrasts(frame, family=("task",))["p_holm"].tolist() == pytest.approx([p, p])
    assert contrasts(frame, family=())["p_holm"].tolist() == pytest.approx([2 * p, 2 * p])


def test_a_cell_without_a_fraction_is_a_cell():
    assert len(contrasts(study({"a": arm(0.1, 0.2), "b": arm(0.3, 0.5)}, fraction=np.nan))) == 1


def test_arms_are_never_compared_across_strategies():
    frame = pd.concat([study({"a": arm(0.1, 0.2)}, strategy="full"), study({"b": arm(0.1, 0.2)}, strategy="lp_ft")])
    assert len(contrasts(frame)) == 0


def test_a_missing_value_is_a_missing_run_of_its_pair_and_is_counted():
    frame = study({"a": arm(0.9, np.nan, 0.92, 0.93), "b": arm(0.5, 0.51, 0.53, 0.52)})
    row = contrasts(frame).iloc[0]
    assert row.p_value == pytest.approx(paired([0.9, 0.92, 0.93], [0.5, 0.53, 0.52]).p_value)
    assert (row.n_a, row.missing_a, row.unpaired_a, row.missing_b, row.unpaired_b) == (3, 1, 0, 0, 1)


def test_a_missing_value_gives_no_decision_where_nothing_is_paired():
    frame = study({"a": arm(0.9, np.nan, 0.92), "b": arm(0.5, 0.51, 0.53)})
    row = contrasts(frame, shared_draws=False).iloc[0]
    assert (row.verdict, row.missing_a, row.unpaired_b) == ("not decided", 1, 0)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.drop(columns="seed"), {}, "no column seed"),
        (lambda f: pd.concat([f, f]), {}, "two values for"),
        (lambda f: f, {"family": ["metrics"]}, "no column 'metrics'. Did you mean 'metric'"),
        (lambda f: f, {"margin": 0.0}, "statistics.margin: found 0.0"),
        (lambda f: f, {"margin": {"accuracy": -1.0}}, "statistics.margin of 'accuracy': found -1.0"),
        (lambda f: f, {"pairs": [("a", "a")]}, r"statistics.pairs: found \('a', 'a'\), expected the names of two"),
        (lambda f: f, {"pairs": ["ab"]}, "statistics.pairs: found 'ab'"),
    ],
)
def test_wrong_input_is_refused_with_what_to_do(change, options, message):
    with pytest.raises(RunError, match=message):
        contrasts(change(study({"a": arm(0.1, 0.2), "b": arm(0.3, 0.5)})), **options)


def test_summary_gives_mean_sd_and_interval_over_units():
    row = summary(study({"a": {(p, s): p + s for p in range(3) for s in range(2)}})).iloc[0]
    assert (row.n, row["mean"], row.sd) == (3, 1.5, 1.0)
    reach = stats.t.ppf(0.975, 2) / math.sqrt(3)
    assert (row.ci_low, row.ci_high) == pytest.approx((1.5 - reach, 1.5 + reach))


def test_units_name_themselves():
    units = seed_units(study({"a": arm(0.1, 0.2), "b": {(0, 0): 0.3, (0, 1): 0.4}}))
    assert units[["pretraining", "unit", "unit_seed", "value"]].values.tolist() == [
        ["a", "pretraining_seed", 0, 0.1],
        ["a", "pretraining_seed", 1, 0.2],
        ["b", "seed", 0, 0.3],
        ["b", "seed", 1, 0.4],
    ]


# --- contrasts of many cells at once ---


@pytest.mark.parametrize("shared_draws", [True, False])
def test_each_row_says_what_the_tests_of_two_samples_say(shared_draws):
    table = contrasts(random_study(), margin=0.03, shared_draws=shared_draws)
    units = seed_units(random_study())
    for row in table.itertuples():
        cell = units[(units["task"] == row.task) & (units["metric"] == row.metric)].set_index("pretraining")
        a, b = (cell.loc[name].set_index("unit_seed")["value"] for name in (row.a, row.b))
        if row.test == "paired":
            both = a.index.intersection(b.index)
            test, size = paired(a[both], b[both], 1 - row.level), len(both)
            expected = {**vars(test), "n_a": size, "n_b": size, "mean_a": a[both].mean(), "mean_b": b[both].mean()}
            del expected["n"]
        else:
            expected = vars(welch(a, b, 1 - row.level))
            effect = hedges_g(a, b, 1 - row.level)
            assert (row.hedges_g, row.g_low, row.g_high) == pytest.approx((effect.g, effect.ci_low, effect.ci_high))
            assert row.p_tost == pytest.approx(tost(a, b, 0.03))
        assert {name: getattr(row, name) for name in expected} == pytest.approx(expected)
    assert set(table["test"]) == ({"paired", "welch"} if shared_draws else {"welch"})


@pytest.mark.parametrize("margin", [0.02, 0.05, 0.2])
def test_equivalence_in_pairs_is_two_one_sided_paired_tests(margin):
    rng = np.random.default_rng(0)
    row = contrasts(study({"a": random_arm(rng, 0.9), "b": random_arm(rng, 0.89)}), margin=margin).iloc[0]
    units = seed_units(study({"a": random_arm(np.random.default_rng(0), 0.9)}))["value"]
    assert row.n_a == len(units) == 4
    error = row.difference / row.t
    expected = max(
        stats.t.cdf((-margin - row.difference) / error, 3), stats.t.cdf((row.difference - margin) / error, 3)
    )
    assert row.p_tost == pytest.approx(expected)
    assert (row.verdict in ("equivalent", "equivalent and different")) == (expected <= 0.05)


def test_a_verdict_follows_from_the_interval_at_its_level():
    table = contrasts(random_study(tasks="abcdef"), margin=0.05, family=("metric",))
    different = table["verdict"].isin(["better", "worse", "equivalent and different"])
    assert different.any() and not different.all()
    outside = (table["ci_low"] > 0) | (table["ci_high"] < 0)
    alone = table["verdict"] != "equivalent"  # its interval may have 0 outside
    pd.testing.assert_series_equal(different[alone], outside[alone], check_names=False)


@pytest.mark.parametrize("shared_draws", [True, False])
def test_the_interval_of_an_equivalence_is_that_of_two_one_sided_tests_and_lies_within_the_margin(shared_draws):
    table = contrasts(random_study(tasks="abcdef"), margin=0.12, family=("metric",), shared_draws=shared_draws)
    found = table[table["verdict"].str.startswith("equivalent")]
    beyond = stats.t.ppf(1 - found["level"] / 2, found["df"]) * (found["difference"] / found["t"]).abs()
    assert (found["difference"].abs() + beyond > 0.12).any()  # the interval at 1 − level would leave the margin
    assert (found[["ci_low", "ci_high"]].abs().max(axis=1) <= 0.12).all()
    alone = found[found["verdict"] == "equivalent"]
    half = stats.t.ppf(1 - alone["level"], alone["df"]) * (alone["difference"] / alone["t"]).abs()
    assert (alone["ci_high"] - alone["difference"]).tolist() == pytest.approx(half.tolist())
    assert alone["confidence"].tolist() == pytest.approx((1 - 2 * alone["level"]).tolist())


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_does_not_matter(seed):
    frame = random_study()
    shuffled = frame.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(contrasts(shuffled, margin=0.03), contrasts(frame, margin=0.03))
    pd.testing.assert_frame_equal(summary(shuffled), summary(frame))


def test_arms_that_swap_their_names_swap_their_signs_and_nothing_else():
    a, b = arm(0.90, 0.91, 0.93), arm(0.50, 0.52, 0.53)
    there, back = contrasts(study({"a": a, "b": b})).iloc[0], contrasts(study({"a": b, "b": a})).iloc[0]
    turned = ["difference", "t", "hedges_g", "ci_low", "ci_high", "g_low", "g_high"]
    assert [there[name] for name in turned] == pytest.approx(
        [-back[name] for name in ["difference", "t", "hedges_g", "ci_high", "ci_low", "g_high", "g_low"]], rel=1e-5
    )
    kept = ["df", "p_value", "p_holm", "p_bh", "p_paired"]
    assert there[kept].tolist() == pytest.approx(back[kept].tolist())
    assert (there.verdict, back.verdict) == ("better", "worse")


@pytest.mark.parametrize("family", [("protocol", "metric"), ("task",), ()])
def test_both_corrections_run_over_the_same_family(family):
    table = contrasts(random_study(), family=family)
    for _, tests in table.groupby(list(family)) if family else [((), table)]:
        np.testing.assert_allclose(tests["p_holm"], holm(tests["p_value"]))
        np.testing.assert_allclose(tests["p_bh"], benjamini_hochberg(tests["p_value"]))


def test_the_paired_test_takes_the_pretraining_seeds_that_both_sides_have():
    a, b = arm(0.90, 0.91, 0.93, 0.99), {(p, s): 0.8 + 0.02 * p + 0.01 * s for p in (1, 2, 3, 4) for s in range(2)}
    for shared_draws in (True, False):
        row = contrasts(study({"a": a, "b": b}), shared_draws=shared_draws).iloc[0]
        assert row.n_paired == 3
        assert row.p_paired == pytest.approx(paired([0.91, 0.93, 0.99], [0.82, 0.84, 0.86]).p_value)


def test_a_single_checkpoint_has_no_pairs():
    row = contrasts(study({"a": arm(0.90, 0.91, 0.93), "b": {(pd.NA, s): 0.5 + 0.01 * s for s in range(3)}})).iloc[0]
    assert row.n_paired == 0
    assert math.isnan(row.p_paired)


def test_a_margin_of_one_metric_is_none_of_another():
    values = {"a": arm(0.50, 0.51, 0.53), "b": arm(0.51, 0.50, 0.54)}
    frame = pd.concat([study(values, metric="accuracy"), study(values, metric="auroc")])
    table = contrasts(frame, margin={"accuracy": 0.1, "dice": 0.1}).set_index("metric")
    assert table["verdict"].to_dict() == {"accuracy": "equivalent", "auroc": "not decided"}
    assert table["p_tost"].isna().to_dict() == {"accuracy": False, "auroc": True}


@pytest.mark.parametrize(
    "pairs", [[("ct", "scratch"), ("photographs", "ct")], [{"scratch", "ct"}, {"ct", "photographs"}]]
)
def test_declared_pairs_are_rows_of_the_full_table_with_a_family_of_their_own(pairs):
    few, full = contrasts(random_study(), pairs=pairs), contrasts(random_study())
    corrected = ("p_holm", "p_bh", "verdict", "level", "confidence", "ci_low", "ci_high", "g_low", "g_high")
    same = [name for name in CONTRAST_COLUMNS if name not in corrected]
    kept = full[(full["a"] == "ct") & full["b"].isin(["photographs", "scratch"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(few[same], kept[same])
    for _, tests in few.groupby("metric"):
        np.testing.assert_allclose(tests["p_holm"], holm(tests["p_value"]))
        np.testing.assert_allclose(tests["p_bh"], benjamini_hochberg(tests["p_value"]))


@pytest.mark.parametrize("pairs", [[], [("ct", "not run yet")]])
def test_pairs_of_arms_that_are_not_there_are_no_rows(pairs):
    table = contrasts(random_study(), pairs=pairs)
    assert list(table.columns) == CONTRAST_COLUMNS
    assert len(table) == 0


def test_every_random_initialisation_comes_last():
    frame = study({name: arm(0.1, 0.2) for name in ("scratch · resnet18", "a scratch", "ct", "public")})
    boundaries = {("scratch · resnet18", "t"): "scratch", ("a scratch", "t"): "scratch", ("ct", "t"): "none"}
    assert list(dict.fromkeys(summary(frame, boundaries)["pretraining"])) == [
        "ct",
        "public",
        "a scratch",
        "scratch · resnet18",
    ]


def test_thirty_thousand_pairs_take_seconds():
    names = ["task", "pretraining", "pretraining_seed", "seed"]
    index = pd.MultiIndex.from_product([range(200), [f"arm {i}" for i in range(18)], range(4), range(3)], names=names)
    frame = pd.DataFrame({"value": np.random.default_rng(0).normal(size=len(index))}, index=index).reset_index()
    started = time.perf_counter()
    table = contrasts(frame.assign(protocol="knn", strategy=None, fraction=1.0, metric="accuracy"), margin=0.5)
    assert len(table) == 30_600
    assert time.perf_counter() - started < 10


def test_more_runs_than_are_joined_at_once_give_the_same_table(monkeypatch):
    whole = contrasts(random_study())
    monkeypatch.setattr("ssl_transfer.study.statistics.units.BLOCK", 10)
    pd.testing.assert_frame_equal(contrasts(random_study()), whole)
