"""Contrasts of pretrainings and of strategies: who is compared with whom, over which units, and with which words."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ssl_transfer.errors import RunError
from ssl_transfer.study import statistics
from ssl_transfer.study.statistics import (
    benjamini_hochberg,
    contrasts,
    hedges_g,
    holm,
    paired,
    seed_units,
    strategy_contrasts,
    summary,
    tost,
    welch,
)

CONTRASTS = [  # others rely on these columns: written out on purpose
    "protocol",
    "task",
    "strategy",
    "fraction",
    "noise",
    "noise_sigma",
    "metric",
    "a",
    "b",
    "boundary_a",
    "boundary_b",
    "unit",
    "n_a",
    "n_b",
    "mean_a",
    "mean_b",
    "difference",
    "ci_low",
    "ci_high",
    "t",
    "df",
    "p_value",
    "p_holm",
    "p_tost",
    "hedges_g",
    "verdict",
    "g_low",
    "g_high",
    "p_bh",
    "n_paired",
    "p_paired",
    "holds_for",
]
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
    "holds_for",
]


def study(values: dict, **columns) -> pd.DataFrame:
    """A tidy frame: `values` maps arm -> {(pretraining_seed, seed): value}."""
    shared = {"protocol": "knn", "task": "t", "strategy": None, "fraction": 1.0, "metric": "accuracy"}
    rows = [
        {**shared, "pretraining": arm, "pretraining_seed": p, "seed": s, "value": v, "boundary": "", **columns}
        for arm, runs in values.items()
        for (p, s), v in runs.items()
    ]
    return pd.DataFrame(rows).astype({"pretraining_seed": "Int64", "seed": "Int64"})


def arm(*values) -> dict:
    """One run per pretraining seed."""
    return {(p, 0): value for p, value in enumerate(values)}


def random_arm(rng: np.random.Generator, mean: float, seeds: range = range(4)) -> dict:
    """Two fine-tuning seeds for each of some pretraining seeds."""
    return {(p, s): mean + rng.normal(0, 0.02) for p in seeds for s in range(2)}


def random_study(tasks=("one", "two"), metrics=("accuracy", "auroc"), strategy=None, seed=0) -> pd.DataFrame:
    """Four arms in several cells, of which one lacks a pretraining seed, one is a single checkpoint, and one is random."""
    rng, frames = np.random.default_rng(seed), []
    for task, metric in itertools.product(tasks, metrics):
        values = {name: random_arm(rng, mean) for name, mean in (("ct", 0.9), ("photographs", 0.87), ("scratch", 0.8))}
        values["photographs"] = random_arm(rng, 0.87, range(1, 5))
        values["public"] = {(pd.NA, s): 0.88 + rng.normal(0, 0.02) for s in range(3)}
        frames.append(study(values, task=task, metric=metric, strategy=strategy))
    return pd.concat(frames, ignore_index=True)


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
        "nested_bootstrap",
        "patient_bootstrap",
    }
    assert public <= set(statistics.__all__)
    assert all(hasattr(statistics, name) for name in statistics.__all__)


# --- contrasts ---


def test_the_columns_of_contrasts_are_exactly_the_documented_ones():
    frame = study({"a": arm(0.1, 0.2), "b": arm(0.3, 0.5)})
    assert list(contrasts(frame).columns) == CONTRASTS
    assert list(contrasts(frame.iloc[:0]).columns) == CONTRASTS


def test_fine_tuning_seeds_are_averaged_within_their_pretraining_seed():
    nested = {(p, s): 0.7 + 0.01 * p + (0.05 if s else -0.05) for p in range(4) for s in range(2)}
    row = contrasts(study({"a": nested, "b": arm(0.5, 0.52, 0.54, 0.57)})).iloc[0]
    expected = welch([0.70, 0.71, 0.72, 0.73], [0.5, 0.52, 0.54, 0.57])
    assert (row.unit, row.n_a, row.n_b) == ("pretraining_seed", 4, 4)
    assert (row.p_value, row.df, row.difference) == pytest.approx((expected.p_value, expected.df, expected.difference))


@pytest.mark.parametrize("only_seed", [0, pd.NA])
def test_one_pretraining_per_side_is_tested_over_seeds_and_says_for_which_checkpoints(only_seed):
    a, b = [0.9, 0.91, 0.92], [0.5, 0.52, 0.51]
    frame = study(
        {"a": {(only_seed, s): v for s, v in enumerate(a)}, "b": {(only_seed, s): v for s, v in enumerate(b)}}
    )
    row = contrasts(frame).iloc[0]
    assert (row.unit, row.n_a, row.n_b) == ("seed", 3, 3)
    assert row.p_value == pytest.approx(welch(a, b).p_value)
    assert (row.verdict, row.holds_for) == ("better", "these two checkpoints")


def test_a_side_with_several_pretrainings_keeps_them_as_units_beside_a_single_checkpoint():
    nested = {(p, s): 0.7 + 0.02 * p for p in range(4) for s in range(3)}
    row = contrasts(study({"a": nested, "b": {(pd.NA, s): 0.5 + 0.01 * s for s in range(3)}})).iloc[0]
    assert (row.unit, row.n_a, row.n_b) == ("seed", 4, 3)
    assert (row.verdict, row.holds_for) == ("better", "these two checkpoints")


@pytest.mark.parametrize(
    ("values", "options", "verdict"),
    [
        ((arm(0.90, 0.91, 0.92), arm(0.50, 0.51, 0.53)), {}, "better"),
        ((arm(0.50, 0.51, 0.53), arm(0.90, 0.91, 0.92)), {}, "worse"),
        ((arm(0.50, 0.51, 0.53), arm(0.51, 0.50, 0.54)), {}, "not decided"),
        ((arm(0.50, 0.51, 0.53), arm(0.51, 0.50, 0.54)), {"margin": 0.1}, "equivalent"),
        ((arm(0.500, 0.501, 0.502), arm(0.520, 0.521, 0.522)), {"margin": 0.1}, "equivalent and different"),
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


def test_a_missing_value_gives_no_decision():
    assert contrasts(study({"a": arm(0.9, np.nan, 0.92), "b": arm(0.5, 0.51, 0.53)}))["verdict"].item() == "not decided"


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


def test_each_row_says_what_the_tests_of_two_samples_say():
    table, units = contrasts(random_study(), margin=0.03), seed_units(random_study())
    for row in table.itertuples():
        cell = units[(units["task"] == row.task) & (units["metric"] == row.metric)].set_index("pretraining")["value"]
        a, b = cell[row.a].to_numpy(), cell[row.b].to_numpy()
        test, effect = welch(a, b), hedges_g(a, b)
        assert [getattr(row, name) for name in vars(test)] == pytest.approx(list(vars(test).values()))
        assert (row.hedges_g, row.g_low, row.g_high) == pytest.approx((effect.g, effect.ci_low, effect.ci_high))
        assert row.p_tost == pytest.approx(tost(a, b, 0.03))


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
    row = contrasts(study({"a": a, "b": b})).iloc[0]
    assert row.n_paired == 3
    assert row.p_paired == pytest.approx(paired([0.91, 0.93, 0.99], [0.825, 0.845, 0.865]).p_value)


def test_a_single_checkpoint_has_no_pairs():
    row = contrasts(study({"a": arm(0.90, 0.91, 0.93), "b": {(0, s): 0.5 + 0.01 * s for s in range(3)}})).iloc[0]
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
    same = [name for name in CONTRASTS if name not in ("p_holm", "p_bh", "verdict")]
    kept = full[(full["a"] == "ct") & full["b"].isin(["photographs", "scratch"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(few[same], kept[same])
    for _, tests in few.groupby("metric"):
        np.testing.assert_allclose(tests["p_holm"], holm(tests["p_value"]))
        np.testing.assert_allclose(tests["p_bh"], benjamini_hochberg(tests["p_value"]))


@pytest.mark.parametrize("pairs", [[], [("ct", "not run yet")]])
def test_pairs_of_arms_that_are_not_there_are_no_rows(pairs):
    table = contrasts(random_study(), pairs=pairs)
    assert list(table.columns) == CONTRASTS
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


# --- contrasts of strategies ---


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
    assert (row.unit, row.n, row.verdict) == ("pretraining_seed", 1, "not decided")


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
