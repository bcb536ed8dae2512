"""Pretraining by distillation: what run, card and passport know of the teacher; and exact resumption of the latest methods."""

import json
import shutil

import pytest
import torch
import yaml

from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.training import loop

pytestmark = pytest.mark.usefixtures("one_thread")
VIT = (
    "backbone={name: vit_tiny_patch16_224, options: {patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2, "
    "dynamic_img_size: true}}"
)


def distill(teacher, **options):
    """The override of a recipe's method."""
    settings = {"teacher": f"'{teacher}'", "queue": 24, **options}
    return f"method={{name: distill, {', '.join(f'{key}: {value}' for key, value in settings.items())}}}"


@pytest.fixture(scope="module")
def photographs(photo_store):
    """Overrides of the recipe: photographs in place of CT slices; three channels, 24 px."""
    return (f"data.store={photo_store.path}", "data.views=natural", "data.size=24")


@pytest.fixture(scope="module")
def student(runs, finished, photographs, tmp_path_factory):
    """Distilled from a backbone of CT slices into one of photographs: the folder of the run."""
    out = tmp_path_factory.mktemp("student") / "run"
    runs(out, "name=student", distill(finished[0] / "backbone"), *photographs)
    return out


def test_the_student_s_card_has_the_stages_of_its_teacher_and_its_id_and_no_parent(
    student, finished, ct_store, photo_store
):
    teacher, card = load_backbone(finished[0] / "backbone").card, load_backbone(student / "backbone").card
    assert card.parents == () and card.method == "distill"
    assert card.source_domain == "ct + photograph" and card.stores == (ct_store.id, photo_store.id)
    assert [(stage.name, stage.domain, stage.of_teacher, stage.teacher) for stage in card.stages] == [
        ("tiny", "ct", True, None),
        ("student", "photograph", False, teacher.id),
    ]
    text = (student / "backbone/README.md").read_text()
    assert "teacher: simclr on 36 images of ct → distill on 36 images of photograph" in text


def test_a_licence_of_the_teacher_travels(runs, finished, tmp_path):
    shutil.copytree(finished[0] / "backbone", tmp_path / "licensed")
    card = json.loads((tmp_path / "licensed/card.json").read_text())
    (tmp_path / "licensed/card.json").write_text(json.dumps({**card, "licence": "cc-by-nc-4.0"}))
    runs(tmp_path / "run", distill(tmp_path / "licensed"), "train.epochs=1")
    licence = load_backbone(tmp_path / "run" / "backbone").card.licence
    assert licence == "cc-by-nc-4.0, and that of its training images"


def test_the_student_s_weights_have_nothing_of_the_teacher(student, runs, finished):
    assert set(runs.tensors(student)) == set(runs.tensors(finished[0]))


def test_a_result_on_the_teacher_s_images_says_that_they_were_seen(student, ct_store, tmp_path, monkeypatch):
    """The student itself has seen photographs alone."""
    monkeypatch.chdir(tmp_path)
    card = {"store": str(ct_store.path), "target": "label", "metric": "accuracy"}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(card))
    result = evaluate("knn", student / "backbone", Task.load(tmp_path / "task.yaml"), k=(1,), resamples=0)
    assert result.seen_in_pretraining is True and result.boundary == "mixed"
    backbone = load_backbone(student / "backbone")
    assert backbone.passport.stores == set(backbone.card.stores)


def test_a_chain_after_a_distillation_still_knows_the_teacher(student, runs, tmp_path):
    runs(tmp_path / "next", "name=next", f"backbone.init={student / 'backbone'}", "train.epochs=1")
    card = load_backbone(tmp_path / "next" / "backbone").card
    assert [(stage.name, stage.of_teacher) for stage in card.stages] == [
        ("tiny", True),
        ("student", False),
        ("next", False),
    ]
    assert len(card.parents) == 1 and load_backbone(tmp_path / "next" / "backbone").passport.stores == set(card.stores)


def test_a_student_can_teach_and_then_all_stages_are_those_of_the_teacher(student, runs, tmp_path):
    runs(tmp_path / "second", "name=second", distill(student / "backbone"), "train.epochs=1")
    card = load_backbone(tmp_path / "second" / "backbone").card
    assert [(stage.name, stage.of_teacher) for stage in card.stages] == [
        ("tiny", True),
        ("student", True),
        ("second", False),
    ]


def test_the_run_s_id_depends_on_the_teacher_and_not_on_its_path(student, finished, photographs, runs, tmp_path):
    shutil.copytree(finished[0] / "backbone", tmp_path / "moved")
    before = (student / "backbone/card.json").stat().st_mtime_ns
    runs(student, "name=student", distill(tmp_path / "moved"), *photographs)
    assert (student / "backbone/card.json").stat().st_mtime_ns == before
    runs(tmp_path / "other", "name=student", distill("scratch:test_resnet,in_channels=3,size=24"), *photographs)
    first, second = (json.loads((out / "run.json").read_text())["run_id"] for out in (student, tmp_path / "other"))
    assert first != second


def test_a_ct_teacher_of_another_window_is_refused_and_the_window_is_named(finished, runs, tmp_path):
    with pytest.raises(
        RecipeError, match=r"method\.teacher: .* reads CT in the window -160 to 240 HU, and the views show"
    ) as refusal:
        runs(tmp_path / "run", distill(finished[0] / "backbone"), "data.views={name: ct, window_hu: [-1000, 400]}")
    assert "Set data.views.window_hu=[-160,240]" in str(refusal.value)
    assert not (tmp_path / "run").exists()


RESUMED = {
    "dinov2, sinkhorn": (
        "method={name: dinov2, output_dim: 24, hidden_dim: 16, bottleneck_dim: 8, local_views: 1, local_size: 8}",
        VIT,
    ),
    "dinov2, mean": (
        "method={name: dinov2, output_dim: 24, hidden_dim: 16, bottleneck_dim: 8, local_views: 0, centering: mean}",
        VIT,
    ),
    "distill": (distill("scratch:test_resnet,size=16"),),
}


@pytest.mark.parametrize("case", RESUMED)
def test_an_interrupted_run_ends_with_the_bytes_of_an_unbroken_one(case, runs, tmp_path, monkeypatch):
    """With momentum network, centres and queue as they were."""
    runs(tmp_path / "whole", *RESUMED[case])
    advance = loop.Training._advance

    def interrupted(training, batches):
        if training.step == 3:
            raise InterruptedError
        return advance(training, batches)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "_advance", interrupted)
        with pytest.raises(InterruptedError):
            runs(tmp_path / "broken", *RESUMED[case])
    (newest,) = (tmp_path / "broken" / "checkpoints").glob("*.pt")
    names = torch.load(newest, weights_only=True)["objective"]
    assert not any("teacher" in name for name in names)
    runs(tmp_path / "broken", *RESUMED[case])
    assert runs.weights(tmp_path / "broken") == runs.weights(tmp_path / "whole")
