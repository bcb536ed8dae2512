"""Power over looks, variance components of pairs, and the cheapest allocation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.command_line import ssl_transfer
from support.tiny_study import STUDY, record_results, small, write_study

from ssl_transfer.errors import UsageError
from ssl_transfer.study.declared import Spending
from ssl_transfer.study.design import load_study
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.power import StudyPower
from ssl_transfer.study.statistics import ALPHA, nominal_levels
from ssl_transfer.study.statistics.power import PATHS, Start, allocations, detectable_difference, look_power
from ssl_transfer.study.statistics.power_components import PairComponents, pair_components

LOOKS = (4, 6, 8, 12, 16)
FEW_LABELS = PairComponents(
    pretraining=0.016, residual=math.hypot(0.016, 0.036)
)  # arm × subset is a residual of own draws


def simulation_error(p: float) -> float:
    return 3 * math.sqrt(p * (1 - p) / PATHS)


@pytest.mark.parametrize(
    ("difference", "power", "seeds"), [(0.03, 0.94, 11.5), (0.05, 1.00, 7.9)], ids=["0.03", "0.05"]
)
def test_power_with_few_labels_is_that_of_the_protocols(difference, power, seeds):
    found = look_power(LOOKS, nominal_levels(ALPHA, LOOKS), difference, FEW_LABELS.unit_sd(8))
    assert found.different[-1] == pytest.approx(power, abs=simulation_error(power) + 0.01)
    assert found.expected(LOOKS) == pytest.approx(seeds, abs=0.3)


@pytest.mark.parametrize("n", [4, 9, 30])
def test_power_of_one_look_is_that_of_the_noncentral_t_distribution(n):
    d, level = 0.9, 0.03
    critical = stats.t.isf(level / 2, n - 1)
    expected = stats.nct.sf(critical, n - 1, d * math.sqrt(n))
    found = look_power([n], [level], d, 1.0)
    assert found.different[0] == pytest.approx(expected, abs=simulation_error(expected) + 1e-4)


def test_without_a_difference_all_looks_together_stop_at_alpha():
    found = look_power(LOOKS, nominal_levels(ALPHA, LOOKS), 0.0, 1.0)
    assert found.decided[-1] == pytest.approx(ALPHA, abs=simulation_error(ALPHA))
    assert found.different[-1] == pytest.approx(ALPHA / 2, abs=simulation_error(ALPHA / 2))


def test_a_true_difference_has_the_same_power_in_both_directions():
    up, down = (look_power(LOOKS, nominal_levels(ALPHA, LOOKS), d, 1.0, 1.5) for d in (0.7, -0.7))
    assert up.different[-1] == pytest.approx(down.different[-1], abs=2 * simulation_error(0.5))
    assert up.equivalent[-1] == pytest.approx(down.equivalent[-1], abs=2 * simulation_error(0.5))


def test_equal_arms_are_found_equivalent_as_often_as_in_a_naive_simulation():
    levels, margin = nominal_levels(ALPHA, (6, 12)), 1.2
    found = look_power((6, 12), levels, 0.0, 1.0, margin)
    values = np.random.default_rng(8).normal(size=(20_000, 12))
    over = np.zeros(len(values), bool)
    equivalent = np.zeros(len(values), bool)
    for n, level in zip((6, 12), levels, strict=True):
        sample = values[:, :n]
        low = stats.ttest_1samp(sample, -margin, axis=1, alternative="greater").pvalue
        high = stats.ttest_1samp(sample, margin, axis=1, alternative="less").pvalue
        different = stats.ttest_1samp(sample, 0, axis=1).pvalue <= level
        equivalent |= ~over & (np.maximum(low, high) <= level)
        over |= (np.maximum(low, high) <= level) | different
    assert found.equivalent[-1] == pytest.approx(equivalent.mean(), abs=2 * simulation_error(0.5))
    assert found.decided[-1] == pytest.approx(over.mean(), abs=2 * simulation_error(0.5))


def test_conditional_power_goes_on_from_the_differences_that_are_there():
    present = np.array([0.5, -0.2, 0.9, 0.3])
    found = look_power([8], [0.05], 0.4, 0.6, start=Start.of(present))
    added = np.random.default_rng(9).normal(0.4, 0.6, (20_000, 4))
    test = stats.ttest_1samp(np.hstack([np.tile(present, (20_000, 1)), added]), 0, axis=1)
    naive = ((test.pvalue <= 0.05) & (test.statistic > 0)).mean()
    assert found.different[0] == pytest.approx(naive, abs=2 * simulation_error(0.5))


def test_the_detectable_difference_is_found_with_eighty_per_cent():
    difference = detectable_difference(8, 0.0166, 0.03)
    found = look_power([8], [0.0166], difference, 0.03)
    assert found.different[0] == pytest.approx(0.8, abs=simulation_error(0.8))


# --- components ---


def differences(pretraining: float, residual: float, seeds: int, draws: int, rng=None) -> pd.DataFrame:
    """Differences of two arms with such SDs of a run: both sides add their variance."""
    rng = rng or np.random.default_rng(0)
    of_seed = math.sqrt(2) * pretraining * rng.normal(size=(seeds, 1))
    value = of_seed + math.sqrt(2) * residual * rng.normal(size=(seeds, draws))
    index = pd.MultiIndex.from_product([range(seeds), range(draws)], names=["pretraining_seed", "seed"])
    return pd.DataFrame({"difference": value.ravel()}, index=index).reset_index()


def test_components_are_those_that_the_differences_were_made_with():
    found = pair_components(differences(0.02, 0.04, seeds=4000, draws=3), "")
    assert found.pretraining == pytest.approx(0.02, rel=0.05)
    assert found.residual == pytest.approx(0.04, rel=0.02)


def test_components_of_balanced_records_give_back_the_sd_of_the_units():
    table = differences(0.02, 0.01, seeds=6, draws=4)
    means = table.groupby("pretraining_seed")["difference"].mean()
    assert pair_components(table, "").unit_sd(4) == pytest.approx(means.std())


def test_components_of_unbalanced_records_are_those_of_statsmodels():
    from statsmodels.regression.mixed_linear_model import MixedLM

    table = differences(0.03, 0.02, seeds=60, draws=5).sample(frac=0.6, random_state=1)
    found = pair_components(table, "")
    fit = MixedLM(table["difference"], np.ones(len(table)), groups=table["pretraining_seed"]).fit(reml=True)
    assert found.pretraining == pytest.approx(math.sqrt(fit.cov_re.iloc[0, 0] / 2), rel=0.1)
    assert found.residual == pytest.approx(math.sqrt(fit.scale / 2), rel=0.1)


def test_one_draw_per_seed_gives_the_sd_of_both_together():
    table = differences(0.02, 0.04, seeds=10, draws=1)
    found = pair_components(table, "")
    assert math.isnan(found.residual)
    assert found.unit_sd(1) == pytest.approx(table["difference"].std())


def test_a_single_pretraining_seed_says_nothing():
    assert pair_components(differences(0.02, 0.04, seeds=1, draws=8), "") is None


def test_the_upper_limit_of_the_sd_covers_it_in_eighty_per_cent():
    rng = np.random.default_rng(4)
    limits = [pair_components(differences(1.0, 1e-9, 4, 1, rng), "").highest_sd(1) for _ in range(800)]
    assert np.mean(np.array(limits) >= math.sqrt(2)) == pytest.approx(0.8, abs=0.05)


# --- allocation ---


@pytest.mark.parametrize(
    ("minutes_per_draw", "former", "former_minutes", "best", "minutes"),
    [(0.0023, 2, 38, 24, 16), (0.04, 1, 67, 4, 31)],
    ids=["probes", "fine-tunes"],
)
def test_minutes_to_decide_are_those_of_the_protocols(minutes_per_draw, former, former_minutes, best, minutes):
    """24 draws for probes in place of 2, and 4 to 8 for fine-tunes in place of 1; about 0.95 minutes per pretraining."""
    table = {each.draws: each for each in allocations(FEW_LABELS, 0.03, ALPHA, 2 * 0.945, 2 * minutes_per_draw)}
    assert table[former].minutes == pytest.approx(former_minutes, rel=0.06)
    assert table[best].minutes == pytest.approx(minutes, rel=0.1)
    cheapest = min(table.values(), key=lambda each: each.minutes)
    assert table[24 if best == 24 else 8].minutes <= 1.25 * cheapest.minutes


def test_the_cheapest_allocation_is_near_the_square_root_of_the_costs():
    """Without whole numbers it is residual / pretraining · √(cost of a pretraining / cost of a draw)."""
    table = allocations(PairComponents(0.02, 0.04), 0.012, ALPHA, 9.0, 1.0, draws=range(1, 20))
    best = min(table, key=lambda each: each.minutes)
    assert best.draws == pytest.approx(0.04 / 0.02 * math.sqrt(9.0), abs=1)


# --- of a plan ---


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plan the small study, with some changes."""
    monkeypatch.chdir(tmp_path)

    def plan(folder="studies/tiny", **changes):
        made = plan_study(load_study(write_study(tmp_path, **small(**changes))), Path(folder))
        made.save()
        return made

    return plan


