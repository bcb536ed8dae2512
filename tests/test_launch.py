"""`launch/`: Accelerate reads every configuration, and a SLURM job that is sent SIGTERM is queued again exactly once."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "launch/accelerate").glob("*.yaml"))
SCRIPTS = sorted((ROOT / "launch/slurm").glob("*.sbatch"))

# What SLURM's srun does, without SLURM: it runs the command once per node and hands SIGTERM on.
FAKE_SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for node in $(seq 0 $((NODES - 1))); do SLURM_NODEID=$node "$@" & tasks+=($!); done
trap 'kill -TERM "${tasks[@]}"' TERM
status=0
for task in "${tasks[@]}"; do
  wait "$task"; ended=$?
  while kill -0 "$task" 2>/dev/null; do wait "$task"; ended=$?; done
  [ $ended -eq 0 ] || status=$ended
done
exit $status
"""
FAKE_SCONTROL = """#!/bin/bash
[ "$1" = show ] && { echo node-a; echo node-b; exit; }
echo "$@" >> "$CALLS/scontrol"
"""
# A stand-in for a training: it prints how it was called, and ends with the given status.
FAKE_ACCELERATE = """#!/bin/bash
trap 'echo TERM >> "$CALLS/signals"; exit $ON_TERM' TERM
echo "$@" > "$CALLS/accelerate-$SLURM_NODEID"
[ -n "$ENDS_WITH" ] && exit $ENDS_WITH
for tick in $(seq 600); do sleep 0.1; done
"""


def read(path):
    from accelerate.commands.config.config_args import load_config_from_file

    return load_config_from_file(str(path))


