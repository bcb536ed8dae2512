"""Results that are gone, torn or changed: their jobs are not done, the report names them, and `study run` does them again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.tiny_study import Verbs, small, write_study

from ssl_transfer.errors import OutputError
from ssl_transfer.result import EvalResult
from ssl_transfer.run import read_json
from ssl_transfer.study import stage
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.finished import finished
from ssl_transfer.study.gather import report_study
from ssl_transfer.study.job_state import done_jobs, job_file, lost_files, status
from ssl_transfer.study.planning import plan_study
from ssl_transfer.verification.stage import verify


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A finished study of two arms, with made-up results."""
    monkeypatch.chdir(tmp_path)
    made = plan_study(load_study(write_study(tmp_path, **small())), Path("studies/tiny"))
    made.save()
    run_plan(made, Verbs(made, lambda run: 0.5))
    return made


def a_result(plan) -> Path:
    return Path(next(iter(plan.runs))["result"])


def damage(path: Path, how: str) -> None:
    """Delete, cut or edit a result."""
    if how == "deleted":
        path.unlink()
    elif how == "torn":
        path.write_text(path.read_text()[:200])
    elif how == "empty":
        path.write_text("")
    else:
        path.write_text(path.read_text().replace("0.5", "0.75"))


@pytest.mark.parametrize("how", ["deleted", "torn", "empty", "edited"])
def test_a_job_whose_result_was_lost_is_not_done_and_is_done_again(plan, how):
    path = a_result(plan)
    before = EvalResult.load(path).metrics
    damage(path, how)
    assert status(plan).count("missing") == 1 and status(plan).count("done") == len(plan.jobs) - 1
    again = Verbs(plan, lambda run: 0.5)
    assert run_plan(plan, again).count("done") == len(plan.jobs)
    assert len(again.titles) == 1 and EvalResult.load(path).metrics == before


@pytest.mark.parametrize("how", ["deleted", "torn", "edited"])
def test_the_report_is_made_without_it_and_names_it(plan, how, capsys):
    damage(a_result(plan), how)
    answer = report_study(plan)
    assert answer["missing"] == 1 and answer["runs_done"] == answer["runs"] - 1
    assert "everything that was planned is in this report" not in Path(answer["report"]).read_text()
    assert len(dict(finished(plan))) == answer["runs_done"]
    assert (how == "deleted") == ("left out" not in capsys.readouterr().err)


def test_status_counts_results_that_can_be_read(plan):
    whole = stage.status("studies/tiny")
    damage(a_result(plan), "torn")
    after = stage.status("studies/tiny")
    assert (whole["missing"], after["missing"]) == (0, 1) and after["runs_done"] == whole["runs_done"] - 1


def test_a_flipped_byte_of_equal_length_is_found_by_verify(plan):
    path = a_result(plan)
    path.write_text(path.read_text().replace("0.5", "0.6"))
    answer = verify("studies/tiny")
    assert not answer["ok"] and {Path(found["path"]).resolve() for found in answer["problems"]} == {path.resolve()}


def test_a_record_cut_in_half_is_no_record(plan):
    job = next(job for job in plan.jobs if job.runs)
    record = job_file(plan.folder, job, "json")
    record.write_text(record.read_text()[:100])
    assert job.id not in done_jobs(plan) and lost_files(plan.folder, job) is None
    assert not verify("studies/tiny")["ok"]
    assert run_plan(plan, Verbs(plan, lambda run: 0.5)).count("done") == len(plan.jobs)


@pytest.mark.parametrize("content", ['{"outputs": {"x": 3}}', '{"outputs": [1]}', '{"seconds": "x"}', "{}", "[]"])
def test_any_other_content_of_a_record_is_read_or_done_again(plan, content):
    job = next(job for job in plan.jobs if job.runs)
    job_file(plan.folder, job, "json").write_text(content)
    stage.status("studies/tiny")
    assert run_plan(plan, Verbs(plan, lambda run: 0.5)).count("done") == len(plan.jobs)


def test_an_intermediate_output_that_nobody_needs_may_be_deleted_and_is_made_again_when_it_is_needed(plan):
    job = next(job for job in plan.jobs if job.stage == "features")
    output = Path(job.output)
    output.mkdir(parents=True)
    (output / "card.json").write_text("{}")
    record = read_json(job_file(plan.folder, job, "json"))
    name = str(output.relative_to(plan.folder) / "card.json")
    job_file(plan.folder, job, "json").write_text(
        json.dumps({**record, "outputs": {name: {"bytes": 2, "digest": "x"}}})
    )
    shutil.rmtree(output)
    assert job.id in done_jobs(plan)
    probe = next(other for other in plan.jobs if job.id in other.inputs)
    Path(probe.runs[0]["result"]).unlink()
    assert {job.id, probe.id}.isdisjoint(done_jobs(plan))


def test_a_full_disk_stops_the_study_with_one_sentence_and_it_goes_on_later(plan):
    for run in list(plan.runs)[:3]:
        Path(run["result"]).unlink()

    def full(words):
        raise OutputError("studies/tiny/x: cannot be written: the disk is full.")

    with pytest.raises(OutputError, match="the disk is full"):
        run_plan(plan, full)
    assert run_plan(plan, Verbs(plan, lambda run: 0.5)).count("done") == len(plan.jobs)


def test_a_lock_that_is_a_folder_is_a_sentence(plan):
    job = next(job for job in plan.jobs if job.runs)
    Path(job.runs[0]["result"]).unlink()
    lock = job_file(plan.folder, job, "lock")
    lock.unlink()
    lock.mkdir()
    with pytest.raises(OutputError, match=r"\.lock: cannot be written: this is a folder"):
        run_plan(plan, Verbs(plan, lambda run: 0.5))