def statistics(**more) -> dict:
    primary = {**STUDY["statistics"]["primary"], "compare": "CT", "with": "scratch"}
    return {"primary": primary, "gate": False, "relevant": 0.03, **more}


def test_a_plan_has_the_power_of_its_stated_components(planned):
    stated = {"pretraining": 0.016, "residual": 0.039}
    plan = planned(pretraining_seeds=16, statistics=statistics(components=stated, looks=list(LOOKS)))
    (row,) = StudyPower(plan).answer()
    sd = PairComponents(**stated).unit_sd(2)
    assert row["components"]["unit_sd"] == pytest.approx(sd)
    levels = nominal_levels(ALPHA, LOOKS, Spending())
    assert [look["level"] for look in row["looks"]] == list(levels)
    expected = look_power(LOOKS, levels, 0.03, sd)
    assert [look["power"] for look in row["looks"]] == pytest.approx(expected.different.tolist())
    assert [look["detectable"] for look in row["looks"]] == pytest.approx(
        [detectable_difference(n, level, sd) for n, level in zip(LOOKS, levels, strict=True)]
    )
    hours = [look["hours"] for look in row["looks"]]
    assert hours == sorted(hours)


def test_draws_are_the_evaluation_seeds_of_the_plan(planned):
    probe = {"protocol": "linear_probe", "fractions": [0.5, 1.0], "seeds": 4}  # at all labels planned once
    primary = {**statistics()["primary"], "fractions": [0.5, 1.0]}
    power = StudyPower(planned(evaluations=[probe], statistics=statistics(primary=primary)))
    assert power.draws(power.primaries[0]) == (4, pytest.approx(2 / (1 / 4 + 1 / 1)))


