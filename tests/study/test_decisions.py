"""Decisions on the gate and the primary contrasts: units, order of tests, looks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ssl_transfer.study.declared import DeclaredContrast
from ssl_transfer.study.statistics import contrast_units, contrasts, decide, decision_rows
from ssl_transfer.study.statistics.contrast_units import paired_differences
from ssl_transfer.study.statistics.sequential import nominal_levels
from ssl_transfer.study.table import complete

LOOKS = (4, 8)


def tidy(values: dict[str, np.ndarray], fractions=(0.1,), tasks=("region",)) -> pd.DataFrame:
    """Values of each arm, shape (tasks, fractions, pretraining seeds, seeds); NaN stays a row without a value."""
    rows = [
        ("linear_probe", arm, tasks[t], fractions[f], p, s, "accuracy", value)
        for arm, of_arm in values.items()
        for (t, f, p, s), value in np.ndenumerate(np.asarray(of_arm))
    ]
    names = ["protocol", "pretraining", "task", "fraction", "pretraining_seed", "seed", "metric", "value"]
    return pd.DataFrame(rows, columns=names).assign(strategy=None)


def arms(seeds=8, draws=3, seed=0, sd=0.02, **means) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 0.05, (1, 1, seeds, draws))
    return {name: mean + shared + rng.normal(0, sd, (1, 1, seeds, draws)) for name, mean in means.items()}


def contrast(a="CT", b="photographs", tasks=("region",), **more) -> DeclaredContrast:
    return DeclaredContrast({"pretraining": a}, {"pretraining": b}, tasks, "linear_probe", "accuracy", **more)


def test_a_look_is_the_paired_t_test_over_pretraining_seeds_by_scipy():
    values = arms(CT=0.8, photographs=0.78)
    (decision,) = decide(tidy(values), None, [contrast()], looks=(8,))
    a, b = (values[name][0, 0].mean(1) for name in ("CT", "photographs"))
    reference = stats.ttest_rel(a, b)
    look = decision.look
    assert (look.n_a, look.df, look.level) == (8, 7, 0.05)
    assert look.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    assert (look.ci_low, look.ci_high) == pytest.approx(tuple(reference.confidence_interval()))


def test_intervals_are_at_the_level_of_the_look():
    values = arms(seeds=4, CT=0.8, photographs=0.78)
    (decision,) = decide(tidy(values), None, [contrast()], looks=LOOKS)
    a, b = (values[name][0, 0].mean(1) for name in ("CT", "photographs"))
    level = nominal_levels(0.05, LOOKS)[0]
    assert decision.look.level == level
    expected = tuple(stats.ttest_rel(a, b).confidence_interval(1 - level))
    assert (decision.look.ci_low, decision.look.ci_high) == pytest.approx(expected)


def test_a_run_that_one_side_lacks_is_left_out_on_both():
    values = arms(CT=0.8, photographs=0.78)
    frame = tidy(values)
    lacking = frame[~((frame["pretraining"] == "CT") & (frame["pretraining_seed"] == 2) & (frame["seed"] == 1))]
    units = contrast_units(complete(lacking), contrast())
    assert units.left_out == 1
    of_seed = units.table.set_index("unit").loc[2]
    assert of_seed["a"] == pytest.approx(values["CT"][0, 0, 2, [0, 2]].mean())
    assert of_seed["b"] == pytest.approx(values["photographs"][0, 0, 2, [0, 2]].mean())


def test_a_value_that_is_nan_is_left_out_with_its_counterpart():
    values = arms(CT=0.8, photographs=0.78)
    values["CT"][0, 0, 2, 1] = np.nan
    units = contrast_units(complete(tidy(values)), contrast())
    assert units.table["a"].notna().all()
    assert units.left_out == 1


def test_a_pretraining_seed_without_one_of_the_targets_is_left_out():
    easy, hard = arms(CT=0.9, photographs=0.9, seed=1), arms(CT=0.5, photographs=0.5, seed=2)
    values = {name: np.concatenate([easy[name], hard[name]]) for name in easy}
    frame = tidy(values, tasks=("easy", "hard"))
    lacking = frame[~((frame["task"] == "easy") & (frame["pretraining_seed"] == 3))]
    units = contrast_units(complete(lacking), contrast(tasks=("easy", "hard")))
    assert 3 not in set(units.table["unit"])
    assert units.left_out == 6  # what there is of its other target, on both sides


def test_fractions_and_targets_weigh_equally_however_many_seeds_they_have():
    values = {name: np.zeros((1, 2, 4, 3)) for name in ("CT", "photographs")}
    values["CT"][0, 0], values["CT"][0, 1] = 0.2, 0.4
    frame = tidy(values, fractions=(0.1, 1.0))
    once = frame[(frame["fraction"] < 1) | (frame["seed"] == 0)]  # a probe at all labels is the same for every seed
    assert contrast_units(complete(once), contrast()).table["a"].to_numpy() == pytest.approx(np.full(4, 0.3))


def test_differences_of_draws_are_averaged_over_cells_and_a_cell_planned_once_counts_in_each():
    values = {name: np.random.default_rng(n).normal(size=(1, 2, 4, 3)) for n, name in enumerate(["CT", "photographs"])}
    frame = tidy(values, fractions=(0.1, 1.0))
    once = frame[(frame["fraction"] < 1) | (frame["seed"] == 0)]
    table = paired_differences(complete(once), contrast()).set_index(["pretraining_seed", "seed"])["difference"]
    gap = values["CT"] - values["photographs"]
    assert table[2, 1] == pytest.approx((gap[0, 0, 2, 1] + gap[0, 1, 2, 0]) / 2)
    assert len(table) == 12


def test_public_weights_are_compared_by_welch_for_this_checkpoint():
    values = arms(CT=0.8, photographs=0.78)
    frame = tidy(values)
    public = frame["pretraining"] == "photographs"
    frame = frame[~public | (frame["pretraining_seed"] == 0)].astype({"pretraining_seed": "Int64"})
    frame.loc[frame["pretraining"] == "photographs", "pretraining_seed"] = pd.NA
    (decision,) = decide(frame, None, [contrast()], looks=(8,))
    a, b = values["CT"][0, 0].mean(1), values["photographs"][0, 0, 0]
    assert decision.units.test == "welch"
    assert decision.holds_for == "this checkpoint"
    assert decision.look.p_value == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_two_public_weights_share_their_draws_and_are_paired_by_them():
    values = {name: each[:, :, :1] for name, each in arms(draws=6, CT=0.8, photographs=0.79).items()}
    frame = tidy(values).astype({"pretraining_seed": "Int64"}).assign(pretraining_seed=pd.NA)
    (decision,) = decide(frame, None, [contrast()], looks=LOOKS)
    a, b = (values[name][0, 0, 0] for name in ("CT", "photographs"))
    assert (decision.units.test, decision.units.unit, decision.look.n_a) == ("paired", "seed", 6)
    assert decision.look.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_public_weights_are_looked_at_as_the_other_side_grows():
    values = arms(CT=0.9, photographs=0.6)
    frame = tidy(values)
    public = frame["pretraining"] == "photographs"
    frame = frame[~public | (frame["pretraining_seed"] == 0)].astype({"pretraining_seed": "Int64"})
    frame.loc[frame["pretraining"] == "photographs", "pretraining_seed"] = pd.NA
    some = frame[~(frame["pretraining_seed"] >= 4).fillna(False)]
    (decision,) = decide(some, None, [contrast()], looks=LOOKS, pending={"CT": {4, 5, 6, 7}})
    assert [(look.n_a, look.n_b) for look in decision.looks] == [(4, 3)]
    assert decide(some, None, [contrast()], looks=LOOKS, pending={"photographs": {None}})[0].looks == ()


def test_a_single_seed_waits_for_the_others_of_its_look():
    values = {name: each[:, :, :1] for name, each in arms(draws=6, CT=0.8, photographs=0.7).items()}
    (decision,) = decide(
        tidy(values), None, [contrast()], looks=LOOKS, seeds=range(8), pending={"CT": set(range(1, 8))}
    )
    assert (decision.planned_looks, decision.looks, decision.units.unit) == (LOOKS, (), "pretraining_seed")


def test_before_any_result_all_looks_are_left():
    frame = tidy(arms(CT=0.8, photographs=0.7)).iloc[:0]
    pending = {"CT": set(range(8)), "photographs": set(range(8))}
    (decision,) = decide(frame, None, [contrast()], looks=LOOKS, seeds=range(8), pending=pending)
    assert (decision.planned_looks, decision.looks, decision.verdict) == (LOOKS, (), "not decided")


def test_two_checkpoints_are_tested_once_with_all_of_alpha():
    values = {name: each[:, :, :1] for name, each in arms(draws=6, CT=0.8, photographs=0.7).items()}
    (decision,) = decide(tidy(values), None, [contrast()], looks=LOOKS)
    assert (decision.planned_looks, decision.look.level, decision.look.n_a) == ((8,), 0.05, 6)
    assert decision.at_last_look


def test_nothing_is_claimed_where_the_gate_is_not_passed():
    values = arms(CT=0.8, photographs=0.7, scratch=0.8)
    gate, primary = decide(tidy(values), contrast(b="scratch"), [contrast()], looks=(8,))
    assert gate.verdict == "not decided"
    assert primary.look.p_value < 0.001
    assert (primary.verdict, primary.reason) == ("not decided", "the gate is not passed")


def test_a_contrast_behind_a_passed_gate_is_decided():
    values = arms(CT=0.8, photographs=0.7, scratch=0.6)
    gate, primary = decide(tidy(values), contrast(b="scratch"), [contrast()], looks=(8,))
    assert (gate.family, gate.verdict) == ("gate", "better")
    assert (primary.family, primary.verdict) == ("primary", "better")


def test_the_level_rises_once_another_contrast_is_decided():
    values = arms(CT=0.8, photographs=0.7, cells=0.797, seed=3)
    first, second = decide(tidy(values), None, [contrast(), contrast(b="cells")], looks=(8,))
    assert (first.verdict, first.look.level) == ("better", 0.025)
    assert second.look.level == 0.05


def test_equivalence_raises_the_level_of_equivalence_alone():
    values = arms(CT=0.8, photographs=0.8, sd=0.001)
    values["cells"] = arms(CT=0.8, seed=9)["CT"]
    first, second = decide(tidy(values), None, [contrast(), contrast(b="cells")], looks=(8,), margin=0.02)
    assert first.verdict == "equivalent"
    assert (second.look.level, second.look.level_tost) == (0.025, 0.05)


def test_a_difference_of_nothing_with_noise_is_equivalent():
    values = {name: np.zeros((1, 1, 4, 1)) for name in ("CT", "photographs")}
    values["CT"][0, 0, :, 0] = [0.001, -0.001, 0.002, -0.002]
    (decision,) = decide(tidy(values), None, [contrast()], looks=(4,), margin=0.02)
    assert decision.look.difference == 0
    assert decision.verdict == "equivalent"


def test_the_number_of_tests_is_that_of_the_design():
    values = arms(CT=0.8, photographs=0.7)
    (decision,) = decide(tidy(values), None, [contrast()], looks=(8,), tests=5)
    assert decision.look.level == pytest.approx(0.01)


def test_a_decision_stays_when_more_seeds_come():
    values = arms(CT=0.9, photographs=0.6)
    early = decide(tidy({name: each[:, :, :4] for name, each in values.items()}), None, [contrast()], looks=LOOKS)[0]
    late = decide(tidy(values), None, [contrast()], looks=LOOKS)[0]
    assert early.verdict == late.verdict == "better"
    assert vars(early.look) == pytest.approx(vars(late.look), nan_ok=True)
    assert len(late.looks) == 2


def test_a_look_waits_for_its_seeds_but_not_for_runs_that_failed():
    values = arms(CT=0.9, photographs=0.6)
    frame = tidy(values)
    lacking = frame[frame["pretraining_seed"] != 2]
    assert decide(lacking, None, [contrast()], looks=LOOKS, pending={"CT": {2}})[0].looks == ()
    failed = decide(lacking, None, [contrast()], looks=LOOKS, seeds=range(8))[0]
    assert [look.n_a for look in failed.looks] == [3, 7]


def test_equivalence_needs_both_one_sided_tests_at_the_level_of_the_look():
    values = arms(CT=0.8, photographs=0.801, sd=0.002)
    (decision,) = decide(tidy(values), None, [contrast()], looks=(8,), margin=0.02)
    difference = values["CT"][0, 0].mean(1) - values["photographs"][0, 0].mean(1)
    expected = max(
        stats.ttest_1samp(difference, -0.02, alternative="greater").pvalue,
        stats.ttest_1samp(difference, 0.02, alternative="less").pvalue,
    )
    assert decision.look.p_tost == pytest.approx(expected, rel=1e-9)
    assert decision.verdict == "equivalent"


@pytest.mark.parametrize("seed", range(20))
def test_the_interval_of_an_equivalence_lies_within_the_margin(seed):
    values = arms(CT=0.8, photographs=0.807, sd=0.016, seed=seed)
    (decision,) = decide(tidy(values), None, [contrast()], looks=(8,), margin=0.02)
    difference = values["CT"][0, 0].mean(1) - values["photographs"][0, 0].mean(1)
    confidence = 0.9 if decision.verdict.startswith("equivalent") else 0.95
    low, high = stats.ttest_1samp(difference, 0).confidence_interval(confidence)
    assert (decision.look.ci_low, decision.look.ci_high) == pytest.approx((low, high))
    assert decision.look.equivalent == (low >= -0.02 and high <= 0.02)


def test_the_level_of_equivalence_ahead_is_not_raised_by_differences():
    values = arms(seeds=4, CT=0.8, photographs=0.6, cells=0.797, seed=3)
    first, second = decide(tidy(values), None, [contrast(), contrast(b="cells")], looks=(4, 8))
    assert first.verdict == "better" and not second.decided
    assert (second.levels[-1], second.level_tost) == (nominal_levels(0.05, (4, 8))[1], nominal_levels(0.025, (4, 8))[1])


def test_strategies_are_compared_within_their_pretrainings():
    frame = tidy(arms(CT=0.8, photographs=0.7))
    full = frame.assign(strategy="full", protocol="finetune")
    frozen = full.assign(strategy="head_only", value=full["value"] - 0.1 + 0.01 * full["pretraining_seed"] % 0.03)
    declared = DeclaredContrast({"strategy": "full"}, {"strategy": "head_only"}, ("region",), "finetune", "accuracy")
    (decision,) = decide(pd.concat([full, frozen]), None, [declared], looks=(8,))
    assert (decision.verdict, decision.look.n_a) == ("better", 8)


def test_strategies_on_public_weights_are_paired_over_evaluation_seeds():
    frame = tidy(arms(seeds=1, draws=6, CT=0.8)).assign(strategy="full", pretraining_seed=pd.NA)
    frame = frame.astype({"pretraining_seed": "Int64"})
    worse = 0.05 + np.random.default_rng(1).normal(0, 0.01, len(frame))
    other = frame.assign(strategy="head_only", value=frame["value"] - worse)
    declared = DeclaredContrast(
        {"strategy": "full"}, {"strategy": "head_only"}, ("region",), "linear_probe", "accuracy"
    )
    (decision,) = decide(pd.concat([frame, other]), None, [declared], looks=(4,))
    assert (decision.units.test, decision.units.unit, decision.holds_for) == ("paired", "seed", "this checkpoint")
    assert decision.look.p_value == pytest.approx(stats.ttest_1samp(worse, 0).pvalue)


def test_rows_have_the_columns_of_all_contrasts():
    frame = tidy(arms(CT=0.8, photographs=0.7, scratch=0.6))
    decisions = decide(frame, contrast(b="scratch"), [contrast()], looks=LOOKS)
    rows = decision_rows(decisions, {("CT", "region"): "none"})
    assert list(rows.columns) == list(contrasts(frame).columns)
    assert list(rows["b"]) == ["scratch", "photographs"]
    assert list(rows["boundary_a"]) == ["none", "none"]


def test_a_decided_p_value_is_below_five_per_cent_in_the_units_of_holm():
    frame = tidy(arms(CT=0.8, photographs=0.7))
    (decision,) = decide(frame, None, [contrast()], looks=LOOKS)
    row = decision_rows([decision], {}).iloc[0]
    assert row["p_holm"] == pytest.approx(row["p_value"] * 0.05 / decision.look.level)


def test_public_weights_are_no_pairs_of_an_arm_without_runs_so_far():
    frame = tidy(arms(CT=0.8, photographs=0.78))
    public = frame[frame["pretraining"] == "photographs"].assign(pretraining_seed=pd.NA)
    units = contrast_units(complete(public.drop_duplicates("seed")), contrast(), to_come=range(8))
    assert units.test == "welch" and not units.by_pretraining["b"]


@pytest.mark.parametrize("seeds", [1, 2, 6])
def test_declared_contrasts_and_those_of_all_pairs_have_the_same_units(seeds):
    """Two implementations of one rule: one for a declared contrast with its cells, one for all pairs of arms at once."""
    draw = np.random.default_rng(seeds)
    values = arms(seeds=seeds, draws=4, seed=seeds, CT=0.8, photographs=0.78)
    values["CT"][draw.random(values["CT"].shape) < 0.2] = np.nan
    frame = tidy(values)
    frame = frame[draw.random(len(frame)) > 0.2]
    units = contrast_units(complete(frame), contrast())
    row = contrasts(frame.assign(boundary="none")).iloc[0]
    assert row["unit"] == units.unit and row["test"] == units.test and row["n_a"] == len(units.table) > 1
    side = {row["a"]: "a", row["b"]: "b"}
    a, b = units.values()
    expected = {"CT": a, "photographs": b}
    for name, of_row in side.items():
        assert row[f"mean_{of_row}"] == pytest.approx(expected[name].mean(), rel=1e-12)
    reference = stats.ttest_rel(expected[row["a"]], expected[row["b"]])
    assert row["p_value"] == pytest.approx(reference.pvalue, rel=1e-6)
