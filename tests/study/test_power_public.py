"""Power of contrasts with public weights: they have no pretraining seeds, so the SD between pretrainings is of one side."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.tiny_study import STUDY, Verbs, record_results, small, write_study

from ssl_transfer.cli.study_text import extension_text, power_text
from ssl_transfer.study.decided import study_decisions
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.extension import extension
from ssl_transfer.study.finished import finished_table
from ssl_transfer.study.job_state import status
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.power import PUBLIC_ALONE, SINGLE_DRAW, StudyPower
from ssl_transfer.study.statistics import ALPHA, minimal_detectable_effect, nominal_levels
from ssl_transfer.study.statistics.power import PATHS, Start, allocations, detectable_difference, look_power
from ssl_transfer.study.statistics.power_components import FixedSide, WelchComponents, welch_components

STUDIES = 20_000
ERROR = 3 * math.sqrt(0.25 / PATHS + 0.25 / STUDIES)
LOOKS = (4, 8)


def simulated(looks, levels, difference, sd, public, margin=math.inf, start=(), seed=3):
    """Shares found different (with the right sign), and decided, by each look, of studies tested by scipy's Welch test."""
    rng = np.random.default_rng(seed)
    trained = rng.normal(difference, sd, (STUDIES, max(looks)))
    trained[:, : len(start)] = start
    fixed = rng.normal(0, public.sd, (STUDIES, public.n))
    open_ones, different, decided = np.ones(STUDIES, bool), [], []
    for n, level in zip(looks, levels, strict=True):
        test = stats.ttest_ind(trained[:, :n], fixed, axis=1, equal_var=False)
        low, high = (
            stats.ttest_ind(trained[:, :n] - bound, fixed, axis=1, equal_var=False, alternative=side).pvalue
            for bound, side in ((-margin, "greater"), (margin, "less"))
        )
        found = open_ones & (test.pvalue <= level)
        equal = open_ones & (np.maximum(low, high) <= level) if math.isfinite(margin) else np.zeros(STUDIES, bool)
        different.append(found & (test.statistic > 0))
        decided.append(found | equal)
        open_ones = open_ones & ~found & ~equal
    return np.cumsum([each.mean() for each in different]), np.cumsum([each.mean() for each in decided])


@pytest.mark.parametrize("difference", [0.0, 0.02, 0.04])
def test_power_over_looks_is_that_of_simulated_studies_with_welch_tests(difference):
    public, levels = FixedSide(6, 0.03), nominal_levels(ALPHA, LOOKS)
    found = look_power(LOOKS, levels, difference, 0.02, 0.03, against=public)
    different, decided = simulated(LOOKS, levels, difference, 0.02, public, 0.03)
    assert found.different == pytest.approx(different, abs=ERROR)
    assert found.decided == pytest.approx(decided, abs=ERROR)


def test_power_with_measured_public_weights_goes_on_from_what_is_there():
    fixed, present = np.array([-0.03, 0.0, 0.01, 0.02]), np.array([0.01, 0.05, -0.01, 0.03])
    public = FixedSide(4, fixed.std(ddof=1), measured=True)
    found = look_power([8], [0.05], 0.03, 0.02, against=public, start=Start.of(present - fixed.mean()))
    added = np.random.default_rng(9).normal(fixed.mean() + 0.03, 0.02, (STUDIES, 4))
    trained = np.hstack([np.tile(present, (STUDIES, 1)), added])
    test = stats.ttest_ind(trained, np.tile(fixed, (STUDIES, 1)), axis=1, equal_var=False)
    assert found.different[0] == pytest.approx(((test.pvalue <= 0.05) & (test.statistic > 0)).mean(), abs=ERROR)


@pytest.mark.parametrize(("n", "public"), [(4, FixedSide(8, 0.02)), (12, FixedSide(5, 0.05)), (8, FixedSide(24, 0.01))])
def test_the_detectable_difference_is_found_with_eighty_per_cent(n, public):
    difference = detectable_difference(n, 0.02, 0.03, against=public)
    (different,), _ = simulated([n], [0.02], difference, 0.03, public)
    assert different == pytest.approx(0.8, abs=0.04)  # few units, whose degrees of freedom vary


