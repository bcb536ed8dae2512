"""Subgroups in a study: means over seeds, the gap between the best and the worst group, and a section of the report."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from support.pages import build, study
from support.results import made_result

from ssl_transfer.study.statistics import subgroup_gaps, subgroup_runs


def grouped(run, seed, female, male, p=0.01, metric="auroc"):
    """A result whose test cases are grouped by sex, of which some have none."""
    small = {"value": "O", "cases": 2, "patients": 2, "reason": "2 patients, fewer than 10"}
    groups = [
        {"value": name, "score": score, "cases": 40, "patients": 20}
        for name, score in (("F", female), ("M", male), ("not stated", 0.1))
    ]
    compared = {"groups": [*groups, small], "gap_by_chance": 0.05, "p": p}
    return made_result(run, pretraining_seed=seed, subgroups={"metric": metric, "columns": {"sex": compared}})


def results():
    """Two seeds of an arm with subgroups, and one without."""
    return [grouped("r1", 0, 0.80, 0.70), grouped("r2", 1, 0.82, 0.76, p=0.2), made_result("r3", pretraining_seed=2)]


def test_the_gap_is_paired_within_a_run_and_its_interval_is_that_of_a_t_test():
    [gap] = subgroup_gaps(subgroup_runs(results())).to_dict("records")
    assert (gap["worst"], gap["best"], gap["groups"]) == ("M", "F", "F 0.810, M 0.730")
    assert (gap["gap"], gap["beyond_chance"], gap["runs"], gap["n"]) == (pytest.approx(0.08), 1, 2, 2)
    half = 12.706204736432095 * 0.02  # t at 1 degree of freedom, times SD 0.0283 / sqrt(2)
    assert [gap["ci_low"], gap["ci_high"]] == pytest.approx([0.08 - half, 0.08 + half])
    assert subgroup_runs([made_result()]) is None


def test_a_gap_has_the_direction_of_the_metric_and_a_run_in_the_other_direction_lowers_it():
    runs = [grouped("r1", 0, 4.0, 9.0, metric="mae"), grouped("r2", 1, 6.0, 5.0, metric="mae")]
    [gap] = subgroup_gaps(subgroup_runs(runs)).to_dict("records")
    assert (gap["worst"], gap["best"], gap["gap"]) == ("M", "F", pytest.approx(2.0))


def with_external_test(run, seed):
    """A result with subgroups of its own test, and of one of two external tests."""
    own, other = grouped(run, seed, 0.80, 0.70), grouped(run, seed, 0.5, 0.9)
    away = {"metrics": {}, "own": {}, "subgroups": other.subgroups}
    return replace(own, external={"away": away, "of an earlier version": {"metrics": {}}})


def test_groups_of_an_external_test_are_compared_apart_from_those_of_the_own_test():
    runs = subgroup_runs([with_external_test("r1", 0), with_external_test("r2", 1)])
    gaps = {gap["store"]: (gap["worst"], gap["gap"]) for gap in subgroup_gaps(runs).to_dict("records")}
    assert gaps == {"": ("M", pytest.approx(0.1)), "away": ("F", pytest.approx(0.4))}


def test_the_page_has_a_section_only_with_subgroups(tmp_path):
    frame = study({"in-domain CT": 0.2})
    runs = subgroup_runs([with_external_test("r1", 0), grouped("r2", 1, 0.82, 0.76, p=0.2)])
    text = build(tmp_path, frame, subgroups=runs).read_text()
    assert "Best and worst subgroup" in text and "4 groups were compared" in text and "1 of 2" in text
    assert re.search(r"<td>own</td>\s*<td>sex</td>", text) and re.search(r"<td>away</td>\s*<td>sex</td>", text)
    assert set(pd.read_csv(tmp_path / "tables/subgroups.csv")["group"]) == {"F", "M", "not stated"}
    assert "Best and worst subgroup" not in build(tmp_path, frame).read_text()
