"""Memory of an ingest: it does not grow by more than 300 bytes a file, with all that is listed, sorted and written."""

import gc
import importlib.util
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support.command_line import ROOT

from ssl_transfer.data.ingest.filling import prepare
from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.ingest.stage import DEFAULTS
from ssl_transfer.data.readers import items as items_module
from ssl_transfer.data.readers.items import Items
from ssl_transfer.data.readers.reader import Item, Scan

MOST = 300  # bytes
PATH = Path(
    "/archive/case.nii"
)  # of all made-up items: pathlib interns the parts of a path, in a table that grows by jumps


@pytest.fixture(scope="module")
def benchmark():
    """`benchmarks/ingest.py`, which writes small files and measures a process."""
    spec = importlib.util.spec_from_file_location("ingest", ROOT / "benchmarks/ingest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its functions are sent to a process
    spec.loader.exec_module(module)
    return module


class VolumesOfAPatientEach:
    """A scan of volumes that all differ: in patient, series, volume and window."""

    reads_folders, worth_workers = True, False

    def __init__(self, count):
        self.count = count

    def scan(self):
        return Scan(Items(map(self.item, range(self.count))), [], "stored", patient_per_file=True)

    def item(self, number):
        name = f"case_{number:06d}.nii"
        row = {"series": f"case_{number:06d}", "volume": 0, "label": "ab"[number % 2], "spacing_slice_mm": 1.0}
        span = (float(-number - 1), float(number))
        form = (2, (4, 4), 1, np.dtype(np.int16))
        return Item(name, PATH, *form, row, window=span, depth=(-1e6, 1e6), together=f"{name}#0")


def peak(count, tmp_path):
    """Bytes that deciding about so many volumes takes at most."""
    tmp_path = tmp_path / str(count)
    tmp_path.mkdir(parents=True)
    options = Options.of(DEFAULTS, {"range": "percentile"})
    gc.collect()
    tracemalloc.start()
    plan = prepare(tmp_path, VolumesOfAPatientEach(count), options, source="archive", warnings=[], measured=None)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.decisions["subjects"]["patients"] == count
    return most


def test_what_is_decided_about_a_file_takes_at_most_300_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(items_module, "IN_MEMORY", 0)
    monkeypatch.setattr(items_module, "BUFFER", 0)
    peak(50, tmp_path / "first")  # imports, caches
    assert (peak(400, tmp_path) - peak(50, tmp_path)) / 350 <= MOST


@pytest.mark.long
@pytest.mark.parametrize("kind", ["dicom", "pictures", "nifti", "masked"])
def test_a_file_takes_at_most_300_bytes(benchmark, tmp_path, monkeypatch, kind):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    answer = benchmark.memory(tmp_path, (11_000, 31_000), [kind])
    assert answer[f"{kind}_bytes_per_file"] <= MOST
