"""Several jobs of a study at once, in worker processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import stand_in
from support.command_line import ssl_transfer
from support.tiny_study import metrics, small, write_study

import ssl_transfer as st
from ssl_transfer.errors import RunError
from ssl_transfer.study import crew, devices
from ssl_transfer.study.costs import Costs
from ssl_transfer.study.crew import InWorkers, default_count, threads_each
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import _by_urgency, run_plan
from ssl_transfer.study.job_state import failure, is_done, record
from ssl_transfer.study.planning import plan_study


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan of two arms and two pretraining seeds; the stand-in logs what it is given to `log`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(stand_in.LOG, str(tmp_path / "log"))
    made = plan_study(load_study(write_study(tmp_path, **small())), Path("studies/tiny"))
    made.save()
    return made


def job_of(plan, title):
    return next(job for job in plan.jobs if job.title == title)


def test_two_lasting_workers_run_every_job_once_with_half_the_cores_each(plan, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("SSL_TRANSFER_CORES", "6")
    monkeypatch.setenv(stand_in.SECONDS, "0.05")
    assert run_plan(plan, stand_in.perform, jobs=2).count("done") == len(plan.jobs)
    entries = stand_in.logged(Path("log"))
    assert sorted(entry["command"] for entry in entries) == sorted(" ".join(job.words) for job in plan.jobs)
    assert len({entry["process"] for entry in entries}) == 2 and os.getpid() not in {e["process"] for e in entries}
    assert {entry["threads"] for entry in entries} == {"3"}


def test_a_job_starts_after_those_that_it_needs(plan):
    run_plan(plan, stand_in.perform, jobs=2)
    order = [entry["command"] for entry in stand_in.logged(Path("log"))]
    place = {job.id: order.index(" ".join(job.words)) for job in plan.jobs}
    assert all(place[needed] < place[job.id] for job in plan.jobs for needed in job.inputs)


def test_early_seeds_come_first_and_among_them_what_most_work_waits_for(plan):
    jobs = {job.id: job for job in plan.jobs}
    order = [jobs[name] for name in _by_urgency(plan, Costs())]
    assert [job.about["seed"] for job in order if "seed" in job.about] == [0] * 6 + [1] * 6
    assert [job.stage for job in order[:7]] == ["ingest", *["pretrain"] * 2, *["features"] * 2, *["evaluate"] * 2]


def test_a_worker_that_is_killed_fails_its_job_alone_and_is_replaced(plan, monkeypatch, capsys):
    broken = job_of(plan, "pretrain CT, seed 0")
    monkeypatch.setenv(stand_in.DIES, broken.id)
    found = run_plan(plan, stand_in.perform, jobs=2)
    assert found.states[broken.id] == "failed" and found.count("failed") == 1 and found.count("blocked") > 0
    assert found.count("done") == len(plan.jobs) - 1 - found.count("blocked")
    error = failure(plan, broken)["error"]
    assert "its process was ended by SIGKILL after 0 s. Was there too little memory?" in error and "--jobs" in error
    assert f"failed: {broken.title}: {error}" in capsys.readouterr().err
    monkeypatch.delenv(stand_in.DIES)
    assert run_plan(plan, stand_in.perform, jobs=2).count("done") == len(plan.jobs)


def test_the_first_jobs_are_run_before_a_generator_decides_on_the_next(plan):
    seen = []

    def rounds():
        yield {job.id for job in plan.jobs if job.about.get("seed") == 0}
        seen.extend(job.about["seed"] for job in plan.jobs if "arm" in job.about and is_done(plan, job))  # enough

    found = run_plan(plan, stand_in.perform, rounds=rounds())
    assert set(seen) == {0}
    assert {job.about["seed"] for job in plan.jobs if found.states[job.id] == "missing"} == {1}


def test_a_function_that_workers_cannot_import_is_refused(plan):
    with pytest.raises(ValueError, match="no other process can run it"):
        run_plan(plan, lambda words: None, jobs=2)


def test_records_have_the_number_of_threads_and_estimates_prefer_the_same_number(plan, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_plan(plan, stand_in.perform, jobs=2)
    assert isinstance(record(plan, plan.jobs[0])["threads"], int)
    costs = Costs(threads=1)
    for threads, seconds in ((1, 10), (2, 6)):
        costs.add(plan.jobs[0].cost, seconds * plan.jobs[0].cost["units"], 0, threads=threads)
    assert costs.seconds(plan.jobs[0]) == 10 * plan.jobs[0].cost["units"]


@pytest.mark.parametrize(
    ("cores", "gigabytes", "expected"),
    [(1, 64, 1), (2, 64, 2), (64, 64, 4), (64, 9, 2), (64, 1, 1)],  # four backbones; 4 GB each
)
def test_as_many_jobs_at_once_as_cores_memory_and_backbones_allow(plan, monkeypatch, cores, gigabytes, expected):
    monkeypatch.setattr(crew, "usable_cores", lambda: cores)
    monkeypatch.setattr(crew, "free_memory", lambda: gigabytes * 2**30)
    monkeypatch.setattr(crew, "machine_gpus", list)
    assert default_count([job for job in plan.jobs if "arm" in job.about]) == expected


def test_threads_are_a_share_of_the_cores_unless_they_are_stated(monkeypatch):
    monkeypatch.setattr(crew, "usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_each(count) for count in (1, 3, 16)] == [8, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads_each(3) == 4


@pytest.fixture
def machine(monkeypatch):
    """Three GPUs, no scheduler, and CUDA_VISIBLE_DEVICES unset."""
    for name in (devices.VISIBLE, *devices.SCHEDULERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "machine_gpus", lambda: ["0", "1", "2"])
    monkeypatch.setattr(crew, "machine_gpus", devices.machine_gpus)
    return monkeypatch


def test_jobs_that_request_gpus_run_in_as_many_workers_as_have_gpus(machine, plan):
    for job in plan.jobs:
        job.resources["gpus"] = int(job.stage == "pretrain")
    assert default_count(plan.jobs) == 3
    workers = InWorkers(plan, stand_in.perform, plan.jobs, 5)
    pretraining, probe = (next(job for job in plan.jobs if job.stage == name) for name in ("pretrain", "evaluate"))
    assert (list(workers.with_gpus), workers._worker(pretraining), workers._worker(probe)) == ([0, 1, 2], 0, 4)
    pretraining.resources["gpus"] = 4
    with pytest.raises(RunError, match="requests 4 GPUs, but this machine has 3"):
        InWorkers(plan, stand_in.perform, plan.jobs, 5)


def test_jobs_share_a_gpu_only_if_that_is_requested(machine, plan):
    assert default_count(plan.jobs) == 1


@pytest.mark.long
def test_results_are_the_same_bytes_whatever_the_number_of_jobs_at_once(tmp_path, monkeypatch, one_thread):
    """One thread each: rounding depends on the number of threads, and so do the last digits."""
    evaluations = [
        {"protocol": "linear_probe", "fractions": [0.5, 1.0]},
        {"protocol": "finetune", "set": {"train.steps": 2, "train.batch_size": 8, "train.check_every_steps": 1}},
    ]
    for name in ("here", "workers"):
        (tmp_path / name).mkdir()
        write_study(tmp_path / name, **small(pretraining_seeds=[0], evaluations=evaluations))
    ran = ssl_transfer("study", "run", "study.yaml", "--jobs", "2", "--json", folder=tmp_path / "workers")
    assert ran.json["missing"] == 0
    assert "2 jobs at once, 1 thread each" in ran.stderr and "/9] pretrain" in ran.stderr
    monkeypatch.chdir(tmp_path / "here")
    assert st.run_study("study.yaml")["missing"] == 0
    assert metrics(tmp_path / "here/studies/study") == metrics(tmp_path / "workers/studies/study")
