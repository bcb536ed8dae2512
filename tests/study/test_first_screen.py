"""The first screen of a study with declared contrasts, and the sections on its gate and primary contrasts."""

from __future__ import annotations

import dataclasses
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.declared import LOOKS, MARGIN, contrast, declared_decisions, declared_evidence
from support.pages import browse

from ssl_transfer.study.report.claims import Terms
from ssl_transfer.study.report.decision_figures import boundaries_of_looks, monitoring, unit_differences, unit_values
from ssl_transfer.study.report.evidence import Scope
from ssl_transfer.study.report.limits import limits
from ssl_transfer.study.report.open_questions import open_questions
from ssl_transfer.study.report.page import write_report
from ssl_transfer.study.statistics import decide, outlook
from ssl_transfer.study.table import SCRATCH


@pytest.fixture(scope="module")
def evidence():
    return declared_evidence()


@pytest.fixture(scope="module")
def page(evidence, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("declared"), evidence)


# --- the page ---


def test_the_study_has_a_contrast_of_every_outcome(evidence):
    assert [each.verdict for each in evidence.decisions] == ["better", "better", "not decided", "equivalent"]


def test_the_answer_its_figure_its_limits_and_what_is_open_come_first(page):
    text = page.read_text()
    order = [
        "Take CT for body region",
        "n = ",
        'class="fits"',
        "What this does not say",
        "What would decide what is open",
        "<h2 id=",
    ]
    assert [text.index(words) for words in order] == sorted(text.index(words) for words in order)


def test_the_figure_says_what_chance_is(page):
    assert "By chance, balanced accuracy is 0.167 on body region." in page.read_text()


def test_gate_and_primary_contrasts_are_the_first_sections(page):
    headings = re.findall(r"<h2 id=[^>]*>(.*?)</h2>", page.read_text())
    assert headings[:3] == ["Gate", "Primary contrasts", "Recommendation by target"]


def test_looks_and_figures_lie_beside_the_page(page, evidence):
    looks = pd.read_csv(page.parent / "tables/primary_looks.csv")
    assert len(looks) == sum(len(each.looks) for each in evidence.decisions[1:])
    assert {"answer_units.svg", "answer_differences.svg", "monitoring_primary.svg"} <= {
        path.name for path in (page.parent / "figures").iterdir()
    }


def test_costs_are_given_per_decided_primary_contrast(page):
    assert "2 of 3 primary contrasts are decided, at 372 minutes each" in page.read_text()


def test_texts_of_paired_contrasts_do_not_speak_of_welch_alone(page):
    for text in re.findall(r"[^.]*Welch[^.]*\.", page.read_text()):
        assert "paired" in text or "no pretraining seeds" in text or "half of the seeds" in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_page_opens_without_messages_and_nothing_overflows(page, tmp_path):
    look = "document.title = document.body.scrollWidth <= innerWidth ? 'fits' : 'overflows';"
    copy = tmp_path / "looked.html"
    copy.write_text(page.read_text().replace("</body>", f"<script>{look}</script></body>"))
    dom, log = browse(copy, tmp_path / "profile")
    assert "CONSOLE" not in log
    assert "<title>fits</title>" in dom


# --- figures ---


def test_units_that_are_not_paired_are_not_joined(evidence):
    alone = [decide(evidence.frame, None, [contrast("CT", SCRATCH)], looks=(12,), shared_draws=False)[0]]
    (ax,) = unit_values(alone, Terms(runs=evidence.runs.iloc[:0], margin=MARGIN), evidence.looks).axes
    assert [len(line.get_xdata()) for line in ax.lines] == [2, 1] * 2  # interval and mean of two arms


def test_every_unit_is_a_point_and_every_pair_a_line(evidence):
    (ax,) = unit_values(evidence.decisions[1:], evidence.terms, evidence.looks).axes
    units = evidence.decisions[1].units.table
    points = [collection.get_offsets() for collection in ax.collections]
    assert ax.get_xticklabels()[0].get_text() == "CT"
    assert [label.get_text().replace("\n", " ") for label in ax.get_xticklabels()][-1] == "random initialisation"
    np.testing.assert_allclose(np.sort(points[0][:, 1]), np.sort(units["a"]))
    np.testing.assert_allclose(np.sort(points[1][:, 1]), np.sort(units["b"]))
    assert sum(len(line.get_xdata()) == 5 for line in ax.lines) == len(units)