def test_levels_are_those_of_the_number_of_primary_contrasts(planned):
    arms = {name: {"store": "ct", "set": {"data.limit": n}} for n, name in enumerate(["CT", "B", "C"], 20)}
    more = statistics(components={"pretraining": 0.02, "residual": 0.02})
    more["primary"] = {**STUDY["statistics"]["primary"], "compare": "CT"}
    rows = StudyPower(planned(pretrainings=arms, pretraining_seeds=6, statistics=more)).answer()
    assert [row["looks"][0]["level"] for row in rows] == [ALPHA / 2, ALPHA / 2]


def test_without_results_and_components_the_power_is_not_known(planned):
    (row,) = StudyPower(planned(statistics=statistics())).answer()
    assert "state `statistics.components" in row["note"]


def test_components_come_from_results_of_the_study_or_of_a_pilot(planned):
    pilot = planned("studies/pilot", pretraining_seeds=3, statistics=statistics())
    record_results(pilot, lambda run: 0.5 + 0.1 * (run["pretraining"] == "CT") * run["pretraining_seed"])
    plan = planned(pretraining_seeds=8, statistics=statistics())
    (row,) = StudyPower(plan, "studies/pilot").answer()
    assert row["components"]["source"] == "3 pretraining seeds of the pilot studies/pilot"
    assert row["components"]["unit_sd"] == pytest.approx(0.1)
    (own,) = StudyPower(pilot).answer()
    assert own["components"]["source"] == "3 pretraining seeds of studies/pilot"


def test_power_is_for_plans(tmp_path):
    write_study(tmp_path, **small())
    refused = ssl_transfer("study", "run", "study.yaml", "--power", folder=tmp_path)
    assert (refused.status, "--power and --pilot are for plan" in refused.stderr) == (2, True)


def test_the_command_line_prints_a_table_of_looks_and_the_same_numbers_as_json(tmp_path):
    stated = statistics(components={"pretraining": 0.016, "residual": 0.039}, looks=[2, 4], margin=0.02)
    write_study(tmp_path, **small(pretraining_seeds=4, statistics=stated))
    words = ("study", "plan", "study.yaml", "--dry-run", "--power")
    text = ssl_transfer(*words, folder=tmp_path).stdout
    (row,) = ssl_transfer(*words, "--json", folder=tmp_path).json["power"]
    assert "decided if equal" in text
    assert row["allocation"]["sentence"] in text
    assert not (tmp_path / "studies").exists()


def test_a_pilot_without_results_is_refused(planned):
    planned("studies/pilot")
    with pytest.raises(UsageError, match="Run it first"):
        StudyPower(planned(statistics=statistics()), "studies/pilot")


def test_the_allocation_is_a_sentence_with_the_numbers_of_its_table(planned):
    stated = statistics(components={"pretraining": 0.016, "residual": 0.039})
    (row,) = StudyPower(planned(pretraining_seeds=8, statistics=stated)).answer()
    allocation = row["allocation"]
    best = min(allocation["table"], key=lambda each: each["minutes"])
    assert (allocation["draws"], allocation["seeds"]) == (best["draws"], best["seeds"])
    assert (
        f"draws per pretraining seed {best['draws']}, pretraining seeds per arm {best['seeds']}"
        in allocation["sentence"]
    )
