"""A study with looks adds pretraining seeds until its gate and primary contrasts are settled, and says where it stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.tiny_study import STUDY, Verbs, small, write_study

from ssl_transfer.errors import RecipeError
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.gather import report_study
from ssl_transfer.study.job_state import status
from ssl_transfer.study.look_by_look import next_look, rounds, write_targets
from ssl_transfer.study.look_record import not_needed_jobs, read_looks, stop_sentence
from ssl_transfer.study.planning import plan_study

LOOKS = [3, 6, 9]
ARMS = {
    "CT": {"store": "ct"},
    "photographs": {"store": "photographs"},
    "scratch": {"store": "ct", "untrained": True},
    "cells": {"store": "photographs", "set": {"train.epochs": 2}, "seeds": [0, 1]},
}


def statistics(**more) -> dict:
    stated = STUDY["statistics"]["primary"]
    return {"primary": {**stated, "compare": "CT", "with": "photographs"}, "looks": LOOKS, **more}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Plan a study of four arms, three of which are in the gate and the primary contrast."""
    monkeypatch.chdir(tmp_path)

    def planned(**changes):
        changes = {"pretrainings": ARMS, "pretraining_seeds": 9, "statistics": statistics(), **changes}
        made = plan_study(load_study(write_study(tmp_path, **small(**changes))), Path("studies/tiny"))
        made.save()
        return made

    return planned


def scores(gap: float = 0.0, random_init: float = -5.0, sd: float = 0.01):
    """Scores with a gap between CT and photographs, and noise of each pretraining."""

    def value(run: dict) -> float:
        arm = run["pretraining"]
        rng = np.random.default_rng([len(arm), run["pretraining_seed"], 5])
        return 0.5 + gap * (arm == "CT") + random_init * (arm == "scratch") + sd * rng.normal()

    return value


def pretrained(verbs: Verbs, arm: str) -> list[int]:
    """Seeds of an arm that were pretrained."""
    start = f"pretrain {arm}, seed "
    return sorted(int(title.removeprefix(start)) for title in verbs.titles if title.startswith(start))


def run(plan, value, fails: str = "nothing") -> Verbs:
    verbs = Verbs(plan, value, fails)
    run_plan(plan, verbs, rounds=rounds(plan))
    return verbs


def test_a_clear_difference_stops_at_the_first_look(plan):
    made = plan()
    verbs = run(made, scores(gap=0.4))
    assert pretrained(verbs, "CT") == pretrained(verbs, "photographs") == [0, 1, 2]
    assert [end["verdict"] for end in read_looks(made.folder)["stopped"]["at"]] == ["better", "better"]


def test_arms_outside_the_primary_contrasts_have_their_own_seeds(plan):
    assert pretrained(run(plan(), scores(gap=0.4)), "cells") == [0, 1]


def test_they_come_after_the_primary_question(plan):
    titles = run(plan(), scores(gap=0.4)).titles
    first = next(i for i, title in enumerate(titles) if "cells" in title)
    assert not any("CT, seed" in title or "photographs, seed" in title for title in titles[first:])


def test_an_open_contrast_goes_on_to_the_last_look(plan):
    made = plan()
    verbs = run(made, scores(gap=0.0, sd=0.05))
    assert pretrained(verbs, "CT") == pretrained(verbs, "photographs") == list(range(9))
    assert read_looks(made.folder)["stopped"]["not_needed"] == {"scratch": [3, 4, 5, 6, 7, 8]}


def test_an_arm_of_a_settled_contrast_needs_no_more_seeds(plan):
    verbs = run(plan(), scores(gap=0.0, sd=0.05))
    assert pretrained(verbs, "scratch") == [0, 1, 2]  # the gate is passed at once


def test_behind_a_gate_that_is_not_passed_nothing_goes_on(plan):
    made = plan()
    verbs = run(made, scores(gap=0.05, random_init=0.4))
    assert pretrained(verbs, "CT") == [0, 1, 2]
    primary = read_looks(made.folder)["stopped"]["at"][1]
    assert (primary["verdict"], primary["reason"]) == ("not decided", "the gate is worse")


def test_equivalence_stops_a_study_too(plan):
    made = plan(statistics=statistics(margin=0.2))
    verbs = run(made, scores(gap=0.0))
    assert pretrained(verbs, "CT") == [0, 1, 2]
    assert read_looks(made.folder)["stopped"]["at"][1]["verdict"] == "equivalent"


