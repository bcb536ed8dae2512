"""`benchmarks/scaling.py`: the simulation agrees with what can be said without one."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

spec = importlib.util.spec_from_file_location("scaling", Path(__file__).parent.parent / "benchmarks/scaling.py")
scaling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scaling)


def waited(latency, step, disk=0.0, gpus=2, readers=4, batch=128):
    return scaling.simulate(np.array([latency]), batch, step, disk, gpus, readers, batches=200)


def test_a_gpu_that_is_slower_than_its_readers_never_waits():
    assert waited(latency=0.1, step=0.06) == pytest.approx(0, abs=1e-9)  # 4 readers give a batch of 128 every 0.05 s


def test_readers_that_are_too_slow_limit_the_gpu():
    assert waited(latency=0.1, step=0.02) == pytest.approx(1 - 0.02 / 0.05, abs=0.02)


def test_a_disk_that_is_too_slow_limits_every_gpu():
    assert waited(latency=0.001, step=0.1, disk=0.08, gpus=8) == pytest.approx(1 - 0.1 / (8 * 0.08), abs=0.03)
