"""A frozen design: its date, and what was changed when."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import ssl_transfer
from support.tiny_study import STUDY, record_results, small, write_study

from ssl_transfer.recipe import digest
from ssl_transfer.study.design import load_study
from ssl_transfer.study.freeze import (
    changes_since_freeze,
    design,
    differences,
    freeze,
    freeze_sentences,
    warn_of_changes,
)
from ssl_transfer.study.gather import report_study
from ssl_transfer.study.planning import plan_study


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Plan the small study with some changes."""
    monkeypatch.chdir(tmp_path)

    def planned(**changes):
        made = plan_study(load_study(write_study(tmp_path, **small(**changes))), Path("studies/tiny"))
        made.save()
        return made

    return planned


MARGIN = {"statistics": {**STUDY["statistics"], "margin": 0.02}}


def test_differences_are_keys_with_their_old_and_new_values():
    old, new = {"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 1, "c": [1, 2]}, "e": 3}
    assert differences(old, new) == [
        {"key": "a.c", "old": [1], "new": [1, 2]},
        {"key": "d", "old": 2, "new": None},
        {"key": "e", "old": None, "new": 3},
    ]


def test_a_design_is_frozen_before_any_result(plan):
    made = plan()
    answer = freeze(made)
    assert (answer["results"], answer["changed"]) == (0, [])
    assert answer["digest"] == digest(design(made))
    assert "before any result existed" in freeze_sentences(made)[0]


def test_resources_and_notes_are_not_the_design(plan):
    freeze(plan())
    changed = plan(resources={"pretrain": {"minutes": 3}}, notes=["A caveat."])
    assert changes_since_freeze(changed) == []


def test_a_design_is_the_same_wherever_its_files_lie(plan):
    assert design(plan(sources="/packs")) == design(plan(sources="/elsewhere"))
    assert differences({"sources": "/packs", "a": 1}, {"a": 1}) == []  # of a design that an earlier version froze


CLAIM = {"compare": "CT", "with": "scratch", "claim": "CT is better", "published": "by 2 %", "expect": "better"}


def test_what_a_claim_expects_is_the_design_and_its_words_are_not(plan):
    def claiming(**changes):
        return plan(statistics={"primary": {**STUDY["statistics"]["primary"], **CLAIM, **changes}})

    freeze(claiming())
    assert changes_since_freeze(claiming(published="by 3 %")) == []
    assert [each["key"] for each in changes_since_freeze(claiming(expect="equivalent"))] == ["statistics.primary"]


def test_a_plan_of_an_earlier_version_has_no_claims(plan):
    made = plan()
    contrast = made.recipe["statistics"]["primary"][0]
    today = design(made)
    for key in ("claim", "published", "expect"):
        del contrast[key]
    assert design(made) == today


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (MARGIN, "statistics.margin"),
        ({"pretraining_seeds": [0, 1, 2]}, "pretraining_seeds"),
        ({"tasks": {"region": {**STUDY["tasks"]["region"], "set": {"metric": "auroc"}}}}, "task_cards.region.metric"),
        (
            {"pretrainings": {**small()["pretrainings"], "CT": {"store": "ct", "set": {"train.epochs": 9}}}},
            "pretraining_recipes.CT.train.epochs",
        ),
    ],
    ids=["margin", "seeds", "task card", "recipe"],
)
def test_a_changed_design_is_named_by_its_keys(plan, change, key):
    freeze(plan())
    assert key in {each["key"] for each in changes_since_freeze(plan(**change))}


def test_a_change_of_a_frozen_study_is_warned_of(plan, capsys):
    freeze(plan())
    warn_of_changes(plan(**MARGIN))
    assert "statistics.margin: not there → 0.02" in capsys.readouterr().err


def test_what_was_changed_after_results_existed_is_in_the_report(plan):
    freeze(plan())
    made = plan(**MARGIN)
    record_results(made, lambda run: 0.5)
    answer = freeze(made)
    assert answer["results"] == sum(1 for _ in made.runs)
    page = Path(report_study(made)["report"]).read_text()
    assert "before any result existed" in page
    assert f"after {answer['results']} results existed: statistics.margin: not there → 0.02" in page


def test_a_design_that_was_not_frozen_anew_is_in_the_report_too(plan):
    freeze(plan())
    made = plan(**MARGIN)
    assert "differs from the frozen one: statistics.margin" in " ".join(freeze_sentences(made))


def test_freezing_twice_changes_nothing(plan):
    made = plan()
    first = freeze(made)
    assert freeze(made) == first


def test_a_study_that_was_never_frozen_says_so(plan):
    assert freeze_sentences(plan()) == ["The design was not frozen before the results."]


def test_the_command_line_freezes_and_warns(tmp_path):
    write_study(tmp_path, **small())
    frozen = ssl_transfer("study", "freeze", "study.yaml", "--json", folder=tmp_path)
    assert frozen.json["results"] == 0
    changed = ssl_transfer("study", "plan", "study.yaml", "statistics.margin=0.02", "--json", folder=tmp_path)
    assert changed.status == 0
    assert "the design was frozen on" in changed.stderr
