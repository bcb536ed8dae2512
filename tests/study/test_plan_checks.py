"""A plan from a stranger: only this program's verbs, without circles, into the folder of the study."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.faults import ANYTHING, keys_in, replaced
from support.tiny_study import small, write_study

from ssl_transfer.cli.stages import check
from ssl_transfer.errors import SslTransferError, UsageError
from ssl_transfer.run import write_json
from ssl_transfer.study import stage
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.freeze import freeze, frozen_versions
from ssl_transfer.study.look_record import read_looks
from ssl_transfer.study.performing import run_job
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.plan_checks import check_launch
from ssl_transfer.study.planning import plan_study


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A planned study of two arms in `studies/tiny`, and the content of its plan."""
    monkeypatch.chdir(tmp_path)
    plan_study(load_study(write_study(tmp_path, **small())), Path("studies/tiny")).save()
    return json.loads(Path("studies/tiny/plan.json").read_text())


def loaded(content) -> Plan:
    write_json(Path("studies/tiny/plan.json"), content)
    return Plan.load("studies/tiny")


def evaluation(content):
    return next(job for job in content["jobs"] if job["stage"] == "evaluate")


def never(words):
    raise AssertionError(f"ran {words}")


def test_a_plan_that_we_wrote_is_read(planned):
    assert len(loaded(planned).jobs) == len(planned["jobs"]) > 5


