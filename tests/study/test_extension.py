"""What would decide an open contrast: conditional power, seeds and minutes, and a command."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from support.tiny_study import STUDY, Verbs, small, write_study

from ssl_transfer.cli.study_text import extension_text, study_text
from ssl_transfer.run import read_json, write_json
from ssl_transfer.study.decided import study_decisions
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.extension import extension
from ssl_transfer.study.finished import finished, finished_table
from ssl_transfer.study.gather import study_evidence
from ssl_transfer.study.job_state import status
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.report.open_questions import open_questions
from ssl_transfer.study.stage import planned
from ssl_transfer.study.statistics import ALPHA, nominal_levels
from ssl_transfer.study.statistics.power import Start, detectable_difference, look_power

LOOKS = [4, 8, 12]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of CT against random initialisation with results of its first seeds."""
    monkeypatch.chdir(tmp_path)

    def made(present: int, gap: float, sd: float = 0.02, **more):
        primary = {**STUDY["statistics"]["primary"], "compare": "CT", "with": "scratch"}
        statistics = {"primary": primary, "gate": False, "looks": LOOKS, "relevant": 0.03, **more}
        path = write_study(tmp_path, **small(pretraining_seeds=12, statistics=statistics))
        plan = planned(path, out="studies/tiny")

        def value(run: dict) -> float:
            return 0.5 + (run["pretraining"] == "CT") * (gap + sd * (-1) ** run["pretraining_seed"])

        jobs = [job.id for job in plan.jobs if (job.about.get("seed") or 0) < present]
        run_plan(plan, Verbs(plan, value), rounds=[jobs])
        for record in (plan.folder / "jobs").glob("*.json"):
            write_json(record, {**read_json(record), "seconds": 60.0})
        return plan

    return made


def test_an_open_contrast_has_a_row_for_each_look_that_is_left(study):
    (row,) = extension(study(4, gap=0.01))["contrasts"]
    assert row["status"] == "open"
    assert [(look["seeds"], look["seeds_to_add"]) for look in row["looks"]] == [(8, 4), (12, 8)]
    minutes = [look["minutes_to_add"] for look in row["looks"]]
    assert minutes[0] > 0
    assert minutes[1] == pytest.approx(2 * minutes[0])


def test_its_power_is_conditional_on_the_pairs_that_are_there(study):
    plan = study(4, gap=0.01)
    (row,) = extension(plan)["contrasts"]
    (decision,) = study_decisions(plan, finished_table(plan), status(plan).states)
    a, b = decision.units_at[-1].values()
    levels = nominal_levels(ALPHA, tuple(LOOKS))[1:]
    expected = look_power(LOOKS[1:], levels, (a - b).mean(), (a - b).std(ddof=1), start=Start.of(a - b))
    assert [look["decided_at_estimate"] for look in row["looks"]] == pytest.approx(expected.decided.tolist())
    assert row["expected_seeds_at_estimate"] == pytest.approx(expected.expected(LOOKS[1:]))


def test_the_command_runs_the_next_look(study):
    assert extension(study(4, gap=0.01))["command"] == "ssl-transfer study run studies/tiny"


def test_a_decided_contrast_needs_nothing(study):
    answer = extension(study(4, gap=0.5))
    assert answer["contrasts"][0]["status"] == "decided"
    assert "command" not in answer and "replication" not in answer


def test_past_the_last_look_only_a_replication_with_fresh_seeds_can_decide(study):
    answer = extension(study(12, gap=0.0))
    assert answer["contrasts"][0]["status"] == "over"
    assert "command" not in answer
    replication = answer["replication"]
    assert "may not be added to their tests" in replication["why"]
    words = shlex.split(replication["command"])
    assert words[:3] == ["ssl-transfer", "study", "run"]
    recipe = load_study(words[3], [word for word in words[4:] if "=" in word])
    assert set(recipe.pretraining_seeds).isdisjoint(range(12))
    assert len(recipe.pretraining_seeds) >= 12
    made = plan_study(recipe, Path(words[-1]), write=False)
    assert made.name == "study_replication"


def test_the_resolved_study_in_its_folder_plans_the_same_jobs(study):
    plan = study(0, gap=0.0)
    again = plan_study(load_study(plan.folder / "study.yaml"), plan.folder, write=False)
    assert [job.id for job in again.jobs] == [job.id for job in plan.jobs]


def test_the_text_is_a_table_with_the_command(study):
    text = extension_text(extension(study(4, gap=0.01)))
    assert "look  seeds" in text.replace("   ", "  ")
    assert "ssl-transfer study run studies/tiny" in text


def test_before_the_first_look_it_waits_for_it(study):
    (row,) = extension(study(2, gap=0.01))["contrasts"]
    assert row["status"] == "waiting"


def test_the_answer_of_an_external_report_is_no_extension():
    assert study_text({"report": "r.html", "contrasts": 3}) == "report: r.html\ncontrasts: 3"


def test_a_replication_has_the_seeds_for_the_relevant_difference(study):
    replication = extension(study(12, gap=0.0, sd=0.05))["replication"]
    needed = replication["seeds_for_80_percent_power_at_relevant"]
    sd = 0.05 * (12 / 11) ** 0.5  # of alternating differences
    level = nominal_levels(ALPHA, tuple(LOOKS))[-1]
    assert detectable_difference(needed, level, sd) <= 0.03 < detectable_difference(needed - 1, level, sd)
    assert replication["seeds"] == needed


def test_the_gate_does_not_count_among_the_tests_that_a_replication_shares_alpha_among(study):
    gate = {**STUDY["statistics"]["primary"], "compare": "CT", "with": "scratch"}
    alone = extension(study(12, gap=0.0, sd=0.05))["replication"]
    gated = extension(study(12, gap=0.0, sd=0.05, gate=gate))["replication"]
    assert len(gated["contrasts"]) == 2
    assert gated["seeds_for_80_percent_power_at_relevant"] == alone["seeds_for_80_percent_power_at_relevant"]


@pytest.mark.parametrize("present", [4, 12], ids=["open", "over"])
def test_the_report_names_the_same_number_of_seeds(study, present):
    plan = study(present, gap=0.0, sd=0.05)
    answer = extension(plan)
    ((_, text),) = open_questions(study_evidence(plan, dict(finished(plan)), status(plan).states))
    if present == 4:
        (row,) = answer["contrasts"]
        needed = row["seeds_needed"]
        assert f"needs {needed} pairs" in extension_text(answer)
    else:
        needed = answer["replication"]["seeds_for_80_percent_power_at_relevant"]
    assert f"A difference of 0.03 needs {needed} pairs of pretraining seeds" in text
