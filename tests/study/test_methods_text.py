"""The methods text says what was done: every sentence follows a setting, and nothing stands there that was not done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.tiny_study import STUDY, Verbs, small, write_study

from ssl_transfer.study.decided import study_decisions
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.finished import finished, finished_table
from ssl_transfer.study.job_state import status
from ssl_transfer.study.methods_text import _evaluation, methods_text
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.stage import rounds_of

ARMS = {
    "CT": {"store": "ct"},
    "photographs": {"store": "photographs"},
    "cells": {"store": "photographs", "set": {"train.epochs": 2}},
    "scratch": {"store": "ct", "untrained": True},
}
PRIMARY = {**STUDY["statistics"]["primary"], "compare": "CT", "with": "photographs"}


@pytest.fixture
def text(tmp_path, monkeypatch):
    """The methods text of a finished study with some statistics; other changes replace whole sections."""
    monkeypatch.chdir(tmp_path)

    def written(changes=None, **statistics) -> str:
        stated = {"primary": PRIMARY, **statistics}
        changed = small(**{"pretrainings": ARMS, "pretraining_seeds": 4, "statistics": stated, **(changes or {})})
        plan = plan_study(load_study(write_study(tmp_path, **changed)), Path("studies/tiny"))
        plan.save()

        def value(run: dict) -> float:
            rng = np.random.default_rng([len(run["pretraining"]), run["pretraining_seed"] or 99, run["seed"]])
            return 0.5 + 0.3 * (run["pretraining"] == "CT") + 0.02 * rng.normal()

        run_plan(plan, Verbs(plan, value), rounds=rounds_of(plan))
        results = [result for _, result in finished(plan)]
        return methods_text(plan, results, study_decisions(plan, finished_table(plan), status(plan).states))

    return written


def test_the_gate_is_named_with_its_consequence(text):
    assert "The gate was CT against scratch on region" in text()


def test_without_a_gate_none_is_named(text):
    assert "gate" not in text(gate=False)


def test_a_primary_contrast_is_named_with_targets_protocol_metric_and_fractions(text):
    assert (
        "The primary contrast was CT against photographs on region (linear probe, balanced accuracy, 50 % of the labels)."
        in text()
    )


def test_holm_over_the_primary_contrasts_is_named_if_there_are_several(text):
    several = [PRIMARY, {**PRIMARY, "with": "cells"}]
    assert "Holm’s rule was applied over the 2 primary contrasts." in text(primary=several)
    assert "primary contrasts." not in text()


def test_several_fractions_are_said_to_be_averaged(text):
    assert "50 % and 100 % of the labels, averaged" in text(primary={**PRIMARY, "fractions": [0.5, 1.0]})
    assert "averaged)" not in text()


def test_the_paired_test_is_named_and_welchs_is_not(text):
    words = text()
    assert "paired t-tests (n − 1 degrees of freedom)" in words
    assert "Welch" not in words


def test_public_weights_are_compared_by_welch(text, tmp_path):
    arms = {**ARMS, "photographs": {"backbone": "timm:resnet10t"}}
    words = text({"pretrainings": arms})
    assert "CT against photographs by two-sided Welch’s t-tests, for these weights" in words
    assert "photographs is public weights" in words
    assert "photographs: public weights, timm:resnet10t" in words


def test_arms_that_differ_in_images_alone_are_those_that_were_pretrained(text):
    of_two = {name: ARMS[name] for name in ("CT", "photographs", "scratch")}
    assert "All arms differ in their images alone: simclr" in text({"pretrainings": of_two})
    words = text({"pretrainings": {**of_two, "cells": {"backbone": "timm:resnet10t"}}})
    assert "The arms that were pretrained here differ in their images alone: simclr" in words


def test_without_looks_the_test_is_done_once(text):
    words = text()
    assert "Each was tested once" in words
    assert "Hwang" not in words


def test_looks_and_spending_are_those_of_the_settings(text):
    words = text({"pretraining_seeds": 8}, looks=[3, 5, 8], spending={"gamma": -4})
    assert "Looks were planned at 3, 5 and 8 pretraining seeds and taken up to 3" in words
    assert "γ = -4" in words
    assert "Stopped on" in words


def test_the_seeds_are_those_that_were_used(text):
    words = text({"pretraining_seeds": 8}, looks=[3, 5, 8])
    assert "3 pretraining seeds (CT, photographs and scratch) and 8 pretraining seeds (cells)" in words


def test_equal_seeds_are_said_once(text):
    assert "Backbones were pretrained with 4 pretraining seeds each (" in text()


@pytest.mark.parametrize("margin", [0.02, {"balanced_accuracy": 0.05}])
def test_the_margin_is_that_of_the_settings(text, margin):
    stated = margin if isinstance(margin, float) else margin["balanced_accuracy"]
    assert f"Equivalence within ±{stated:g} balanced accuracy was tested" in text(margin=margin)


def test_without_a_margin_no_equivalence_is_claimed(text):
    words = text()
    assert "No equivalence margin was set." in words
    assert "one-sided" not in words


def test_the_draws_are_those_that_were_run(text):
    evaluations = [{"protocol": "linear_probe", "fractions": [0.5], "seeds": 3}]
    assert "where a result depends on them: 3 of linear probe." in text({"evaluations": evaluations})


def test_declared_pairs_are_named_as_such(text):
    assert "Other contrasts are the declared pairs of arms" in text(pairs=[["CT", "photographs"], ["CT", "scratch"]])
    assert "Other contrasts are all pairs of arms that differ in one factor" in text()


def test_secondary_contrasts_are_those_at_main_metrics_or_those_that_are_declared(text):
    assert "secondary ones (at the main metric of a target)" in text()
    assert "secondary ones (as declared)" in text(secondary={"metric": "auroc"})


def test_families_are_those_of_the_settings(text):
    assert "Holm’s correction within one protocol, metric and fraction," in text()
    assert "Holm’s correction within one task," in text(family=["task"])


def test_a_study_that_was_not_frozen_does_not_claim_it(text):
    assert "The design was not frozen before the results." in text()


def test_groups_and_external_stores_of_a_target_are_named(text):
    task = {"card": "phantom_region", "store": "ct", "external": ["photographs"], "set": {"target_of": "series"}}
    words = text({"tasks": {"region": task}})
    assert "On region, the images of a series had one label and one prediction" in words
    assert "What was selected on region was also tested on photographs" in words
    assert "one prediction" not in text() and "also tested" not in text()


def test_a_protocol_heads_its_line_of_the_design_by_its_title():
    stated = {"tasks": [], "fractions": [1.0], "seeds": [0], "strategies": [], "set": {}}
    titles = [_evaluation({"protocol": name, **stated}, [])[0] for name in ("knn", "linear_probe")]
    assert titles == ["kNN", "Linear probe"]
