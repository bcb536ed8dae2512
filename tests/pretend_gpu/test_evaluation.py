"""Evaluation on the pretend GPU: features, probes, fine-tuning and segmentation are those of the CPU."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.families import FAMILIES, family_backbone
from support.tiny_tasks import class_task, judge, mask_task

from ssl_transfer.data import views
from ssl_transfer.data.view_steps import Steps
from ssl_transfer.evaluation.linear_probe import LinearProbe
from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.features import extract_features, layer_features, paired_features
from ssl_transfer.measures import neighbors
from ssl_transfer.measures.logistic import fit_heads
from ssl_transfer.measures.neighbors import NeighborIndex, nearest
from ssl_transfer.models.embedding import embed

WAITS_OF_THREE_BATCHES = 3


def losses(folder):
    """The losses in the log of an evaluation."""
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return class_task(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    return mask_task(tmp_path_factory.mktemp("masks"))


@pytest.fixture(autouse=True)
def _equal_views(monkeypatch):
    """Views of the same digits on both devices: in fine-tuning of few images, rounding grows to 1 % in three steps."""
    monkeypatch.setattr(views, "steps_for", lambda device: Steps)


def compared(gpu, protocol, family, task, folder, *overrides):
    """Evaluate on both devices, and compare losses."""
    judge(protocol, family_backbone(family), task, folder / "cpu", *overrides)
    with gpu:
        judge(protocol, family_backbone(family), task, folder / "gpu", *overrides)
    assert losses(folder / "gpu") == pytest.approx(losses(folder / "cpu"), abs=1e-5)


@pytest.mark.parametrize(
    "strategy", [name if name == "full" else pytest.param(name, marks=pytest.mark.long) for name in STRATEGIES]
)
def test_strategies(strategy, classes, gpu, tmp_path):
    family = "vit" if strategy == "lora" else "resnet"
    compared(gpu, "finetune", family, classes, tmp_path, f"strategy={strategy}", "train.balance=weights")


@pytest.mark.long
@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_segmentation(family, masks, gpu, tmp_path):
    compared(gpu, "segment", family, masks, tmp_path)


@pytest.mark.long
def test_segmentation_through_windows(gpu, tmp_path):
    compared(gpu, "segment", "resnet", mask_task(tmp_path / "task", size=48), tmp_path, "size=32")


@pytest.mark.parametrize("protocol", ["segment", pytest.param("finetune", marks=pytest.mark.long)])
def test_a_backbone_whose_features_were_computed_can_be_trained(protocol, classes, masks, gpu, tmp_path):
    backbone, task = family_backbone("resnet"), masks if protocol == "segment" else classes
    backbone.card = replace(backbone.card, id="made up")
    with gpu:
        extract_features(backbone, task.store, tmp_path / "features")
        assert {parameter.device.type for parameter in backbone.parameters()} == {"cpu"}  # where it was
        judge(protocol, backbone, task, tmp_path / "run")


@pytest.mark.parametrize(
    "family", [name if name == "resnet" else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES]
)
def test_features(family, ct_store, gpu):
    backbone, rows = family_backbone(family), np.arange(20)
    expected = embed(backbone, ct_store, rows, batch_size=8)
    layers = layer_features(backbone, ct_store, rows)
    pairs = paired_features(backbone, ct_store, rows)
    with gpu:
        backbone.to("cuda")
        with gpu.counting() as counts:
            found = embed(backbone, ct_store, rows, batch_size=8, device="cuda")
        assert np.allclose(found, expected, atol=1e-5)
        found = layer_features(backbone, ct_store, rows)
        assert all(np.allclose(found[name], layers[name], atol=1e-4) for name in layers)
        assert np.allclose(paired_features(backbone, ct_store, rows), pairs, atol=1e-4)
    assert counts.waits.total() == WAITS_OF_THREE_BATCHES, counts.waits


def test_exact_neighbours(gpu, monkeypatch):
    draw = np.random.default_rng(0)
    rows, queries = draw.normal(size=(300, 8)), draw.normal(size=(50, 8))
    expected, others = nearest(rows, queries, 40), NeighborIndex(rows).others(rows, 7)
    monkeypatch.setattr(neighbors, "GPU_QUERIES", 32)
    monkeypatch.setattr(neighbors, "GPU_ROWS", 70)
    with gpu, gpu.counting() as counts:
        found, found_others = nearest(rows, queries, 40), NeighborIndex(rows).others(rows, 7)
    assert counts.launches > 0
    for (similarities, positions), reference in ((found, expected), (found_others, others)):
        assert np.allclose(similarities, reference[0], atol=1e-6) and np.array_equal(positions, reference[1])


@pytest.mark.parametrize("kind", ["softmax", pytest.param("labels", marks=pytest.mark.long)])
def test_heads_of_the_solver(kind, gpu):
    draw = np.random.default_rng(0)
    rows = torch.from_numpy(draw.normal(size=(300, 12)))
    codes = (rows[:, :3].numpy() + draw.normal(size=(300, 3))).argmax(1)
    several = kind == "labels"
    targets = torch.from_numpy(draw.random((300, 3)) < 0.4).double() if several else torch.from_numpy(codes)
    weights, strengths = torch.from_numpy(draw.random((300, 3) if several else 300)), [0.01, 1.0]
    expected = fit_heads(rows, targets, strengths, weights, 3).weights
    with gpu:
        found = fit_heads(rows.to("cuda"), targets.to("cuda"), strengths, weights.to("cuda"), 3).weights.cpu()
    assert torch.allclose(found, expected, atol=1e-4)  # by another algorithm, to the same gap


@pytest.mark.parametrize("solver", ["lbfgs", pytest.param("sgd", marks=pytest.mark.long)])
def test_linear_probes(solver, gpu):
    draw = np.random.default_rng(0)
    rows, classes = draw.normal(size=(200, 8)).astype(np.float32), draw.integers(0, 3, 200)
    options = {"solver": solver, "epochs": 3, "random_state": 0}
    expected = LinearProbe(**options, device="cpu").fit(rows, classes)
    with gpu:
        found = LinearProbe(**options).fit(rows, classes)
    assert np.allclose(found.predict_proba(rows), expected.predict_proba(rows), atol=1e-2)
