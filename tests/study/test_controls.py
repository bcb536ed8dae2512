"""Controls of a study: trivial features, arms against themselves and permuted labels, none of them in a family of tests."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.tiny_study import result, small, write_study

from ssl_transfer.errors import RecipeError
from ssl_transfer.study.arms import arms_of
from ssl_transfer.study.control_arms import permuted_arm, trivial_arm
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.gather import report_study
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.report.drawing import TRIVIAL_LOOK
from ssl_transfer.study.report.figures import learning_curves, with_curves
from ssl_transfer.study.statistics import aa_contrasts, against_trivial, permutation_controls, summary

# Statistics


def table(values: dict[str, dict[tuple[int, int], float]], metric="balanced_accuracy", **columns) -> pd.DataFrame:
    """A tidy table: arm -> (pretraining seed, seed) -> value."""
    rows = [
        {"pretraining": arm, "pretraining_seed": pretraining, "seed": seed, "value": value}
        for arm, of_arm in values.items()
        for (pretraining, seed), value in of_arm.items()
    ]
    cell = {"protocol": "linear_probe", "task": "t", "strategy": "", "fraction": 0.1, "metric": metric, "boundary": ""}
    frame = pd.DataFrame(rows).assign(**{**cell, **columns})
    return frame.astype({"pretraining_seed": "Int64", "seed": "Int64"})


def draws(*values):
    """Values of the pretraining seeds 0, 1, …, each with the same values at two evaluation seeds ± .01."""
    return {(unit, seed): value + (0.01 if seed else -0.01) for unit, value in enumerate(values) for seed in (0, 1)}


ARMS = table({"CT": draws(0.90, 0.92, 0.91), "cells": draws(0.80, 0.82, 0.81)})
TRIVIAL = table({"trivial features": draws(0.88, 0.91, 0.88)})


def test_the_best_arm_is_compared_with_trivial_features():
    row = against_trivial(ARMS, TRIVIAL, lambda metric: 0.02).iloc[0]
    assert (row["best"], row["n"]) == ("CT", 3) and row["difference"] == pytest.approx(0.02)
    reference = stats.ttest_rel([0.90, 0.92, 0.91], [0.88, 0.91, 0.88]).confidence_interval()
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(reference))


def test_public_weights_share_no_draws_with_trivial_features_and_are_compared_by_welch_s_test():
    public = {(None, seed): value for seed, value in enumerate([0.93, 0.95, 0.94, 0.96])}
    row = against_trivial(table({"ImageNet": public}), TRIVIAL, lambda metric: 0.02).iloc[0]
    reference = stats.ttest_ind([0.93, 0.95, 0.94, 0.96], [0.88, 0.91, 0.88], equal_var=False).confidence_interval()
    assert (row["test"], row["n"]) == ("welch", 3)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(reference))


@pytest.mark.parametrize("margin, solved", [(0.02, True), (0.0199, False), (0.05, True)])
def test_a_target_is_solved_if_the_best_arm_is_within_the_margin(margin, solved):
    assert against_trivial(ARMS, TRIVIAL, lambda metric: margin)["solved"].tolist() == [solved]


def test_trivial_features_that_are_better_than_every_arm_solve_a_target():
    assert against_trivial(ARMS, table({"trivial features": draws(0.99, 0.98, 0.99)}), lambda metric: 0.02)[
        "solved"
    ].all()


def test_of_a_metric_where_less_is_better_the_lowest_arm_is_the_best():
    errors, trivial = ARMS.assign(metric="ece"), TRIVIAL.assign(metric="ece", value=TRIVIAL["value"] - 0.03)
    row = against_trivial(errors, trivial, lambda metric: 0.02).iloc[0]
    assert row["best"] == "cells" and row["difference"] == pytest.approx(0.86 - 0.81)
    assert row["ci_low"] < row["difference"] < row["ci_high"] and not row["solved"]


def test_only_draws_that_both_have_are_paired():
    fewer = ARMS[~((ARMS["pretraining_seed"] == 2) & (ARMS["pretraining"] == "CT"))]
    row = against_trivial(fewer, TRIVIAL, lambda metric: 0.02).iloc[0]
    assert row["n"] == 2 and (row["mean"], row["trivial"]) == pytest.approx((0.91, 0.895))
    assert row["difference"] == pytest.approx(0.015)


def test_cells_without_trivial_features_have_no_row():
    assert against_trivial(ARMS, TRIVIAL.assign(fraction=1.0), lambda metric: 0.02).empty
    assert against_trivial(ARMS, TRIVIAL.iloc[:0], lambda metric: 0.02).empty


def test_an_aa_contrast_is_welch_s_test_of_every_other_seed():
    values = np.random.default_rng(0).normal(0.8, 0.02, 8)
    row = aa_contrasts(table({"CT": draws(*values)}), lambda metric: 0.05).iloc[0]
    reference = stats.ttest_ind(values[::2], values[1::2], equal_var=False)
    assert (row["n_a"], row["n_b"]) == (4, 4)
    assert row["p_value"] == pytest.approx(reference.pvalue) and row["difference"] == pytest.approx(
        values[::2].mean() - values[1::2].mean()
    )
    interval = reference.confidence_interval()
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((interval.low, interval.high))


def test_halves_of_many_steady_seeds_are_equivalent_and_those_of_a_torn_arm_are_different():
    steady = np.random.default_rng(1).normal(0.8, 0.01, 16)
    frame = table({"steady": draws(*steady), "torn": draws(*(steady + 0.1 * (np.arange(16) % 2)))})
    verdicts = aa_contrasts(frame, lambda metric: 0.05).set_index("pretraining")["verdict"]
    assert verdicts.to_dict() == {"steady": "equivalent", "torn": "different"}


def test_p_values_of_aa_contrasts_of_arms_like_any_are_uniform():
    values = np.random.default_rng(2).normal(0.8, 0.02, (1500, 8))
    arms = {f"arm {number}": {(unit, 0): value for unit, value in enumerate(row)} for number, row in enumerate(values)}
    contrasts = aa_contrasts(table(arms), lambda metric: 0.02)
    share = (contrasts["p_value"] < 0.05).mean()
    assert share < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)  # Welch's test is a little conservative at four against four
    assert (contrasts["verdict"] == "different").sum() <= 1


def test_three_seeds_have_no_halves():
    assert aa_contrasts(ARMS, lambda metric: 0.02).empty and aa_contrasts(ARMS.iloc[:0], lambda metric: 0.02).empty


def test_permuted_labels_are_judged_by_a_t_interval_around_their_auroc():
    values = np.random.default_rng(3).normal(0.52, 0.05, 8)
    frame = table({"CT": {(unit // 2, unit % 2): value for unit, value in enumerate(values)}}, metric="auroc")
    row = permutation_controls(pd.concat([frame, frame.assign(metric="accuracy", value=0.9)])).iloc[0]
    low, high = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    assert (row["ci_low"], row["ci_high"], row["n"], row["chance"]) == pytest.approx((low, high, 8, 0.5))


@pytest.mark.parametrize("mean, verdict", [(0.5, "at chance"), (0.7, "above chance"), (0.3, "below chance")])
def test_permuted_labels_above_chance_are_a_leak(mean, verdict):
    values = mean + np.linspace(-0.03, 0.03, 6)
    frame = table({"CT": {(unit, 0): value for unit, value in enumerate(values)}}, metric="auroc")
    assert permutation_controls(frame)["verdict"].tolist() == [verdict]


def test_intervals_of_several_targets_share_alpha():
    frames = [table({"CT": draws(0.5, 0.52, 0.47)}, metric="auroc", task=name) for name in "abcde"]
    assert permutation_controls(pd.concat(frames))["level"].tolist() == pytest.approx([0.01] * 5)


def test_a_single_permutation_decides_nothing():
    frame = table({"CT": {(0, 0): 0.9}}, metric="auroc")
    assert permutation_controls(frame)["verdict"].tolist() == ["too few runs"]
    assert permutation_controls(frame.iloc[:0]).empty


# Plan


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Plan the tiny study with some changes."""
    monkeypatch.chdir(tmp_path)

    def planned(**changes):
        return plan_study(load_study(write_study(tmp_path, **changes)), Path("studies/tiny"))

    return planned


