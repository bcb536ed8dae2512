"""Shared by the tests of every profile."""

import pytest
from support.workplace import Workplace


@pytest.fixture
def workplace(tmp_path):
    """Makes a `Workplace` of some jobs."""
    return lambda *jobs: Workplace(tmp_path, jobs)
