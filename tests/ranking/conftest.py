"""Every test of this folder works in a folder of its own: features are kept under `runs/` of the working directory."""

import pytest


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
