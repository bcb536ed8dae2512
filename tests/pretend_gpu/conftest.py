"""Shared by the tests on a pretend GPU; without a torch that can have one they are skipped."""

import pytest
from support.pretend_gpu import PretendGPU, is_possible


def pytest_collection_modifyitems(items):
    """Skip all tests of this folder if there can be no pretend GPU."""
    if not is_possible():
        for item in items:
            if "pretend_gpu" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="needs torch for CUDA, and backends registered from Python"))


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """On such small images a second thread only waits."""


@pytest.fixture
def gpu() -> PretendGPU:
    """A pretend GPU, to be entered."""
    return PretendGPU()