def test_differences_show_the_interval_of_the_look_that_decided(evidence):
    (ax,) = unit_differences(evidence.decisions, evidence.terms, evidence.looks).axes
    intervals = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2.2]
    expected = [[each.look.ci_low, each.look.ci_high] for each in evidence.decisions]
    np.testing.assert_allclose(intervals, expected)


def test_the_boundary_of_a_look_is_the_difference_at_which_p_is_its_level(evidence):
    decision = evidence.decisions[2]
    seeds, halves = boundaries_of_looks(decision)
    assert seeds == list(LOOKS)
    for look, half in zip(decision.looks, halves, strict=False):
        error = look.difference / look.t
        assert 2 * stats.t.sf(half / error, look.df) == pytest.approx(look.level)
    sd = (decision.units.table["a"] - decision.units.table["b"]).std()
    assert 2 * stats.t.sf(halves[-1] / (sd / 4), 15) == pytest.approx(decision.levels[-1])


def test_a_study_that_looks_once_has_no_monitoring_plot(evidence):
    once = declared_decisions(evidence.frame, looks=(12,))
    assert monitoring(once, evidence.terms, evidence.looks) is None
    assert monitoring(evidence.decisions, evidence.terms, evidence.looks) is not None


# --- limits ---


def headings(evidence) -> dict[str, str]:
    return dict(limits(evidence))


def test_limits_follow_from_the_design(evidence):
    found = headings(evidence)
    assert "chest xray is secondary" in found["Other targets"]
    assert found["Other boundaries"].endswith("nothing is decided on a soft boundary or a hard boundary.")
    assert found["Other protocols and numbers of labels"] == "kNN and 100 % of the labels are secondary."
    assert found["Other architectures and methods"] == "one architecture: resnet50 at 224 px, pretrained by simclr."
    assert "7 test patients of body region" in found["Other patients"]
    assert "12,800 images" in found["Other budgets"]
    assert "generated" in found["Real archives"]


def test_a_design_without_these_limits_names_none(evidence):
    frame = evidence.frame
    frame = frame[(frame["protocol"] == "linear_probe") & (frame["task"] == "body_region") & (frame["fraction"] == 0.1)]
    bare = dataclasses.replace(
        evidence, frame=frame, arms=(), provenance=dataclasses.replace(evidence.provenance, scope=Scope())
    )
    assert set(headings(bare)) == {"Other targets", "Other boundaries"}


def test_a_verdict_on_checkpoints_says_so_first(evidence):
    frame = evidence.frame[evidence.frame["pretraining_seed"] == 0]
    one = dataclasses.replace(evidence, frame=frame, decisions=declared_decisions(frame))
    assert limits(one)[0][0] == "Other checkpoints"
    assert "these weights" in limits(one)[0][1]
    scope = dataclasses.replace(one.provenance.scope, public={"CT": "imagenet:efficientnet_lite0"})
    public = dataclasses.replace(one, provenance=dataclasses.replace(one.provenance, scope=scope))
    assert "CT (imagenet:efficientnet_lite0) with its own network and training" in limits(public)[0][1]


# --- what is open ---


def test_an_open_contrast_has_its_next_look_and_the_seeds_that_it_needs(evidence):
    ((heading, text),) = open_questions(evidence)
    found = outlook(evidence.decisions[2], 0.02)
    assert heading == "CT − cell lines"
    assert text.startswith("Next look at 16 pretraining seeds (level .")
    assert f"A difference of 0.02 needs {found.needed} pairs of pretraining seeds at this level." in text


def test_needed_pairs_have_eighty_per_cent_power_at_the_level_of_the_last_look_by_simulation(evidence):
    found = outlook(evidence.decisions[2], 0.02)
    rng = np.random.default_rng(0)
    for pairs, enough in ((found.needed, True), (found.needed - 2, False)):
        drawn = rng.normal(0.02, found.sd, (20_000, pairs))
        power = (stats.ttest_1samp(drawn, 0, axis=1).pvalue <= found.level).mean()
        assert (power > 0.79) == enough


