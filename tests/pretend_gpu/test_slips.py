"""Slips that CUDA would refuse are refused by the pretend GPU: a tensor that is left on the CPU, or read too early."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from support.families import family_backbone
from support.slips import plant
from support.tiny_tasks import class_task, judge, mask_task

from ssl_transfer.evaluation.linear_probe import LinearProbe
from ssl_transfer.measures.logistic import fit_heads
from ssl_transfer.measures.neighbors import nearest
from ssl_transfer.models.embedding import embed

VIT = (
    "backbone={name: vit_tiny_patch16_224, "
    "options: {patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2, dynamic_img_size: true}}"
)
SMALL = "hidden_dim: 32, projection_dim: 16"


class Slip(NamedTuple):
    """What is replaced in a module of the package, where it shows, and with which overrides."""

    module: str
    replaced: dict[str, str]
    use: str = "pretrain"
    overrides: tuple[str, ...] = ()


SLIPS = {
    "draws of views": Slip(
        "data.views", {'to_device_together({"theta": theta, **look}, device)': '{"theta": theta, **look}'}
    ),
    "crops": Slip("data.views", {'values, drawn["theta"], crop_pixels': "values, theta, crop_pixels"}),
    "centres of pixels": Slip("data.views", {"_centres(size, theta.device)": '_centres(size, torch.device("cpu"))'}),
    "table of noise": Slip("data.views", {"_normal_table(unit.device,": '_normal_table(torch.device("cpu"),'}),
    "luminance": Slip(
        "data.view_steps",
        {"LUMINANCE, unit.device, unit.dtype).expand": 'LUMINANCE, torch.device("cpu"), unit.dtype).expand'},
        "photographs",
    ),
    "normalisation": Slip(
        "data.view_steps", {"constant(values, unit.device,": 'constant(values, torch.device("cpu"),'}
    ),
    "views of the second stream": Slip("training.view_stream", {"present.wait_stream(self._stream)": "pass"}),
    "labels": Slip(
        "data.training_set",
        {"to_device(torch.from_numpy(self.labels[rows]), views[0].device)": "torch.from_numpy(self.labels[rows])"},
        overrides=("method={name: supervised}",),
    ),
    "positions of SimCLR": Slip(
        "methods.simclr", {"torch.arange(len(first), device=first.device)": "torch.arange(len(first))"}
    ),
    "targets of MoCo v3": Slip(
        "methods.mocov3",
        {"torch.arange(len(queries), device=queries.device)": "torch.arange(len(queries))"},
        overrides=(f"method={{name: mocov3, {SMALL}}}",),
    ),
    "masks of MAE": Slip(
        "methods.mae",
        {"to_device(torch.cat([prefix_tokens, order], 1), device)": "torch.cat([prefix_tokens, order], 1)"},
        overrides=("method={name: mae, decoder_dim: 24, decoder_heads: 3}", VIT),
    ),
    "masks of DINOv2": Slip(
        "methods.dinov2",
        {"masks = to_device(masks, images.device)": "masks = masks"},
        overrides=(
            "method={name: dinov2, output_dim: 24, hidden_dim: 32, bottleneck_dim: 8, local_views: 0, local_size: 8}",
            VIT,
        ),
    ),
    "intensity of a teacher": Slip(
        "methods.distill",
        {"constant(tuple(v), view.device,": 'constant(tuple(v), torch.device("cpu"),'},
        overrides=("method={name: distill, teacher: 'scratch:test_resnet,size=16', queue: 24}",),
    ),
    "images of features": Slip(
        "models.embedding", {"prepare(to_device(images, device),": "prepare(images,"}, "features"
    ),
    "features as an array": Slip("data.transfer", {'tensor.to("cpu", non_blocking=True)': "tensor"}, "features"),
    "weights of classes": Slip(
        "evaluation.objectives",
        {"self.weights.to(logits.device)[labels]": "self.weights[labels]"},
        "finetune",
        ("train.balance=weights",),
    ),
    "a starting point": Slip(
        "evaluation.strategies.starting_point",
        {
            'self.register_buffer(f"start_{number}", ': 'setattr(self, f"start_{number}", ',
            'self.get_buffer(f"start_{number}")': 'getattr(self, f"start_{number}")',
        },
        "finetune",
        ("strategy=l2_sp",),
    ),
    "images to segment": Slip(
        "evaluation.segment",
        {"to_device(torch.from_numpy(images), accelerator.device)": "torch.from_numpy(images)"},
        "segment",
    ),
    "masks as arrays": Slip("data.transfer", {'tensor.to("cpu", non_blocking=True)': "tensor"}, "segment"),
    "weights of a probe": Slip(
        "evaluation.linear_probe", {"torch.as_tensor(weights, device=device)": "torch.as_tensor(weights)"}, "probe"
    ),
    "problems of the solver": Slip(
        "measures.logistic", {"torch.arange(count, device=best.device)": "torch.arange(count)"}, "solver"
    ),
    "columns of the solver": Slip(
        "measures.logistic",
        {"torch.arange(problem.columns, device=points.device)": "torch.arange(problem.columns)"},
        "solver",
    ),
    "strengths of the solver": Slip(
        "measures.logistic",
        {"torch.as_tensor(strengths, device=self.total_weight.device)": "torch.as_tensor(strengths)"},
        "solver",
    ),
    "queries of a search": Slip("measures.neighbors", {"part = part.to(rows.device)": "part = part"}, "neighbours"),
}
QUICK = ("draws of views", "views of the second stream")


@pytest.fixture
def uses(runs, ct_store, photo_store, tmp_path):
    """By name, what is done on the GPU with some overrides."""
    draw = np.random.default_rng(0)
    rows, classes = draw.normal(size=(60, 8)).astype(np.float32), draw.integers(0, 3, 60)
    photographs = {"data.store": str(photo_store.path), "data.views": "natural", "backbone.in_channels": 3}

    def solve():
        fit_heads(torch.from_numpy(rows).to("cuda"), torch.from_numpy(classes).to("cuda"), [0.1, 1.0], None, 3)

    def judged(protocol, task, *overrides):
        judge(protocol, family_backbone("resnet"), task(tmp_path / "task"), tmp_path / "run", *overrides)

    return {
        "pretrain": lambda *overrides: runs(tmp_path / "run", "train.epochs=0.34", *overrides),
        "photographs": lambda: runs(tmp_path / "run", "train.epochs=0.34", **photographs),
        "features": lambda: embed(family_backbone("resnet").to("cuda"), ct_store, np.arange(4), device="cuda"),
        "finetune": lambda *overrides: judged("finetune", class_task, *overrides),
        "segment": lambda: judged("segment", mask_task, "train.steps=1"),
        "probe": lambda: LinearProbe(solver="sgd", epochs=1).fit(rows, classes),
        "solver": solve,
        "neighbours": lambda: nearest(rows, rows, 5),
    }


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in SLIPS]
)
def test_a_slip_is_found(name, uses, gpu, monkeypatch):
    slip = SLIPS[name]
    plant(monkeypatch, f"ssl_transfer.{slip.module}", slip.replaced)
    refused = r"cuda:0|indexed tensor|another stream|parameter type|must be Stream"  # the last two: by `record_stream`
    with gpu, pytest.raises((RuntimeError, TypeError), match=refused):
        uses[slip.use](*slip.overrides)


def test_a_passage_that_is_gone_is_named(monkeypatch):
    with pytest.raises(AssertionError, match=r"measures\.logistic has no such passage any more: of yore"):
        plant(monkeypatch, "ssl_transfer.measures.logistic", {"of yore": ""})
