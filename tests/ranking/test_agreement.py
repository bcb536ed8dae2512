"""How criteria of a ranking agree with the one that sets the order."""

import pytest
from support.correlations import PUBLISHED
from support.rankings import CLEAR, DIM, NOISE, cohort, criteria_of, ranked


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Five backbones in order of their probe, and the same by LogME."""
    folder = tmp_path_factory.mktemp("answers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        task = cohort(folder / "task")
        backbones = {"noise": NOISE, "dim": DIM, "half": (0, 6), "clear": CLEAR, "all but one": (0, 1, 3)}
        return {by: ranked(task, backbones, folder / by, by=by, resamples=0) for by in ("linear_probe", "logme")}


@pytest.mark.parametrize("by", ["linear_probe", "logme"])
def test_a_ranking_reports_the_agreement_of_every_criterion_with_the_one_that_sets_the_order(answers, by):
    answer = answers[by]
    values = {name: criteria_of(answer, name) for name in answer["order"]}
    known = {criterion for criterion, value in values["clear"].items() if value is not None}
    assert set(answer["agreement"]) == known - {by}
    for criterion, coefficients in answer["agreement"].items():
        pair = [[values[name][which] for name in answer["order"]] for which in (criterion, by)]
        assert set(coefficients) == {*PUBLISHED, "n"} and coefficients["n"] == 5
        for name, published in PUBLISHED.items():
            assert coefficients[name] == pytest.approx(published(*pair), abs=1e-4), (criterion, name)


def test_a_criterion_that_does_not_vary_has_null_correlations(workdir):
    twins = {"one": CLEAR, "two": CLEAR, "three": CLEAR}
    coefficients = ranked(cohort(workdir / "task"), twins, workdir / "out", resamples=0)["agreement"]["knn"]
    assert coefficients == {"n": 3, "pearson": None, "spearman": None, "kendall": None, "weighted_kendall": None}