def test_there_is_a_configuration_for_each_kind_of_machine():
    assert [path.stem for path in CONFIGS] == ["cpu", "cpu2", "fsdp8", "gpu1", "gpu16_two_nodes", "gpu8"]
    assert [path.stem for path in SCRIPTS] == ["one_node", "two_nodes"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_configuration(path):
    config = read(path)
    assert config.num_processes == int(re.search(r"\d*$", path.stem.split("_")[0]).group() or 1)
    assert config.num_machines == (2 if "two_nodes" in path.stem else 1)
    assert config.mixed_precision == "no", "precision belongs to the recipe"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_begins_with_the_command_that_uses_it(path):
    comment = path.read_text().split("compute_environment")[0]
    assert f"accelerate launch --config_file launch/accelerate/{path.name}" in comment and "pretrain.py" in comment


def launched(monkeypatch, *words):
    """The arguments that `accelerate launch` settles on, and the environment that it gives to a process."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    monkeypatch.setattr(sys, "argv", ["accelerate", "launch", *words])  # it looks there for what was given explicitly
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args([*words, "pretrain.py", "recipe.yaml"]))
    return arguments, prepare_multi_gpu_env(arguments)


def test_two_nodes_run_eight_processes_each_and_meet_at_the_first(monkeypatch):
    config = ROOT / "launch/accelerate/gpu16_two_nodes.yaml"
    arguments, _ = launched(
        monkeypatch,
        "--config_file",
        str(config),
        "--machine_rank",
        "1",
        "--main_process_ip",
        "node-a",
        "--main_process_port",
        "29511",
    )
    assert (arguments.nproc_per_node, arguments.nnodes, arguments.node_rank) == ("8", "2", 1)
    assert arguments.rdzv_endpoint == "node-a:29511"


def test_the_fsdp_configuration_is_version_2_and_shards_the_blocks_of_a_vit(monkeypatch):
    _, environment = launched(monkeypatch, "--config_file", str(ROOT / "launch/accelerate/fsdp8.yaml"))
    assert environment["ACCELERATE_USE_FSDP"] == "true" and environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    assert environment["FSDP_TRANSFORMER_CLS_TO_WRAP"] == "Block"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_slurm_script_is_bash_and_names_files_that_exist(path):
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text()
    named = set(re.findall(r"(?:launch|recipes)/[\w/]+\.(?:yaml|sbatch)", text))
    assert {name.split("/")[0] for name in named} == {"launch", "recipes"}
    assert all((ROOT / name).exists() for name in named)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    assert {"requeue", "signal", "open-mode"} <= options.keys()
    config = read(ROOT / re.search(r"CONFIG=(\S+)", text).group(1))
    assert int(options["nodes"]) * int(options["gpus-per-node"]) == config.num_processes
    assert int(options["ntasks-per-node"]) == 1, "one launcher per node starts that node's processes"


class Job:
    """A SLURM script that runs where `srun`, `scontrol` and `accelerate` are stand-ins."""

    def __init__(self, folder, script, on_term=1, ends_with="", accelerate=FAKE_ACCELERATE, arguments=(), cwd=ROOT):
        self.calls, programs = folder / "calls", folder / "bin"
        for place in (self.calls, programs):
            place.mkdir(exist_ok=True)
        stand_ins = {"srun": FAKE_SRUN, "scontrol": FAKE_SCONTROL, "accelerate": accelerate}
        for name, text in stand_ins.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "NODES": "2" if script == "two_nodes" else "1",
            "ON_TERM": str(on_term),
            "ENDS_WITH": str(ends_with),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node-[a-b]",
            "PYTHONPATH": str(ROOT),
        }
        command = ["bash", ROOT / f"launch/slurm/{script}.sbatch", *arguments]
        self.process = subprocess.Popen(command, cwd=cwd, env=environment)

    def wait_for(self, happened, seconds=60):
        end = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None and time.monotonic() < end
            time.sleep(0.05)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def said(self, name):
        path = self.calls / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(("script", "nodes"), [("one_node", 1), ("two_nodes", 2)])
def test_sigterm_reaches_every_task_and_queues_the_job_again_once(tmp_path, script, nodes):
    job = Job(tmp_path, script)
    job.wait_for(lambda: all(job.said(f"accelerate-{node}") for node in range(nodes)))
    assert job.terminate() == 143
    assert job.said("signals") == ["TERM"] * nodes
    assert job.said("scontrol") == ["requeue 4711"]


@pytest.mark.parametrize("script", ["one_node", "two_nodes"])
@pytest.mark.parametrize("status", [0, 2])
def test_a_job_that_ends_by_itself_keeps_its_status_and_is_not_queued_again(tmp_path, script, status):
    job = Job(tmp_path, script, ends_with=status)
    assert job.process.wait(60) == status
    assert job.said("scontrol") == []


def test_a_training_that_finishes_after_sigterm_is_not_queued_again(tmp_path):
    job = Job(tmp_path, "one_node", on_term=0)
    job.wait_for(lambda: job.said("accelerate-0"))
    assert job.terminate() == 0
    assert job.said("scontrol") == []


def test_each_node_gets_its_rank_and_the_address_of_the_first(tmp_path):
    job = Job(tmp_path, "two_nodes", ends_with=0, arguments=["recipes/radnet_byol.yaml", "train.seed=3"])
    job.process.wait(60)
    for node in range(2):
        assert job.said(f"accelerate-{node}") == [
            f"launch --config_file launch/accelerate/gpu16_two_nodes.yaml --machine_rank {node} --main_process_ip node-a "
            "--main_process_port 24711 pretrain.py recipes/radnet_byol.yaml train.seed=3"
        ]


@pytest.mark.long
def test_a_terminated_job_goes_on_from_its_checkpoint(tmp_path, tiny_recipe):
    """The real launcher with two processes on the CPU, in place of eight GPUs."""
    settings = yaml.safe_load(tiny_recipe.read_text())
    settings["train"] |= {"epochs": 2000, "checkpoint_every_steps": 100_000}
    settings["data"]["store"] = str(settings["data"]["store"])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    shutil.copy(ROOT / "pretrain.py", tmp_path)
    real = Path(sys.executable).parent / "accelerate"
    config = ROOT / "launch/accelerate/cpu2.yaml"
    accelerate = f'#!/bin/bash\nexport ACCELERATE_USE_CPU=true\nexec {real} launch --config_file {config} "${{@:4}}"\n'
    run = tmp_path / "runs"

    def started():
        return any(path.stat().st_size for path in run.glob("*/log.jsonl"))

    job = Job(tmp_path, "one_node", accelerate=accelerate, arguments=[str(recipe)], cwd=tmp_path)
    job.wait_for(started)
    assert job.terminate() == 143
    assert job.said("scontrol") == ["requeue 4711"]
    (checkpoint,) = run.glob("*/checkpoints/checkpoint-*.pt")
    first = len(next(run.glob("*/log.jsonl")).read_text().splitlines())

    job = Job(tmp_path, "one_node", accelerate=accelerate, arguments=[str(recipe)], cwd=tmp_path)
    log = next(run.glob("*/log.jsonl"))
    job.wait_for(lambda: len(log.read_text().splitlines()) > first)
    assert job.terminate() == 143
    assert job.said("scontrol") == ["requeue 4711"] * 2
    assert max(run.glob("*/checkpoints/checkpoint-*.pt")) > checkpoint
