"""Metrics with a unit: values on several targets, such as years and millilitres, are never averaged."""

from pathlib import Path

import pytest
from support.pages import whole_study
from support.tiny_study import small, write_study

from ssl_transfer.errors import RecipeError
from ssl_transfer.measures.metrics import METRICS, has_unit
from ssl_transfer.study.design import load_study
from ssl_transfer.study.planned_contrasts import study_comparisons
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.report.evidence import Evidence, Provenance
from ssl_transfer.study.report.sections.over_targets import section


def of_numbers(column, metric="mae"):
    return {"store": "ct", "set": {"target": "regression", "column": column, "metric": metric}}


def of_grades():
    return {"store": "ct", "set": {"target": "ordinal", "column": "slice", "metric": "quadratic_kappa"}}


TASKS = {"height": of_numbers("z_mm"), "volume": of_numbers("area_ml"), "grade": of_grades()}


def contrast(metric="mae", **more):
    return {"protocol": "linear_probe", "metric": metric, **more}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def planned(tasks, **statistics):
        path = write_study(tmp_path, **small(tasks=tasks, statistics=statistics))
        return plan_study(load_study(path), Path("studies/tiny"), write=False)

    return planned


def test_metrics_with_a_unit_are_errors_in_it():
    assert {name for name, metric in METRICS.items() if metric.has_unit} == {"mae", "rmse", "hd95"}
    assert has_unit("hd95_liver") and not has_unit("dice_liver") and not has_unit("of another program")


@pytest.mark.parametrize(
    "on",
    [{}, {"on": {"task": ["height", "volume"]}}, {"on": {"boundary": "none"}}],
    ids=["all targets", "two targets", "a boundary"],
)
def test_a_contrast_over_several_of_their_targets_is_refused_with_what_to_write(plan, on):
    with pytest.raises(RecipeError) as refusal:
        plan(TASKS, primary=[contrast(**on)])
    text = str(refusal.value)
    assert text.startswith("study: statistics.primary: MAE would be averaged over height, volume")
    assert "such as `primary: [{protocol: linear_probe, metric: mae, on: {task: height}}]`" in text
    assert text.endswith("or a metric without a unit: quadratic_kappa, r2, spearman.")


def test_the_default_contrast_is_refused_too_and_so_is_a_gate_over_them(plan):
    with pytest.raises(RecipeError, match=r"statistics\.primary: MAE would be averaged over height, volume, grade"):
        plan(TASKS)
    one = contrast(on={"task": "height"})
    with pytest.raises(RecipeError, match=r"statistics\.gate: MAE .* such as `gate: \{protocol: linear_probe"):
        plan(TASKS, primary=[one], gate=contrast())


def test_contrasts_of_one_target_each_are_planned_and_their_gate_is_of_the_first(plan):
    stated = [contrast(on={"task": "height"}), contrast(on={"task": "volume"})]
    comparisons = study_comparisons(plan(TASKS, primary=stated))
    assert comparisons.gate().tasks == ("height",)


def test_one_target_with_the_metric_needs_no_name(plan):
    kept = {"height": TASKS["height"], "region": {"card": "phantom_region", "store": "ct"}}
    assert plan(kept, primary=[contrast()])


def test_metrics_without_a_unit_are_averaged_over_targets(plan):
    tasks = {name: of_numbers(column, "r2") for name, column in (("height", "z_mm"), ("volume", "area_ml"))}
    gate = study_comparisons(plan(tasks, primary=[contrast("r2")])).gate()
    assert gate.tasks == ("height", "volume")


@pytest.mark.parametrize(("metric", "has_section"), [("mae", False), ("r2", True)])
def test_the_page_summarises_them_over_targets_for_no_pair(metric, has_section):
    frame = whole_study(arms=("CT",), seeds=3)
    frame = frame[(frame["metric"] == "auroc") & (frame["protocol"] == "linear_probe")].assign(metric=metric)
    provenance = Provenance(title="t", question="q")
    evidence = Evidence(frame=frame, primaries=[contrast(metric, fraction=0.1)], provenance=provenance)
    assert (section(evidence) is not None) == has_section