def test_without_a_stated_difference_the_text_says_that_one_is_missing(evidence):
    silent = dataclasses.replace(evidence, margin=None, relevant=None)
    assert "states no smallest relevant difference" in open_questions(silent)[0][1]


def test_where_all_looks_are_spent_none_is_announced(evidence):
    frame = evidence.frame
    spent = dataclasses.replace(evidence, decisions=declared_decisions(frame, looks=(6, 12)))
    texts = [text for _, text in open_questions(spent)]
    assert all(text.startswith("No look is left. With 12 pairs") for text in texts)


def test_an_arm_without_runs_is_not_said_to_have_one_pretraining_seed(evidence):
    frame = evidence.frame[evidence.frame["pretraining"] != "photographs"]
    decisions = decide(frame, None, [contrast("CT", "photographs")], looks=LOOKS)
    ((_, text),) = open_questions(dataclasses.replace(evidence, frame=frame, decisions=decisions))
    assert text.startswith("First look at ") and "One pretraining seed" not in text


def test_of_pairs_that_do_not_vary_nothing_is_estimated(evidence):
    arms = evidence.frame[evidence.frame["pretraining"] == "CT"]
    frame = pd.concat([arms, arms.assign(pretraining="photographs", value=arms["value"] - 0.05)])
    decisions = decide(frame, None, [contrast("CT", "photographs")], looks=(12,))
    ((_, text),) = open_questions(dataclasses.replace(evidence, frame=frame, decisions=decisions))
    assert text.endswith("The differences of all pairs are equal: nothing can be estimated from them.")


def test_fewer_than_two_units_estimate_nothing(evidence):
    early = declared_decisions(
        evidence.frame[evidence.frame["pretraining_seed"] < 2], looks=(4, 8), pending={"CT": {2, 3}}, seeds=range(8)
    )
    found = dataclasses.replace(evidence, decisions=early[:1])
    assert open_questions(found)[0][1].startswith("First look at 4 pretraining seeds")
    assert outlook(declared_decisions(evidence.frame[:0], looks=(4,))[0], 0.02) is None


def test_before_the_first_look_at_public_weights_what_is_open_is_said(evidence):
    frame = evidence.frame
    public = frame[(frame["pretraining"] == "photographs") & (frame["pretraining_seed"] == 0)]
    both = pd.concat([frame, public.assign(pretraining="ImageNet", pretraining_seed=np.nan)])
    (decision,) = decide(
        both, None, [contrast("CT", "ImageNet")], looks=(16,), seeds=range(16), pending={"CT": set(range(12, 16))}
    )
    ((_, text),) = open_questions(dataclasses.replace(evidence, frame=both, decisions=[decision]))
    found = outlook(decision, 0.02)
    assert found.next_look == found.last_look == 16 and text.startswith("First look at 16 pretraining seeds")
    rng, table = np.random.default_rng(0), decision.units.table
    sd = table.groupby("side")["value"].std()
    a, b = rng.normal(found.detects, sd["a"], (20_000, 16)), rng.normal(0, sd["b"], (20_000, 4))
    test = stats.ttest_ind(a, b, axis=1, equal_var=False)
    assert np.mean((test.pvalue <= found.level) & (test.statistic > 0)) == pytest.approx(0.8, abs=0.02)


def test_strategies_are_contrasts_like_others(evidence):
    frame = evidence.frame[evidence.frame["protocol"] == "linear_probe"].assign(strategy="full", protocol="finetune")
    both = pd.concat([frame, frame.assign(strategy="lp_ft", value=frame["value"] + 0.05)], ignore_index=True)
    declared = dataclasses.replace(
        contrast("CT", SCRATCH, protocol="finetune"),
        a={"strategy": "lp_ft"},
        b={"strategy": "full"},
        on={"pretraining": ("CT",)},
    )
    shown = dataclasses.replace(evidence, frame=both, decisions=decide(both, None, [declared], looks=(12,)))
    assert "LP FT" in shown.headline.sentences[0] and "full" in shown.headline.sentences[0]
    assert unit_values(shown.decisions, shown.terms, shown.looks) is not None
