"""Published claims: what a study expects of a contrast before its results, and what it says afterwards."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats
from support.declared import MARGIN, contrast, declared_evidence, declared_frame

from ssl_transfer.study.comparisons import Contrast
from ssl_transfer.study.report.open_questions import would_decide
from ssl_transfer.study.report.sections import published
from ssl_transfer.study.statistics import decide
from ssl_transfer.study.statistics.detectable import equivalence_pairs_needed
from ssl_transfer.study.statistics.verdicts import replication


@pytest.mark.parametrize(
    ("verdict", "expect", "outcome"),
    [
        ("better", "better", "replicated"),
        ("worse", "worse", "replicated"),
        ("worse", "better", "contrary"),
        ("equivalent", "better", "equivalent"),
        ("equivalent and different", "better", "equivalent"),
        ("equivalent", "equivalent", "replicated"),
        ("equivalent and different", "equivalent", "replicated"),
        ("better", "equivalent", "contrary"),
        ("worse", "not better", "replicated"),
        ("equivalent", "not better", "replicated"),
        ("equivalent and different", "not better", "replicated"),
        ("better", "not better", "contrary"),
        ("equivalent", "not worse", "replicated"),
        ("worse", "not worse", "contrary"),
        ("not decided", "better", "undecided"),
        ("not decided", "not worse", "undecided"),
        ("not decided", "equivalent", "undecided"),
    ],
)
def test_what_a_verdict_says_of_a_claim(verdict, expect, outcome):
    assert replication(verdict, expect) == outcome


def test_the_pairs_for_equivalence_find_sides_without_a_difference_equivalent_in_four_of_five_studies():
    n = equivalence_pairs_needed(0.8, alpha=0.025)
    values = np.random.default_rng(0).normal(size=(20_000, n))
    half = stats.t.ppf(0.975, n - 1) * values.std(1, ddof=1) / n**0.5
    assert (np.abs(values.mean(1)) + half <= 0.8).mean() == pytest.approx(0.8, abs=0.03)
    assert equivalence_pairs_needed(0.0) is None


@pytest.fixture(scope="module")
def evidence():
    """The made study, each of whose contrasts tests a claim."""
    of_b = {"photographs": "better", "cell lines": "equivalent", "CT + photographs": "better"}
    claimed = [
        replace(contrast("CT", b), claim=f"CT is {expect}, {b}", published="by 2 %", expect=expect)
        for b, expect in of_b.items()
    ]
    frame = declared_frame()
    return declared_evidence(frame, decide(frame, None, claimed, looks=(12,), margin=MARGIN))


def test_each_claim_has_a_row_with_the_published_effect_ours_and_what_it_says(evidence):
    table = published.section(evidence).tables["claims"]
    assert table["outcome"].tolist() == ["replicated", "undecided", "equivalent"]
    assert set(table["published"]) == {"by 2 %"} and table["n"].tolist() == ["12 pairs"] * 3
    assert (table["p_corrected"][[0, 2]] <= 0.05).all() and table["p_corrected"][1] > 0.05


def test_the_page_has_the_claims_in_words(evidence):
    text = re.sub(r"<[^>]+>", " ", published.section(evidence).html)
    assert "CT is better, photographs" in text and "replicated" in text


def test_what_would_decide_a_claim_of_equivalence_is_the_pairs_that_equivalence_needs(evidence):
    sentence = would_decide(evidence.decisions[1], evidence.terms)
    assert re.fullmatch(
        r"Equivalence within ±0\.02 needs \d+ pairs of pretraining seeds at level \.025, if .*", sentence
    )


def test_no_seeds_are_asked_for_where_only_the_gate_withholds_a_verdict(evidence):
    claimed = replace(contrast("CT", "photographs"), claim="CT is better", expect="better")
    decisions = decide(evidence.frame, contrast("photographs", "CT"), [claimed], looks=(12,))
    assert would_decide(decisions[1], evidence.terms) == "The data decide, but the gate is worse."


def test_a_claim_that_cannot_be_tested_has_no_p_value(evidence):
    decision = evidence.decisions[1]
    untested = replace(decision, looks=(replace(decision.look, p_value=math.nan),))
    table = published.section(declared_evidence(evidence.frame, [untested])).tables["claims"]
    assert table["p_corrected"].isna().all()


def test_a_study_without_claims_has_no_such_section():
    assert published.section(declared_evidence()) is None


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"claim": "CT is better"}, "`claim` without `expect`"),
        ({"published": "Nobody 2024"}, "`published` without `claim`"),
    ],
)
def test_a_claim_states_what_it_expects_and_what_is_published_states_a_claim(stated, message):
    with pytest.raises(ValidationError, match=message):
        Contrast.model_validate({"protocol": "linear_probe", "metric": "auroc", **stated})
