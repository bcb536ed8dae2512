"""The engine does every job once, goes on after failures and kills, and shares a study with other engines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from support.command_line import ROOT, run, ssl_transfer
from support.tiny_study import metrics, small, write_study

from ssl_transfer.draws import draw_seed
from ssl_transfer.errors import Interrupted, RunError, UsageError
from ssl_transfer.run import claimed
from ssl_transfer.study import devices
from ssl_transfer.study.costs import Costs
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.job_state import failure, status, write_record
from ssl_transfer.study.performing import run_job
from ssl_transfer.study.planning import plan_study


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan of two arms whose jobs are done by `Worker`, not for real."""
    monkeypatch.chdir(tmp_path)
    made = plan_study(load_study(write_study(tmp_path, **small())), Path("studies/tiny"))
    made.save()
    return made


class Worker:
    """Stands in for the verbs: records its commands, and fails or stops at those named."""

    def __init__(self, fails: str = "", stops: str = ""):
        self.commands, self.fails, self.stops = [], fails, stops

    def __call__(self, words: list[str]) -> None:
        self.commands.append(" ".join(words))
        if self.fails and self.fails in self.commands[-1]:
            raise ValueError("made to fail")
        if self.stops and self.stops in self.commands[-1]:
            raise Interrupted("stopped")


def job_of(plan, title):
    return next(job for job in plan.jobs if job.title == title)


def test_every_job_is_done_once_and_never_again(plan):
    first, second = Worker(), Worker()
    assert run_plan(plan, first).count("done") == len(plan.jobs)
    run_plan(plan, second)
    assert len(first.commands) == len(set(first.commands)) == len(plan.jobs) and second.commands == []


@pytest.mark.parametrize("file", ["another.png", "patient/scan/one.png"])
def test_a_source_that_changed_after_its_store_was_made_is_said(plan, capsys, file):
    ingest = next(job for job in plan.jobs if job.stage == "ingest")
    source = Path(ingest.words[1])
    (source / "patient" / "scan").mkdir(parents=True, exist_ok=True)
    (source / "patient" / "scan" / "one.png").touch()
    run_plan(plan, Worker())
    run_plan(plan, Worker())
    assert "has changed since" not in capsys.readouterr().err
    (source / file).write_text("changed")
    run_plan(plan, Worker())
    assert f"{source} has changed since" in capsys.readouterr().err


def test_a_failure_is_recorded_with_its_traceback_and_stops_only_what_needs_it(plan):
    broken = job_of(plan, "pretrain CT, seed 0")
    found = run_plan(plan, Worker(fails=broken.id))
    assert found.states[broken.id] == "failed" and found.count("failed") == 1
    assert {job.title.rpartition(": ")[2] for job in plan.jobs if found.states[job.id] == "blocked"} == {"CT, seed 0"}
    assert found.count("done") == len(plan.jobs) - 1 - found.count("blocked")
    kept = failure(plan, broken)
    assert kept["error"] == "ValueError: made to fail" and "Traceback" in kept["traceback"]


def test_what_failed_is_tried_again_and_then_its_failure_is_forgotten(plan):
    broken = job_of(plan, "pretrain CT, seed 0")
    run_plan(plan, Worker(fails=broken.id))
    assert run_plan(plan, Worker()).count("done") == len(plan.jobs)
    assert failure(plan, broken) is None


def test_being_stopped_is_not_a_failure(plan):
    stopped = job_of(plan, "pretrain CT, seed 0")
    with pytest.raises(Interrupted):
        run_plan(plan, Worker(stops=stopped.id))
    assert status(plan).states[stopped.id] == "missing"


def test_a_job_that_another_process_holds_is_running_and_is_waited_for(plan):
    held, worker = job_of(plan, "pretrain CT, seed 0"), Worker()
    with claimed(Path(f"studies/tiny/jobs/{held.id}.lock")):
        assert status(plan).states[held.id] == "running"
        thread = threading.Thread(target=run_plan, args=(plan, worker))
        thread.start()
        while len(worker.commands) < sum("CT, seed 0" not in job.title for job in plan.jobs):
            time.sleep(0.05)
        assert not any(held.id in words for words in worker.commands)
    thread.join()
    assert status(plan).count("done") == len(plan.jobs)


