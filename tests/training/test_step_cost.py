"""What a training costs: operations of the steps that it runs, counted in one of them, without a trace in the weights."""

from contextlib import nullcontext

import pytest
import torch
from support.tiny_methods import VIT, new_batch, new_method
from torch import nn

from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.models.batchnorm import globalise_batchnorm
from ssl_transfer.models.flops import Flops, counted_flops
from ssl_transfer.schedule import Schedule
from ssl_transfer.training import step_cost
from ssl_transfer.training.loop import Training
from ssl_transfer.training.step_cost import StepCost

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, BATCH = 6, 12  # of the tiny recipe
MOCO = ("method={name: moco, queue: 48, bn_groups: 2, projection_dim: 16}", "optimizer={name: sgd, lr: 0.03}")


def test_a_card_states_the_cost_of_all_steps_also_of_a_run_that_was_broken(runs, finished, monkeypatch, tmp_path):
    advance = Training._advance

    def broken(training, batches):
        if training.step == 3:
            raise KeyboardInterrupt
        return advance(training, batches)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, "_advance", broken)
        runs(tmp_path / "run", "train.checkpoint_every_steps=1")
    runs(tmp_path / "run", "train.checkpoint_every_steps=1")
    whole, resumed = (runs.card(folder)["training"] for folder in (finished[0], tmp_path / "run"))
    assert (whole["images"], whole["steps"]) == (STEPS * BATCH, STEPS)
    gpus = 1 if torch.cuda.is_available() else 0
    assert whole["gpu_hours"] == pytest.approx(gpus * whole["seconds"] / 3600, abs=1e-5)
    assert whole["flops"] == resumed["flops"] and resumed["images"] == whole["images"]
    backbone = load_backbone(finished[0] / "backbone")
    with torch.inference_mode(), counted_flops() as flops:
        backbone(torch.zeros(1, 1, 16, 16))
    views = 2 * STEPS * BATCH * flops.count
    assert 2.8 * views < whole["flops"] < 3.4 * views  # forwards, backwards, and the heads


@pytest.mark.parametrize("parts", [1, 3])
def test_steps_with_a_frozen_backbone_cost_what_they_compute_and_all_parts_and_ranks_count(parts):
    spent = StepCost(Schedule(total_steps=6, freeze_steps=2, batch_size=8 * parts, accumulate=parts))
    backbone, head = nn.Linear(5, 7), nn.Linear(7, 3)
    for step in range(6):
        backbone.requires_grad_(step >= 2)
        for _ in range(parts):
            with spent.counted(step):
                head(backbone(torch.ones(4, 5))).sum().backward()
    below, above = parts * 2 * 4 * 5 * 7, parts * 2 * 4 * 7 * 3
    assert spent.until(6, ranks=2, gpus=0).flops == 2 * (2 * (below + 2 * above) + 4 * (2 * below + 3 * above))


def cost_of(module, *inputs) -> int:
    with torch.no_grad(), counted_flops() as flops:
        for each in inputs:
            module(each)
    return flops.count


def test_dino_is_counted_with_its_small_views_and_its_momentum_network():
    method = new_method("dino", VIT)
    batch = new_batch(method)
    with torch.no_grad(), counted_flops() as flops:
        method(batch, 0)
    head = cost_of(method.projection_head, torch.zeros(len(batch.rows), method.backbone.feature_dim).double())
    of_student = cost_of(method.backbone, *batch.views) + len(batch.views) * head
    loss = 2 * len(batch.views) * 2 * len(batch.rows) * 24  # a product for each pair of a target and an output
    assert flops.count == of_student + cost_of(method.momentum_network, *batch.views[:2]) + loss


@pytest.mark.parametrize("groups", [1, 2])
def test_moco_is_counted_with_its_keys_and_queue_at_any_number_of_groups(groups):
    method = new_method("moco", bn_groups=groups)
    globalise_batchnorm(method, groups)
    batch = new_batch(method)
    with torch.no_grad(), counted_flops() as flops:
        method(batch, 0)
    encoders = cost_of(nn.Sequential(method.backbone, method.projection_head), batch.views[0])
    similarities = 2 * len(batch.rows) * 16 * (32 + 1)  # of each query with the queue and its key
    assert flops.count - 2 * encoders == pytest.approx(
        similarities, rel=0.05
    )  # that of the key may be a sum of products


def test_counting_leaves_no_trace_in_the_weights(runs, monkeypatch, tmp_path):
    runs(tmp_path / "counted", *MOCO)
    monkeypatch.setattr(step_cost, "counted_flops", lambda: nullcontext(Flops()))
    runs(tmp_path / "not", *MOCO)
    assert runs.card(tmp_path / "counted")["training"]["flops"] > 0 == runs.card(tmp_path / "not")["training"]["flops"]
    assert runs.weights(tmp_path / "counted") == runs.weights(tmp_path / "not")