def test_the_detectable_difference_of_equal_sides_is_that_of_the_two_sample_formula():
    found = detectable_difference(9, 0.03, 0.02, against=FixedSide(9, 0.02))
    assert found == pytest.approx(0.02 * minimal_detectable_effect(9, 9, alpha=0.03))


def test_the_detectable_difference_from_exactly_known_weights_is_that_of_one_sample():
    assert detectable_difference(6, 0.05, 0.02, against=FixedSide(10, 1e-12)) == pytest.approx(
        detectable_difference(6, 0.05, 0.02)
    )
    assert math.isnan(detectable_difference(6, 0.05, 0.02, against=FixedSide(1, 0.02)))


def values(rng, pretraining, residual, seeds, draws):
    index = pd.MultiIndex.from_product([range(seeds), range(draws)], names=["pretraining_seed", "seed"])
    table = pretraining * rng.normal(size=(seeds, 1)) + residual * rng.normal(size=(seeds, draws))
    return pd.DataFrame({"value": table.ravel()}, index=index).reset_index()


def test_components_are_those_that_the_values_were_made_with():
    rng = np.random.default_rng(0)
    trained, public = values(rng, 0.02, 0.04, 4000, 3), values(rng, 0.0, 0.06, 1, 4000)
    found = welch_components(trained, public, "")
    assert (found.pretraining, found.residual) == (pytest.approx(0.02, rel=0.06), pytest.approx(0.04, rel=0.02))
    assert found.public == pytest.approx(0.06, rel=0.04)
    assert welch_components(trained, public[:1], "").public == found.residual
    assert welch_components(trained[trained["pretraining_seed"] == 0], public, "") is None
    assert welch_components(trained[trained["seed"] == 0], public[:1], "") is None


def test_more_draws_narrow_both_sides_and_more_seeds_only_one():
    components = WelchComponents(0.01, 0.04, 0.04)
    assert components.unit_sd(4) == pytest.approx(math.hypot(0.01, 0.02))
    found = {each.draws: each.seeds for each in allocations(components, 0.03, ALPHA, 1.0, 0.1, draws=[1, 2, 24, 48])}
    assert found[1] is None and found[2] is None  # whatever the seeds, the public weights have too few draws
    assert found[48] < found[24]


