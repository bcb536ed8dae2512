"""What the report says about declared contrasts: no more and no less than their decisions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from support.declared import MARGIN, contrast, declared_evidence

from ssl_transfer.study.report.claims import Terms, claim
from ssl_transfer.study.report.headline import NOT_PASSED, headline
from ssl_transfer.study.statistics import Decision, Look
from ssl_transfer.study.statistics.contrast_units import Units
from ssl_transfer.study.table import SCRATCH, complete

SETTING = "body region (linear probe with 10 % of the labels, balanced accuracy)"
RUNS = complete(
    pd.DataFrame(
        columns=[
            "protocol",
            "task",
            "strategy",
            "fraction",
            "metric",
            "pretraining",
            "pretraining_seed",
            "seed",
            "value",
        ]
    )
)


def decision(
    verdict="not decided", difference=0.03, b="photographs", family="primary", seeds=12, **changes
) -> Decision:
    """A contrast of CT, decided at the fourth of five looks."""
    look = Look(
        planned=12,
        n_a=seeds,
        n_b=seeds,
        level=0.0166,
        level_tost=0.0166,
        mean_a=0.8,
        mean_b=0.8 - difference,
        difference=difference,
        ci_low=difference - 0.02,
        ci_high=difference + 0.02,
        t=difference / 0.008,
        df=seeds - 1,
        p_value=0.003,
        p_tost=0.0021,
        confidence=1 - 2 * 0.0166 if "equivalent" in verdict else 1 - 0.0166,
    )
    table = pd.DataFrame({"unit": range(seeds), "a": 0.8, "b": np.linspace(0.7, 0.8, seeds)})
    fields = {
        "contrast": contrast("CT", b),
        "family": family,
        "verdict": verdict,
        "ungated": verdict,
        "looks": (look,) * 4,
        "at": 3,
        "units": Units(table, "pretraining_seed", "paired", 0, {"a": True, "b": True}),
        "planned_looks": (4, 6, 8, 12, 16),
        "levels": (0.0052, 0.0045, 0.0063, 0.0166, 0.0333),
    }
    return Decision(**{**fields, **changes})


def terms(**changes) -> Terms:
    return Terms(**{"runs": RUNS, "margin": MARGIN, "relevant": MARGIN, **changes})


def said(*decisions, **changes) -> list[str]:
    found = headline(decisions, terms(**changes))
    return [] if found is None else found.sentences


# --- one contrast ---


def test_the_answer_has_effect_interval_level_look_p_n_and_df():
    assert str(claim(decision("better", 0.099), terms())) == (
        f"CT is better than photographs for {SETTING} by +0.099 [+0.079, +0.119] at level .0166 (look 4 of 5), p = .003, "
        "n = 12 pairs of pretraining seeds, df 11."
    )


def test_the_numbers_of_a_loss_are_those_of_the_winner():
    text = str(claim(decision("worse", -0.05), terms()))
    assert text.startswith(f"Photographs is better than CT for {SETTING} by +0.050 [+0.030, +0.070]")


@pytest.mark.parametrize(
    ("difference", "stated", "start"),
    [
        (0.03, {}, "Too few seeds to tell whether CT is better or worse than photographs"),
        (-0.03, {}, "Too few seeds to tell whether CT is better or worse than photographs"),
        (0.01, {}, "Not decided whether CT differs from photographs or is equivalent within ±0.02"),
        (0.01, {"margin": None}, "Not decided whether CT differs from photographs for"),
        (0.01, {"margin": None, "relevant": None}, "Too few seeds to tell"),
        (0.03, {"relevant": 0.05}, "Not decided whether CT differs"),
        (0.03, {"relevant": {"balanced_accuracy": 0.05}}, "Not decided whether CT differs"),
    ],
)
def test_an_estimate_above_the_relevant_difference_means_too_few_seeds(difference, stated, start):
    assert str(claim(decision(difference=difference), terms(**stated))).startswith(start)


def test_equivalence_states_its_margin_and_the_p_of_its_own_tests():
    text = str(claim(decision("equivalent", 0.001), terms()))
    assert text.startswith(f"CT and photographs are equivalent within ±0.02 for {SETTING} (+0.001")
    assert "[−0.019, +0.021], 96.68 % interval, at level .0166 (look 4 of 5), p = .002 (two one-sided tests)," in text


def test_a_difference_within_the_margin_is_named_with_its_direction():
    text = str(claim(decision("equivalent and different", -0.005), terms()))
    assert "are equivalent within ±0.02" in text and "though photographs is better than CT" in text
    assert "p = .002 (two one-sided tests) and p = .003 (difference)" in text


def test_an_open_contrast_whose_interval_is_within_the_margin_says_at_which_level_equivalence_is_tested():
    open_one = decision("not decided", 0.001, margin=0.03)
    looks = [dataclasses.replace(look, p_value=0.6, p_tost=0.011, level_tost=0.01) for look in open_one.looks]
    text = str(claim(dataclasses.replace(open_one, looks=tuple(looks)), terms(margin=0.03)))
    assert "p = .600, equivalence p = .011 (two one-sided tests at level .01), n = 12 pairs" in text


def test_where_less_is_better_the_metric_says_so():
    lower = decision("better", -2.0, contrast=contrast("CT", "photographs", metric="hd95"))
    assert "HD95 (less is better)) by −2.00" in str(claim(lower, terms()))


def test_checkpoints_and_unpaired_units_are_named():
    units = Units(
        pd.DataFrame({"unit": [0, 1], "side": ["a", "b"], "value": [0.8, 0.7]}),
        "seed",
        "welch",
        0,
        {"a": True, "b": False},
    )
    text = str(claim(decision("better", 0.1, units=units), terms()))
    assert "n = 12 pretraining seeds and 12 evaluation seeds" in text
    assert text.endswith("This holds for this checkpoint of photographs, not for its recipe.")


def test_before_the_first_look_the_sentence_says_what_is_awaited():
    text = str(claim(decision(looks=(), at=None, seeds=3), terms()))
    assert (
        text
        == f"No look yet at CT against photographs for {SETTING}: the first look is at 4 pretraining seeds, 3 pairs are finished."
    )


# --- together ---


def test_a_single_primary_contrast_is_the_headline_itself():
    first, gate = said(decision("better", 0.14, b=SCRATCH, family="gate"), decision("better", 0.099))
    assert first.startswith("CT is better than photographs for")
    assert gate.startswith("CT is better than random initialisation by +0.140")


def test_primaries_of_one_arm_in_one_setting_make_one_sentence():
    first = said(
        decision("better", 0.1),
        decision("better", 0.06, b="cell lines"),
        decision("equivalent", 0.0, b="CT + photographs"),
        decision(difference=0.03, b="MR"),
        decision(difference=0.01, b="X-ray"),
    )[0]
    assert first == (
        f"Take CT for {SETTING}: better than photographs and cell lines; equivalent to CT + photographs within ±0.02; too few "
        "seeds to tell against MR; not decided against X-ray."
    )


def test_an_arm_that_loses_once_is_not_to_be_taken():
    first = said(decision("better", 0.1), decision("worse", -0.06, b="cell lines"))[0]
    assert first == f"Do not take CT for {SETTING}: worse than cell lines; better than photographs."


def test_open_contrasts_alone_recommend_nothing():
    first = said(decision(difference=0.03), decision(difference=0.01, b="cell lines"))[0]
    assert first == (
        "Too few seeds to tell whether CT is better or worse than photographs; not decided whether CT differs from cell lines "
        f"or is equivalent within ±0.02 for {SETTING}."
    )


def test_a_contrast_whose_values_do_not_vary_is_not_said_to_have_too_few_seeds():
    found = decision(difference=0.05, b="cells")
    looks = [dataclasses.replace(look, p_value=np.nan, ci_low=np.nan, ci_high=np.nan) for look in found.looks]
    constant = dataclasses.replace(found, looks=tuple(looks))
    sentences = said(decision("better", 0.1), constant)
    assert sentences[0].endswith("better than photographs; no test against cells (values do not vary).")
    assert sentences[2].startswith("No test of CT against cells: values do not vary")
    sentences = said(decision(difference=0.05), constant)
    assert "photographs; no test of CT against cells (values do not vary) for body region" in sentences[0]


def test_contrasts_in_other_settings_have_their_own_sentences():
    other = contrast("CT", "photographs", tasks=("chest_xray",))
    sentences = said(decision("better", 0.1), decision("worse", -0.1, contrast=other))
    assert sentences[0].startswith("CT is better than photographs for body region")
    assert sentences[1].startswith("Photographs is better than CT for chest xray")


# --- the gate ---


@pytest.mark.parametrize(
    ("verdict", "difference", "start"),
    [
        ("not decided", 0.158, "Too few seeds to tell whether CT is better or worse than random initialisation"),
        ("not decided", 0.001, "Not decided whether CT differs from random initialisation"),
        ("worse", -0.1, "Random initialisation is better than CT"),
        ("equivalent", 0.001, "CT and random initialisation are equivalent"),
    ],
)
def test_a_gate_that_is_not_passed_is_the_first_sentence(verdict, difference, start):
    reason = "the gate is not passed"
    first, second = said(
        decision(verdict, difference, b=SCRATCH, family="gate"), decision(difference=0.1, reason=reason)
    )
    assert first.startswith(start)
    assert first.endswith(NOT_PASSED)
    assert second.startswith(f"Nothing is claimed on CT against photographs for {SETTING}: the gate is not passed")


def test_no_sentence_says_that_no_pretraining_was_shown_to_be_better():
    few = [
        decision(difference=0.158, b=SCRATCH, family="gate"),
        decision(difference=0.1, reason="the gate is not passed"),
    ]
    assert "shown to be better" not in " ".join(said(*few))


def test_every_contrast_of_a_combined_sentence_stands_below_with_its_numbers():
    found = declared_evidence().headline
    assert len(found.claims) == 1
    assert [each.family for _, each in found.evidence] == ["gate", "primary", "primary", "primary"]
    assert all(claimed.numbers for claimed, _ in found.evidence)


def test_a_decided_claim_has_an_interval_that_excludes_zero_and_an_open_one_does_not():
    for each in declared_evidence().decisions:
        look = each.look
        assert (look.ci_low > 0 or look.ci_high < 0) == (
            each.verdict in ("better", "worse", "equivalent and different")
        )


def test_nothing_is_claimed_without_runs():
    evidence = declared_evidence()
    empty = dataclasses.replace(evidence, frame=evidence.frame[:0], decisions=[decision(looks=(), at=None)])
    assert empty.headline is None
