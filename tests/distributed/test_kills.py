"""Kills: whatever a run was doing when it was killed, the same command ends with the bytes of an unbroken one.

Every attempt is one real process per rank, which leads a session of its own as a SLURM step does, and is killed by a
signal to all of it. A server that has imported everything once forks them, so that an attempt costs no seconds.
Every kill waits for a checkpoint that is new, so a run of N steps survives at most N / EVERY of them, and always ends.
"""

import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest
import torch
from support.stores import with_damaged_frames

from ssl_transfer.cli import main
from ssl_transfer.data.ingest.stage import ingest

EVERY = 2  # steps between checkpoints
OVERRIDES = (
    # Stochastic depth draws from torch's own generator: a run that restores less than everything ends elsewhere.
    "backbone.name=vit_tiny_patch16_224",
    "backbone.options={patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2, drop_path_rate: 0.5}",
    "method={name: simclr, hidden_dim: 4096, projection_dim: 64}",  # a checkpoint of 4 MB takes a while to write
    "train.workers=1",
)
FORK = multiprocessing.get_context("forkserver")
WORLDS = [pytest.param(1, marks=pytest.mark.long), 2]  # numbers of processes


def attempt(rank, world, port, arguments, stderr_path):
    """One rank, from its fork to its end."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # readers are what they are in any other run
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if world > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "ACCELERATE_USE_CPU": "true",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    torch.set_num_threads(1)
    os.dup2(os.open(stderr_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    sys.exit(main(["pretrain", *arguments]))


class Attempt:
    """A run's processes, started.

    Args:
        recipe: To run.
        out: Folder of the run.
        world: How many ranks.
        overrides: Of the recipe.
    """

    def __init__(self, recipe, out, world, overrides):
        self.out, self.started_ns, self.first = out, time.time_ns(), newest(out)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = [str(recipe), *overrides, "--out", str(out)]
        self.ranks = [
            FORK.Process(target=attempt, args=(rank, world, port, arguments, f"{out}-{rank}.txt"))
            for rank in range(world)
        ]
        for process in self.ranks:
            process.start()

    @property
    def alive(self):
        return all(process.is_alive() for process in self.ranks)

    def until(self, reached, seconds=100):
        """Wait for something, as long as all ranks live."""
        deadline = time.monotonic() + seconds
        while not reached() and self.alive:
            assert time.monotonic() < deadline, f"nothing happened for {seconds} s"
            time.sleep(0.0005)

    def kill(self, how, ranks=None):
        """Send a signal to the sessions of some ranks (all), and wait for the end of all; returns their statuses."""
        for rank, process in enumerate(self.ranks):
            if ranks is None or rank in ranks:
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.killpg(process.pid, how)
        return self.ended()

    def ended(self, seconds=100):
        """Wait for the end of all ranks; returns their statuses, None for one that still runs."""
        for process in self.ranks:
            process.join(seconds)
        return [process.exitcode for process in self.ranks]

    def writing(self):
        """Whether this attempt is in the middle of a checkpoint, or died there."""
        times = [path.stat().st_mtime_ns for path in self.out.glob("checkpoints/*.partial") if path.exists()]
        return any(time_ns > self.started_ns for time_ns in times)

    def new_checkpoint(self):
        return newest(self.out) > self.first


def newest(out):
    """Step of the newest checkpoint; 0 without one."""
    return max((int(path.stem.rpartition("-")[2]) for path in out.glob("checkpoints/*.pt")), default=0)


def losses(out):
    return [(line["step"], line["loss"]) for line in map(json.loads, (out / "log.jsonl").read_text().splitlines())]


def weights(out):
    return (out / "backbone" / "model.safetensors").read_bytes()


def stderr_of(out, rank=0):
    return Path(f"{out}-{rank}.txt").read_text()


@pytest.fixture(scope="module")
def server():
    """The process that forks attempts; it has imported what they need, and ends with these tests."""
    FORK.set_forkserver_preload(
        [
            "pytest",
            "ssl_transfer.pretraining",
            "pandas",
            "pyarrow.parquet",
            "torch.nn.parallel.distributed",
            "lightly.loss",
        ]
    )
    yield
    forkserver._forkserver._stop()


@pytest.fixture(scope="module")
def launch(server, tiny_recipe):
    """Start attempts; in the end no process of any of their sessions is left."""
    started = []

    def launched(out, world, *overrides):
        cadence = f"train.checkpoint_every_steps={EVERY}"
        started.append(Attempt(tiny_recipe, out, world, (*OVERRIDES, cadence, *overrides)))
        return started[-1]

    yield launched
    sessions = {process.pid for each in started for process in each.ranks}
    for each in started:
        for process in each.ranks:
            if process.is_alive():
                process.kill()
                process.join(10)
    assert not left_of(sessions)


def left_of(sessions, patience=20):
    """Processes of some sessions that are still running; a reader whose trainer is gone ends within seconds."""
    deadline = time.monotonic() + patience
    while True:
        left = []
        for process in psutil.process_iter(["status"]):
            try:
                if os.getsid(process.pid) in sessions and process.info["status"] != psutil.STATUS_ZOMBIE:
                    left.append(process)
            except (ProcessLookupError, PermissionError):
                continue
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


@pytest.fixture(scope="module")
def unbroken(launch, tmp_path_factory):
    """Runs that nothing interrupts, by number of ranks and epochs."""
    made = {}

    def run(world, epochs):
        if (world, epochs) not in made:
            out = made[world, epochs] = tmp_path_factory.mktemp("unbroken") / "run"
            assert launch(out, world, f"train.epochs={epochs}").ended() == [0] * world, stderr_of(out)
        return made[world, epochs]

    return run


def strike(running, draw):
    """Kill a run at a random moment after its next checkpoint; returns how."""
    running.until(running.new_checkpoint)
    how = draw.choice(["any moment", "any moment", "in a checkpoint", "SIGTERM to all", "SIGTERM to the last"])
    if how == "in a checkpoint":
        running.until(running.writing)
        running.kill(signal.SIGKILL)
        return "in a checkpoint" if running.writing() else "any moment"
    time.sleep(draw.uniform(0, 0.03))
    if how == "any moment":
        running.kill(signal.SIGKILL)
    else:
        statuses = running.kill(signal.SIGTERM, None if how == "SIGTERM to all" else [len(running.ranks) - 1])
        assert set(statuses) <= {143, 0}
    return how


def finish(launch, out, world, expected, *overrides):
    """Let the run come to its end, and hold it against the unbroken one."""
    assert launch(out, world, *overrides).ended() == [0] * world, stderr_of(out)
    assert weights(out) == weights(expected)
    assert losses(out) == losses(expected)
    assert not (out / "checkpoints").exists()


@pytest.mark.long
@pytest.mark.parametrize("world", WORLDS)
def test_a_run_killed_at_a_step_and_in_a_checkpoint_ends_as_the_unbroken_one(launch, unbroken, tmp_path, world):
    out, epochs = tmp_path / "killed", "train.epochs=20"
    running = launch(out, world, epochs)
    running.until(running.new_checkpoint)
    assert running.kill(signal.SIGKILL) == [-signal.SIGKILL] * world
    for _ in range(5):  # one of them dies while it writes
        running = launch(out, world, epochs)
        running.until(running.new_checkpoint)
        running.until(running.writing)
        assert running.kill(signal.SIGKILL) == [-signal.SIGKILL] * world
        if running.writing():
            break
    assert running.writing() and not (out / "backbone").exists()
    finish(launch, out, world, unbroken(world, 20), epochs)
    assert stderr_of(out).count("continuing from step") >= 2


@pytest.mark.parametrize("world", WORLDS)
def test_sigterm_leaves_a_checkpoint_of_that_step_and_status_143(launch, unbroken, tmp_path, world):
    """SLURM sends it to every process; the readers outlive it, and the ranks agree on the step."""
    out, overrides = tmp_path / "terminated", ("train.epochs=20", "train.checkpoint_every_steps=100000")
    running = launch(out, world, *overrides)
    running.until(lambda: (out / "log.jsonl").exists() and len((out / "log.jsonl").read_text().splitlines()) >= 7)
    assert running.kill(signal.SIGTERM) == [143] * world, stderr_of(out)
    step = newest(out)
    assert step == len(losses(out)) >= 7
    assert f"stopped by SIGTERM at step {step} of 60; the same command continues from there" in stderr_of(out)
    finish(launch, out, world, unbroken(world, 20), *overrides)
    assert f"continuing from step {step}" in stderr_of(out)


@pytest.mark.long
def test_two_ranks_take_the_checkpoint_before_a_truncated_one_and_say_so(launch, unbroken, tmp_path):
    out, epochs = tmp_path / "truncated", "train.epochs=20"
    running = launch(out, 2, epochs)
    running.until(lambda: newest(out) >= 3 * EVERY)
    running.kill(signal.SIGKILL)
    step = newest(out)
    newest_file = out / "checkpoints" / f"checkpoint-{step:08d}.pt"
    os.truncate(newest_file, newest_file.stat().st_size // 2)
    finish(launch, out, 2, unbroken(2, 20), epochs)
    assert f"{newest_file.name}: this checkpoint is damaged; trying the previous one" in stderr_of(out)
    assert f"continuing from step {step - EVERY}" in stderr_of(out)


def test_when_one_rank_dies_the_other_does_not_wait_forever_and_the_run_resumes(launch, unbroken, tmp_path):
    out, epochs = tmp_path / "lost", "train.epochs=20"
    running = launch(out, 2, epochs)
    running.until(running.new_checkpoint)
    started = time.monotonic()
    survivor, lost = running.kill(signal.SIGKILL, [1])
    assert lost == -signal.SIGKILL and survivor not in (0, None) and time.monotonic() - started < 60
    finish(launch, out, 2, unbroken(2, 20), epochs)


def test_a_reader_that_fails_ends_the_run_with_its_message_and_status_2(launch, tmp_path):
    """Readers outlive SIGTERM, so nobody must wait for them to die of it."""
    ingest("phantom:ct,patients=8,slices=6,size=32", tmp_path / "damaged", compress=True, workers=1)
    with_damaged_frames(tmp_path / "damaged")
    running = launch(tmp_path / "run", 1, f"data.store={tmp_path / 'damaged'}", "monitor.label=modality")
    assert running.ended(30) == [2]
    assert "cannot be decoded: the shard was damaged. Ingest the source again" in stderr_of(tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize("world", [1, 2])
def test_a_run_killed_over_twenty_times_at_random_moments_ends_as_the_unbroken_one(launch, unbroken, tmp_path, world):
    draw, out, epochs = random.Random(world), tmp_path / "killed", "train.epochs=160"
    kills = []
    while len(kills) < 24:
        running = launch(out, world, epochs)
        kills.append(strike(running, draw))
        assert not (out / "backbone").exists(), f"the run ended after {len(kills)} kills; give it more epochs"
    assert len(kills) >= 20 and kills.count("in a checkpoint") >= 2
    finish(launch, out, world, unbroken(world, 160), epochs)
    assert stderr_of(out).count("continuing from step") == 24