def draws_of(plan, control, task="region"):
    """Fraction, pretraining seed and evaluation seed of the linear probes of a kind of control; None: of CT."""
    of_kind = [run for run in plan.runs if run.get("control") == control and run["protocol"] == "linear_probe"]
    return [
        (run["fraction"], run["pretraining_seed"], run["seed"])
        for run in of_kind
        if run["task"] == task and (control or run["pretraining"] == "CT")
    ]


def test_trivial_features_are_planned_unless_the_study_says_no(tmp_path, plan):
    assert load_study(write_study(tmp_path, controls={})).controls.trivial
    assert draws_of(plan(controls={}), "trivial") and not draws_of(plan(controls={"trivial": False}), "trivial")


@pytest.mark.parametrize(("word", "kinds"), [("true", {"trivial", "permutation"}), (True, None), ("false", set())])
def test_one_word_requests_all_controls_or_none(tmp_path, plan, word, kinds):
    expected = {"trivial", "permutation"} if kinds is None else kinds
    assert {run["control"] for run in plan(controls=word).runs if run.get("control")} == expected
    assert load_study(write_study(tmp_path, controls={}), [f"controls={word}"]).controls.permutation == bool(expected)


def test_permuted_labels_without_a_linear_probe_are_refused_with_what_to_add(plan):
    with pytest.raises(
        RecipeError, match=r"controls: labels are permuted .* Add an evaluation `\{protocol: linear_probe\}`"
    ):
        plan(controls=True, evaluations=[{"protocol": "knn"}], statistics={})