# --- of a plan ---


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plan a study of CT, random initialisation and public weights."""
    monkeypatch.chdir(tmp_path)

    def plan(folder="studies/tiny", against="public", fractions=(0.5,), draws=6, seeds=8, few=None, **more):
        arms = {
            **small()["pretrainings"],
            "public": {"backbone": "scratch:resnet10t"},
            "other": {"backbone": "scratch:resnet10t"},
        }
        primary = {**STUDY["statistics"]["primary"], "compare": "CT", "with": against, "fractions": list(fractions)}
        statistics = {"primary": primary, "gate": False, "relevant": 0.03, **more}
        probe = {"protocol": "linear_probe", "fractions": list(fractions), "seeds": draws}
        changes = small(pretrainings=arms, evaluations=[probe], pretraining_seeds=seeds, statistics=statistics)
        changes["skip"] = [{"pretraining": "CT", **few}] if few else []
        made = plan_study(load_study(write_study(tmp_path, **changes)), Path(folder))
        made.save()
        return made

    return plan


def test_a_plan_has_the_power_of_stated_components_and_says_that_the_verdict_holds_for_these_checkpoints(planned):
    stated = {"pretraining": 0.016, "residual": 0.03, "subset": 0.04}
    (row,) = StudyPower(planned(components=stated, looks=list(LOOKS))).answer()
    sd, public = math.hypot(0.016, 0.05 / math.sqrt(6)), FixedSide(6, 0.05)
    levels = nominal_levels(ALPHA, LOOKS)
    expected = look_power(LOOKS, levels, 0.03, sd, against=public)
    assert row["components"]["unit_sd"] == pytest.approx(sd) and row["components"]["public_seeds"] == 6
    assert [look["power"] for look in row["looks"]] == pytest.approx(expected.different.tolist())
    assert row["looks"][0]["detectable"] == pytest.approx(detectable_difference(4, levels[0], sd, against=public))
    text = power_text([row])
    assert "SD of an evaluation of the public weights 0.05, over 6 evaluation seeds" in text
    assert "holds for these weights" in text and "upper limit" not in text


def test_the_draws_of_a_trained_seed_are_its_own_and_not_those_of_the_public_weights(planned):
    power = StudyPower(planned(components={"pretraining": 0.016, "residual": 0.03}, few={"seed": [2, 3, 4, 5]}))
    assert power.draws(power.primaries[0]) == (2, 2) and power.evaluation_seeds(power.primaries[0], "b") == 6


def test_without_the_sd_of_label_subsets_the_power_is_called_an_upper_limit(planned):
    stated = {"pretraining": 0.016, "residual": 0.03}
    (row,) = StudyPower(planned(components=stated)).answer()
    assert "State `statistics.components.subset`" in power_text([row])


def test_a_probe_of_all_labels_has_one_evaluation_of_public_weights_and_no_test(planned):
    (row,) = StudyPower(planned(components={"pretraining": 0.016, "residual": 0.03}, fractions=[1.0])).answer()
    assert row["note"] == SINGLE_DRAW


def test_two_public_weights_are_tested_once(planned):
    plan = planned(components={"pretraining": 0.016, "residual": 0.03})
    power = StudyPower(plan)
    power.contrasts = [
        (family, each.__class__(**{**vars(each), "a": {"pretraining": "other"}})) for family, each in power.contrasts
    ]
    (row,) = power.answer()
    assert row["note"] == PUBLIC_ALONE


def score(run, gap=0.02, sd=0.02):
    """CT is better by a gap; seeds and draws vary in a known way."""
    noise = 0.01 * (-1) ** run["seed"]
    return 0.5 + noise + (run["pretraining"] == "CT") * (gap + sd * (-1) ** (run["pretraining_seed"] or 0))


def test_components_come_from_a_pilot(planned):
    record_results(planned("studies/pilot", seeds=4), score)
    (row,) = StudyPower(planned(), "studies/pilot").answer()
    found = row["components"]
    assert found["source"] == "4 pretraining seeds of the pilot studies/pilot"
    assert found["public"] == pytest.approx(0.01 * math.sqrt(6 / 5)) and found["residual"] == pytest.approx(
        found["public"]
    )
    within = 0.01**2 * 6 / 5 / 6
    assert found["pretraining"] == pytest.approx(math.sqrt(0.02**2 * 4 / 3 - within))


def test_an_open_contrast_with_public_weights_has_the_conditional_power_of_its_looks_that_are_left(planned):
    plan = planned(looks=list(LOOKS))
    jobs = [job.id for job in plan.jobs if (job.about.get("seed") or 0) < 4]
    run_plan(plan, Verbs(plan, score), rounds=[jobs])
    (row,) = extension(plan)["contrasts"]
    (decision,) = study_decisions(plan, finished_table(plan), status(plan).states)
    a, b = decision.units_at[-1].values()
    public = FixedSide(6, b.std(ddof=1), measured=True)
    start = Start.of(a - b.mean())
    expected = look_power(
        LOOKS[1:], decision.levels[1:], a.mean() - b.mean(), a.std(ddof=1), against=public, start=start
    )
    assert row["status"] == "open" and row["estimate"] == pytest.approx(0.02)
    assert [look["decided_at_estimate"] for look in row["looks"]] == pytest.approx(expected.decided.tolist())
    assert row["seeds_needed"] is None
    assert "8" in extension_text({"contrasts": [row]})
