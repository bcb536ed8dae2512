"""Items in a file behave as those of a list."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.command_line import ROOT

from ssl_transfer.data.readers import items as items_module
from ssl_transfer.data.readers.items import Items, stored_in
from ssl_transfer.data.readers.reader import Item


def item(number, **changes):
    row = {"patient": f"P{number}", "slice": np.int64(number), "z_mm": 2.5 * number, "label": None}
    values = {"uid": f"1.2.{number}", "window": (-160.0, 240.0), "depth": None, "together": "s1", **changes}
    path = Path(f"/archive/f\udce9{number}.dcm")  # a name that is not UTF-8
    return Item(f"f{number}.dcm", path, 1, (4, 5), 1, np.dtype(np.int16), row, **values)


def plain(stored):
    """As an item that is in no file, to be compared."""
    return pickle.loads(pickle.dumps(stored))


@pytest.fixture(autouse=True, params=[0, 100])
def in_memory(request, monkeypatch):
    monkeypatch.setattr(items_module, "IN_MEMORY", request.param)


@pytest.fixture
def items():
    return Items(item(number) for number in range(300))


def test_items_come_back_as_they_were(items):
    assert len(items) == 300
    assert [plain(stored) for stored in items] == [item(number) for number in range(300)]
    assert plain(items[-1]) == item(299) and [s.uid for s in items[5:7]] == ["1.2.5", "1.2.6"]
    assert type(plain(items[0])) is Item and type(plain(items[0]).row) is dict


def test_changes_are_kept_however_they_are_made(items):
    for number, stored in enumerate(items):
        stored.row |= {"label": f"class {number % 3}"}
    items[7].row["extra"] = 1
    items[7].row.pop("z_mm")
    items[8].mask = Path("/masks/8.png")
    items[9].dtype = np.dtype(np.float32)
    assert [stored.row["label"] for stored in items][:4] == ["class 0", "class 1", "class 2", "class 0"]
    assert items[7].row["extra"] == 1 and "z_mm" not in items[7].row
    assert items[8].mask == Path("/masks/8.png") and items[9].dtype == np.float32


def test_the_file_is_in_the_given_folder_and_has_no_name(tmp_path):
    with stored_in(tmp_path):
        items = Items([item(0)])
        assert list(tmp_path.iterdir()) == [] and items[0].uid == "1.2.0"


MEASURED = """
import gc, tracemalloc
from ssl_transfer.data.readers import items as module
from data.readers.test_items import item
module.IN_MEMORY = {in_memory}
items = module.Items([item(0)])
gc.collect()
tracemalloc.start()
for _ in range(60_000):
    items.append(item(0))
gc.collect()
print(tracemalloc.get_traced_memory()[0])
"""


@pytest.mark.long
def test_an_item_takes_a_hundred_bytes_of_memory_at_most():
    """In a process of its own: what earlier tests have left behind may allocate meanwhile."""
    code = MEASURED.format(in_memory=items_module.IN_MEMORY)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 60_000 * 100
