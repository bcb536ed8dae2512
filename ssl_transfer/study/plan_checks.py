"""Checks of a plan before anything of it is used: it may be damaged, or come from a stranger.

A plan is a list of this program's own verbs with settings. Its jobs write into the folder of the study, name other jobs as their
inputs without a circle, and are started by this program or by `accelerate launch` with its plain options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_transfer.errors import RecipeError, UsageError
from ssl_transfer.recipe import read_yaml
from ssl_transfer.records import validated

if TYPE_CHECKING:
    from ssl_transfer.study.plan import Job

LAUNCHER = ["accelerate", "launch"]
MODULE = ["-m", "ssl_transfer"]
FLAGS = {"--cpu", "--multi_gpu", "--same_network", "--use_fsdp", "--quiet"}  # of `accelerate launch`, without a value
VALUED = {
    "--config_file",
    "--num_processes",
    "--num_machines",
    "--machine_rank",
    "--main_process_ip",
    "--main_process_port",
    "--mixed_precision",
    "--dynamo_backend",
    "--gpu_ids",
    "--rdzv_backend",
    "--num_cpu_threads_per_process",
    "--max_restarts",
    "--monitor_interval",
}
CONFIG_KEYS = {  # of a configuration of Accelerate; none of them starts another program
    "compute_environment",
    "debug",
    "distributed_type",
    "downcast_bf16",
    "dynamo_config",
    "enable_cpu_affinity",
    "fsdp_config",
    "gpu_ids",
    "machine_rank",
    "main_process_ip",
    "main_process_port",
    "main_training_function",
    "mixed_precision",
    "num_machines",
    "num_processes",
    "rdzv_backend",
    "same_network",
    "use_cpu",
}
NUMBERS = {"resources": ("gpus", "cpus", "memory_gb", "minutes"), "cost": ("units", "seconds", "disk_mb")}
NEEDED = ("gpus", *NUMBERS["cost"])
TEXTS = ("kind", "like")
LISTED = 4  # jobs in a message


def check_jobs(where: Path, jobs: Sequence[Job]) -> None:
    """Refuse jobs that are not those of a study.

    Args:
        where: Path of the plan, for messages.
        jobs: All jobs of the plan.

    Raises:
        UsageError: If an id occurs twice, jobs wait for each other, a job comes before one that it needs, or a command is not a
            verb of a stage.
    """
    _check_order(where, jobs)
    for job in jobs:
        if problem := _command_problem(job) or _numbers_problem(job):
            raise UsageError(f"{where}: job {job.id}: {problem} Plan the study again.")
        for run in job.runs:
            validated(_Run, run, f"{where}: a run of job {job.id}", UsageError, "Plan the study again.")


@dataclass
class _Run:
    """The coordinates of an evaluation, and the path of its result."""

    protocol: str
    pretraining: str
    task: str
    strategy: str | None
    fraction: float
    pretraining_seed: int | None
    seed: int
    result: str


def check_outputs(folder: Path, jobs: Sequence[Job]) -> None:
    """Refuse jobs that write outside of the folder of the study.

    Raises:
        UsageError: If an output, or the result of a run, lies elsewhere.
    """
    inside = folder.resolve()
    for job in jobs:
        output = Path(job.output).resolve()
        if inside not in output.parents:
            raise UsageError(
                f"{folder}/plan.json: job {job.id} ({job.title}) writes {job.output}, which is not in the folder of the study. "
                "Run it from the folder in which it was planned, or plan the study again."
            )
        for run in job.runs:
            if output not in Path(run["result"]).resolve().parents:
                raise UsageError(
                    f"{folder}/plan.json: job {job.id}: its result {run['result']} is not in its output {job.output}. Plan again."
                )


def check_launch(job: Job) -> None:
    """Refuse the configuration of Accelerate of a job if it may start something else than processes of this program.

    Raises:
        UsageError: If it has other keys than `CONFIG_KEYS`, or is not of this machine or a plain distribution.
    """
    for option, value in _pairs(job.command[len(LAUNCHER) : job.command.index("-m")]):
        if option == "--config_file":
            try:
                content = read_yaml(Path(value))
            except RecipeError as error:
                raise UsageError(f"job {job.id}: --config_file {error}") from None
            unknown = sorted(set(content) - CONFIG_KEYS)
            kind, machine = (
                str(content.get("distributed_type", "NO")),
                content.get("compute_environment", "LOCAL_MACHINE"),
            )
            if unknown or machine != "LOCAL_MACHINE" or not re.fullmatch(r"NO|FSDP|MULTI_\w+", kind):
                raise UsageError(
                    f"{value}: {unknown[0] if unknown else kind}: a study starts processes of this program alone. Write a "
                    "configuration like those in launch/accelerate/."
                )


def _check_order(where: Path, jobs: Sequence[Job]) -> None:
    ids = [job.id for job in jobs]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise UsageError(f"{where}: job {twice} occurs twice. Plan the study again.")
    needs = {job.id: job.inputs for job in jobs}
    for name, inputs in needs.items():
        if missing := [needed for needed in inputs if needed not in needs]:
            raise UsageError(f"{where}: job {name} needs {missing[0]}, which is not in the plan. Plan the study again.")
    if circle := _circle(needs):
        raise UsageError(
            f"{where}: jobs {', '.join(circle[:LISTED])} wait for each other, so none can start. Plan the study again."
        )
    position = {name: number for number, name in enumerate(ids)}
    for name, inputs in needs.items():
        if late := [needed for needed in inputs if position[needed] > position[name]]:
            raise UsageError(f"{where}: job {name} comes before {late[0]}, which it needs. Plan the study again.")


def _circle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Jobs that wait for each other; empty if there are none."""
    left = {name: set(inputs) for name, inputs in needs.items()}
    while ends := [name for name, inputs in left.items() if not inputs & left.keys()]:  # nothing to wait for
        for name in ends:
            del left[name]
    while ends := left.keys() - set().union(*left.values()):  # nobody waits for them
        for name in ends:
            del left[name]
    return sorted(left)


