"""Guidance reads the verdicts together and says no more than they do, whatever the means look like."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from support.tidy import tidy_frame

from ssl_transfer.study.report.guidance import advice, answers
from ssl_transfer.study.report.primary import main_metrics
from ssl_transfer.study.report.recommendations import recommendations
from ssl_transfer.study.report.wording import difference, fine, listed, t_value
from ssl_transfer.study.statistics import Dominance, by_boundary, contrasts, summary
from ssl_transfer.study.table import SCRATCH, matches, random_init_arms

ARMS = {
    "CT": (0.85, "none"),
    "CT + photographs": (0.85, "none"),
    "photographs": (0.75, "hard"),
    SCRATCH: (0.6, SCRATCH),
}


def study(
    arms=ARMS, tasks=("ct",), protocols=("knn",), fractions=(0.1,), metrics=("auroc",), noise=0.01
) -> pd.DataFrame:
    """Four pretraining seeds of arms: name -> (level, boundary)."""
    rng = np.random.default_rng(0)
    rows = [
        (protocol, arm, task, None, fraction, seed, 0, metric, level + rng.normal(0, noise), boundary, "r", "none", 0.0)
        for task in tasks
        for protocol in protocols
        for fraction in fractions
        for metric in metrics
        for arm, (level, boundary) in arms.items()
        for seed in range(4)
    ]
    return tidy_frame(rows)


def guide(frame: pd.DataFrame, **options) -> list[dict]:
    return recommendations(contrasts(frame, **options), summary(frame))


def pairs(**verdicts) -> pd.DataFrame:
    """Contrasts of arms named by one letter: ab="better" says that a was better than b."""
    rows = [(a, b, "pretraining_seed", verdict) for (a, b), verdict in verdicts.items()]
    return pd.DataFrame(rows, columns=["a", "b", "unit", "verdict"])


# --- dominance ---


@pytest.mark.parametrize(
    ("verdicts", "winners"),
    [
        ({"ab": "better", "ac": "better", "bc": "not decided"}, ["a"]),
        ({"ab": "not decided", "ac": "better", "bc": "better"}, ["a", "b"]),
        ({"ab": "not decided", "ac": "better", "bc": "not decided"}, ["a"]),  # b was never beaten, and never won
        ({"ab": "better", "ac": "worse", "bc": "better"}, []),
        ({"ab": "not decided"}, []),
        ({"ab": "equivalent and different"}, []),
    ],
)
def test_winners_are_undominated_and_better_than_another_arm(verdicts, winners):
    assert Dominance.of(pairs(**verdicts)).winners == winners


@pytest.mark.parametrize(
    ("verdicts", "bond"),
    [
        ({"ab": "not decided"}, "not distinguished"),
        ({"ab": "equivalent"}, "equivalent"),
        ({"ac": "better", "bd": "better"}, "not compared"),
    ],
)
def test_the_relation_among_several_arms_is_named(verdicts, bond):
    assert Dominance.of(pairs(**verdicts)).bond(["a", "b"]) == bond


def test_three_arms_of_which_two_were_compared_are_not_distinguished_where_compared():
    assert Dominance.of(pairs(ab="not decided")).bond(["a", "b", "c"]) == "not distinguished where compared"


def test_the_advice_names_what_was_not_compared_with_the_winner():
    assert advice(pairs(ab="better", bc="better")) == "Take a: better than b; not compared with c."


def test_a_long_list_of_arms_is_counted_from_the_sixth_on():
    text = advice(pairs(**{f"a{other}": "better" for other in "bcdefgh"}))
    assert text == "Take a: better than b, c, d, e, f and 2 others."


def test_random_initialisation_is_recognised_by_its_boundary():
    won = pairs(ax="better", ay="better").assign(boundary_a="none", boundary_b=SCRATCH, b=["s · 18", "s · 50"])
    assert advice(won) == "Take a: better than random initialisation (s · 18, s · 50)."
    assert random_init_arms(won) == {SCRATCH, "s · 18", "s · 50"}


# --- a table per target ---


def test_arms_that_no_verdict_distinguishes_are_both_recommended():
    (target,) = guide(study())
    (row,) = target["rows"]
    assert row["take"] == ["CT", "CT + photographs"]
    assert row["bond"] == "not distinguished"
    assert row["boundaries"] == [("none", 2)]


def test_a_higher_mean_alone_recommends_nothing():
    close = {"CT": (0.85, "none"), "photographs": (0.84, "hard")}
    (target,) = guide(study(close, noise=0.05))
    assert [row["take"] for row in target["rows"]] == [[]]
    assert target["sentence"] == "No arm is recommended."


def test_the_evidence_sets_the_best_arm_against_the_best_of_another_boundary_and_against_random():
    frame = study({**ARMS, "cells": (0.7, "hard")})
    table = contrasts(frame)
    (row,) = recommendations(table, summary(frame))[0]["rows"]
    across, against = row["across"], row["random_init"]
    best = summary(frame).set_index("pretraining")["mean"].idxmax()
    assert (across["best"], across["other"], against["other"]) == (best, "photographs", SCRATCH)
    source = table.loc[across["row"]]
    assert {source.a, source.b} == {best, "photographs"}
    assert across["difference"] == source.difference
    assert (across["verdict"], against["verdict"]) == ("better", "better")


def test_evidence_turns_a_contrast_so_that_the_shown_arm_comes_first():
    (row,) = guide(study({"CT": (0.7, "none"), "photographs": (0.9, "hard")}))[0]["rows"]
    across = row["across"]
    assert (across["best"], across["other"], across["verdict"]) == ("photographs", "CT", "better")
    assert 0 < across["ci_low"] < across["difference"] < across["ci_high"]


@pytest.mark.parametrize(("metric", "taken"), [("auroc", "photographs"), ("ece", "CT")])
def test_the_arm_with_less_error_is_recommended(metric, taken):
    (row,) = guide(study({"CT": (0.7, "none"), "photographs": (0.9, "hard")}, metrics=(metric,)))[0]["rows"]
    assert row["take"] == [taken]
    assert row["across"]["best"] == taken


def test_random_initialisation_can_be_recommended():
    (row,) = guide(study({"CT": (0.6, "none"), SCRATCH: (0.8, SCRATCH)}))[0]["rows"]
    assert (row["take"], row["boundaries"], row["random_init"]) == ([SCRATCH], [(SCRATCH, 1)], None)
    assert row["across"]["other"] == "CT"


def test_where_all_are_equivalent_any_arm_is_recommended():
    (target,) = guide(study({"CT": (0.8, "none"), "photographs": (0.8, "hard")}), margin=0.1)
    assert (target["rows"][0]["any"], target["rows"][0]["bond"]) == (True, "equivalent")
    assert target["sentence"] == "In every setting all arms are equivalent within the margin."


def test_many_recommended_arms_are_named_by_those_left_out():
    arms = {f"arm {i}": (0.8, "hard") for i in range(6)}
    (row,) = guide(study({**arms, SCRATCH: (0.4, SCRATCH)}))[0]["rows"]
    assert (len(row["take"]), row["all_but"]) == (6, [SCRATCH])


def test_a_target_is_summarised_by_how_often_arms_are_recommended():
    frame = study(fractions=(0.1, 1.0), protocols=("knn", "linear_probe"))
    better = (frame["pretraining"] == "CT") & (frame["fraction"] == 1.0)
    frame.loc[better, "value"] += 0.3
    (target,) = guide(frame)
    assert target["sentence"] == (
        "Of 4 settings, CT is recommended in 4 and CT + photographs in 2. "
        "The arm shown is better than random initialisation in 4 of 4."
    )


def test_a_row_notes_that_there_is_one_checkpoint_per_arm():
    frame = study().assign(pretraining_seed=0, seed=lambda table: table["pretraining_seed"].index % 4)
    (row,) = guide(frame)[0]["rows"]
    assert row["checkpoint"]
    assert row["take"]


# --- by boundary ---


def test_contrasts_are_counted_by_the_boundaries_of_both_sides():
    found = {(row["near"], row["far"]): row for row in by_boundary(contrasts(study()))}
    assert list(found) == [("none", "none"), ("none", "hard"), ("none", SCRATCH), ("hard", SCRATCH)]
    assert [found["none", "hard"][name] for name in ("n", "better", "worse", "undecided")] == [2, 2, 0, 0]
    assert found["none", "none"]["within"]
    assert found["none", "hard"]["median"] == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(("metric", "verdict", "sign"), [("auroc", "better", 1), ("hd95", "worse", -1)])
def test_a_difference_is_positive_where_the_nearer_side_is_better(metric, verdict, sign):
    (row,) = by_boundary(contrasts(study({"CT": (0.9, "none"), "photographs": (0.7, "hard")}, metrics=(metric,))))
    assert row[verdict] == 1
    assert np.sign(row["median"]) == sign


@pytest.mark.parametrize("known", ["none", "hard"])
def test_where_a_boundary_is_unknown_no_side_is_nearer(known):
    arms = {"CT": (0.9, known), "somebody's": (0.7, "unknown"), "scratch": (0.5, SCRATCH)}
    found = {(row["near"], row["far"]): row for row in by_boundary(contrasts(study(arms)))}
    assert found[known, "unknown"]["within"] and found[known, "unknown"]["median"] > 0
    assert not found["unknown", SCRATCH]["within"]  # but random initialisation is farther than any training


def test_the_nearer_side_comes_first_even_where_the_contrast_has_it_second():
    table = contrasts(study({"CT": (0.9, "none"), "photographs": (0.7, "hard")}))
    swapped = {"a": "b", "b": "a", "boundary_a": "boundary_b", "boundary_b": "boundary_a"}
    turned = table.rename(columns=swapped).assign(difference=-table["difference"], verdict="worse")
    assert by_boundary(turned) == by_boundary(table)


# --- several primary contrasts ---


def test_every_primary_contrast_is_answered_in_its_order_and_no_cell_twice():
    frame = study(tasks=("ct", "xray", "cells"), protocols=("knn", "segment"))
    primaries = [
        {"protocol": "segment", "metric": "auroc", "task": "xray"},
        {"protocol": "knn", "metric": "auroc", "task": ["ct", "xray"]},
        {"protocol": "knn", "metric": "auroc", "task": "ct"},
    ]
    found = answers(contrasts(frame), primaries)
    assert [answer["where"].split(",")[:2] for answer in found] == [
        ["xray", " segment"],
        ["ct", " kNN"],
        ["xray", " kNN"],
    ]


def test_contrasts_of_the_recommended_arm_come_first_in_an_answer():
    frame = study({"cells": (0.6, "hard"), "CT": (0.6, "none"), "photographs": (0.9, "hard")})
    (answer,) = answers(contrasts(frame), [{"protocol": "knn", "metric": "auroc"}])
    assert ["photographs" in (pair["a"], pair["b"]) for pair in answer["pairs"]] == [True, True, False]


def test_a_list_of_values_matches_any_of_them():
    table = pd.DataFrame({"task": ["ct", "xray", "cells"], "fraction": [0.1, 0.1, 1.0]})
    assert matches(table, {"task": ["ct", "cells"], "fraction": [0.1, 0.2]}).tolist() == [True, False, False]


# --- main metrics ---


@pytest.mark.parametrize(
    ("primaries", "stated", "found"),
    [
        ([{"protocol": "knn", "metric": "auroc"}], None, "auroc"),
        ([{"protocol": "knn", "metric": "dice"}], None, "accuracy"),  # the first one there is
        ([{"protocol": "knn", "metric": "auroc"}], {"ct": "f1"}, "f1"),
        (
            [
                {"protocol": "knn", "metric": "auroc", "task": "xray"},
                {"protocol": "knn", "metric": "f1", "task": ["ct"]},
            ],
            None,
            "f1",
        ),
    ],
)
def test_the_main_metric_is_the_stated_one_else_that_of_the_primary_contrast_else_the_first(primaries, stated, found):
    frame = study(metrics=("accuracy", "accuracy_a", "auroc", "f1"))
    assert main_metrics(frame, primaries, stated) == ({("ct", "knn"): found}, [])


def test_a_stated_metric_that_nothing_measured_is_warned_of():
    _, warnings = main_metrics(study(), [{"protocol": "knn", "metric": "auroc"}], {"ct": "dice", "elsewhere": "f1"})
    assert warnings == ["The main metric of ct, dice, was measured by no run: auroc is used instead."]


# --- words ---


def test_lists_t_values_and_small_numbers_read_as_papers_print_them():
    assert listed(["a", "b", "c", "d"], most=3) == "a, b and 2 others"
    assert (t_value(2.07, 5.83), t_value(-3.0, 6.0), t_value(float("nan"), 6)) == ("t(5.8) = 2.1", "t(6) = −3.0", "–")
    assert (fine(0.0104), fine(0.00310), fine(float("nan"))) == ("0.010", "0.0031", "–")


def test_a_level_that_both_arms_share_is_written_once():
    assert difference("CT · ResNet-18", "cells · ResNet-18") == "CT − cells · ResNet-18"
    assert difference("CT · ResNet-18", "cells · ResNet-50") == "CT · ResNet-18 − cells · ResNet-50"