def test_two_engines_at_once_do_every_job_once(plan):
    workers = [Worker(), Worker()]
    threads = [threading.Thread(target=run_plan, args=(plan, worker)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    commands = workers[0].commands + workers[1].commands
    assert len(commands) == len(set(commands)) == len(plan.jobs)


def test_one_job_is_refused_before_what_it_needs_is_done(plan):
    with pytest.raises(UsageError, match=r"needs .* which is not done"):
        run_job(plan, job_of(plan, "pretrain CT, seed 0").id, Worker())
    with pytest.raises(UsageError, match="no job abc"):
        run_job(plan, "abc", Worker())


def test_an_external_store_that_was_made_anew_renews_its_jobs_with_the_next_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = load_study(write_study(tmp_path, **small(stores={"ct": {"path": "stores/ct"}})))
    card = tmp_path / "stores/ct/card.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"id": "one"}))
    plan = plan_study(study, Path("studies/tiny"))
    assert run_plan(plan, Worker()).count("done") == len(plan.jobs)
    card.write_text(json.dumps({"id": "two"}))
    assert status(plan_study(study, Path("studies/tiny"))).count("done") == 0
    card.write_text(json.dumps({"id": "one"}))
    assert status(plan_study(study, Path("studies/tiny"))).count("missing") == 0


def test_a_store_that_changed_behind_the_plan_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card = tmp_path / "stores/ct/card.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"id": "one"}))
    changes = small(stores={"ct": {"path": "stores/ct"}})
    plan = plan_study(load_study(write_study(tmp_path, **changes)), Path("studies/tiny"))
    card.write_text(json.dumps({"id": "two"}))
    with pytest.raises(UsageError, match="was one when the study was planned, and is two"):
        run_job(plan, plan.jobs[0].id, Worker())


def test_estimates_come_from_records_of_the_same_kind_in_proportion_to_the_work(plan):
    job = job_of(plan, "pretrain CT, seed 0")
    assert Costs.recorded(plan.folder).seconds(job) == job.cost["seconds"]
    costs = Costs()
    costs.add({**job.cost, "units": 10 * job.cost["units"]}, seconds=50, size=2000)
    assert costs.seconds(job) == pytest.approx(5) and costs.bytes(job) == 2000


def test_a_trial_of_one_epoch_does_not_estimate_many(plan):
    job = job_of(plan, "pretrain CT, seed 0")
    costs = Costs()
    costs.add({**job.cost, "units": job.cost["units"] / 50}, seconds=60, size=2000)
    assert costs.seconds(job) == job.cost["seconds"] and costs.estimate([job]).recorded == 0


def test_operations_are_estimated_from_records_that_state_them_and_are_else_unknown(plan):
    job = job_of(plan, "pretrain CT, seed 0")
    assert Costs.recorded(plan.folder).estimate([job]).flops is None
    card = Path(job.output) / "backbone" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"training": {"images": 640, "steps": 20, "flops": 10**12, "seconds": 3.0}}))
    (plan.folder / "jobs").mkdir(parents=True, exist_ok=True)
    write_record(plan.folder, job, seconds=7200.0)
    spent = json.loads((plan.folder / "jobs" / f"{job.id}.json").read_text())["spent"]
    assert spent == {
        "images": 640,
        "steps": 20,
        "seconds": 7200.0,
        "gpu_hours": 2 * job.resources["gpus"],
        "flops": 10**12,
    }
    other = job_of(plan, "pretrain CT, seed 1")
    assert Costs.recorded(plan.folder).estimate([job, other]).flops == 2 * 10**12


def test_a_record_of_another_arm_counts_within_the_same_study_only(plan):
    done, waiting = job_of(plan, "features of ct: CT, seed 0"), job_of(plan, "features of ct: scratch, seed 0")
    for same_study, seconds in ((True, 7), (False, waiting.cost["seconds"])):
        costs = Costs()
        costs.add(done.cost, 7, 0, same_study=same_study)
        assert costs.seconds(waiting) == seconds


@pytest.fixture
def machine(monkeypatch):
    """Three GPUs, no scheduler, and CUDA_VISIBLE_DEVICES unset."""
    for name in (devices.VISIBLE, *devices.SCHEDULERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "machine_gpus", lambda: ["0", "1", "2"])
    return monkeypatch


def test_gpus_are_shared_out_by_locks(machine, tmp_path):
    with claimed(tmp_path / "0.lock"), devices.claimed_gpus(2, tmp_path) as mine:
        assert mine == ["1", "2"] and os.environ[devices.VISIBLE] == "1,2"
    assert devices.VISIBLE not in os.environ


def test_gpus_are_claimed_from_those_that_the_user_named(machine, tmp_path):
    machine.setenv(devices.VISIBLE, "1,2")
    with devices.claimed_gpus(1, tmp_path), devices.claimed_gpus(1, tmp_path / "other") as mine:
        assert mine == ["1"]
    assert os.environ[devices.VISIBLE] == "1,2"


def test_a_setting_of_the_scheduler_is_kept(machine, tmp_path):
    machine.setenv(devices.VISIBLE, "5")
    machine.setenv("SLURM_JOB_ID", "7")
    with devices.claimed_gpus(1, tmp_path):
        assert os.environ[devices.VISIBLE] == "5"


def test_more_gpus_than_there_are_is_refused(machine, tmp_path):
    with pytest.raises(RunError, match="requests 4 GPUs, but this machine has 3"), devices.claimed_gpus(4, tmp_path):
        pass


