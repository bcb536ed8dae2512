"""Do one job of a plan as a Kubernetes job and wait for it: `python launch/profiles/kubernetes/job.py STUDY_FOLDER ID`.

Its name on the cluster is made of the study's path and the id. So when Snakemake dies, its jobs go on, and the next finds them.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

TEMPLATE = Path(__file__).with_name("job.yaml")
SPARE_MINUTES = 5  # for starting, and for the last checkpoint
LONGEST_PAUSE = 30.0  # seconds between two looks
LOOKS_IN_VAIN = 40  # about 20 minutes without an answer from the cluster


def kubectl(*words: str, text: str | None = None) -> subprocess.CompletedProcess:
    """Run kubectl, in the namespace and cluster of its own configuration."""
    return subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True)


def manifest(folder: str, job_id: str) -> dict:
    """The template with what the plan says of one job."""
    plan = json.loads((Path(folder) / "plan.json").read_text())
    asked = next(job for job in plan["jobs"] if job["id"] == job_id)["resources"]
    body = yaml.safe_load(TEMPLATE.read_text())
    study = hashlib.blake2b(str(Path(folder).resolve()).encode(), digest_size=4).hexdigest()
    body["metadata"]["name"] = f"ssl-transfer-{study}-{job_id}"
    body["spec"]["activeDeadlineSeconds"] = math.ceil(60 * (asked["minutes"] + SPARE_MINUTES))
    container = body["spec"]["template"]["spec"]["containers"][0]
    amounts = {"cpu": asked["cpus"], "memory": f"{math.ceil(1000 * asked['memory_gb'])}M"}
    if asked["gpus"]:
        amounts["nvidia.com/gpu"] = asked["gpus"]  # must be a limit too
    container |= {
        "command": ["ssl-transfer", "study", "job", folder, job_id],
        "workingDir": os.getcwd(),
        "resources": {"requests": amounts, "limits": amounts},
    }
    return body


def state(name: str) -> str:
    """`absent`, `running`, `Complete`, `Failed`, or `unknown` if the cluster does not answer."""
    found = kubectl("get", "job", name, "--ignore-not-found", "--output", "json")
    if found.returncode:
        print(found.stderr, file=sys.stderr)
        return "unknown"
    if not found.stdout.strip():
        return "absent"
    conditions = json.loads(found.stdout).get("status", {}).get("conditions", [])
    ended = [one["type"] for one in conditions if one["status"] == "True" and one["type"] in ("Complete", "Failed")]
    return ended[0] if ended else "running"


def start(body: dict) -> None:
    """Create it, unless it runs already; what an earlier attempt left makes room."""
    name = body["metadata"]["name"]
    if state(name) in ("Complete", "Failed"):
        kubectl("delete", "job", name, "--wait=true")
    if state(name) != "running":
        created = kubectl("create", "--filename", "-", text=json.dumps(body))
        if created.returncode:
            sys.exit(created.stderr)


def wait(name: str) -> str:
    """The state in which it ends."""
    pause, in_vain = 1.0, 0
    while True:
        found = state(name)
        in_vain = in_vain + 1 if found == "unknown" else 0
        if found not in ("running", "unknown") or in_vain > LOOKS_IN_VAIN:
            return found
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)


def main(folder: str, job_id: str) -> None:
    """Start, wait, show what it said, tidy up. Ctrl-C stops it on the cluster too."""
    record = Path(folder) / "jobs" / f"{job_id}.json"
    if record.exists():
        return
    body = manifest(folder, job_id)
    name = body["metadata"]["name"]
    try:
        start(body)
        end = wait(name)
    except KeyboardInterrupt:
        kubectl("delete", "job", name, "--wait=false")
        raise SystemExit(130) from None
    print(kubectl("logs", f"job/{name}").stdout)
    if end == "Failed":
        print(kubectl("describe", "job", name).stdout)  # also says if it took too long, or found no room
    if end in ("Complete", "Failed"):
        kubectl("delete", "job", name, "--wait=false")
    if end != "Complete" and not record.exists():  # `absent`, if whoever waited for it too has tidied up first
        sys.exit(f"{name}: {end}")


if __name__ == "__main__":
    main(*sys.argv[1:])