def _command_problem(job: Job) -> str:
    """What is wrong with the command of a job, a sentence; empty if nothing is."""
    program, words = job.command[:1], job.command[1:]
    if job.command[:2] == LAUNCHER:
        if "-m" not in job.command or job.command[(at := job.command.index("-m")) : at + 2] != MODULE:
            return "it launches something else than this program."
        if problem := _launch_problem(job.command[2:at]):
            return problem
        words = job.command[at + 2 :]
    elif program != ["ssl-transfer"]:
        return f"its command is {' '.join(job.command)[:80]!r}, expected a verb of ssl-transfer."
    if not words or words[0] != job.stage:
        return f"its verb is {words[0] if words else 'missing'}, expected {job.stage}."
    outs = [
        number for number, word in enumerate(words) if word.startswith("--o")
    ]  # argparse accepts beginnings of a flag
    if len(outs) != 1 or words[outs[0]] != "--out" or words[outs[0] + 1 :][:1] != [job.output]:
        return f"its command does not write its output {job.output}."
    return ""


def _launch_problem(words: Sequence[str]) -> str:
    for option, value in _pairs(words):
        known = option in FLAGS or option in VALUED or re.fullmatch(r"--fsdp_\w+", option)
        if not known or (option not in FLAGS and (not value or value.startswith("-"))):
            return f"accelerate launch {option}: a study may not set this. Known: {', '.join(sorted(VALUED | FLAGS))}."
    return ""


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """Options of a launcher with their values; empty for flags."""
    pairs, left = [], list(words)
    while left:
        option, separator, value = left.pop(0).partition("=")
        if not separator and option not in FLAGS and left:
            value = left.pop(0)
        pairs.append((option, value))
    return pairs


def _numbers_problem(job: Job) -> str:
    """Which number of a job is none, a sentence; empty if all are."""
    for part, keys in NUMBERS.items():
        content: dict[str, Any] = getattr(job, part)
        for key in keys:
            value = content.get(key, None if key in NEEDED else 0)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e15:
                return f"{part}.{key}: found {value!r}, expected a number of at least 0."
    if missing := [key for key in TEXTS if not isinstance(job.cost.get(key), str)]:
        return f"cost.{missing[0]}: expected a text."
    return ""
