"""Chains: a backbone starts from another, and its card says from which and what was adapted."""

import json
import shutil

import pytest
import torch
import yaml

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import BackboneError, RecipeError
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.models.backbone import load_backbone

STILL = "optimizer.lr=1e-9"  # weights end as they began, to six digits
VIT = ("backbone.name=vit_tiny_patch16_224", "backbone.options={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}")

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_backbone_can_start_from_another_and_records_its_parents(runs, finished, tmp_path):
    first = load_backbone(finished[0] / "backbone")
    runs(tmp_path / "second", f"backbone.init={finished[0] / 'backbone'}", STILL)
    second = load_backbone(tmp_path / "second" / "backbone")
    assert second.card.parents == (first.id,) and second.card.adapted == ()
    weight, parent = (b.model.layer1[0].conv1.weight for b in (second, first))
    assert torch.allclose(weight, parent, atol=1e-6)
    runs(tmp_path / "third", f"backbone.init={tmp_path / 'second' / 'backbone'}")
    assert load_backbone(tmp_path / "third" / "backbone").card.parents == (first.id, second.id)


def test_a_parent_with_another_number_of_channels_is_adapted_and_the_card_records_it(runs, finished, tmp_path):
    """Three equal channels are seen as the parent saw one; and summed again, as it was."""
    start, key = f"backbone.init={finished[0] / 'backbone'}", "conv1.0.weight"
    runs(tmp_path / "three", start, "backbone.in_channels=3", STILL)
    assert runs.card(tmp_path / "three")["adapted"] == [f"{key}: 1 → 3 input channels"]
    parent, three = runs.tensors(finished[0])[key], runs.tensors(tmp_path / "three")[key]
    assert three.shape[1] == 3 and torch.allclose(three.sum(1, keepdim=True), parent, atol=1e-5)
    runs(tmp_path / "one", f"backbone.init={tmp_path / 'three' / 'backbone'}", STILL)
    assert runs.card(tmp_path / "one")["adapted"] == [f"{key}: 3 → 1 input channels"]
    assert torch.allclose(runs.tensors(tmp_path / "one")[key], parent, atol=1e-5)


def test_a_vit_of_smaller_images_is_adapted_and_the_card_records_it(runs, tmp_path):
    runs(tmp_path / "small", *VIT, "train.epochs=1")
    start = f"backbone.init={tmp_path / 'small' / 'backbone'}"
    runs(tmp_path / "large", *VIT, start, "data.size=32", "backbone.in_channels=3", "train.epochs=1", STILL)
    assert runs.card(tmp_path / "large")["adapted"] == [
        "patch_embed.proj.weight: 1 → 3 input channels",
        "pos_embed: 5 → 17 positions",
    ]
    small, large = (runs.tensors(tmp_path / name) for name in ("small", "large"))
    assert torch.allclose(large["pos_embed"][:, 0], small["pos_embed"][:, 0], atol=1e-6)  # the class token's
    assert torch.allclose(large["blocks.0.attn.qkv.weight"], small["blocks.0.attn.qkv.weight"], atol=1e-6)


def test_a_parent_of_another_shape_is_refused(runs, finished, tmp_path):
    with pytest.raises(RecipeError, match=r"backbone.init: .* does not fit"):
        runs(tmp_path / "run", f"backbone.init={finished[0] / 'backbone'}", "backbone.options.stem_width=16")


def test_supervised_then_self_supervised_is_two_recipes(runs, tmp_path):
    """As multistage transfer does it."""
    runs(tmp_path / "labels", "method=supervised", "train.epochs=1")
    runs(tmp_path / "views", f"backbone.init={tmp_path / 'labels' / 'backbone'}", "train.epochs=1")
    card = runs.card(tmp_path / "views")
    assert card["method"] == "simclr" and card["parents"] == [runs.card(tmp_path / "labels")["id"]]


# Lineage


@pytest.fixture(scope="module")
def ct_then_photographs(runs, ct_store, photo_store, tmp_path_factory):
    """A backbone of 20 CT slices, then of all 36 photographs: the folder of the second run."""
    folder = tmp_path_factory.mktemp("chain")
    runs(folder / "ct", "name=CT", "data.limit=20", "backbone.in_channels=1", "train.epochs=1")
    photographs = ("name=photographs", f"data.store={photo_store.path}", "data.views=natural")
    start = f"backbone.init={folder / 'ct' / 'backbone'}"
    runs(folder / "both", start, *photographs, "backbone.in_channels=3", "train.epochs=2")
    return folder / "both"


