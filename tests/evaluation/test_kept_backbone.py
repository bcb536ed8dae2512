"""`train.keep_backbone`: what a backbone has become by a fine-tune is a backbone itself."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from support.families import family_backbone
from support.tiny_tasks import SHORT, SIDE, class_task, judge, mask_task, recorded_models

from ssl_transfer.models.backbone import load_backbone

KEEP = (*SHORT, "train.keep_backbone=true")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return class_task(tmp_path_factory.mktemp("task"))


def features(backbone):
    images = torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone(images).numpy()


@pytest.mark.parametrize("strategy, family", [("full", "resnet"), ("lora", "vit"), ("head_only", "densenet")])
def test_the_kept_backbone_gives_the_features_that_the_fine_tune_ended_with(strategy, family, task, tmp_path):
    parent = family_backbone(family)
    with recorded_models() as made:
        judge("finetune", parent, task, tmp_path / "r", *KEEP, f"strategy={strategy}")
    kept = load_backbone(tmp_path / "r" / "backbone")
    ended = features(made[-1].backbone.eval())
    assert np.allclose(features(kept), ended, atol=1e-5)
    assert np.allclose(ended, features(parent), atol=1e-5) == (strategy == "head_only")


def test_the_kept_backbone_of_lora_has_no_adapters_and_plain_timm_loads_it(task, tmp_path):
    parent = family_backbone("vit")
    judge("finetune", parent, task, tmp_path / "r", *KEEP, "strategy=lora")
    names = load_file(tmp_path / "r" / "backbone" / "model.safetensors").keys()
    assert set(names) == set(parent.model.state_dict())
    timm.create_model(f"local-dir:{tmp_path / 'r' / 'backbone'}", pretrained=True)


def test_its_card_names_its_parent_and_all_that_it_has_seen(task, tmp_path):
    parent = family_backbone("resnet")
    judge("finetune", parent, task, tmp_path / "r", *KEEP)
    card = load_backbone(tmp_path / "r" / "backbone").card
    assert card.parents[-1] == parent.id != card.id
    assert task.store.id in card.stores and str(task.domain) in card.source_domain
    assert card.method == "full fine-tune" and task.name in card.name
    assert card.run_id == json.loads((tmp_path / "r" / "result.json").read_text())["run_id"]


def test_a_segmentation_keeps_its_backbone_too(tmp_path):
    parent = family_backbone("resnet")
    judge("segment", parent, mask_task(tmp_path / "task"), tmp_path / "r", *KEEP)
    assert not np.allclose(features(load_backbone(tmp_path / "r" / "backbone")), features(parent))


def test_keeping_changes_no_score_and_not_keeping_leaves_no_backbone(task, tmp_path):
    parent = family_backbone("resnet")
    with_it = judge("finetune", parent, task, tmp_path / "with", *KEEP)
    without = judge("finetune", parent, task, tmp_path / "without", *SHORT)
    assert with_it.metrics == without.metrics
    assert with_it.run_id != without.run_id  # what a run leaves behind is part of what it is
    assert not (tmp_path / "without" / "backbone").exists()


def test_the_parent_stays_as_it_was(task, tmp_path):
    parent = family_backbone("resnet")
    before = features(parent)
    judge("finetune", parent, task, tmp_path / "r", *KEEP)
    assert np.array_equal(features(parent), before)
