"""`study plan --flops`: operations before a study runs are those that its records state afterwards."""

from collections import Counter
from pathlib import Path

import pytest
from support.tiny_study import small, write_study

from ssl_transfer.cli import main
from ssl_transfer.cli.study_flops import expected_flops
from ssl_transfer.run import read_json
from ssl_transfer.study.design import load_study
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.planning import plan_study


def test_what_is_counted_from_recipes_is_what_the_records_of_the_jobs_state(tiny_quickstart, monkeypatch):
    monkeypatch.chdir(tiny_quickstart[0].parent)
    plan = Plan.load(tiny_quickstart[0])
    stated = Counter()
    for job in plan.jobs:
        spent = (read_json(plan.folder / "jobs" / f"{job.id}.json") or {})["spent"]
        stated[job.words[1] if job.stage == "evaluate" else job.stage] += spent["flops"]
    found = expected_flops(plan)
    assert list(found.pop("not_counted").values()) == [1]  # trivial features
    assert found == {
        name: pytest.approx(stated[name], rel=0.001) for name in ("pretrain", "features", "finetune", "segment")
    }
    assert found["pretrain"] == stated["pretrain"]


def test_what_cannot_be_known_before_the_ingest_is_null_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = plan_study(load_study(write_study(tmp_path, **small())), Path("studies/tiny"))
    found = expected_flops(plan)
    reasons = found.pop("not_counted")
    assert found == {"pretrain": None, "features": None}
    assert reasons["features: ct is not ingested, so its number of images is not known"] == 4
    assert sum(reasons.values()) == 6


def test_operations_are_not_counted_in_recipes_that_a_dry_run_does_not_write(capsys):
    assert main(["study", "plan", "study.yaml", "--flops", "--dry-run"]) == 2
    assert "leave out --dry-run" in capsys.readouterr().err
