"""Shared by the tests of training and evaluation: a tiny labelled CT store and a recipe that fits it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

RECIPE = """
data:      {{store: {store}, views: ct, size: 16}}
backbone:  {{name: resnet10t, options: {{channels: [8, 16, 32, 64], stem_width: 8}}}}
method:    {{name: simclr, hidden_dim: 32, projection_dim: 16}}
optimizer: {{name: adamw, lr: 1e-3}}
train:     {{epochs: 2, batch_size: 12, precision: fp32, workers: 0, log_every_steps: 1, checkpoint_every_steps: 2}}
monitor:   {{every_epochs: 1000}}
tracker:   none
"""


@pytest.fixture(scope="session")
def ct_store(tmp_path_factory):
    """48 phantom CT slices of 8 patients, 32 px, int16 HU; 36 are train, six regions."""
    from ssl_transfer.data.ingest import ingest

    return ingest("phantom:ct,patients=8,slices=6,size=32", tmp_path_factory.mktemp("stores") / "ct", workers=1)


@pytest.fixture(scope="session")
def tiny_recipe(ct_store, tmp_path_factory) -> Path:
    """A recipe file for `ct_store`: SimCLR, 16 px, 3 steps per epoch, 2 epochs."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(RECIPE.format(store=ct_store.path))
    return path


@pytest.fixture
def one_thread():
    """Torch computes on one thread, as the runs it is compared with do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
