"""The kubernetes profile, with a stand-in for kubectl that runs what a job would run in its pod."""

import json
import sys

import pytest
from support.workplace import job

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="Snakemake 9 needs Python 3.11")

KUBECTL = f"""#!{sys.executable} -S
import json, os, subprocess, sys
os.makedirs("pods", exist_ok=True)
def place(name, suffix):
    return os.path.join("pods", name + suffix)
verb, *words = sys.argv[1:]
if verb == "create":
    body = json.load(sys.stdin)
    name, (container,) = body["metadata"]["name"], body["spec"]["template"]["spec"]["containers"]
    if os.path.exists(place(name, ".pod")):
        sys.exit(name + " already exists")
    for suffix in (".pod", ".seen"):
        with open(place(name, suffix), "a") as file:
            file.write(json.dumps(body) + "\\n")
    command = " ".join(container["command"]) + f" > {{place(name, '.log')}} 2>&1; echo $? > {{place(name, '.status')}}"
    subprocess.Popen(["bash", "-c", command], cwd=container["workingDir"], start_new_session=True)
    sys.exit()
name = words[words.index("job") + 1] if "job" in words else words[0].removeprefix("job/")
if not os.path.exists(place(name, ".pod")):
    sys.exit()
if verb == "get":
    ended = open(place(name, ".status")).read().strip() if os.path.exists(place(name, ".status")) else ""
    conditions = [{{"type": "Complete" if ended == "0" else "Failed", "status": "True"}}] if ended else []
    print(json.dumps({{"status": {{"conditions": conditions}}}}))
elif verb == "logs":
    print(open(place(name, ".log")).read())
elif verb == "delete":
    os.remove(place(name, ".pod"))
    os.remove(place(name, ".status"))
"""


@pytest.fixture
def cluster(workplace):
    """A `Workplace` whose jobs run in pods; `pods` reads what was asked for: letter -> specifications, one for each attempt."""

    def make(*jobs):
        place = workplace(*jobs)
        place.program("kubectl", KUBECTL)
        return place

    return make


def pods(place):
    found = {path.stem[-1]: path.read_text().splitlines() for path in (place.folder / "pods").glob("*.seen")}
    return {letter: [json.loads(line)["spec"] for line in lines] for letter, lines in found.items()}


def test_a_study_runs_in_pods_with_the_resources_that_the_plan_states(cluster):
    place = cluster(job("0", "ingest"), job("1", "pretrain", "0", gpus=2, cpus=8, memory_gb=0.5, minutes=10.0))
    status, said = place.run(profile="kubernetes")
    assert status == 0, said
    assert place.done() == "01" and place.events("1") == ["from-0", "end"]
    (pod,) = pods(place)["1"]
    (container,) = pod["template"]["spec"]["containers"]
    assert container["command"] == ["ssl-transfer", "study", "job", "studies/small", 16 * "1"]
    assert container["workingDir"] == str(place.folder)
    assert container["resources"]["limits"] == {"cpu": 8, "memory": "500M", "nvidia.com/gpu": 2}
    assert pod["activeDeadlineSeconds"] == 15 * 60
    (small,) = pods(place)["0"]
    assert "nvidia.com/gpu" not in small["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_a_pod_that_fails_is_tried_again_and_its_output_is_shown(cluster):
    place = cluster(job("0", "ingest", steps=2, obstacle="launch"))
    status, said = place.run("--retries", "1", profile="kubernetes")
    assert status == 1
    assert place.events("0") == ["from-0", "from-2"] and len(pods(place)["0"]) == 2
    assert f"{16 * '0'} cannot go on" in said


@pytest.mark.long
def test_a_pod_that_outlived_snakemake_is_waited_for(cluster):
    place = cluster(job("0", "ingest", steps=30))
    snakemake = place.start(profile="kubernetes")
    place.wait_for(lambda: place.notes("0"))
    snakemake.kill()
    snakemake.wait()
    status, said = place.run(profile="kubernetes")
    assert status == 0, said
    assert place.events("0") == ["from-0", "end"] and len(pods(place)["0"]) == 1