def test_trivial_features_have_the_fractions_and_draws_of_the_arms(plan):
    made = plan(controls={})
    assert draws_of(made, "trivial") == draws_of(made, None)
    assert {run["protocol"] for run in made.runs if run.get("control")} == {"linear_probe"}


def test_a_job_of_trivial_features_names_the_pretraining_seed_whose_draws_it_uses(plan):
    made = plan(controls={})
    jobs = [job for job in made.jobs if job.stage == "evaluate" and job.about["arm"] == "trivial features"]
    assert {(job.command[3], job.about["seed"]) for job in jobs} == {("trivial,seed=0", 0), ("trivial,seed=1", 1)}


def test_their_features_are_one_job_for_all_seeds_at_the_stored_size(plan):
    evaluations = [{"protocol": "linear_probe", "set": {"size": 16}}]
    made = plan(**small(controls={}, evaluations=evaluations))
    jobs = [job for job in made.jobs if job.stage == "features" and job.command[2] == "trivial"]
    assert len(jobs) == 1 and not any(word.startswith("size=") for word in jobs[0].command)


def test_trivial_features_are_no_arm_and_in_no_comparison(plan):
    made = plan(controls={})
    assert "trivial features" not in {arm["name"] for arm in made.arms}


def test_runs_that_are_skipped_are_skipped_for_them_too(plan):
    made = plan(controls={}, skip=[{"fraction": 0.5}])
    assert {fraction for fraction, _, _ in draws_of(made, "trivial")} == {1.0}


def test_studies_of_public_weights_alone_take_the_draws_of_the_evaluation_seeds(tmp_path):
    arms = list(arms_of(load_study(write_study(tmp_path, pretrainings={"public": {"backbone": "timm:resnet10t"}}))))
    assert trivial_arm(arms).seeds == [None]


@pytest.mark.parametrize("arm", [{"trivial features": {"store": "ct"}}, {"control": {"backbone": "trivial"}}])
def test_trivial_features_are_no_pretraining(tmp_path, arm):
    with pytest.raises(RecipeError, match="trivial features are a control"):
        load_study(write_study(tmp_path, pretrainings=arm))


def test_labels_are_permuted_for_one_arm_at_the_largest_fraction(plan):
    made = plan(controls={"trivial": False, "permutation": True})
    runs = [run for run in made.runs if run.get("control") == "permutation"]
    assert {(run["pretraining"], run["fraction"]) for run in runs} == {("CT", 1.0)} and len(runs) == 2 * 4
    words = [word for job in made.jobs if job.runs and job.runs[0].get("control") for word in job.command]
    assert words.count("permute_labels=true") == len(
        [job for job in made.jobs if job.runs and job.runs[0].get("control")]
    )


def test_the_permuted_arm_is_that_of_the_target_s_store(tmp_path):
    arms = list(arms_of(load_study(write_study(tmp_path))))
    assert permuted_arm(arms, "photographs").name == "photographs" and permuted_arm(arms, None).name == "CT"