def test_a_chain_has_the_domains_stores_images_and_steps_of_all_its_stages(ct_then_photographs, ct_store, photo_store):
    card = load_backbone(ct_then_photographs / "backbone").card
    assert card.source_domain == "ct + photograph" and card.stores == (ct_store.id, photo_store.id)
    assert [(stage.name, stage.method, stage.domain, stage.images, stage.steps) for stage in card.stages] == [
        ("CT", "simclr", "ct", {ct_store.id: 20}, 1),
        ("photographs", "simclr", "photograph", {photo_store.id: 36}, 6),
    ]
    assert (card.images, card.steps) == (56, 7)
    assert (
        "simclr on 20 images of ct → simclr on 36 images of photograph"
        in (ct_then_photographs / "backbone/README.md").read_text()
    )


@pytest.mark.parametrize(
    ("domain", "boundary"), [(None, "mixed"), ("photograph", "mixed"), ("xray", "mixed"), ("brightfield", "hard")]
)
def test_a_chain_evaluated_on_the_store_of_its_first_stage_has_seen_it_and_its_boundary_is_that_of_all_stages(
    domain, boundary, ct_then_photographs, ct_store, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    card = {"store": str(ct_store.path), "target": "label", "metric": "accuracy", "domain": domain}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(card))
    result = evaluate("knn", ct_then_photographs / "backbone", Task.load(tmp_path / "task.yaml"), k=(1,), resamples=0)
    assert result.seen_in_pretraining and result.boundary == boundary
    assert result.backbone["source_domain"] == "ct + photograph"


@pytest.mark.parametrize("form", [{"size": 24}, {"seed": 7}, {"size": 40, "seed": 7}], ids=str)
def test_another_size_and_other_splits_of_the_archive_were_seen(
    form, finished, ct_then_photographs, ct_store, tmp_path, monkeypatch
):
    """Patients that were trained on are recognised in any split, and their slices are near-duplicates."""
    monkeypatch.chdir(tmp_path)
    store = ingest("phantom:ct,patients=8,slices=6,size=32", tmp_path / "again", workers=1, **form)
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({"store": "again", "target": "label", "metric": "accuracy"}))
    task = Task.load(tmp_path / "task.yaml")
    trained = set(ct_store.rows.query("split == 'train'")["patient"])
    patients = store.column("patient")[store.positions("test")]
    for backbone in (finished[0] / "backbone", ct_then_photographs / "backbone"):
        result = evaluate("knn", backbone, task, k=(1,), resamples=0)
        assert result.seen_in_pretraining is True
        if backbone.parent == finished[0]:
            assert result.contamination["patient"] == sum(patient in trained for patient in patients)
            assert result.contamination["near"] >= result.contamination["patient"]


def test_a_store_of_two_stages_counts_once(runs, finished, ct_store, tmp_path):
    runs(tmp_path / "again", f"backbone.init={finished[0] / 'backbone'}", "data.limit=12", "train.epochs=1")
    card = load_backbone(tmp_path / "again" / "backbone").card
    assert [stage.images for stage in card.stages] == [{ct_store.id: 36}, {ct_store.id: 12}]
    assert (card.images, card.stores, card.source_domain) == (36, (ct_store.id,), "ct")


def test_random_initialisation_has_no_stage(runs, tmp_path):
    runs(tmp_path / "untrained", untrained=True)
    card = load_backbone(tmp_path / "untrained" / "backbone").card
    assert (card.stages, card.images, card.steps, card.source_domain) == ((), None, None, None)


def former(backbone, folder):
    """A copy of a backbone whose card is as it was before cards had stages."""
    shutil.copytree(backbone, folder)
    card = json.loads((folder / "card.json").read_text())
    del card["stages"]
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_a_card_of_one_stage_that_states_none_is_read_as_that_stage(finished, runs, ct_store, tmp_path):
    old = load_backbone(former(finished[0] / "backbone", tmp_path / "old")).card
    assert old.stages == () and old.history[0].images == {ct_store.id: None} and old.images is None
    runs(tmp_path / "next", f"backbone.init={tmp_path / 'old'}", "train.epochs=1")
    card = load_backbone(tmp_path / "next" / "backbone").card
    assert len(card.stages) == 2 and card.stores == (ct_store.id,) and card.steps == old.steps + 3


def test_a_chain_whose_card_states_no_stages_is_refused_with_what_to_do(ct_then_photographs, tmp_path):
    with pytest.raises(
        BackboneError, match=r"states the domains and stores of its last stage alone.*Pretrain again into"
    ):
        load_backbone(former(ct_then_photographs / "backbone", tmp_path / "old"))
