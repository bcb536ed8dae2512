"""Memory of an ingest: it does not grow by more than 300 bytes a file, with all that is listed, sorted and written."""

import importlib.util
import sys

import pytest
from support.command_line import ROOT


@pytest.fixture
def benchmark():
    """`benchmarks/ingest.py`, which writes small DICOM files and measures a process."""
    spec = importlib.util.spec_from_file_location("ingest", ROOT / "benchmarks/ingest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its functions are sent to a process
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_a_file_takes_at_most_300_bytes(benchmark, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    answer = benchmark.memory(tmp_path, (11_000, 31_000))
    assert answer["bytes_per_file"] <= 300
