"""A planned study in a folder of its own, where `ssl-transfer study job` is a stand-in, and the Snakemake that works on it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = Path(sys.executable).parent

# What `ssl-transfer study job FOLDER ID` promises, without torch: a lock, a record written last, a checkpoint after every step of
# 0.1 s. A job's command is its number of steps and, if it shall fail, a file: it fails at its end as long as that is there.
STAND_IN = f"""#!{sys.executable} -S
import fcntl, json, os, signal, sys, time
folder, id = sys.argv[3:]
record, checkpoint = f"{{folder}}/jobs/{{id}}.json", f"checkpoints/{{id}}"
def note(what):
    with open("notes", "a") as file:
        file.write(f"{{id}} {{what}} {{time.time()}} {{os.getpid()}}\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
for place in (f"{{folder}}/jobs", "checkpoints"):
    os.makedirs(place, exist_ok=True)
lock = open(f"{{folder}}/jobs/{{id}}.lock", "a")
fcntl.flock(lock, fcntl.LOCK_EX)
if os.path.exists(record):
    sys.exit(0)
(job,) = (job for job in json.load(open(f"{{folder}}/plan.json"))["jobs"] if job["id"] == id)
steps, *obstacle = job["command"]
done = int(open(checkpoint).read()) if os.path.exists(checkpoint) else 0
note(f"from-{{done}}")
for step in range(done, int(steps)):
    time.sleep(0.1)
    with open(checkpoint, "w") as file:
        file.write(str(step + 1))
if any(map(os.path.exists, obstacle)):
    sys.exit(f"{{id}} cannot go on")
note("end")
with open(record + ".part", "w") as file:
    file.write("{{}}")
os.rename(record + ".part", record)
"""


# A real study of four jobs, as small as they get: a store, a pretraining, its features, a score.
SMALL = {
    "title": "Small",
    "question": "None.",
    "stores": {"ct": {"source": "phantom:ct,patients=8,slices=4,size=16"}},
    "pretrain": {
        "recipe": str(ROOT / "recipes/quickstart_simclr.yaml"),
        "set": {
            "data.size": 16,
            "backbone.options": {"channels": [8, 16, 32, 64], "stem_width": 8},
            "method.hidden_dim": 32,
            "train.epochs": 1,
            "train.warmup_epochs": 0,
            "train.batch_size": 12,
            "train.workers": 0,
            "train.checkpoint_every_steps": 2,
            "train.log_every_steps": 1,
            "monitor.every_epochs": 1000,
            "tracker": "none",
        },
    },
    "pretrainings": {"CT": {"store": "ct"}},
    "pretraining_seeds": [0],
    "tasks": {"region": {"card": "phantom_region", "store": "ct"}},
    "evaluations": [{"protocol": "knn"}],
    "statistics": {"primary": {"protocol": "knn", "metric": "balanced_accuracy"}},
    "resources": {stage: {"memory_gb": 1.5} for stage in ("ingest", "pretrain", "features", "knn")},
}


def job(letter, stage="evaluate", needs="", steps=1, obstacle=None, **resources):
    """An entry of a plan; its id is a letter or digit, sixteen times."""
    return {
        "id": 16 * letter,
        "stage": stage,
        "title": f"{stage} 'of' {letter}",
        "inputs": [16 * one for one in needs],
        "command": [str(steps), *([obstacle] if obstacle else [])],
        "resources": {"gpus": 0, "cpus": 1, "memory_gb": 0.1, "minutes": 5.0} | resources,
    }


class Workplace:
    """Runs Snakemake with a profile of ours, and says what the jobs did."""

    def __init__(self, folder: Path, jobs):
        self.folder, self.study = folder, folder / "studies" / "small"
        self.study.mkdir(parents=True)
        (folder / "launch").symlink_to(ROOT / "launch")
        self.program("ssl-transfer", STAND_IN)
        self.plan = self.study / "plan.json"
        self.plan.write_text(json.dumps({"schema": 1, "kind": "plan", "name": "small", "jobs": jobs}))
        self.environment = {
            **os.environ,
            "PATH": f"{folder / 'bin'}{os.pathsep}{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    def program(self, name, text):
        """Put an executable first on PATH."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def really(self, *words):
        """Plan `SMALL` with some settings, and do its jobs with the program itself."""
        (self.folder / "bin/ssl-transfer").unlink()
        (self.folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
        self.call("ssl-transfer", "study", "plan", "small.yaml", *words)

    def call(self, *command) -> str:
        """What a command prints here."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def start(self, *words, profile="local", plan="studies/small/plan.json", targets=None) -> subprocess.Popen:
        """Snakemake, as the head of each profile says how to start it."""
        config = {name: value for name, value in (("plan", plan), ("targets", targets)) if value is not None}
        command = ["snakemake", "-s", "launch/Snakefile", "--profile", f"launch/profiles/{profile}"]
        command += [
            *["--cores", "2"] * (profile == "local"),
            *words,
            *(["--config", *(f"{name}={value}" for name, value in config.items())] if config else []),
        ]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *words, **options) -> tuple[int, str]:
        """Its exit status and what it said."""
        process = self.start(*words, **options)
        said, _ = process.communicate(timeout=300)
        return process.returncode, said

    def notes(self, letter=None):
        """What jobs noted of themselves, in order: (letter, event, seconds, process)."""
        path = self.folder / "notes"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        found = [(id[0], event, float(seconds), int(process)) for id, event, seconds, process in lines]
        return [note for note in found if letter in (None, note[0])]

    def events(self, letter):
        """What one job did: `from-N` (steps that a checkpoint had), `end`."""
        return [event for _, event, *_ in self.notes(letter)]

    def together(self, one, other) -> bool:
        """Whether two jobs were at work at the same moment."""
        (start, end), (start_other, end_other) = ([note[2] for note in self.notes(letter)] for letter in (one, other))
        return start < end_other and start_other < end

    def done(self) -> str:
        """Letters of the jobs that have a record."""
        return "".join(sorted(path.name[0] for path in (self.study / "jobs").glob("*.json")))

    def wait_for(self, happened, seconds=60):
        """Until something is so."""
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end
            time.sleep(0.02)
