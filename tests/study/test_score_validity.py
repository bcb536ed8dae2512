"""Scores beside fine-tuned quality: their correlation, what following them costs, the jobs that compute them, and the page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.command_line import ssl_transfer
from support.pages import build, extras, whole_study
from support.results import made_ranking
from support.tidy import tidy_frame
from support.tiny_study import STUDY, result, small, write_study

from ssl_transfer.errors import RecipeError
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.gather import report_study
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.statistics.score_validity import (
    VALIDITY_COLUMNS,
    fine_tuned,
    score_correlations,
    score_validity,
)

ARMS = ("a", "b", "c", "d", "e", "f")


def tuned(values: dict[str, dict[str, float]], metric="auroc", strategies=("full",)) -> pd.DataFrame:
    """Fine-tunes: task -> arm -> mean over two pretraining seeds, of two fine-tuning seeds each."""
    rows = [
        (
            "finetune",
            arm,
            task,
            strategy,
            0.1,
            pretraining_seed,
            seed,
            metric,
            value + 0.001 * (2 * pretraining_seed - 1) + 0.002 * (2 * seed - 1),
            "none",
            f"{arm}{task}",
            "none",
            0.0,
        )
        for task, arms in values.items()
        for arm, value in arms.items()
        for strategy in strategies
        for pretraining_seed in (0, 1)
        for seed in (0, 1)
    ]
    return tidy_frame(rows)


def scored(values: dict[str, dict[str, float]], criterion="logme") -> pd.DataFrame:
    rows = [
        (arm, seed, task, criterion, value + 0.01 * (2 * seed - 1))
        for task, arms in values.items()
        for arm, value in arms.items()
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows, columns=["pretraining", "pretraining_seed", "task", "criterion", "value"])


def rising(arms=ARMS) -> dict[str, float]:
    return {arm: 0.5 + 0.05 * place for place, arm in enumerate(arms)}


def test_quality_is_that_of_clean_fine_tunes_at_the_main_metric_with_seeds_averaged():
    frame = tuned({"xray": rising()})
    others = [
        frame.assign(protocol="knn"),
        frame.assign(metric="ece"),
        frame.assign(noise="gaussian test", noise_sigma=0.1),
    ]
    found = fine_tuned(pd.concat([frame, *others]), {"xray": "auroc"})
    assert len(found) == len(ARMS) * 2
    assert found["value"].tolist() == pytest.approx([v + d for v in rising().values() for d in (-0.001, 0.001)])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_score_with_the_order_of_fine_tuning_correlates_without_regret_and_its_reverse_has_the_largest_regret(sign):
    quality = fine_tuned(tuned({"xray": rising()}), {"xray": "auroc"})
    table, overall = score_correlations(
        scored({"xray": {arm: sign * value for arm, value in rising().items()}}), quality
    )
    assert list(table.columns) == VALIDITY_COLUMNS
    for row in (table.iloc[0], overall.iloc[0]):
        assert [row["kendall"], row["spearman"], row["pearson"], row["weighted_kendall"]] == pytest.approx([sign] * 4)
        assert row["regret"] == pytest.approx(0 if sign > 0 else 0.25) and row["n"] == 6


def test_where_less_is_better_a_high_score_should_mean_a_low_value():
    quality = fine_tuned(tuned({"xray": rising()}, metric="ece"), {"xray": "ece"})
    row = score_correlations(scored({"xray": {arm: -value for arm, value in rising().items()}}), quality)[0].iloc[0]
    assert row["kendall"] == 1 and row["regret"] == 0


def test_few_pretrainings_have_no_interval_and_three_have_no_correlation():
    for count, settings, interval in ((3, 0, None), (5, 1, False), (6, 1, True)):
        arms = dict(zip(ARMS[:count], [0.6, 0.5, 0.7, 0.9, 0.65, 0.8], strict=False))
        table, overall = score_correlations(
            scored({"xray": arms}), fine_tuned(tuned({"xray": rising(arms)}), {"xray": "auroc"})
        )
        assert len(table) == len(overall) == settings
        if settings:
            low, value, high = table.iloc[0][["kendall_low", "kendall", "kendall_high"]]
            assert np.isfinite([low, high]).tolist() == [interval, interval]
            assert not interval or low <= value <= high


def test_pretrainings_without_a_score_are_left_out_and_counted():
    scores = scored({"xray": rising()})
    table, _ = score_correlations(
        scores[scores["pretraining"] != "f"], fine_tuned(tuned({"xray": rising()}), {"xray": "auroc"})
    )
    assert table["n"].tolist() == [5] and table["regret"].tolist() == [0]  # the best of those that have one


def test_the_mean_is_over_targets_not_over_their_settings():
    falling = dict(zip(ARMS, reversed(rising().values()), strict=True))
    frame = pd.concat([tuned({"xray": rising()}, strategies=("full", "lp_ft", "l2_sp")), tuned({"cells": falling})])
    quality = fine_tuned(frame, {"xray": "auroc", "cells": "auroc"})
    table, overall = score_correlations(scored({"xray": rising(), "cells": rising()}), quality)
    assert sorted(table["kendall"]) == [-1, 1, 1, 1]
    assert overall.iloc[0][["kendall", "targets", "n"]].tolist() == [0, 2, 6]
    assert overall.iloc[0]["regret"] == pytest.approx(0.125)


def test_a_criterion_with_the_order_of_fine_tuning_is_valid_and_one_of_noise_is_not():
    quality = fine_tuned(tuned({"xray": rising(), "cells": rising()}), {"xray": "auroc", "cells": "auroc"})
    noise = dict(zip(ARMS, [0.6, 0.5, 0.7, 0.4, 0.65, 0.3], strict=True))
    scores = pd.concat(
        [
            scored({task: values for task in ("xray", "cells")}, name)
            for name, values in (("logme", rising()), ("gbc", noise))
        ]
    )
    table, overall = score_correlations(scores, quality)
    assert overall.set_index("criterion")["valid"].to_dict() == {"logme": True, "gbc": False}
    row = overall.iloc[0]  # both targets permute the same pretrainings; either criterion has τ ±1 under two orders
    assert (row["kendall_p"], row["kendall_p_max"]) == pytest.approx((2 / 720, 4 / 720))
    assert (table["kendall_p_max"] >= table["kendall_p"]).all()


def test_four_pretrainings_make_nothing_valid():
    arms = dict(zip(ARMS[:4], rising().values(), strict=False))
    _, overall = score_correlations(
        scored({"xray": arms}), fine_tuned(tuned({"xray": rising(arms)}), {"xray": "auroc"})
    )
    assert overall["kendall"].tolist() == [1] and not overall["valid"].any()
    assert overall["kendall_p_max"].tolist() == pytest.approx([2 / 24])


def test_correlations_are_given_without_and_with_random_initialisation():
    quality = fine_tuned(tuned({"xray": rising()}), {"xray": "auroc"})
    scores = scored({"xray": {arm: -value if arm != "a" else -9 for arm, value in rising().items()}})
    table, overall = score_validity(scores, quality, {"a", "elsewhere"})
    assert table.set_index("arms")["n"].to_dict() == {"pretrained": 5, "all": 6}
    assert overall.set_index("arms")["kendall"].to_dict() == pytest.approx({"pretrained": -1, "all": -1 / 3})
    assert score_validity(scores, quality, {"elsewhere"})[0]["arms"].tolist() == ["pretrained"]
    assert not len(score_validity(scores[:0], quality, {"a"})[0])


@pytest.mark.long
@pytest.mark.parametrize("n", [6, 12])
def test_intervals_of_kendall_cover_the_truth_as_the_docstring_says(n):
    draw, truth, hits = np.random.default_rng(n), 2 / np.pi * np.arcsin(0.6), 0
    for _ in range(300):
        x = draw.standard_normal(n)
        y = 0.6 * x + 0.8 * draw.standard_normal(n)
        arms = [f"arm {i}" for i in range(n)]
        frame = tuned({"t": dict(zip(arms, y, strict=True))})
        row = score_correlations(
            scored({"t": dict(zip(arms, x, strict=True))}), fine_tuned(frame, {"t": "auroc"}), resamples=400
        )[0].iloc[0]
        hits += row["kendall_low"] <= truth <= row["kendall_high"]
    assert 0.92 <= hits / 300 <= 0.995


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda **changes: plan_study(load_study(write_study(tmp_path, **changes)), Path("studies/tiny"))


def ranked(plan) -> list:
    return [job for job in plan.jobs if job.stage == "rank"]


def test_every_backbone_is_scored_once_on_every_task_but_segmentation(plan):
    jobs = ranked(plan(rank={}))
    assert {(job.about["arm"], job.about["seed"], job.about["task"]) for job in jobs} == {
        (arm, seed, "region") for arm in STUDY["pretrainings"] for seed in (0, 1)
    }
    assert len(jobs) == 8 and all("resamples=0" in job.command for job in jobs)


def test_scores_share_the_features_of_probes_and_change_no_other_job(plan):
    before, after = plan(), plan(rank={"set": {"folds": 4}})
    assert {job.id for job in before.jobs} == {job.id for job in after.jobs if job.stage != "rank"}
    features = {job.output for job in before.jobs if job.stage == "features"}
    assert all(job.command[job.command.index("--features") + 1] in features for job in ranked(after))
    assert all("folds=4" in job.command for job in ranked(after))


def test_source_labels_are_those_of_what_an_arm_was_trained_on(plan):
    jobs = {job.about["arm"]: job.command for job in ranked(plan(rank={"source_labels": True}))}
    source_stores = {
        arm: [command[i + 1] for i, word in enumerate(command) if word == "--source"] for arm, command in jobs.items()
    }
    assert [Path(spec).name for spec in source_stores["photographs"]] == ["photographs"]
    assert [Path(spec).name for spec in source_stores["photographs → CT"]] == ["ct"] and source_stores["scratch"] == []


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        ({"tasks": ["organs"]}, "organs is a segmentation task"),
        ({"tasks": ["regoin"]}, "Did you mean 'region'"),
        ({"folds": 3}, "takes no such option"),
    ],
)
def test_a_wrong_ranking_is_refused(plan, rank, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        plan(rank=rank)


def test_the_report_of_a_study_reads_what_its_rank_jobs_wrote(plan):
    arms = {name: {"store": "ct", "set": {"optimizer.lr": 10.0**-place}} for place, name in enumerate("abcd", 2)}
    evaluations = [{"protocol": "finetune", "set": {"train.steps": 2}}]
    made = plan(
        **small(
            pretrainings=arms,
            evaluations=evaluations,
            rank={},
            statistics={"primary": {"protocol": "finetune", "metric": "balanced_accuracy"}},
        )
    )
    jobs = {" ".join(job.words): job for job in made.jobs}

    def perform(words):
        job = jobs[" ".join(words)]
        worth = "abcd".find(job.about.get("arm", "-"))
        for run in job.runs:
            path = Path(run["result"])
            path.parent.mkdir(parents=True)
            result(run, 0.5 + 0.1 * worth).save(path.parent)
        if job.stage == "rank":
            scores = {"logme": -float(worth), "leep": None}
            Path(job.output).mkdir(parents=True)
            made_ranking(scores, knn=0.5, linear_probe=0.5 + 0.01 * worth).save(Path(job.output))

    run_plan(made, perform)
    text = Path(report_study(made)["report"]).read_text()
    assert "Score validity" in text and "Linear probe predicted fine-tuning best" in text
    table = pd.read_csv(made.folder / "tables/score_validity_overall.csv").set_index("criterion")
    assert table["kendall"].to_dict() == pytest.approx({"linear_probe": 1, "knn": np.nan, "logme": -1}, nan_ok=True)
    assert table["regret"]["logme"] == pytest.approx(0.3)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    arms = tuple(f"arm {letter}" for letter in "abcdef")
    frame = whole_study(arms=arms)
    draw = np.random.default_rng(0)
    rows = [
        (arm, seed, task, criterion, place + 3 * noise * draw.standard_normal())
        for task in ("ct", "xray")
        for criterion, noise in (("linear_probe", 0.2), ("n_leep", 1), ("gbc", 9))
        for place, arm in enumerate(["scratch · small", *arms])
        for seed in range(3)
    ]
    scores = pd.DataFrame(rows, columns=["pretraining", "pretraining_seed", "task", "criterion", "value"])
    return build(tmp_path_factory.mktemp("page"), frame, **extras(frame) | {"predictions": None}, scores=scores)


def test_the_page_has_a_table_of_criteria_a_table_per_target_and_a_figure_per_setting(page):
    text = page.read_text()
    section = text[text.index('<h2 id="score-validity">') :].partition("</section>")[0]
    assert re.findall(r'<td class="tight">([^<]*)</td>', section.partition("</table>")[0])[0] == "linear probe"
    assert "N-LEEP" in section and section.count("<svg") == 4  # two targets, two strategies
    assert section.count("<caption>") == 4 and 'href="#score-validity"' in text
    assert len(list((page.parent / "figures").glob("score_validity_*.png"))) == 4
    assert len(pd.read_csv(page.parent / "tables/score_validity.csv")) == 2 * 2 * 3 * 2
    assert "without random initialisation, mean over targets" in section and "3 criteria would be called" in section


def test_scores_of_too_few_pretrainings_have_a_sentence_in_place_of_correlations(tmp_path):
    frame = whole_study()
    rows = [(arm, 0, "ct", "logme", 0.5) for arm in sorted(set(frame["pretraining"]))[:3]]
    scores = pd.DataFrame(rows, columns=["pretraining", "pretraining_seed", "task", "criterion", "value"])
    text = build(tmp_path, frame, scores=scores).read_text()
    assert "takes at least 4 pretrainings\nthat were ranked and fine-tuned, and this study has 3" in text


@pytest.mark.long
def test_a_study_without_scores_has_no_such_section(tmp_path):
    assert "Score validity" not in build(tmp_path, whole_study()).read_text()


def test_a_setting_that_rank_does_not_have_is_refused_before_the_first_job(tmp_path):
    write_study(tmp_path, **small(rank={"set": {"noise.kind": "gaussian"}}))
    ran = ssl_transfer("study", "run", "study.yaml", folder=tmp_path)
    assert ran.status == 2 and "rank: noise" in ran.stderr and "Traceback" not in ran.stderr
