"""The slurm profile on a real SLURM of one node (`one_node_slurm.py`)."""

import json
import sys
from types import SimpleNamespace

import pytest
from support.one_node_slurm import OneNodeSlurm, missing
from support.workplace import Workplace, job

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="Snakemake 9 needs Python 3.11"),
    pytest.mark.skipif(bool(missing()), reason=f"a SLURM of one node: {missing()}"),
]
# No accounting here, and more impatient than anyone should be with a cluster that others use.
IMPATIENT = [
    "--slurm-status-command",
    "squeue",
    "--slurm-init-seconds-before-status-checks",
    "3",
    "--latency-wait",
    "10",
]


@pytest.fixture(scope="module")
def slurm():
    with OneNodeSlurm() as running:
        yield running


class Queue:
    """A workplace whose jobs go through SLURM."""

    def __init__(self, slurm, place):
        self.slurm, self.place = slurm, place
        place.environment |= {
            "SLURM_CONF": slurm.environment["SLURM_CONF"],
            "PATH": f"{slurm.folder}/bin:{place.environment['PATH']}",
        }

    def start(self, *words):
        return self.place.start(*IMPATIENT, *words, profile="slurm")

    def number(self, letter) -> str:
        """SLURM's own number of the last job with this letter."""
        lines = self.slurm.run("squeue", "--states=all", "--noheader", "--format=%i %Z %k").splitlines()
        mine = [line.split()[0] for line in lines if str(self.place.folder) in line and line.endswith(16 * letter)]
        return max(mine, key=int)

    def asked(self, letter) -> dict[str, str]:
        """What SLURM knows of it."""
        words = self.slurm.run("scontrol", "show", "job", self.number(letter)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


@pytest.fixture(scope="module")
def disturbed(slurm, tmp_path_factory):
    """A study of four jobs, in which one is warned as before its time limit, and another loses its node."""
    jobs = [
        job("0", "ingest"),
        job("p", "pretrain", "0", steps=60, gpus=1, cpus=2, memory_gb=0.5),
        job("q", "pretrain", "0", steps=60, gpus=1),
        job("e", "evaluate", "pq"),
    ]
    queue = Queue(slurm, Workplace(tmp_path_factory.mktemp("disturbed"), jobs))
    snakemake = queue.start()
    queue.place.wait_for(
        lambda: {path.name[0] for path in (queue.place.folder / "checkpoints").glob("*")} >= {"p", "q"}, 120
    )
    asked = queue.asked("p")
    both = slurm.run("squeue", "--noheader", "--format=%T").split()
    slurm.run(
        "scancel", "--signal=TERM", queue.number("p")
    )  # to the steps and not to the script, as --signal=TERM@120 does
    slurm.run("scontrol", "requeue", queue.number("q"))
    queue.place.wait_for(lambda: queue.asked("q")["JobState"] == "PENDING")
    slurm.run("scontrol", "update", f"JobId={queue.number('q')}", "StartTime=now")  # it would wait for two minutes
    said, _ = snakemake.communicate(timeout=400)
    return SimpleNamespace(place=queue.place, status=snakemake.returncode, said=said, asked=asked, both=both)


def test_a_study_goes_through_the_queue(disturbed):
    assert disturbed.status == 0, disturbed.said
    assert disturbed.place.done() == "0epq"
    assert all(disturbed.place.events(letter) == ["from-0", "end"] for letter in "0e")


def test_independent_jobs_are_in_the_queue_at_the_same_time(disturbed):
    assert disturbed.both == ["RUNNING", "RUNNING"]


def test_a_job_gets_the_resources_that_the_plan_states(disturbed):
    assert disturbed.asked["TimeLimit"] == "00:10:00"
    assert disturbed.asked["NumNodes"] == "1" and disturbed.asked["NumCPUs"] == "2"
    assert "mem=500M" in disturbed.asked["TRES"] and disturbed.asked["TresPerJob"] == "gres:gpu:1"
    assert disturbed.asked["Requeue"] == "1"


@pytest.mark.parametrize("letter", ["p", "q"], ids=["warned of its time limit", "queued again"])
def test_a_job_that_is_interrupted_goes_on_from_its_checkpoint(disturbed, letter):
    first, again, end = disturbed.place.events(letter)
    assert (first, end) == ("from-0", "end") and int(again.removeprefix("from-")) > 0


def test_jobs_of_a_killed_snakemake_are_not_repeated_by_the_next(slurm, workplace):
    queue = Queue(slurm, workplace(job("0", "ingest", steps=100), job("1", "pretrain", "0")))
    snakemake = queue.start()
    queue.place.wait_for(lambda: queue.place.notes("0"))
    snakemake.kill()
    snakemake.wait()
    snakemake = queue.start()
    said, _ = snakemake.communicate(timeout=200)
    assert snakemake.returncode == 0, said
    assert all(queue.place.events(letter) == ["from-0", "end"] for letter in "01")


def test_many_short_jobs_can_be_sent_as_one(slurm, workplace):
    letters = "123456"
    queue = Queue(slurm, workplace(job("0", "ingest"), *(job(letter, needs="0") for letter in letters)))
    snakemake = queue.start("--groups", "evaluate=probes", "--group-components", "probes=3")
    said, _ = snakemake.communicate(timeout=200)
    assert snakemake.returncode == 0, said
    assert queue.place.done() == f"0{letters}"
    assert said.count("has been submitted with SLURM jobid") == 3


def test_a_real_study_goes_through_the_queue(slurm, workplace):
    queue = Queue(slurm, workplace())
    queue.place.really()
    said, _ = queue.start().communicate(timeout=500)
    assert json.loads(queue.place.call("ssl-transfer", "study", "status", "studies/small", "--json"))["done"] == 4, said
