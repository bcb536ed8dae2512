"""Every test of an analysis may work in a folder of its own."""

from __future__ import annotations

import pytest
from support.analyses import made_store, textures


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch):
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plain_store(workdir):
    """48 textures of 16 patients, two labels."""
    patients = [f"p{i // 3:02d}" for i in range(48)]
    return made_store(
        workdir / "plain", textures(48), label=[["a", "b"][i // 3 % 2] for i in range(48)], patient=patients
    )