# Report


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study whose evaluations give made-up results: CT .9, scratch .6, trivial features and permuted labels as given."""
    monkeypatch.chdir(tmp_path)

    def made(trivial: float = 0.7, permuted: float = 0.5, controls: dict | None = None):
        recipe = load_study(write_study(tmp_path, **small(controls=controls or {}, pretraining_seeds=[0, 1, 2, 3])))
        plan = plan_study(recipe, Path("studies/tiny"))
        jobs = {" ".join(job.words): job for job in plan.jobs}
        means = {"trivial": trivial, "permutation": permuted, "CT": 0.9, "scratch": 0.6}

        def perform(words):
            for run in jobs[" ".join(words)].runs:
                folder = Path(run["result"]).parent
                folder.mkdir(parents=True)
                mean = means[run.get("control") or run["pretraining"]]
                result(run, mean + 0.004 * (run["pretraining_seed"] - 1.5) + 0.001 * run["seed"]).save(folder)

        run_plan(plan, perform)
        return plan

    return made


def page(plan) -> str:
    return Path(report_study(plan)["report"]).read_text()


def test_trivial_features_have_rows_of_results_and_a_table_of_their_own_but_no_contrast(study):
    plan = study()
    page(plan)
    tables = {path.stem: pd.read_csv(path) for path in (plan.folder / "tables").glob("*.csv")}
    results = tables["results"]
    assert set(results["pretraining"]) == {"CT", "scratch", "trivial features"}
    assert set(results.loc[results["pretraining"] == "trivial features", "boundary"]) == {"trivial"}
    assert {*tables["contrasts"]["a"], *tables["contrasts"]["b"]} == {"CT", "scratch"}
    assert set(pd.read_csv(plan.folder / "table.csv")["pretraining"]) == {"CT", "scratch"}
    assert not tables["trivial_features"]["solved"].any() and tables["trivial_features"]["n"].tolist() == [4, 4]


def test_contrasts_are_the_same_with_and_without_controls(study, tmp_path):
    def contrasts(plan):
        page(plan)
        return (plan.folder / "tables" / "contrasts.csv").read_text()

    with_controls = contrasts(study(controls={"trivial": True, "permutation": True}))
    (tmp_path / "studies" / "tiny").rename(tmp_path / "studies" / "first")
    assert contrasts(study(controls={"trivial": False})) == with_controls


def test_the_page_says_which_targets_trivial_features_solve(study):
    text = page(study(trivial=0.89))
    assert (
        "On region, trivial features are as good as the best arm" in text
        and "trivial features 0.890 and CT 0.900" in text
    )


def test_a_target_that_they_do_not_solve_has_no_warning(study):
    assert "trivial features are as good as" not in page(study(trivial=0.7))


def test_the_learning_curves_have_their_band(study):
    text = page(study())
    assert (
        "Bands are 95 % intervals of random initialisation (dotted) and trivial features (dashed), drawn within the range"
        in text
    )


def test_a_band_ends_where_the_metric_does():
    frame = pd.concat([table({"CT": draws(0.9, 0.8)}, fraction=fraction) for fraction in (0.1, 1.0)])
    band = summary(pd.concat([TRIVIAL.assign(fraction=fraction) for fraction in (0.1, 1.0)]))
    looks = {"CT": ("#000000", "o"), "trivial features": TRIVIAL_LOOK}
    figure = learning_curves(frame, "balanced_accuracy", looks, band=band.assign(ci_low=0.6, ci_high=1.4))
    (area,) = figure.axes[0].collections[:1]
    assert area.get_paths()[0].vertices[:, 1].max() == 1.0


def test_a_setting_with_controls_has_a_panel_even_with_a_single_fraction():
    probe = table({"CT": draws(0.9, 0.8)}, fraction=1.0)
    tuned = [table({"CT": draws(0.9, 0.8)}, protocol="finetune", fraction=fraction) for fraction in (0.1, 1.0)]
    frame = pd.concat([probe, *tuned])
    assert set(with_curves(frame)["protocol"]) == {"finetune"}
    assert set(with_curves(frame, [summary(TRIVIAL.assign(fraction=1.0))])["protocol"]) == {"finetune", "linear_probe"}


def test_every_control_is_a_line_in_the_learning_curves(study):
    plan = study(trivial=0.7, permuted=0.5, controls="true")
    caption = page(plan).partition("Learning curves of")[2]
    assert "trivial features (dashed) and a probe of permuted labels (dash-dotted)" in caption
    svg = (plan.folder / "figures/learning_curves_balanced_accuracy.svg").read_text()
    assert ">trivial features<" in svg and ">permuted labels<" in svg
    lines = re.findall(r"stroke-dasharray: ([\d.,]+);[^\"]*stroke: #6f7680", svg)
    assert len(set(lines)) == 2  # a pattern each, in the panel and in the legend


@pytest.mark.parametrize("value, warned", [(0.5, False), (0.8, True)])
def test_permuted_labels_above_chance_are_a_warning(study, value, warned):
    text = page(study(permuted=value, controls={"trivial": False, "permutation": True}))
    assert ("A probe of permuted labels is above chance on region" in text) == warned
    assert "Linear probes of permuted labels" in text


def test_aa_contrasts_are_on_the_page_and_in_a_file(study):
    plan = study()
    assert "Halves of the seeds of one arm" in page(plan)
    table = pd.read_csv(plan.folder / "tables" / "aa_contrasts.csv")
    assert set(table["pretraining"]) == {"CT", "scratch"} and set(table["fraction"]) == {0.5}
    assert "different" not in set(table["verdict"])