LAUNCH = ["accelerate", "launch"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/bin/sh", "-c", "touch PWNED"], r"its command is '/bin/sh -c touch PWNED', expected a verb of ssl-transfer"),
        (["ssl-transfer"], "its verb is missing, expected evaluate"),
        (["ssl-transfer", "study", "run", "x"], "its verb is study, expected evaluate"),
        (["ssl-transfer", "evaluate", "knn"], "does not write its output"),
        ([*LAUNCH, "--no_python", "/bin/sh", "-c", "x", "ssl_transfer"], "launches something else than this program"),
        ([*LAUNCH, "--no_python", "-m", "ssl_transfer", "evaluate"], "--no_python: a study may not set this"),
        ([*LAUNCH, "evil.py", "-m", "ssl_transfer", "evaluate"], "evil.py: a study may not set this"),
        ([*LAUNCH, "-m", "evil", "ssl_transfer", "evaluate"], "launches something else"),
        ([*LAUNCH, "--num_processes", "-m", "ssl_transfer", "evaluate"], "--num_processes: a study may not"),
        ([*LAUNCH, "--deepspeed_hostfile", "x", "-m", "ssl_transfer", "evaluate"], "--deepspeed_hostfile: a study may"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "",
)
def test_a_command_that_is_no_verb_of_its_stage_is_refused(planned, command, message):
    evaluation(planned)["command"] = command
    with pytest.raises(UsageError, match=rf"plan\.json: job .*{message}.* Plan the study again"):
        loaded(planned)


@pytest.mark.parametrize("other", [["--out", "/tmp/elsewhere"], ["--ou", "x"], ["--o=x"], ["--out=x"]])
def test_a_command_that_writes_twice_is_refused(planned, other):
    evaluation(planned)["command"] += other
    with pytest.raises(UsageError, match="does not write its output"):
        loaded(planned)


def test_jobs_that_wait_for_each_other_are_named(planned):
    first, second = planned["jobs"][:2]
    first["inputs"], second["inputs"] = [second["id"]], [first["id"]]
    with pytest.raises(UsageError, match=rf"jobs .*{first['id']}.* wait for each other, so none can start"):
        loaded(planned)


def test_a_job_that_waits_for_itself_is_named(planned):
    job = evaluation(planned)
    job["inputs"] = [job["id"]]
    with pytest.raises(UsageError, match=f"jobs {job['id']} wait for each other"):
        loaded(planned)


def test_a_job_before_what_it_needs_and_one_that_needs_nothing_known_are_refused(planned):
    turned = {**planned, "jobs": planned["jobs"][::-1]}
    with pytest.raises(UsageError, match=r"comes before .*, which it needs"):
        loaded(turned)
    evaluation(planned)["inputs"] = ["abc"]
    with pytest.raises(UsageError, match="needs abc, which is not in the plan"):
        loaded(planned)


def test_a_job_twice_is_refused(planned):
    planned["jobs"].append(copy.deepcopy(planned["jobs"][-1]))
    with pytest.raises(UsageError, match="occurs twice"):
        loaded(planned)


@pytest.mark.parametrize("output", ["/tmp/elsewhere", "studies/tiny/../../elsewhere", "elsewhere", "studies/tiny"])
def test_an_output_outside_of_the_study_is_refused_before_anything_runs(planned, output):
    job = evaluation(planned)
    command = [output if word == job["output"] else word for word in job["command"]]
    job.update(output=output, command=command, runs=[])
    plan = loaded(planned)
    with pytest.raises(UsageError, match="which is not in the folder of the study"):
        run_plan(plan, never)
    with pytest.raises(UsageError, match="which is not in the folder of the study"):
        run_job(plan, job["id"], never)


def test_a_result_outside_of_its_job_is_refused(planned):
    evaluation(planned)["runs"][0]["result"] = "studies/tiny/../../result.json"
    with pytest.raises(UsageError, match="is not in its output"):
        run_plan(loaded(planned), never)


@pytest.mark.parametrize(
    "content",
    [
        {"compute_environment": "AMAZON_SAGEMAKER"},
        {"distributed_type": "DEEPSPEED", "deepspeed_config": {"deepspeed_hostfile": "x"}},
        {"distributed_type": "TPU"},
        {"mpirun_config": {"mpirun_hostfile": "x"}},
    ],
    ids=lambda content: next(iter(content)),
)
def test_a_configuration_that_starts_something_else_is_refused(planned, content):
    job = loaded(planned).jobs[-1]
    write_json(Path("evil.yaml"), content)
    job.command = [*LAUNCH, "--config_file", "evil.yaml", *["-m", "ssl_transfer", *job.command[1:]]]
    with pytest.raises(UsageError, match="a study starts processes of this program alone"):
        check_launch(job)


def test_our_configurations_are_accepted(planned):
    job, found = loaded(planned).jobs[-1], sorted((Path(__file__).parents[2] / "launch/accelerate").glob("*.yaml"))
    assert len(found) >= 6
    for path in found:
        job.command = [
            *LAUNCH,
            "--config_file",
            str(path),
            "--main_process_port",
            "0",
            "-m",
            "ssl_transfer",
            *job.words,
        ]
        check_launch(job)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_a_plan_with_any_other_value_is_read_or_refused_in_words(planned, data):
    keys = data.draw(st.sampled_from(list(keys_in(planned))))
    content = replaced(planned, keys, data.draw(ANYTHING))
    try:
        plan = loaded(content)
        stage.status("studies/tiny")
        stage.check_settings(plan, check)
    except SslTransferError as error:
        assert len(str(error)) < 2000


# The other files of a study


def test_a_frozen_design_that_was_damaged_or_edited_is_not_taken_for_an_unfrozen_one(planned):
    plan = loaded(planned)
    freeze(plan)
    path = plan.folder / "frozen.json"
    text = path.read_text()
    assert len(frozen_versions(plan.folder)) == 1
    path.write_text(text[: len(text) // 2])
    with pytest.raises(UsageError, match=r"frozen\.json: is damaged.* Put back a copy"):
        frozen_versions(plan.folder)
    path.write_text(text.replace("Does it run?", "Does it win?"))
    with pytest.raises(UsageError, match="was changed after it was frozen"):
        frozen_versions(plan.folder)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"schema": 1, "looks": 3, "stopped": null}', '{"schema": 1, "looks": [{}]}']
)
def test_a_damaged_record_of_looks_is_not_taken_for_none(planned, content):
    folder = loaded(planned).folder
    assert read_looks(folder) == {"looks": [], "stopped": None}
    (folder / "looks.json").write_text(content)
    with pytest.raises(UsageError, match=r"looks\.json: .* Put back a copy"):
        read_looks(folder)