def test_seeds_that_are_not_needed_are_neither_missing_nor_failed(plan):
    made = plan()
    run(made, scores(gap=0.4))
    found = status(made)
    assert found.count("missing") == found.count("failed") == 0
    assert found.count("not needed") == len(not_needed_jobs(made)) > 0
    assert found.count("done") + found.count("not needed") == len(made.jobs)


def test_every_look_is_recorded_with_its_date_and_level_once(plan):
    made = plan()
    run(made, scores(gap=0.0, sd=0.05))
    before = read_looks(made.folder)
    primary = [row for row in before["looks"] if row["family"] == "primary"]
    assert [(row["look"], row["seeds"], row["n"]) for row in primary] == [
        (1, 3, [3, 3]),
        (2, 6, [6, 6]),
        (3, 9, [9, 9]),
    ]
    assert all(row["level"] <= 0.05 and row["time"].startswith("20") for row in primary)
    run(made, scores(gap=0.0, sd=0.05))
    assert read_looks(made.folder) == before


def test_a_study_that_has_stopped_does_nothing_when_it_is_run_again(plan):
    made = plan()
    run(made, scores(gap=0.4))
    assert run(made, scores(gap=0.4)).titles == []


def test_a_look_waits_for_runs_that_failed_before_and_are_tried_again(plan):
    made = plan()
    run(made, scores(gap=0.4), fails="pretrain CT, seed 1")
    again = run(made, scores(gap=0.4))
    assert "pretrain CT, seed 1" in again.titles


def test_a_run_that_fails_does_not_hold_up_the_next_look(plan):
    made = plan()
    verbs = run(made, scores(gap=0.0, sd=0.05), fails="pretrain CT, seed 1")
    assert pretrained(verbs, "photographs") == list(range(9))
    rows = [row for row in read_looks(made.folder)["looks"] if row["family"] == "primary"]
    assert [row["n"] for row in rows] == [[2, 2], [5, 5], [8, 8]]


def test_a_look_at_a_single_pair_has_a_difference_and_decides_nothing(plan):
    made = plan()
    run(made, scores(gap=0.4), fails="pretrain CT, seed [1-9]")
    answer = report_study(made)
    rows = read_looks(made.folder)["looks"]
    assert {row["family"]: (row["n"], row["p_value"]) for row in rows} == dict.fromkeys(
        ("gate", "primary"), ([1, 1], None)
    )
    page = Path(answer["report"]).read_text()
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()


def test_targets_for_another_engine_are_the_jobs_of_the_next_look(plan):
    made = plan()
    found = write_targets(made)
    targets = set(json.loads((made.folder / "targets.json").read_text())["jobs"])
    titles = {job.title for job in made.jobs if job.id in targets}
    assert {"pretrain CT, seed 2", "pretrain cells, seed 1"} <= titles
    assert "pretrain CT, seed 3" not in titles
    assert not found.settled
    run(made, scores(gap=0.4))
    assert write_targets(made).settled
    assert json.loads((made.folder / "targets.json").read_text())["jobs"] == []


def test_the_report_says_where_the_study_stopped(plan):
    made = plan()
    run(made, scores(gap=0.4))
    answer = report_study(made)
    assert answer["missing"] == 0
    assert answer["not_needed"] == len(not_needed_jobs(made))
    page = Path(answer["report"]).read_text()
    assert "better at look 1 of 3 (3 seeds, level" in page
    assert stop_sentence(made.folder).startswith("Stopped on 20")


def test_before_any_result_the_next_look_is_the_first(plan):
    found = next_look(plan())
    assert found.seeds == {name: [0, 1, 2] for name in ("CT", "photographs", "scratch")}


def test_fewer_seeds_than_the_last_look_are_refused(plan):
    with pytest.raises(RecipeError, match=r"the last look is at 9 pretraining seeds, and CT, .* has 8"):
        plan(pretraining_seeds=8)


def test_primary_arms_with_other_seeds_are_refused(plan):
    arms = {**ARMS, "photographs": {"store": "photographs", "seeds": list(range(1, 10))}}
    with pytest.raises(RecipeError, match=r"the first 9 of photographs are \[1, .*expected \[0, "):
        plan(pretrainings=arms)


def test_arms_outside_the_primary_contrasts_may_have_fewer_seeds(plan):
    assert any(arm["seeds"] == [0, 1] for arm in plan().arms)


def test_a_gate_can_be_left_out_in_yaml(plan):
    assert plan(statistics=statistics(gate=False)).recipe["statistics"]["gate"] is False
