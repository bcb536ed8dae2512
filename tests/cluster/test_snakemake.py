"""`launch/Snakefile` and its profiles: nothing is done twice, whatever dies, and every trap of Snakemake that we know."""

import json
import os
import re
import signal
import sys
import time
from types import SimpleNamespace

import pytest
import yaml
from support.workplace import ROOT, Workplace, job

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="Snakemake 9 needs Python 3.11")
PROFILES = sorted(path.parent.name for path in (ROOT / "launch/profiles").glob("*/config.yaml"))


def test_there_is_a_profile_for_each_kind_of_machine():
    assert PROFILES == ["kubernetes", "local", "slurm"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_begins_with_the_command_that_uses_it(profile):
    head = (ROOT / f"launch/profiles/{profile}/config.yaml").read_text().split("\n__use", 1)[0]
    command = f"snakemake -s launch/Snakefile --profile launch/profiles/{profile} --config plan=studies/NAME/plan.json"
    assert f"#   {command}\n" in head.split("\n\n")[0]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_repeats_no_job_for_changed_code_deletes_no_record_and_does_not_lock_the_folder(profile):
    settings = yaml.safe_load((ROOT / f"launch/profiles/{profile}/config.yaml").read_text())
    assert settings["rerun-triggers"] == ["input"]
    assert all(settings[name] is True for name in ("rerun-incomplete", "keep-incomplete", "keep-going", "nolock"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no plan. Give what `ssl-transfer study plan` wrote: --config plan=studies/NAME/plan.json"),
        ("", "No such file"),
        ('{"kind": "plan", "schema": 7, "jobs": []}', "found plan of schema 7, expected a plan of schema 1"),
        ('{"kind": "plan", "schema": 1, "jobs": [{"id": "a", "stage": "dream"}]}', "no rule for stage 'dream'"),
    ],
    ids=["not given", "absent", "unknown schema", "unknown stage"],
)
def test_an_unusable_plan_is_refused_with_a_message(workplace, content, words):
    place = workplace()
    place.plan.write_text(content) if content else place.plan.unlink()
    status, said = place.run("-n", **({"plan": None} if content is None else {}))
    assert status == 1
    assert words in said


@pytest.mark.parametrize("profile", PROFILES)
def test_a_dry_run_lists_every_job_with_its_resources(workplace, profile):
    jobs = [
        job("0", "ingest", memory_gb=0.25, minutes=7.5),
        job("1", "pretrain", "0", gpus=2, cpus=8),
        job("2", "features", "01", gpus=1),
        job("3", "evaluate", "2"),
    ]
    status, said = workplace(*jobs).run("-n", "--cores", "16", "--resources", "gpu=4", profile=profile)
    assert status == 0
    asked = {
        found["id"][0]: (found["rule"], found["threads"], found["resources"])
        for found in re.finditer(
            r"rule (?P<rule>\w+):\n(?:    (?:input|output|log|jobid|reason).*\n)*    wildcards: id=(?P<id>\w+)\n"
            r"(?:    threads: (?P<threads>\d+)\n)?    resources: (?P<resources>.*)\n",
            said,
        )
    }
    assert {letter: (rule, threads) for letter, (rule, threads, _) in asked.items()} == {
        "0": ("ingest", None),
        "1": ("pretrain", "8"),
        "2": ("features", None),
        "3": ("evaluate", None),
    }
    assert "mem_mb=250" in asked["0"][2] and "runtime=13" in asked["0"][2], "five minutes more, rounded up"
    assert {letter: re.findall(r"gpu=(\d+)", text) for letter, (*_, text) in asked.items()} == {
        "0": [],
        "1": ["2"],
        "2": ["1"],
        "3": [],
    }


def test_targets_are_run_with_all_that_they_need_and_nothing_else(workplace):
    """The next look of a study, see `study.look_by_look.write_targets`."""
    place = workplace(job("0", "ingest"), job("1", "pretrain", "0"), job("2", "pretrain", "0"), job("3", "tune", "1"))
    (place.study / "targets.json").write_text(json.dumps({"jobs": [16 * "3"]}))
    status, said = place.run(targets="studies/small/targets.json")
    assert status == 0, said
    assert place.done() == "013"


def test_targets_of_another_plan_are_refused(workplace):
    place = workplace(job("0", "ingest"))
    (place.study / "targets.json").write_text(json.dumps({"jobs": [16 * "9"]}))
    status, said = place.run("-n", targets="studies/small/targets.json")
    assert status == 1
    assert "1 of its jobs are not in the plan. Plan the study again" in said


@pytest.fixture(scope="module")
def repaired(tmp_path_factory):
    """A study of seven jobs on two cores, run three times; `p` cannot be done the first time."""
    jobs = [
        job("0", "ingest", steps=8),
        job("1", "ingest", steps=8),
        job("p", "pretrain", "0", steps=2, obstacle="broken"),
        job("q", "pretrain", "1", gpus=1, steps=3),
        job("r", "pretrain", "1", gpus=1, steps=3),
        job("f", "features", "p"),
        job("e", "evaluate", "qr"),
    ]
    place = Workplace(tmp_path_factory.mktemp("repaired"), jobs)
    (place.folder / "broken").touch()

    def call():
        return SimpleNamespace(answer=place.run("--resources", "gpu=1"), done=place.done())

    first = call()
    (place.folder / "broken").unlink()
    return SimpleNamespace(place=place, first=first, second=call(), third=call())


def test_jobs_run_side_by_side(repaired):
    assert repaired.place.together("0", "1")


def test_no_more_gpus_are_in_use_than_there_are(repaired):
    assert not repaired.place.together("q", "r")


def test_a_failure_stops_only_what_depends_on_it(repaired):
    assert repaired.first.answer[0] == 1
    assert repaired.first.done == "01eqr"


def test_a_failure_shows_the_output_and_title_of_the_job(repaired):
    assert f"{16 * 'p'} cannot go on" in repaired.first.answer[1]
    assert "# pretrain 'of' p" in repaired.first.answer[1]


def test_a_checkpoint_survives_the_failure_of_its_job_and_the_next_attempt_goes_on_from_it(repaired):
    assert repaired.place.events("p") == ["from-0", "from-2", "end"]


def test_the_next_call_does_what_is_left_and_nothing_twice(repaired):
    assert repaired.second.answer[0] == 0
    assert repaired.second.done == "01efpqr"
    assert all(repaired.place.events(letter) == ["from-0", "end"] for letter in "01qrfe")


def test_a_study_that_is_done_has_nothing_to_do(repaired):
    status, said = repaired.third.answer
    assert status == 0 and "Nothing to be done" in said


def test_records_that_another_engine_wrote_count_whatever_their_age(workplace):
    """`ssl-transfer study run` leaves no metadata of Snakemake's, which compares times whatever `rerun-triggers` says."""
    place = workplace(job("0", "ingest"), job("1", "pretrain", "0"))
    (place.study / "jobs").mkdir()
    for letter, age in (("0", 0), ("1", 1000)):
        path = place.study / "jobs" / f"{16 * letter}.json"
        path.write_text("{}")
        os.utime(path, times=(time.time() - age,) * 2)
    status, said = place.run("-n")
    assert status == 0 and "Nothing to be done" in said


@pytest.mark.long
def test_only_a_lost_record_is_made_again(workplace):
    place = workplace(job("0", "ingest"), job("1", "pretrain", "0"))
    (place.study / "jobs").mkdir()
    (place.study / "jobs" / f"{16 * '1'}.json").write_text('"of old"')
    assert place.run()[0] == 0
    assert place.done() == "01"
    assert place.events("1") == []
    assert (place.study / "jobs" / f"{16 * '1'}.json").read_text() == '"of old"'


@pytest.mark.long
def test_a_killed_job_goes_on_with_the_next_call(workplace):
    place = workplace(job("0", "ingest", steps=20), job("1", "pretrain", "0"))
    snakemake = place.start()
    place.wait_for(lambda: (place.folder / "checkpoints" / (16 * "0")).exists())
    os.kill(place.notes("0")[0][3], signal.SIGKILL)
    snakemake.communicate(timeout=60)
    assert snakemake.returncode == 1 and place.done() == ""
    assert place.run()[0] == 0
    (first, again, end) = place.events("0")
    assert (first, end) == ("from-0", "end") and int(again.removeprefix("from-")) > 0


@pytest.mark.long
@pytest.mark.parametrize("meanwhile", ["goes on", "has ended"])
def test_a_killed_snakemake_is_followed_by_another_that_repeats_nothing(workplace, meanwhile):
    """Its job outlives it. Snakemake takes that job's record for a torso, which it would delete and do again."""
    place = workplace(job("0", "ingest", steps=10), job("1", "pretrain", "0"))
    snakemake = place.start()
    place.wait_for(lambda: place.notes("0"))
    snakemake.kill()
    snakemake.wait()
    if meanwhile == "has ended":
        place.wait_for(lambda: place.done() == "0")
    status, said = place.run()
    assert status == 0, said
    assert place.done() == "01"
    assert all(place.events(letter) == ["from-0", "end"] for letter in "01")


@pytest.mark.long
def test_two_snakemakes_share_one_study_and_do_nothing_twice(workplace):
    letters = "0123456789"
    place = workplace(*(job(letter, "ingest" if letter < "5" else "pretrain", steps=3) for letter in letters))
    answers = [process.communicate(timeout=120) and process.returncode for process in [place.start(), place.start()]]
    assert answers == [0, 0]
    assert place.done() == letters
    assert all(place.events(letter) == ["from-0", "end"] for letter in letters)


@pytest.mark.long
def test_a_record_that_appears_while_snakemake_runs_is_kept(workplace):
    """Snakemake deletes outputs before it starts a job."""
    place = workplace(job("0", "ingest", steps=10), job("1", "pretrain", "0"))
    snakemake = place.start()
    place.wait_for(lambda: place.notes("0"))
    (place.study / "jobs" / f"{16 * '1'}.json").write_text('"from elsewhere"')
    snakemake.communicate(timeout=60)
    assert snakemake.returncode == 0
    assert place.events("1") == []
    assert (place.study / "jobs" / f"{16 * '1'}.json").read_text() == '"from elsewhere"'


def test_the_real_program_does_what_the_stand_in_does(workplace):
    """Only the stores, because they need no torch."""
    place = workplace()
    place.really("stores.more.source=phantom:ct,patients=5,slices=2,size=16", "pretrainings.more.store=more")
    status, said = place.run("--until", "ingest")
    assert status == 0, said
    titles = {entry["id"]: entry["title"] for entry in json.loads(place.plan.read_text())["jobs"]}
    assert sorted(titles[path.stem] for path in (place.study / "jobs").glob("*.json")) == ["ingest ct", "ingest more"]


@pytest.mark.long
def test_a_real_pretraining_that_is_killed_goes_on_from_its_checkpoint(workplace):
    place = workplace()
    place.really("pretrain.set.train.epochs=100")
    snakemake = place.start()
    (entry,) = [entry for entry in json.loads(place.plan.read_text())["jobs"] if entry["stage"] == "pretrain"]
    place.wait_for(lambda: list((place.folder / entry["output"]).glob("checkpoints/*.pt")), 120)
    os.kill(int(place.call("pgrep", "-f", f"study job studies/small {entry['id']}").split()[0]), signal.SIGKILL)
    snakemake.communicate(timeout=120)
    assert snakemake.returncode == 1
    log = place.folder / entry["output"] / "log.jsonl"
    before = len(log.read_text().splitlines())
    status, said = place.run()
    assert status == 0, said
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert 0 < before < len(steps) and steps[-1] == 200
    assert len(steps) - len(set(steps)) <= 2, "it repeats at most what was done after the checkpoint"


@pytest.mark.long
def test_a_study_of_five_thousand_jobs_is_ready_within_a_minute(workplace):
    def entry(number, stage, needs=()):
        return job("0", stage) | {"id": f"{number:016x}", "inputs": [f"{one:016x}" for one in needs]}

    pretrainings = [entry(number, "pretrain") for number in range(100)]
    features = [entry(100 + number, "features", [number % 100]) for number in range(900)]
    evaluations = [entry(1000 + number, "evaluate", [100 + number % 900]) for number in range(4000)]
    place = workplace(*pretrainings, *features, *evaluations)
    begin = time.monotonic()
    status, said = place.run("-n", "--quiet")
    assert status == 0, said
    assert time.monotonic() - begin < 60
