"""Shared by the tests of training and evaluation: tiny labelled stores, a recipe that fits, and a way to run it."""

import fcntl
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.command_line import Answer, ssl_transfer
from support.stores import resealed

ROOT = Path(__file__).parent.parent

SLOWEST_FILES = (  # each goes to one worker whole, so the longest start first
    "docs/test_commands.py",
    "test_notebooks.py",
    "study/test_engine.py",
    "distributed/test_two_ranks.py",
    "distributed/test_kills.py",
    "cli/test_wrong_input.py",
    "cli/test_cli.py",
    "study/test_report_of_a_study.py",
    "study/test_score_validity.py",
    "distributed/test_strategies_two_ranks.py",
    "distributed/test_sharded.py",
    "test_quickstart.py",
    "analysis/test_odd_stores.py",
    "study/test_external_results.py",
    "test_adding.py",
)

RECIPE = """
data:      {{store: {store}, views: ct, size: 16}}
backbone:  {{name: resnet10t, options: {{channels: [8, 16, 32, 64], stem_width: 8}}}}
method:    {{name: simclr, hidden_dim: 32, projection_dim: 16}}
optimizer: {{name: adamw, lr: 1e-3}}
train:     {{epochs: 2, batch_size: 12, precision: fp32, workers: 0, log_every_steps: 1, checkpoint_every_steps: 2}}
monitor:   {{every_epochs: 1000}}
tracker:   none
"""


def pytest_addoption(parser):
    parser.addoption("--pretend-gpu", action="store_true", help="run every test on the GPU of support/pretend_gpu.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """With `--pretend-gpu`, a test and its fixtures have a GPU, if torch can pretend one."""
    if not item.config.option.pretend_gpu:
        return (yield)
    from support.pretend_gpu import PretendGPU, is_possible

    if not is_possible():
        item.add_marker(pytest.mark.skip(reason="needs torch for CUDA, and backends registered from Python"))
        return (yield)
    with PretendGPU():
        return (yield)


def pytest_configure(config):
    """Hide the GPUs of the machine, except from `pytest -m gpu`: all other tests compare with computations on the CPU."""
    if "gpu" not in config.option.markexpr.replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    """Put the files of `SLOWEST_FILES` first: otherwise one worker still runs a long file when the other has nothing left."""
    rank = {str(ROOT / "tests" / name): number for number, name in enumerate(SLOWEST_FILES)}
    items.sort(key=lambda item: rank.get(str(item.path), len(rank)))


@pytest.fixture(scope="session")
def ct_store(tmp_path_factory):
    """48 phantom CT slices of 8 patients, 32 px, int16 HU; 36 are train, six regions."""
    from ssl_transfer.data.ingest.stage import ingest

    return ingest("phantom:ct,patients=8,slices=6,size=32", tmp_path_factory.mktemp("stores") / "ct", workers=1)


@pytest.fixture(scope="session")
def photo_store(tmp_path_factory):
    """48 crops of twelve photographs, three channels, 24 px; 36 are train."""
    from ssl_transfer.data.ingest.stage import ingest

    source = "phantom:photographs,patients=12,slices=4,size=24"
    return ingest(source, tmp_path_factory.mktemp("stores") / "photographs", workers=1)


@pytest.fixture
def changed(tmp_path):
    """A copy of a store in which some rows have other pixels, or no label."""
    from ssl_transfer.data.store import ImageStore

    def copy(store, name, blank=(), unlabelled=()):
        folder = tmp_path / name
        shutil.copytree(store.path, folder)
        pixels = np.load(folder / "pixels-00000.npy")
        pixels[np.asarray(blank, int)] = 0
        np.save(folder / "pixels-00000.npy", pixels)
        rows = store.rows
        rows["label"] = rows["label"].astype(object)
        rows.loc[np.asarray(unlabelled, int), "label"] = None
        rows.to_parquet(folder / "rows.parquet", index=False)
        return ImageStore(resealed(folder))

    return copy


@pytest.fixture(scope="session")
def tiny_recipe(ct_store, tmp_path_factory) -> Path:
    """A recipe file for `ct_store`: SimCLR, 16 px, 3 steps per epoch, 2 epochs."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(RECIPE.format(store=ct_store.path))
    return path


class Runs:
    """Pretrains the tiny recipe in this process, and reads what a run leaves."""

    def __init__(self, recipe: Path):
        self.recipe = recipe

    def __call__(self, out, *overrides, **options):
        """Pretrain into `out`; returns the answer."""
        from ssl_transfer.pretraining.stage import pretrain
        from ssl_transfer.recipe import parse_overrides

        return pretrain(self.recipe, out, **options, **parse_overrides(overrides))

    @staticmethod
    def weights(out) -> bytes:
        """The bytes of a run's weights."""
        return (Path(out) / "backbone" / "model.safetensors").read_bytes()

    @staticmethod
    def tensors(out) -> dict:
        """A run's weights by name."""
        from safetensors.torch import load_file

        return load_file(Path(out) / "backbone" / "model.safetensors")

    @staticmethod
    def card(out) -> dict:
        """The card of a run's backbone."""
        return json.loads((Path(out) / "backbone" / "card.json").read_text())

    @staticmethod
    def lines(out) -> list[dict]:
        """A run's log."""
        return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def runs(tiny_recipe) -> Runs:
    """See `Runs`."""
    return Runs(tiny_recipe)


@pytest.fixture(scope="session")
def finished(runs, tmp_path_factory):
    """One run of the tiny recipe on one thread: its folder and its answer."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "finished"
    answer = runs(out)
    torch.set_num_threads(before)
    return out, answer


@pytest.fixture(scope="session")
def tiny_quickstart(tmp_path_factory) -> tuple[Path, Answer]:
    """What `ssl-transfer quickstart --scale tiny --out quick --json` left and said: to be read and copied, never written to.

    It is made once in a test run, by whichever worker comes first; the others wait for it.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of the whole run; a worker has a folder of its own in it
    said = folder / "quickstart.json"
    with (folder / "quickstart.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            place = folder / "tiny_quickstart"
            place.mkdir()
            words = ("quickstart", "--scale", "tiny", "--out", "quick", "--json")
            said.write_text(json.dumps(vars(ssl_transfer(*words, folder=place, timeout=300))))
    return folder / "tiny_quickstart" / "quick", Answer(**json.loads(said.read_text()))


@pytest.fixture(scope="module")
def one_thread():
    """Torch computes on one thread in a whole module: on some processors, the last bits depend on the number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
