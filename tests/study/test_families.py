"""Families of tests: which contrasts are secondary or exploratory, and the level that decides each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ssl_transfer.errors import RunError
from ssl_transfer.study.statistics import benjamini_hochberg, contrasts, holm, strategy_contrasts
from ssl_transfer.study.statistics.families import Families

SETTINGS = [("knn", 0.1), ("knn", 1.0), ("linear_probe", 0.1)]


def study(
    settings=SETTINGS, arms="abcd", metrics=("auroc", "ece"), tasks=("ct", "xray"), strategy=None
) -> pd.DataFrame:
    """Arms of four pretraining seeds; the arms differ a little."""
    rows = [
        {
            "protocol": protocol,
            "fraction": fraction,
            "task": task,
            "metric": metric,
            "pretraining": arm,
            "pretraining_seed": seed,
            "seed": 0,
            "strategy": strategy,
            "value": 0.02 * place + np.random.default_rng([place, seed, len(task), len(metric)]).normal(0, 0.02),
        }
        for protocol, fraction in settings
        for task in tasks
        for metric in metrics
        for place, arm in enumerate(arms)
        for seed in range(4)
    ]
    return pd.DataFrame(rows)


MAIN = {(task, protocol): "auroc" for task in ("ct", "xray") for protocol in ("knn", "linear_probe")}


def test_all_contrasts_are_secondary_where_no_main_metric_is_known():
    assert set(contrasts(study())["family"]) == {"secondary"}


def test_contrasts_of_other_metrics_than_the_main_one_are_exploratory():
    table = contrasts(study(), main_metrics=MAIN)
    assert table.groupby("family")["metric"].unique().map(list).to_dict() == {
        "exploratory": ["ece"],
        "secondary": ["auroc"],
    }


@pytest.mark.parametrize(
    ("options", "secondary"),
    [
        ({"secondary": [{"protocol": "knn", "fraction": 0.1}]}, 24),
        ({"secondary": [{"protocol": "knn", "fraction": [0.1, 1.0]}, {"protocol": "linear_probe"}]}, 72),
        ({"exploratory": [{"protocol": "knn"}]}, 24),
        ({"exploratory": []}, 72),
        ({"secondary": [{"protocol": "knn"}], "exploratory": [{"metric": "ece"}]}, 24),
    ],
)
def test_selectors_say_what_is_secondary(options, secondary):
    table = contrasts(study(), main_metrics=MAIN, **options)
    assert (table["family"] == "secondary").sum() == secondary


def test_a_selector_by_an_unknown_column_is_refused_with_the_nearest():
    with pytest.raises(RunError, match=r"not selected by 'fractions'\. Did you mean 'fraction'"):
        contrasts(study(), secondary=[{"fractions": 0.1}])


@pytest.mark.parametrize("options", [{}, {"main_metrics": MAIN}])
def test_each_kind_is_corrected_within_protocol_metric_and_fraction_by_its_own_rule(options):
    table = contrasts(study(), **options)
    for _, rows in table.groupby(["family", "protocol", "metric", "fraction"]):
        assert len(rows) == 2 * 6
        np.testing.assert_allclose(rows["p_holm"], holm(rows["p_value"]))
        np.testing.assert_allclose(rows["p_bh"], benjamini_hochberg(rows["p_value"]))
        corrected = rows["p_holm"] if rows["family"].iloc[0] == "secondary" else rows["p_bh"]
        assert ((corrected <= 0.05) == rows["verdict"].isin(["better", "worse"])).all()


def test_levels_are_those_of_the_step_down_rule():
    table = contrasts(study(arms="ab", settings=SETTINGS[:1], metrics=("auroc",), tasks=("ct", "xray", "mri", "us")))
    rejected = (table["verdict"] != "not decided").sum()
    order = table.sort_values("p_value")["level"].tolist()
    assert order == pytest.approx([0.05 / (4 - min(rank, rejected)) for rank in range(4)])


# --- equivalence has a correction of its own ---


def decided(p, p_tost) -> pd.DataFrame:
    """Contrasts of one family."""
    table = pd.DataFrame({"p_value": p, "p_tost": p_tost, "difference": 1.0, "metric": "auroc", "task": "t"})
    return Families(columns=()).decide(table.assign(protocol="knn"))


def test_differences_that_are_found_leave_no_fewer_tests_of_equivalence():
    table = decided([0.001, 0.002, 0.9], [1.0, 1.0, 0.03])
    assert table["verdict"].tolist() == ["better", "better", "not decided"]  # .03 > .05 / 3
    assert table["level"].tolist() == pytest.approx([0.05 / 3, 0.025, 0.05])


def test_an_equivalent_contrast_has_the_level_at_which_it_is_equivalent():
    table = decided([0.8, 0.9, 0.7], [0.001, 0.02, 0.3])
    assert table["verdict"].tolist() == ["equivalent", "equivalent", "not decided"]
    assert table["level"].tolist() == pytest.approx([0.05 / 3, 0.025, 0.05 / 3])


# --- the number of tests is that of the plan ---


def test_a_family_has_as_many_tests_as_are_planned():
    planned = study(settings=SETTINGS[:1], arms="abcdef", metrics=("auroc",)).drop(columns="value")
    done = study(settings=SETTINGS[:1], arms="abc", metrics=("auroc",), tasks=("ct",))
    table, alone = contrasts(done, planned=planned), contrasts(done)
    smallest = table["p_value"].min()
    assert (table["p_holm"].min(), alone["p_holm"].min()) == pytest.approx(
        (min(30 * smallest, 1), min(3 * smallest, 1))
    )
    assert table["level"].min() == pytest.approx(0.05 / 30)


def test_planned_pairs_that_are_not_compared_or_cannot_be_tested_do_not_count():
    planned = study(settings=SETTINGS[:1], arms="abc", metrics=("auroc",), tasks=("ct",))
    single = planned[(planned["pretraining"] == "a") & (planned["pretraining_seed"] == 0)].assign(pretraining="public")
    planned = pd.concat([planned, single.assign(pretraining_seed=None)])  # one run: no test
    done = planned[planned["pretraining"].isin(["a", "b"])]
    level = contrasts(done, planned=planned)["level"].item()  # a − b, of three tests: Holm's first or second step
    assert level == pytest.approx(0.05 / 3)
    assert contrasts(done, planned=planned, pairs=[("a", "b")])["level"].item() == pytest.approx(0.05)


def test_the_plan_counts_within_the_declared_families():
    planned = study()
    done = planned[(planned["protocol"] == "knn") & (planned["task"] == "ct")]
    table = contrasts(done, planned=planned, main_metrics=MAIN, family=("protocol", "metric"))
    level = table.groupby("family")["level"].min()
    assert level["secondary"] == pytest.approx(0.05 / 24)  # 6 pairs × 2 targets × 2 fractions


def test_strategies_are_decided_in_the_same_way():
    frame = pd.concat([study(strategy=name, arms="ab") for name in ("full", "lora", "lp_ft")])
    frame["value"] += (
        frame["strategy"].map({"full": 0.0, "lora": 0.001, "lp_ft": 0.3}) * frame["pretraining_seed"].add(9) / 10
    )
    done = frame[frame["task"] == "ct"]
    table = strategy_contrasts(done, main_metrics=MAIN, planned=frame)
    assert set(table.loc[table["metric"] == "ece", "family"]) == {"exploratory"}
    secondary = table[table["family"] == "secondary"]
    assert secondary["level"].min() == pytest.approx(0.05 / 12)  # 3 pairs × 2 pretrainings × 2 targets
    chosen = strategy_contrasts(done, secondary=[{"strategy": "full", "protocol": "knn"}])
    assert set(chosen.loc[chosen["family"] == "secondary", "protocol"]) == {"knn"}