@pytest.mark.long
def test_a_study_runs_from_its_yaml_to_its_report(tmp_path):
    """Every stage for real: chains, an untrained arm, probes, fine-tuning, segmentation, scores."""
    write_study(tmp_path, pretraining_seeds=[0], rank={"set": {"resamples": 0}})
    ran = ssl_transfer("study", "run", "study.yaml", "--json", folder=tmp_path, timeout=600)
    assert ran.status == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["runs_done"] == answer["runs"] == 36 and answer["missing"] == 0
    report = ssl_transfer("study", "report", "studies/study", "--json", folder=tmp_path)
    assert report.status == 0, report.stderr
    page = (tmp_path / json.loads(report.stdout)["report"]).read_text()
    assert "photographs → CT" in page and "head only" in page and "None: all planned runs are in this report." in page
    assert "Score validity" in page
    table = pd.read_csv(tmp_path / "studies/study/table.csv").drop_duplicates("run_id")
    draws = table.groupby(["pretraining_seed", "seed"])["draw"].unique().to_dict()
    assert {seeds: list(found) for seeds, found in draws.items()} == {
        (0, seed): [draw_seed(0, seed)] for seed in (0, 1)
    }
    boundaries = table.groupby("pretraining")["boundary"].unique().map(list).to_dict()
    assert boundaries == {
        "CT": ["none"],
        "photographs": ["hard"],
        "photographs → CT": ["mixed"],
        "scratch": ["scratch"],
    }
    unfinished = next((tmp_path / "studies/study/jobs").glob("*.json"))
    again = ssl_transfer("study", "run", "study.yaml", "--json", folder=tmp_path)
    assert again.status == 0 and unfinished.exists() and "left]" not in again.stderr


def test_a_wrong_setting_is_refused_before_the_first_job(tmp_path):
    write_study(tmp_path, **small(evaluations=[{"protocol": "knn", "set": {"kk": [1]}}]))
    ran = ssl_transfer("study", "run", "study.yaml", folder=tmp_path)
    assert ran.status == 2 and "no setting 'kk'" in ran.stderr
    assert not list((tmp_path / "studies/study/jobs").glob("*"))


def test_a_launched_job_asks_for_a_free_port_and_its_control_is_not_launched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launch = {"pretrain": {"launch": "--config_file launch/accelerate/cpu2.yaml"}}
    plan = plan_study(load_study(write_study(tmp_path, **small(resources=launch))), tmp_path / "s")
    trained, control = job_of(plan, "pretrain CT, seed 0"), job_of(plan, "pretrain scratch, seed 0")
    assert trained.launched and not control.launched and trained.words[0] == control.words[0] == "pretrain"
    assert trained.command[:2] == ["accelerate", "launch"] and "--main_process_port 0" in " ".join(trained.command)


@pytest.mark.long
def test_a_launched_job_trains_in_two_processes_and_a_failure_keeps_its_last_words(tmp_path):
    command = ["env", "ACCELERATE_USE_CPU=true", sys.executable, "-m", "ssl_transfer", "study", "run", "study.yaml"]
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    launch = {"pretrain": {"launch": "--config_file launch/accelerate/cpu2.yaml"}}
    write_study(tmp_path, **small(resources=launch, pretraining_seeds=[0]))
    ran = run(command, tmp_path)
    assert ran.status == 0, ran.stderr
    (log,) = (tmp_path / "studies/study/pretrain").glob("*/log.jsonl")
    assert json.loads(log.read_text().splitlines()[0])["world_size"] == 2
    odd = {"CT": {"store": "ct", "set": {"train.batch_size": 15}}}  # cannot be shared out to two
    write_study(tmp_path, **small(resources=launch, pretraining_seeds=[0], pretrainings=odd))
    assert run(command, tmp_path).status == 2
    (failed,) = (tmp_path / "studies/study/jobs").glob("*.failed.json")
    assert "15" in json.loads(failed.read_text())["error"] and "batch" in failed.read_text()


@pytest.mark.long
def test_killing_the_engine_ten_times_changes_no_result(tmp_path):
    """SIGKILL at moments spread over the whole study; in the end all metrics are those of a run in peace."""
    for name in ("peace", "war"):
        (tmp_path / name).mkdir()
        write_study(tmp_path / name, **small())
    command = [sys.executable, "-m", "ssl_transfer", "study", "run", "study.yaml", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run(command, cwd=tmp_path / "peace", env=environment, capture_output=True).returncode == 0
    records, killed = tmp_path / "war/studies/study/jobs", 0
    while killed < 10:
        before = len(list(records.glob("*.json")))
        process = subprocess.Popen(
            command, cwd=tmp_path / "war", env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(list(records.glob("*.json"))) < before + 1 + killed % 2:
            time.sleep(0.02)
        time.sleep(0.1 * (killed % 4))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    assert subprocess.run(command, cwd=tmp_path / "war", env=environment, capture_output=True).returncode == 0
    assert metrics(tmp_path / "war/studies/study") == metrics(tmp_path / "peace/studies/study")
